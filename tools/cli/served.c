#include "tools/cli/served.h"

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/background.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "tools/cli/access.h"
#include "tools/cli/cli.h"
#include "tools/cli/experiment_file.h"
#include "tools/cli/followed.h"
#include "tools/cli/refusals.h"
#include "tools/cli/versions.h"

typedef struct served_folder {
    char *name;
    const char *folder;
    const char *publication; /* that the model follows; NULL = none */
    ct_followed *followed;   /* has the model, then */
    char *scratch;           /* its folder for what finds no room in memory; NULL = none */
    bool versions;           /* a folder of versions */
    int64_t version;         /* that is served; -1 = none yet */
    bool not_yet_said;       /* of the version that is looked at */
    int64_t looked_at;
    int64_t broken; /* the version that was refused, as it stood at broken_ns; -1 = none */
    int64_t broken_ns;
} served_folder;

struct ct_served {
    served_folder *folders;
    ct_server_model *models; /* (count); models[i] is of folders[i]; the model is NULL where it could not be read and the experiment can
                                spare it */
    ct_server_model *there;  /* (there_count): those of `models` that are there */
    size_t count, there_count;
    ct_experiment_file experiment;
    ct_pool *pool;         /* that opens models */
    ct_background *later;  /* has it once requests are answered; NULL = not yet */
    uint64_t memory_bytes; /* of the rows of each; 0 = no limit */
    const char *scratch;   /* a folder for what deltas change beyond it; NULL = none */
    bool early;            /* models are opened early, or were, and are still to be opened whole */
    ct_status failure;     /* why the thread has given up */
    ct_served_options options;
    pthread_t thread;
    bool started;
    bool again; /* SIGHUP came, and a folder was not complete: to be looked at again */
    atomic_bool stop;
};

/* --- the command line's words --- */

/* "[NAME=]DIR"; without a name it is the folder's last part. */
static ct_code parse_folder(const char *text, served_folder *out, ct_status *status) {
    const char *equals = strchr(text, '='), *slash = strchr(text, '/');
    *out = (served_folder){.version = -1, .looked_at = -1, .broken = -1};
    if (equals && (!slash || equals < slash)) {
        if (equals == text || !equals[1]) return ct_fail(status, CT_USAGE, "--model is '%s': give NAME=DIR or DIR", text);
        out->folder = equals + 1;
        out->name = strndup(text, (size_t)(equals - text));
    } else {
        size_t end = strlen(text);
        while (end > 1 && text[end - 1] == '/') end--;
        size_t begin = end;
        while (begin > 0 && text[begin - 1] != '/') begin--;
        out->folder = text;
        out->name = strndup(text + begin, end - begin);
    }
    return out->name ? CT_OK : ct_fail_memory(status, strlen(text), "the name of a model");
}

/* A folder that is followed by the model of that name; or by the only one there is, where neither has a name of its own. */
static ct_code parse_follow(ct_served *served, size_t models, const char *text, ct_status *status) {
    served_folder follow;
    CT_TRY(parse_folder(text, &follow, status));
    served_folder *of = NULL;
    for (size_t i = 0; i < served->count; i++)
        if (strcmp(served->folders[i].name, follow.name) == 0) of = &served->folders[i];
    if (!of && models == 1 && follow.folder == text) of = &served->folders[0];
    if (of && of->publication) {
        free(follow.name);
        return ct_fail(status, CT_USAGE, "model '%s' can follow one folder, but %s and %s are given", of->name, of->publication,
                       follow.folder);
    }
    if (of) {
        free(follow.name);
        of->publication = follow.folder;
        return CT_OK;
    }
    served->folders[served->count] = follow;
    served->folders[served->count].folder = NULL;
    served->folders[served->count++].publication = follow.folder;
    return CT_OK;
}

static ct_code parse_folders(ct_served *served, const ct_text_list *texts, const ct_text_list *follows, ct_status *status) {
    for (size_t i = 0; i < texts->count; i++) {
        served_folder *folders = served->folders;
        CT_TRY(parse_folder(texts->items[i], &folders[i], status));
        served->count = i + 1;
        for (size_t j = 0; j < i; j++)
            if (strcmp(folders[i].name, folders[j].name) == 0)
                return ct_fail(status, CT_USAGE, "two models are called '%s': name them, as --model a=%s b=%s", folders[i].name,
                               folders[j].folder, folders[i].folder);
    }
    for (size_t i = 0; i < follows->count; i++) CT_TRY(parse_follow(served, texts->count, follows->items[i], status));
    if (!served->count) return ct_fail(status, CT_USAGE, "there is nothing to serve: give --model DIR or --follow DIR");
    return CT_OK;
}

/* --- opening --- */

static ct_code open_model(const ct_served *served, const char *folder, ct_model **out_model, ct_status *status) {
    return served->early ? ct_model_open_early(folder, served->memory_bytes, served->pool, out_model, status)
                         : ct_model_open_within(folder, CT_MODEL_READ, served->memory_bytes, NULL, NULL, served->pool, out_model, status);
}

/* Opens a model folder. CT_NOT_FOUND: it is not complete yet; CT_CANCELLED: the server goes down; any other failure: it is broken.
 * *out_newest: when a file of it changed last. */
static ct_code open_folder(const ct_served *served, const char *folder, ct_model **out_model, int64_t *out_newest, ct_status *status) {
    *out_newest = 0;
    ct_code code = ct_version_check_complete(folder, out_newest, status);
    if (code == CT_OK) code = open_model(served, folder, out_model, status);
    if (code == CT_OK || code == CT_NOT_FOUND || code == CT_CANCELLED) return code;
    const int64_t newest_before = *out_newest;
    ct_status ignored = CT_STATUS_INIT;
    (void)ct_version_check_complete(folder, out_newest, &ignored);
    const bool settled = *out_newest == newest_before && ct_clock_unix_ms() - *out_newest / 1000000 > CT_SETTLED_SECONDS * 1000;
    if (settled) return code;
    status->code = CT_NOT_FOUND;
    return CT_NOT_FOUND;
}

/* --- looking for something new --- */

static void say_not_yet(ct_served *served, served_folder *f, int64_t version, const char *message) {
    char quoted[2 * CT_STATUS_MESSAGE_BYTES], name[256];
    if (served->options.server) ct_server_count_not_yet(served->options.server);
    if (f->not_yet_said && f->looked_at == version) return;
    f->not_yet_said = true;
    f->looked_at = version;
    ct_log_line(CT_LOG_INFO, "serve.reload", "result=not_yet model=%s reason=%s", ct_log_quote(f->name, name, sizeof name),
                ct_log_quote(message, quoted, sizeof quoted));
}

static void say_refused(ct_served *served, const served_folder *f, const char *message) {
    char quoted[2 * CT_STATUS_MESSAGE_BYTES], name[256];
    if (served->options.server) ct_server_count_refused_swap(served->options.server);
    ct_log_line(CT_LOG_ERROR, "serve.reload", "result=refused model=%s reason=%s", ct_log_quote(f->name, name, sizeof name),
                ct_log_quote(message, quoted, sizeof quoted));
}

/* The highest version that can be opened, unless that is the one that is served. CT_END: nothing new. CT_NOT_FOUND: none can be; the status
 * says why of the highest. */
static ct_code open_version(ct_served *served, served_folder *f, ct_model **out_model, int64_t *out_version, ct_status *status) {
    size_t count = 0;
    int64_t *versions = ct_versions_list(f->folder, &count);
    ct_code code = ct_fail(status, CT_NOT_FOUND, "%s has no numbered model folder in it", f->folder);
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        char *folder = ct_version_folder(f->folder, versions[i]);
        if (!folder) continue;
        if (versions[i] == f->version) {
            code = CT_END;
            free(folder);
            break;
        }
        ct_status why = CT_STATUS_INIT;
        const bool known_broken = f->broken == versions[i] && !ct_version_changed_since(folder, f->broken_ns);
        int64_t newest = 0;
        const ct_code opened = known_broken ? CT_CORRUPT : open_folder(served, folder, out_model, &newest, &why);
        free(folder);
        if (opened == CT_OK) *out_version = versions[i];
        if (opened == CT_OK || opened == CT_CANCELLED) {
            code = opened;
            break;
        }
        if (known_broken) {
            first = false;
            continue;
        }
        if (opened == CT_NOT_FOUND) {
            say_not_yet(served, f, versions[i], why.message);
        } else {
            say_refused(served, f, why.message);
            f->broken = versions[i];
            f->broken_ns = newest;
        }
        if (first) *status = why;
        first = false;
    }
    free(versions);
    return code;
}

/* CT_OK, CT_END (nothing new), CT_NOT_FOUND (not complete yet), CT_CANCELLED, or the folder is broken. */
static ct_code open_one(ct_served *served, size_t i, bool anew, ct_model **out_model, int64_t *out_version, ct_status *status) {
    served_folder *f = &served->folders[i];
    int64_t newest = 0;
    if (f->followed) return CT_END; /* it looks after itself */
    if (f->versions) return open_version(served, f, out_model, out_version, status);
    return anew ? open_folder(served, f->folder, out_model, &newest, status) : CT_END;
}

static void log_model(const ct_served *served, size_t i) {
    const ct_server_model *model = &served->models[i];
    const served_folder *f = &served->folders[i];
    char version[CT_DIGEST_HEX_BYTES], name[256], folder[32] = "";
    ct_status ignored = CT_STATUS_INIT;
    if (ct_model_digest(model->model, version, &ignored) != CT_OK) return;
    (void)ct_log_quote(model->name, name, sizeof name);
    if (f->version >= 0) (void)snprintf(folder, sizeof folder, " folder=%" PRId64, f->version);
    ct_log_line(CT_LOG_INFO, "serve.model", "model=%s version=%s rows=%lld%s", name, version, (long long)ct_model_rows(model->model),
                folder);
    const char *trained = ct_model_instruction_set(model->model), *here = ct_tower_instruction_set();
    if (strcmp(trained, here) != 0)
        ct_log_line(CT_LOG_WARNING, "serve.model", "model=%s trained_instruction_set=%s instruction_set=%s note=%s", name, trained, here,
                    "\"scores may differ from eval's there in the last digits\"");
}

void ct_served_log(const ct_served *served) {
    for (size_t i = 0; i < served->count; i++)
        if (served->models[i].model) log_model(served, i);
    ct_experiment_file_log(&served->experiment, served->there, served->there_count);
}

/* Those of `models` (served->count) that are there; how many. */
static size_t keep_there(const ct_served *served, const ct_server_model *models, ct_server_model *out) {
    size_t count = 0;
    for (size_t i = 0; i < served->count; i++)
        if (models[i].model) out[count++] = models[i];
    return count;
}

static ct_code replace(ct_served *served, const ct_server_model *models, size_t count, const ct_experiment *experiment, ct_status *status) {
    return ct_server_replace(served->options.server, models, count, experiment, served->later, status);
}

/* Reads what is new (with `anew` every folder and the experiment) beside what is served, and hands it over at once. With `anew`, where one
 * folder of what is served can't be read, no model changes. */
static void look(ct_served *served, bool anew) {
    ct_status status = CT_STATUS_INIT;
    const int64_t began = ct_clock_ns();
    ct_server_model *fresh = calloc(served->count, sizeof *fresh), *there = calloc(served->count, sizeof *there);
    int64_t *versions = calloc(served->count, sizeof *versions);
    bool some = false, all = true, news = false;
    if (!fresh || !there || !versions) {
        say_refused(served, &served->folders[0], "out of memory");
        goto done;
    }
    for (size_t i = 0; i < served->count; i++) {
        served_folder *f = &served->folders[i];
        fresh[i] = served->models[i];
        versions[i] = f->version;
        ct_model *model = NULL;
        const ct_code code = open_one(served, i, anew, &model, &versions[i], &status);
        if (code == CT_OK) {
            fresh[i].model = model;
            some = true;
        } else if (code != CT_END && !f->versions) {
            const bool needed = served->models[i].model != NULL; /* else it was never there, and keeps nobody waiting */
            if (needed) all = false;
            if (code == CT_CANCELLED) {
                /* nobody wants to know */
            } else if (code == CT_NOT_FOUND) {
                say_not_yet(served, f, 0, status.message);
                if (needed) served->again = true;
            } else {
                say_refused(served, f, status.message);
            }
        }
    }
    const bool ready = some && (all || !anew);
    size_t count = keep_there(served, ready ? fresh : served->models, there);
    ct_experiment *next = anew ? ct_experiment_file_again(&served->experiment, there, count) : NULL;
    ct_code code = CT_OK;
    if (ready || next) code = replace(served, there, count, next ? next : served->experiment.now, &status);
    if (code != CT_OK) say_refused(served, &served->folders[0], status.message);
    if (next && code == CT_OK) {
        ct_experiment_file_take(&served->experiment, next);
        news = true;
    } else {
        ct_experiment_destroy(next);
    }
    size_t changed = 0;
    for (size_t i = 0; i < served->count; i++) {
        if (fresh[i].model == served->models[i].model) continue;
        if (!ready || code != CT_OK) {
            ct_model_destroy(fresh[i].model);
            continue;
        }
        news |= served->models[i].model == NULL;
        ct_model_destroy(served->models[i].model);
        served->models[i].model = fresh[i].model;
        served->folders[i].version = versions[i];
        served->folders[i].not_yet_said = false;
        log_model(served, i);
        changed++;
    }
    served->there_count = keep_there(served, served->models, served->there);
    if (ready && code == CT_OK)
        ct_log_line(CT_LOG_INFO, "serve.reload", "result=done models=%zu ms=%lld", changed, (long long)((ct_clock_ns() - began) / 1000000));
    if (news) ct_experiment_file_log(&served->experiment, served->there, served->there_count);
done:
    free(versions);
    free(there);
    free(fresh);
}

/* --- models that follow --- */

typedef struct swapping {
    ct_served *served;
    size_t model;
} swapping;

static ct_code swap_model(void *context, ct_model *model, ct_status *status) {
    const swapping *swap = context;
    ct_served *served = swap->served;
    ct_model *before = served->models[swap->model].model;
    served->models[swap->model].model = model;
    served->there_count = keep_there(served, served->models, served->there);
    const ct_code code = replace(served, served->there, served->there_count, served->experiment.now, status);
    if (code == CT_OK) return CT_OK;
    served->models[swap->model].model = before;
    served->there_count = keep_there(served, served->models, served->there);
    return code;
}

static void follow(ct_served *served) {
    for (size_t i = 0; i < served->count; i++) {
        swapping swap = {served, i};
        if (served->folders[i].followed) ct_followed_look(served->folders[i].followed, swap_model, &swap);
    }
}

/* --- tokens and certificate --- */

static void say_access(const char *event, ct_code code, const ct_status *status) {
    char quoted[2 * CT_STATUS_MESSAGE_BYTES];
    if (code == CT_OK)
        ct_log_line(CT_LOG_INFO, event, "result=done");
    else
        ct_log_line(CT_LOG_ERROR, event, "result=refused reason=%s", ct_log_quote(status->message, quoted, sizeof quoted));
}

/* All files are read before anything is changed: a token list that can't be read leaves the certificate alone as well. */
static void read_access(ct_served *served) {
    const ct_access_files *files = &served->options.files;
    ct_server *server = served->options.server;
    ct_access_texts texts;
    ct_status status = CT_STATUS_INIT;
    const ct_code read = ct_access_files_read(files, &texts, &status);
    if (files->tokens) {
        ct_code code = read;
        if (code == CT_OK) code = ct_server_set_tokens(server, (const char *const *)texts.tokens, texts.token_count, &status);
        say_access("serve.tokens", code, &status);
    }
    if (files->certificate) {
        ct_code code = read;
        if (code == CT_OK) code = ct_server_set_certificate(server, texts.certificate, texts.key, texts.client_ca, &status);
        say_access("serve.certificate", code, &status);
    }
    if (files->admin_certificate && served->options.admin) {
        ct_code code = read;
        if (code == CT_OK) code = ct_admin_set_certificate(served->options.admin, texts.admin_certificate, texts.admin_key, &status);
        say_access("serve.admin_certificate", code, &status);
    }
    ct_access_texts_deinit(&texts);
}

/* --- life --- */

/* Opens the model of folder i as a start does. One that the experiment can spare may be missing: then it is NULL. */
static ct_code open_first(ct_served *served, size_t i, ct_model **out_model, ct_status *status) {
    served_folder *f = &served->folders[i];
    size_t versions = 0;
    if (f->publication) {
        char number[24];
        (void)snprintf(number, sizeof number, "%zu", i);
        if (served->scratch && !(f->scratch = ct_path_join(served->scratch, number)))
            return ct_fail_memory(status, strlen(served->scratch), "a path");
        CT_TRY(ct_followed_open(f->name, f->folder, f->publication, served->memory_bytes, f->scratch, served->pool, &f->followed, status));
        *out_model = ct_followed_model(f->followed);
        return CT_OK;
    }
    if (!ct_model_folder_is(f->folder)) free(ct_versions_list(f->folder, &versions));
    f->versions = versions > 0;
    f->version = -1;
    const ct_code code =
        f->versions ? open_version(served, f, out_model, &f->version, status) : open_model(served, f->folder, out_model, status);
    if (code == CT_OK || code == CT_CANCELLED || !ct_experiment_file_can_spare(&served->experiment, f->name)) return code;
    say_refused(served, f, status->message);
    *status = (ct_status)CT_STATUS_INIT;
    *out_model = NULL;
    return CT_OK;
}

ct_code ct_served_open(const ct_served_sources *sources, ct_pool *pool, ct_served **out_served, ct_status *status) {
    if (sources->early && sources->follows->count)
        return ct_fail(
            status, CT_USAGE,
            "--answer-early does not go with --follow: the first answers would be those of the base, older than what was served before");
    ct_served *served = calloc(1, sizeof *served);
    if (!served) return ct_fail_memory(status, sizeof *served, "the models");
    ct_code code = CT_OK;
    served->pool = pool;
    served->memory_bytes = sources->memory_bytes;
    served->scratch = sources->scratch;
    served->early = sources->early;
    const size_t most = sources->models->count + sources->follows->count + 1;
    served->folders = calloc(most, sizeof *served->folders);
    served->models = calloc(most, sizeof *served->models);
    served->there = calloc(most, sizeof *served->there);
    if (!served->folders || !served->models || !served->there) {
        code = ct_fail_memory(status, most * sizeof *served->folders, "the models");
        goto fail;
    }
    CT_TRY_GOTO(code, parse_folders(served, sources->models, sources->follows, status), fail);
    CT_TRY_GOTO(code, ct_experiment_file_open(sources->experiment, &served->experiment, status), fail);
    for (size_t i = 0; i < served->count; i++) {
        served->models[i].name = served->folders[i].name;
        CT_TRY_GOTO(code, open_first(served, i, &served->models[i].model, status), fail);
    }
    served->there_count = keep_there(served, served->models, served->there);
    *out_served = served;
    return CT_OK;
fail:
    ct_served_close(served);
    return code;
}

void ct_served_close(ct_served *served) {
    if (!served) return;
    for (size_t i = 0; served->models && served->folders && i < served->count; i++) {
        if (served->folders[i].publication)
            ct_followed_close(served->folders[i].followed);
        else
            ct_model_destroy(served->models[i].model);
    }
    for (size_t i = 0; served->folders && i < served->count; i++) {
        free(served->folders[i].name);
        free(served->folders[i].scratch);
    }
    ct_status ignored = CT_STATUS_INIT;
    if (served->scratch && ct_folder_remove(served->scratch, &ignored) != CT_OK) ct_warn("serve", "%s", ignored.message);
    ct_experiment_file_close(&served->experiment);
    ct_background_destroy(served->later);
    free(served->models);
    free(served->there);
    free(served->folders);
    free(served);
}

const ct_server_model *ct_served_models(const ct_served *served, size_t *out_count) {
    *out_count = served->there_count;
    return served->there;
}

const ct_experiment *ct_served_experiment(const ct_served *served) { return served->experiment.now; }

void ct_served_block_signals(void) {
    sigset_t hangup;
    (void)sigemptyset(&hangup);
    (void)sigaddset(&hangup, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &hangup, NULL);
}

static bool is_busy(void *server) { return ct_server_is_busy(server); }

/* What is read beside requests must not make them wait. A failure only means that the pool does not give way. */
static void give_way(ct_served *served) {
    const double look_seconds = 1;
    ct_status ignored = CT_STATUS_INIT;
    if (ct_background_create(ct_pool_threads(served->pool), look_seconds, &served->later, &ignored) != CT_OK) return;
    served->pool = ct_background_pool(served->later);
    ct_background_set_pauses(served->later, is_busy, served->options.server, &served->stop);
    for (size_t i = 0; i < served->count; i++)
        if (served->folders[i].followed) ct_followed_set_pool(served->folders[i].followed, served->pool);
}

/* --- what was opened early --- */

/* Opens model i as a start without `early` does, and has the server answer with that. */
static ct_code load(ct_served *served, size_t i, ct_status *status) {
    const int64_t began = ct_clock_ns();
    ct_model *early = served->models[i].model, *whole = NULL;
    swapping swap = {served, i};
    char name[256];
    CT_TRY(open_first(served, i, &whole, status));
    const ct_code code = swap_model(&swap, whole, status);
    ct_model_destroy(code == CT_OK ? early : whole);
    (void)malloc_trim(0);
    CT_TRY(code);
    if (whole) log_model(served, i);
    if (whole)
        ct_log_line(CT_LOG_INFO, "serve.load", "result=done model=%s ms=%lld", ct_log_quote(served->folders[i].name, name, sizeof name),
                    (long long)((ct_clock_ns() - began) / 1000000));
    else
        ct_experiment_file_log(&served->experiment, served->there, served->there_count); /* its arms fall to the control */
    return CT_OK;
}

/* What was opened early is opened whole. Where such a start would have failed, the program ends as that would have. It does not give way to
 * requests as later loads do: what they wait for is these rows. With 16 callers at once it gave way for more than 25 s, in which 150
 * requests a second were answered; else it took 11. */
static ct_code load_all(ct_served *served) {
    ct_code code = CT_OK;
    ct_status failure = CT_STATUS_INIT;
    char name[256], quoted[2 * CT_STATUS_MESSAGE_BYTES];
    ct_log_line(CT_LOG_INFO, "serve.load", "result=begun models=%zu", served->there_count);
    served->early = false;
    const ct_pauses none = {.given_up = &served->stop};
    ct_pauses_set(&none);
    for (size_t i = 0; i < served->count && code == CT_OK; i++) {
        if (!served->models[i].model) continue;
        code = load(served, i, &failure);
        if (code == CT_OK || code == CT_CANCELLED) continue;
        ct_server_count_refused_swap(served->options.server);
        ct_log_line(CT_LOG_ERROR, "serve.load", "result=refused model=%s reason=%s",
                    ct_log_quote(served->folders[i].name, name, sizeof name), ct_log_quote(failure.message, quoted, sizeof quoted));
        served->failure = failure;
        ct_stop_ask();
    }
    ct_pauses_set(NULL);
    return code;
}

static void *served_main(void *argument) {
    ct_served *served = argument;
    const bool goes_on = !served->early || load_all(served) == CT_OK;
    give_way(served);
    sigset_t hangup;
    (void)sigemptyset(&hangup);
    (void)sigaddset(&hangup, SIGHUP);
    const int64_t every_ns = (int64_t)(served->options.look_seconds * 1e9);
    const struct timespec every = {.tv_sec = every_ns / 1000000000, .tv_nsec = every_ns % 1000000000};
    ct_refusal_log refusals = {.exposures = served->options.exposures, .feedback = served->options.feedback};
    while (goes_on) {
        const bool signal = sigtimedwait(&hangup, NULL, &every) == SIGHUP;
        if (atomic_load(&served->stop)) break;
        if (signal) read_access(served);
        const bool anew = signal || served->again;
        served->again = false;
        ct_background_begin(served->later);
        look(served, anew);
        follow(served);
        ct_background_end(served->later);
        ct_refusals_log(&refusals, served->options.server);
    }
    ct_refusals_log(&refusals, served->options.server);
    return NULL;
}

ct_code ct_served_start(ct_served *served, const ct_served_options *options, ct_status *status) {
    served->options = *options;
    atomic_store(&served->stop, false);
    for (size_t i = 0; i < served->count; i++)
        if (served->folders[i].followed) ct_followed_begin(served->folders[i].followed, options->server);
    if (!ct_thread_start("ct-load", served_main, served, &served->thread)) return ct_fail(status, CT_EXHAUSTED, "cannot start a thread");
    served->started = true;
    return CT_OK;
}

ct_code ct_served_failure(const ct_served *served, ct_status *status) {
    if (served->failure.code != CT_OK) *status = served->failure;
    return served->failure.code;
}

void ct_served_stop(ct_served *served) {
    if (!served || !served->started) return;
    atomic_store(&served->stop, true);
    (void)pthread_kill(served->thread, SIGHUP);
    (void)pthread_join(served->thread, NULL);
    served->started = false;
}
