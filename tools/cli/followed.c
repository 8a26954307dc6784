#include "tools/cli/followed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "embedding_store/delta.h"
#include "tools/cli/served.h"
#include "tools/cli/versions.h"

struct ct_followed {
    const char *name, *publication;
    uint64_t memory_bytes;
    const char *scratch; /* NULL = none */
    unsigned opened;     /* followers so far: each has a folder of its own in scratch */
    ct_pool *pool;
    ct_follower *follower;
    ct_server *server; /* NULL = nothing is served yet */
    ct_followed_swap_fn swap;
    void *swap_context;
    bool unsettled; /* the delta that is served */
    char *said;     /* the path that was called not complete last */
    struct {
        char *path;
        int64_t changed_ns; /* as it stood then; 0 = it was not there */
    } refused[2];           /* last: a delta, a base */
    ct_follow_stats stats;
};

/* --- what is said --- */

static void tell(ct_followed *f) {
    f->stats.sequence = ct_follower_sequence(f->follower);
    if (f->server) ct_server_set_follow_stats(f->server, f->name, &f->stats);
}

static void log_line(const ct_followed *f, ct_log_level level, const char *result, const char *reason) {
    char quoted[2 * CT_STATUS_MESSAGE_BYTES], name[256];
    ct_log_line(level, "serve.follow", "result=%s model=%s sequence=%" PRId64 " reason=%s", result,
                ct_log_quote(f->name, name, sizeof name), ct_follower_sequence(f->follower), ct_log_quote(reason, quoted, sizeof quoted));
}

/* When the file (of a base: its manifest) changed last, since 1970; 0 = it is not there. */
static int64_t changed_ns(const char *path) {
    struct stat found;
    char *manifest = ct_path_is_folder(path) ? ct_path_join(path, "manifest") : NULL;
    const bool there = stat(manifest ? manifest : path, &found) == 0;
    free(manifest);
    return there ? (int64_t)found.st_ctim.tv_sec * 1000000000 + found.st_ctim.tv_nsec : 0;
}

static void remember(char **text, const char *path) {
    free(*text);
    *text = strdup(path);
}

static bool is_refused(const ct_followed *f, const char *path, bool base) {
    return f->refused[base].path && strcmp(f->refused[base].path, path) == 0 && changed_ns(path) == f->refused[base].changed_ns;
}

/* Something did not go: it is not complete yet, or it is broken; or it has gone meanwhile, since a later base is there. */
static void say_why(ct_followed *f, const char *path, bool base, const ct_status *status) {
    const int64_t changed = changed_ns(path);
    const bool fresh = changed > 0 && ct_clock_unix_ms() - changed / 1000000 <= CT_SETTLED_SECONDS * 1000;
    const bool broken = status->code == CT_CORRUPT || status->code == CT_IO;
    if (changed == 0 || status->code == CT_UNAVAILABLE || status->code == CT_NOT_FOUND || (broken && fresh)) {
        f->stats.not_yet++;
        if (!f->said || strcmp(f->said, path) != 0) log_line(f, CT_LOG_INFO, "not_yet", status->message);
        remember(&f->said, path);
    } else {
        f->stats.refused++;
        log_line(f, CT_LOG_ERROR, "refused", status->message);
        remember(&f->refused[base].path, path);
        f->refused[base].changed_ns = changed;
    }
    tell(f);
}

/* --- a delta --- */

static double seconds_since(int64_t unix_ms) { return (double)(ct_clock_unix_ms() - unix_ms) * 1e-3; }

static void count_applied(ct_followed *f, const ct_delta_facts *facts, const int64_t at[4]) {
    ct_follow_stats *stats = &f->stats;
    stats->applied++;
    stats->records += (uint64_t)facts->records;
    stats->bytes += facts->bytes;
    stats->newest_row_unix_ms = facts->newest_row_ms;
    for (size_t i = 0; i < 3; i++) stats->stage_ns[i] += (uint64_t)(at[i + 1] - at[i]);
    char name[256];
    if (!f->server) { /* it answers nobody yet */
        ct_log_line(CT_LOG_INFO, "serve.follow", "result=done model=%s sequence=%" PRId64 " version=%s records=%" PRId64,
                    ct_log_quote(f->name, name, sizeof name), facts->sequence, facts->to, facts->records);
        return;
    }
    const double oldest = stats->oldest_seconds, newest = stats->newest_seconds;
    ct_follow_stats_observe(stats, oldest);
    tell(f);
    ct_log_line(CT_LOG_INFO, "serve.follow",
                "result=done model=%s sequence=%" PRId64 " version=%s records=%" PRId64 " bytes=%" PRIu64
                " oldest_row_s=%.3f newest_row_s=%.3f read_ms=%.1f swap_ms=%.1f settle_ms=%.1f",
                ct_log_quote(f->name, name, sizeof name), facts->sequence, facts->to, facts->records, facts->bytes, oldest, newest,
                (double)(at[1] - at[0]) * 1e-6, (double)(at[2] - at[1]) * 1e-6, (double)(at[3] - at[2]) * 1e-6);
}

/* The delta that is served takes its place. It may fail (a full disk in scratch): no other one is taken then, and each look tries again. */
static bool settle(ct_followed *f) {
    ct_status status = CT_STATUS_INIT;
    const bool before = f->unsettled;
    f->unsettled = ct_follower_settle(f->follower, &status) != CT_OK;
    if (!f->unsettled) return true;
    (void)ct_fail_within(&status, "no further delta is taken until this one has found its place");
    f->stats.not_yet++;
    if (!before) log_line(f, CT_LOG_ERROR, "not_yet", status.message);
    tell(f);
    return false;
}

static ct_code take_delta(ct_followed *f, const char *path, ct_status *status) {
    ct_delta *delta = NULL;
    ct_delta_facts facts;
    ct_model *model = NULL;
    int64_t at[4] = {ct_clock_ns()};
    CT_TRY(ct_delta_open(path, &delta, status));
    ct_code code = ct_delta_facts_get(delta, &facts, status);
    if (code == CT_OK) code = ct_follower_stage(f->follower, delta, &model, status);
    ct_delta_close(delta);
    CT_TRY(code);
    at[1] = ct_clock_ns();
    if (f->swap) {
        code = f->swap(f->swap_context, model, status);
        if (code != CT_OK) {
            ct_follower_drop(f->follower);
            return code;
        }
        f->stats.oldest_seconds = seconds_since(facts.oldest_row_ms);
        f->stats.newest_seconds = seconds_since(facts.newest_row_ms);
    }
    at[2] = ct_clock_ns();
    (void)settle(f); /* else it is tried again before the next one */
    at[3] = ct_clock_ns();
    count_applied(f, &facts, at);
    return CT_OK;
}

/* --- a base --- */

static ct_code open_base(ct_followed *f, const char *path, ct_follower **out_follower, ct_status *status) {
    char name[16];
    (void)snprintf(name, sizeof name, "%u", f->opened++);
    char *scratch = f->scratch ? ct_path_join(f->scratch, name) : NULL;
    const ct_code code = f->scratch && !scratch ? ct_fail_memory(status, strlen(f->scratch), "a path")
                                                : ct_follower_open(path, f->memory_bytes, scratch, f->pool, out_follower, status);
    free(scratch);
    return code;
}

static ct_code take_base(ct_followed *f, const char *path, ct_status *status) {
    ct_follower *next = NULL;
    int64_t newest = 0;
    CT_TRY(ct_version_check_complete(path, &newest, status));
    CT_TRY(open_base(f, path, &next, status));
    if (f->swap) {
        const ct_code code = f->swap(f->swap_context, ct_follower_model(next), status);
        if (code != CT_OK) {
            ct_follower_close(next);
            return code;
        }
    }
    ct_follower_close(f->follower);
    f->follower = next;
    f->unsettled = false;
    f->stats.bases++;
    tell(f);
    char version[CT_DIGEST_HEX_BYTES], name[256];
    CT_TRY(ct_model_digest(ct_follower_model(next), version, status));
    ct_log_line(CT_LOG_INFO, "serve.follow", "result=base model=%s sequence=%" PRId64 " version=%s rows=%" PRId64,
                ct_log_quote(f->name, name, sizeof name), ct_follower_sequence(next), version, ct_model_rows(ct_follower_model(next)));
    return CT_OK;
}

/* --- looking --- */

/* Where a base that does not say its number stands: the delta that follows it, by digest; -1 = none does. */
static int64_t find_next(const ct_followed *f, const ct_publication *list) {
    ct_status ignored = CT_STATUS_INIT;
    char digest[CT_DIGEST_HEX_BYTES];
    int64_t found = -1;
    if (ct_model_digest(ct_follower_model(f->follower), digest, &ignored) != CT_OK) return -1;
    for (size_t i = 0; i < list->delta_count && found < 0; i++) {
        char *path = ct_publication_delta(f->publication, list->deltas[i]);
        ct_delta *delta = NULL;
        ct_delta_facts facts;
        if (path && ct_delta_open(path, &delta, &ignored) == CT_OK) {
            if (ct_delta_facts_get(delta, &facts, &ignored) == CT_OK && strcmp(facts.from, digest) == 0) found = list->deltas[i];
            ct_delta_close(delta);
        }
        free(path);
    }
    return found;
}

static bool has(const int64_t *numbers, size_t count, int64_t number) {
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == number) return true;
    return false;
}

/* What comes next, and whether it is a base; NULL = nothing. *out_gap: there are later deltas, but not the one that follows. malloc'd. */
static char *choose(const ct_followed *f, const ct_publication *list, bool *out_base, int64_t *out_gap) {
    const int64_t sequence = ct_follower_sequence(f->follower), next = sequence >= 0 ? sequence + 1 : find_next(f, list);
    *out_base = false;
    *out_gap = -1;
    if (!f->unsettled && next >= 0 && has(list->deltas, list->delta_count, next)) {
        char *path = ct_publication_delta(f->publication, next);
        if (!path || !is_refused(f, path, false)) return path;
        free(path); /* a later base is a way out */
    }
    if (list->base_count > 0 && list->bases[list->base_count - 1] > sequence && next >= 0) {
        *out_base = true;
        char *path = ct_publication_base(f->publication, list->bases[list->base_count - 1]);
        if (!path || !is_refused(f, path, true)) return path;
        free(path);
        return NULL;
    }
    if (next >= 0 && list->delta_count > 0 && list->deltas[list->delta_count - 1] > next && !has(list->deltas, list->delta_count, next))
        *out_gap = list->deltas[list->delta_count - 1];
    return NULL;
}

/* A gap is refused once, for each delta that comes behind it. */
static void say_gap(ct_followed *f, int64_t last) {
    char *path = ct_publication_delta(f->publication, last);
    if (path && !is_refused(f, path, false)) {
        ct_status status;
        (void)ct_fail(&status, CT_INVALID,
                      "%s: delta %" PRId64 " is missing: the model is at number %" PRId64
                      ", and there are deltas up to "
                      "%" PRId64 ", but no later base",
                      f->publication, ct_follower_sequence(f->follower) + 1, ct_follower_sequence(f->follower), last);
        say_why(f, path, false, &status);
    }
    free(path);
}

/* True where something was taken, and there may be more. */
static bool step(ct_followed *f) {
    ct_publication list;
    ct_status status = CT_STATUS_INIT;
    bool base = false;
    int64_t gap = -1;
    if (ct_publication_list(f->publication, &list, &status) != CT_OK) {
        if (!f->said) log_line(f, CT_LOG_INFO, "not_yet", status.message);
        if (!f->said) remember(&f->said, f->publication);
        return false;
    }
    if (f->unsettled) (void)settle(f);
    char *path = choose(f, &list, &base, &gap);
    ct_publication_deinit(&list);
    if (!path) {
        if (gap >= 0) say_gap(f, gap);
        return false;
    }
    const ct_code code = base ? take_base(f, path, &status) : take_delta(f, path, &status);
    if (code != CT_OK && code != CT_CANCELLED) say_why(f, path, base, &status); /* the server goes down */
    free(path);
    return code == CT_OK;
}

void ct_followed_begin(ct_followed *f, ct_server *server) {
    f->server = server;
    tell(f);
}

void ct_followed_set_pool(ct_followed *f, ct_pool *pool) { f->pool = pool; }

void ct_followed_look(ct_followed *f, ct_followed_swap_fn swap, void *context) {
    f->swap = swap;
    f->swap_context = context;
    while (step(f)) continue;
}

/* --- life --- */

/* The newest base that can be read. A training removes bases while we read only once it has written later ones: then those are tried. */
static ct_code open_newest(ct_followed *f, ct_status *status) {
    ct_code code = ct_fail(
        status, CT_NOT_FOUND,
        "%s: no base is there yet: `train --publish` writes the first one after its --publish-seconds or --publish-rows; start again then",
        f->publication);
    int64_t newest = -1, before;
    do {
        ct_publication list;
        before = newest;
        CT_TRY(ct_publication_list(f->publication, &list, status));
        if (list.base_count > 0) newest = list.bases[list.base_count - 1];
        for (size_t i = newest > before ? list.base_count : 0; i > 0 && code != CT_OK; i--) {
            ct_status why = CT_STATUS_INIT;
            char *path = ct_publication_base(f->publication, list.bases[i - 1]);
            code = path ? open_base(f, path, &f->follower, &why) : ct_fail_memory(&why, 64, "a path");
            if (code != CT_OK && i == list.base_count) *status = why;
            free(path);
        }
        ct_publication_deinit(&list);
    } while (code != CT_OK && newest > before);
    return code;
}

ct_code ct_followed_open(const char *name, const char *folder, const char *publication, uint64_t memory_bytes, const char *scratch,
                         ct_pool *pool, ct_followed **out_followed, ct_status *status) {
    if (ct_model_folder_is(publication))
        return ct_fail(status, CT_INVALID, "--follow %s: is a model folder, not one of `train --publish`: give it as --model", publication);
    ct_followed *f = calloc(1, sizeof *f);
    if (!f) return ct_fail_memory(status, sizeof *f, "a model that follows");
    f->name = name;
    f->publication = publication;
    f->memory_bytes = memory_bytes;
    f->scratch = scratch;
    f->pool = pool;
    const ct_code code = folder ? open_base(f, folder, &f->follower, status) : open_newest(f, status);
    if (code != CT_OK) {
        ct_followed_close(f);
        return code;
    }
    while (step(f)) continue;
    *out_followed = f;
    return CT_OK;
}

void ct_followed_close(ct_followed *f) {
    if (!f) return;
    ct_follower_close(f->follower);
    free(f->said);
    for (size_t i = 0; i < 2; i++) free(f->refused[i].path);
    free(f);
}

ct_model *ct_followed_model(const ct_followed *f) { return ct_follower_model(f->follower); }
