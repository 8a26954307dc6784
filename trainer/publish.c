/* Publishing. The folder's states are numbered; a state is written as a delta, or as a base where there is none to build on, or where the
 * deltas behind the last one weigh more than half of it (BASE_PART, and at least LEAST_DELTAS): then as both, so that who follows needs no
 * base, and who begins has little to read. The last two bases stay, with all deltas behind the first of them.
 *
 * A run that goes on from a checkpoint ends with the bits of a run that was never stopped. So where the folder is ahead of the checkpoint,
 * nothing is published until the training has come to where it was, and if that is the same state, digest for digest, the numbers go on.
 * Everywhere else a base begins anew, with the next number. */
#include "trainer/publish.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/file.h"
#include "base/thread.h"
#include "model/publication.h"

enum { BASE_PART = 2, LEAST_DELTAS = 16, BASES_THAT_STAY = 2 };

struct publisher {
    ct_model *model;
    const ct_trainer *trainer;
    const ct_train_options *options;
    ct_watch *watch;
    ct_folder_lock *folder_lock;
    ct_published end;  /* what the folder holds */
    bool has_base;     /* and the model has changed as was noted since `end` */
    bool catching_up;  /* the folder is ahead: until end.rows */
    int64_t oldest_ms; /* of the rows that are not published; 0 = there are none */
    int64_t newest_ms;
    int64_t next_rows; /* when it is time again, by rows */
    int64_t last_ns;   /* of what was published last, or the run's start */
    int64_t spent_ns;
    /* A thread of its own publishes what is due by time while the run waits for rows; whoever has the lock may touch the model. */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool started, stop;
    ct_status failed; /* of that thread; the run ends with it */
};

/* --- the folder --- */

/* What a killed run has left half written. Nobody else writes here. */
static ct_code remove_left_overs(const char *folder, ct_status *status) {
    DIR *open = opendir(folder);
    if (open == NULL) return ct_fail_errno(status, "%s: cannot open the folder", folder);
    ct_code code = CT_OK;
    for (const struct dirent *entry; code == CT_OK && (entry = readdir(open)) != NULL;) {
        const char *name = entry->d_name;
        if (strncmp(name, "base-", 5) != 0 && strncmp(name, "delta-", 6) != 0) continue;
        if (strstr(name, ".partial-") == NULL && strstr(name, ".old-") == NULL) continue;
        char *path = ct_path_join(folder, name);
        if (path == NULL)
            code = ct_fail_memory(status, strlen(folder), "a path");
        else if (ct_path_is_folder(path))
            code = ct_folder_remove(path, status);
        else if (unlink(path) != 0)
            code = ct_fail_errno(status, "%s: cannot remove it", path);
        free(path);
    }
    (void)closedir(open);
    return code;
}

/* A base goes under another name first, so that nobody takes what is left of it for one. */
static ct_code remove_base(const char *path, ct_status *status) {
    char *old = NULL;
    if (asprintf(&old, "%s.old-%ld", path, (long)getpid()) < 0) return ct_fail_memory(status, strlen(path), "a path");
    ct_code code = rename(path, old) == 0 ? CT_OK : ct_fail_errno(status, "%s: cannot be removed", path);
    if (code == CT_OK) code = ct_folder_remove(old, status);
    free(old);
    return code;
}

/* Behind a new base. */
static ct_code remove_old(const char *folder, ct_status *status) {
    ct_publication list;
    CT_TRY(ct_publication_list(folder, &list, status));
    ct_code code = CT_OK;
    const int64_t first = list.base_count > BASES_THAT_STAY ? list.bases[list.base_count - BASES_THAT_STAY] : -1;
    for (size_t i = 0; i < list.delta_count && code == CT_OK && list.deltas[i] <= first; i++) {
        char *path = ct_publication_delta(folder, list.deltas[i]);
        if (path == NULL)
            code = ct_fail_memory(status, strlen(folder), "a path");
        else if (unlink(path) != 0)
            code = ct_fail_errno(status, "%s: cannot be removed", path);
        free(path);
    }
    for (size_t i = 0; i < list.base_count && code == CT_OK && list.bases[i] < first; i++) {
        char *path = ct_publication_base(folder, list.bases[i]);
        code = path != NULL ? remove_base(path, status) : ct_fail_memory(status, strlen(folder), "a path");
        free(path);
    }
    ct_publication_deinit(&list);
    return code;
}

/* --- what is written --- */

static void published(publisher *publisher) {
    publisher->oldest_ms = publisher->newest_ms = 0;
    const int64_t each = publisher->options->publish_rows;
    if (each > 0) publisher->next_rows = (ct_model_rows(publisher->model) / each + 1) * each;
    publisher->last_ns = ct_clock_ns();
}

static uint64_t folder_bytes(const char *folder) {
    ct_file_list list;
    ct_status ignored = CT_STATUS_INIT;
    uint64_t bytes = 0;
    if (ct_folder_list(folder, &list, &ignored) != CT_OK) return 0;
    for (size_t i = 0; i < list.count; i++) {
        char *path = ct_path_join(folder, list.names[i]);
        FILE *file = path != NULL ? fopen(path, "rb") : NULL;
        if (file != NULL && fseek(file, 0, SEEK_END) == 0) bytes += (uint64_t)ftell(file);
        if (file != NULL) (void)fclose(file);
        free(path);
    }
    ct_file_list_deinit(&list);
    return bytes;
}

static ct_code write_base(publisher *publisher, int64_t sequence, ct_status *status) {
    const char *folder = publisher->options->publish_folder;
    ct_published *end = &publisher->end;
    ct_metrics progressive;
    CT_TRY(ct_trainer_progressive(publisher->trainer, &progressive, status));
    json_t *metrics = json_object();
    char *path = ct_publication_base(folder, sequence);
    ct_code code =
        path != NULL ? ct_metrics_to_json(&progressive, false, metrics, status) : ct_fail_memory(status, strlen(folder), "a path");
    if (code == CT_OK) code = ct_model_publish_base(publisher->model, path, sequence, metrics, status);
    if (code == CT_OK) code = ct_model_digest(publisher->model, end->digest, status);
    if (code == CT_OK) {
        end->sequence = end->base_sequence = sequence;
        end->rows = ct_model_rows(publisher->model);
        memcpy(end->base, end->digest, sizeof end->base);
        end->base_bytes = folder_bytes(path);
        end->delta_bytes = 0;
        end->deltas = 0;
        publisher->has_base = true;
        code = remove_old(folder, status);
    }
    json_decref(metrics);
    free(path);
    return code;
}

static ct_code write_delta(publisher *publisher, ct_status *status) {
    const char *folder = publisher->options->publish_folder;
    ct_published *end = &publisher->end;
    ct_delta_facts facts = {.sequence = end->sequence + 1,
                            .base_sequence = end->base_sequence,
                            .oldest_row_ms = publisher->oldest_ms,
                            .newest_row_ms = publisher->newest_ms};
    memcpy(facts.base, end->base, sizeof facts.base);
    memcpy(facts.from, end->digest, sizeof facts.from);
    char *path = ct_publication_delta(folder, facts.sequence);
    ct_code code =
        path != NULL ? ct_model_publish_delta(publisher->model, path, &facts, status) : ct_fail_memory(status, strlen(folder), "a path");
    free(path);
    CT_TRY(code);
    end->sequence = facts.sequence;
    end->rows = facts.rows;
    memcpy(end->digest, facts.to, sizeof end->digest);
    end->delta_bytes += facts.bytes;
    end->deltas++;
    if (end->deltas < LEAST_DELTAS || end->delta_bytes < end->base_bytes / BASE_PART) return CT_OK;
    return write_base(publisher, facts.sequence, status);
}

static ct_code publish(publisher *publisher, ct_status *status) {
    const int64_t since = ct_clock_ns();
    const ct_code code = publisher->has_base ? write_delta(publisher, status) : write_base(publisher, publisher->end.sequence + 1, status);
    if (code == CT_OK) published(publisher);
    publisher->spent_ns += ct_clock_ns() - since;
    return code == CT_OK ? CT_OK : ct_fail_within(status, "--publish");
}

/* --- where the numbers go on --- */

/* The model is what the folder ends with. */
static ct_code go_on(publisher *publisher, ct_status *status) {
    publisher->catching_up = false;
    publisher->has_base = publisher->end.base_sequence >= 0;
    published(publisher);
    return ct_model_track_changes(publisher->model, status);
}

static void say_anew(publisher *publisher) {
    ct_watch_say(
        publisher->watch,
        "%s ends with number %lld (%lld rows), which is not a state of this training: base %lld begins anew, and servers load it as a "
        "whole",
        publisher->options->publish_folder, (long long)publisher->end.sequence, (long long)publisher->end.rows,
        (long long)publisher->end.sequence + 1);
}

/* A base of what the model is now; later where it has learned nothing yet. */
static ct_code begin_anew(publisher *publisher, ct_status *status) {
    publisher->catching_up = false;
    if (publisher->end.sequence >= 0) say_anew(publisher);
    CT_TRY(ct_model_track_changes(publisher->model, status));
    return ct_model_rows(publisher->model) > 0 || publisher->options->init != NULL ? publish(publisher, status) : CT_OK;
}

static ct_code begin(publisher *publisher, ct_status *status) {
    const ct_published *end = &publisher->end;
    char digest[CT_DIGEST_HEX_BYTES];
    const int64_t rows = ct_model_rows(publisher->model);
    if (end->sequence < 0) return begin_anew(publisher, status);
    if (rows < end->rows && publisher->options->resume) {
        publisher->catching_up = true;
        return CT_OK;
    }
    if (rows != end->rows) return begin_anew(publisher, status);
    CT_TRY(ct_model_digest(publisher->model, digest, status));
    return strcmp(digest, end->digest) == 0 ? go_on(publisher, status) : begin_anew(publisher, status);
}

/* --- when --- */

static bool is_due(const publisher *publisher) {
    const ct_train_options *options = publisher->options;
    if (options->publish_rows > 0 && ct_model_rows(publisher->model) >= publisher->next_rows) return true;
    if (options->publish_seconds > 0 && (double)(ct_clock_ns() - publisher->last_ns) >= options->publish_seconds * 1e9) return true;
    return ct_model_changes_full(publisher->model);
}

static bool is_worth(const publisher *publisher) {
    return publisher->oldest_ms != 0 && !publisher->catching_up && !ct_watch_astray(publisher->watch);
}

static void *timer_main(void *argument) {
    publisher *publisher = argument;
    (void)pthread_mutex_lock(&publisher->lock);
    while (!publisher->stop) {
        if (publisher->failed.code == CT_OK && is_worth(publisher) && is_due(publisher)) {
            if (publish(publisher, &publisher->failed) == CT_OK) continue;
            ct_watch_say(publisher->watch, "%s; the run ends with its next batch", publisher->failed.message);
        }
        const int64_t each = (int64_t)(publisher->options->publish_seconds * 1e9), now = ct_clock_ns(), due = publisher->last_ns + each;
        const int64_t until = due > now ? due : now + each;
        (void)ct_condition_wait(&publisher->wake, &publisher->lock, until);
    }
    (void)pthread_mutex_unlock(&publisher->lock);
    return NULL;
}

/* --- life --- */

ct_code publisher_create(ct_model *model, const ct_trainer *trainer, const ct_train_options *options, ct_watch *watch,
                         publisher **out_publisher, ct_status *status) {
    publisher *publisher = calloc(1, sizeof *publisher);
    if (publisher == NULL) return ct_fail_memory(status, sizeof *publisher, "a publisher");
    ct_code code = CT_OK;
    publisher->model = model;
    publisher->trainer = trainer;
    publisher->options = options;
    publisher->watch = watch;
    publisher->failed = (ct_status)CT_STATUS_INIT;
    ct_condition_init(&publisher->wake);
    (void)pthread_mutex_init(&publisher->lock, NULL);
    (void)pthread_mutex_lock(&publisher->lock);
    published(publisher);
    ct_model_expect_deltas(model);
    if (ct_model_folder_is(options->publish_folder)) {
        code = ct_fail(status, CT_EXISTS, "--publish %s: that is a model folder; name a folder of its own", options->publish_folder);
        goto fail;
    }
    CT_TRY_GOTO(code, ct_folder_lock_take(options->publish_folder, &publisher->folder_lock, status), fail);
    CT_TRY_GOTO(code, ct_folder_create(options->publish_folder, status), fail);
    CT_TRY_GOTO(code, remove_left_overs(options->publish_folder, status), fail);
    CT_TRY_GOTO(code, ct_publication_end(options->publish_folder, &publisher->end, status), fail);
    CT_TRY_GOTO(code, begin(publisher, status), fail);
    if (options->publish_seconds > 0) {
        if (!ct_thread_start("ct-publish", timer_main, publisher, &publisher->thread)) {
            code = ct_fail(status, CT_EXHAUSTED, "cannot start a thread for --publish");
            goto fail;
        }
        publisher->started = true;
    }
    *out_publisher = publisher;
    return CT_OK;
fail:
    publisher_destroy(publisher);
    return code;
}

void publisher_destroy(publisher *publisher) {
    if (publisher == NULL) return;
    publisher->stop = true;
    (void)pthread_cond_signal(&publisher->wake);
    (void)pthread_mutex_unlock(&publisher->lock);
    if (publisher->started) (void)pthread_join(publisher->thread, NULL);
    ct_folder_lock_release(publisher->folder_lock);
    (void)pthread_mutex_destroy(&publisher->lock);
    (void)pthread_cond_destroy(&publisher->wake);
    free(publisher);
}

void publisher_waits(publisher *publisher, bool waits) {
    if (waits)
        (void)pthread_mutex_unlock(&publisher->lock);
    else
        (void)pthread_mutex_lock(&publisher->lock);
}

ct_code publisher_batch(publisher *publisher, const ct_batch *batch, ct_status *status) {
    if (publisher->failed.code != CT_OK) {
        *status = publisher->failed;
        return status->code;
    }
    if (publisher->oldest_ms == 0) publisher->oldest_ms = batch->oldest_ms;
    publisher->newest_ms = batch->newest_ms;
    if (publisher->catching_up) {
        const int64_t rows = ct_model_rows(publisher->model);
        char digest[CT_DIGEST_HEX_BYTES] = "";
        if (rows < publisher->end.rows) return CT_OK;
        if (rows == publisher->end.rows) CT_TRY(ct_model_digest(publisher->model, digest, status));
        return strcmp(digest, publisher->end.digest) == 0 ? go_on(publisher, status) : begin_anew(publisher, status);
    }
    return is_due(publisher) && is_worth(publisher) ? publish(publisher, status) : CT_OK;
}

ct_code publisher_finish(publisher *publisher, ct_status *status) {
    if (publisher->failed.code != CT_OK) {
        *status = publisher->failed;
        return status->code;
    }
    if (publisher->catching_up) return begin_anew(publisher, status);
    return is_worth(publisher) ? publish(publisher, status) : CT_OK;
}

int64_t publisher_ns(const publisher *publisher) { return publisher->spent_ns; }
