#include "serving/feedback.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/condition.h"
#include "base/line_files.h"
#include "base/thread.h"
#include "serving/line_text.h"

enum {
    DEFAULT_MAX_CANDIDATES = 10000,
    DEFAULT_QUEUE_CALLS = 256,
    DEFAULT_QUEUE_BYTES = 64 * 1024 * 1024,
    WRITE_BYTES = 4 * 1024 * 1024, /* of lines that are written, and synced, at one time */
    KEPT_BYTES = 4 * 1024 * 1024
};

typedef struct entry {
    const uint8_t *request;
    size_t bytes;
    ct_feedback_done_fn done;
    void *context;
} entry;

/* Of a request whose lines are in the text and not yet on disk. */
typedef struct written_entry {
    entry from;
    uint64_t shown, clicks, others;
} written_entry;

struct ct_feedback {
    uint32_t max_candidates;
    size_t capacity, max_bytes;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t change; /* something waits, or it is over */
    /* under lock */
    entry *queue; /* (capacity): a ring from `first` on */
    size_t first, count, bytes;
    bool stop;
    ct_feedback_stats stats;
    /* the thread's own */
    ct_calibration *calibration; /* NULL = none */
    written_entry *written;      /* (capacity) */
    size_t written_count;
    ct_line_files *files;
    ct_line_text text;
    ct_arena arena;
};

/* --- any thread --- */

ct_code ct_feedback_submit(ct_feedback *feedback, const uint8_t *request, size_t bytes, ct_feedback_done_fn done, void *context,
                           ct_status *status) {
    (void)pthread_mutex_lock(&feedback->lock);
    const bool room = feedback->count < feedback->capacity && (feedback->count == 0 || bytes <= feedback->max_bytes - feedback->bytes);
    if (room) {
        feedback->queue[(feedback->first + feedback->count++) % feedback->capacity] = (entry){request, bytes, done, context};
        feedback->bytes += bytes;
        (void)pthread_cond_signal(&feedback->change);
    } else {
        feedback->stats.busy++;
    }
    (void)pthread_mutex_unlock(&feedback->lock);
    return room ? CT_OK : ct_fail(status, CT_EXHAUSTED, "the server is busy: too much feedback waits to be written; try again later");
}

void ct_feedback_stats_get(ct_feedback *feedback, ct_feedback_stats *out_stats) {
    (void)pthread_mutex_lock(&feedback->lock);
    *out_stats = feedback->stats;
    (void)pthread_mutex_unlock(&feedback->lock);
}

/* --- the thread --- */

static void put_text(ct_line_text *text, const char *name, ProtobufCBinaryData value) {
    ct_line_text_member(text, name);
    ct_line_text_string(text, value.data, value.len);
}

static void put_integer(ct_line_text *text, const char *name, int64_t value) {
    ct_line_text_member(text, name);
    ct_line_text_integer(text, value);
}

static void put_event(ct_line_text *text, const Clicktower__V1__FeedbackEvent *event, int64_t now_ms) {
    ct_line_text_put(text, "{");
    put_integer(text, "received_ms", now_ms);
    put_integer(text, "time_ms", event->time_ms);
    put_text(text, "event_id", event->event_id);
    put_text(text, "request_id", event->request_id);
    put_integer(text, "candidate", event->candidate);
    put_integer(text, "position", event->position);
    put_text(text, "event", event->event);
    ct_line_text_member(text, "value");
    ct_line_text_double(text, event->value);
    ct_line_text_put(text, "}\n");
}

static bool is_event(const Clicktower__V1__FeedbackEvent *event, const char *name) {
    return event->event.len == strlen(name) && memcmp(event->event.data, name, event->event.len) == 0;
}

/* Checks a request and makes its lines; a failure is answered at once. */
static void prepare(ct_feedback *feedback, entry from) {
    ct_status status = CT_STATUS_INIT;
    Clicktower__V1__FeedbackRequest *request = NULL;
    const int64_t now_ms = ct_clock_unix_ms();
    const size_t before = feedback->text.bytes;
    written_entry written = {.from = from};
    ct_code code = ct_feedback_unpack(&feedback->arena, from.request, from.bytes, feedback->max_candidates, now_ms, &request, &status);
    if (code == CT_OK) {
        for (size_t i = 0; i < request->n_events; i++) {
            const Clicktower__V1__FeedbackEvent *event = request->events[i];
            put_event(&feedback->text, event, now_ms);
            const bool shown = is_event(event, "shown"), click = is_event(event, "click");
            (*(shown ? &written.shown : click ? &written.clicks : &written.others))++;
            if (shown || click)
                ct_calibration_feedback(feedback->calibration, event->request_id.data, event->request_id.len, event->candidate,
                                        shown ? CT_FEEDBACK_SHOWN : CT_FEEDBACK_CLICK);
        }
        if (feedback->text.failed) code = ct_fail(&status, CT_UNAVAILABLE, "out of memory for feedback; send it again later");
    }
    ct_arena_reset(&feedback->arena);
    if (code == CT_OK) {
        feedback->written[feedback->written_count++] = written;
        return;
    }
    feedback->text.bytes = before;
    feedback->text.failed = false;
    (void)pthread_mutex_lock(&feedback->lock);
    (*(code == CT_UNAVAILABLE ? &feedback->stats.unwritable : &feedback->stats.invalid))++;
    (void)pthread_mutex_unlock(&feedback->lock);
    from.done(from.context, &status, 0);
}

static void note_failure(ct_feedback *feedback, const char *message) {
    (void)pthread_mutex_lock(&feedback->lock);
    feedback->stats.failures++;
    (void)snprintf(feedback->stats.last_failure, sizeof feedback->stats.last_failure, "%s", message);
    (void)pthread_mutex_unlock(&feedback->lock);
}

/* Writes the lines and answers those that they are of. */
static void write_prepared(ct_feedback *feedback) {
    ct_status status = CT_STATUS_INIT;
    ct_code code = ct_line_files_append(feedback->files, feedback->text.data, feedback->text.bytes, &status);
    if (code == CT_OK) code = ct_line_files_sync(feedback->files, &status);
    if (code != CT_OK) {
        note_failure(feedback, status.message);
        (void)ct_fail_within(&status, "feedback was not written, send it again later");
        status.code = CT_UNAVAILABLE;
    }
    (void)pthread_mutex_lock(&feedback->lock);
    for (size_t i = 0; i < feedback->written_count; i++) {
        const written_entry *w = &feedback->written[i];
        if (code == CT_OK) {
            feedback->stats.shown += w->shown;
            feedback->stats.clicks += w->clicks;
            feedback->stats.others += w->others;
        } else {
            feedback->stats.unwritable++;
        }
    }
    (void)pthread_mutex_unlock(&feedback->lock);
    for (size_t i = 0; i < feedback->written_count; i++) {
        const written_entry *w = &feedback->written[i];
        w->from.done(w->from.context, &status, code == CT_OK ? (uint32_t)(w->shown + w->clicks + w->others) : 0);
    }
    feedback->written_count = 0;
    ct_line_text_reset(&feedback->text, 2 * KEPT_BYTES);
    if (ct_arena_bytes(&feedback->arena) > KEPT_BYTES) {
        ct_arena_deinit(&feedback->arena);
        ct_arena_init(&feedback->arena, 0);
    }
}

/* Under lock. Until something waits, the file is due, or it is over. */
static void wait_for_work(ct_feedback *feedback) {
    const int64_t due_ms = ct_line_files_due_ms(feedback->files);
    if (due_ms < 0) {
        (void)pthread_cond_wait(&feedback->change, &feedback->lock);
        return;
    }
    const int64_t limit = ct_clock_ns() + due_ms * 1000000;
    (void)ct_condition_wait(&feedback->change, &feedback->lock, limit);
}

static void *write_feedback(void *argument) {
    ct_feedback *feedback = argument;
    (void)pthread_mutex_lock(&feedback->lock);
    while (feedback->count || !feedback->stop) {
        if (feedback->count == 0) wait_for_work(feedback);
        while (feedback->count && feedback->text.bytes < WRITE_BYTES && feedback->written_count < feedback->capacity) {
            const entry next = feedback->queue[feedback->first];
            feedback->first = (feedback->first + 1) % feedback->capacity;
            feedback->count--;
            feedback->bytes -= next.bytes;
            (void)pthread_mutex_unlock(&feedback->lock);
            prepare(feedback, next);
            (void)pthread_mutex_lock(&feedback->lock);
        }
        (void)pthread_mutex_unlock(&feedback->lock);
        if (feedback->written_count) write_prepared(feedback);
        ct_status status = CT_STATUS_INIT;
        if (ct_line_files_tend(feedback->files, &status) != CT_OK) note_failure(feedback, status.message);
        (void)pthread_mutex_lock(&feedback->lock);
    }
    (void)pthread_mutex_unlock(&feedback->lock);
    return NULL;
}

/* --- life --- */

static void feedback_free(ct_feedback *feedback) {
    (void)pthread_cond_destroy(&feedback->change);
    (void)pthread_mutex_destroy(&feedback->lock);
    ct_line_text_deinit(&feedback->text);
    ct_arena_deinit(&feedback->arena);
    free(feedback->queue);
    free(feedback->written);
    free(feedback);
}

ct_code ct_feedback_open(const ct_feedback_options *options, ct_feedback **out_feedback, ct_status *status) {
    ct_feedback *feedback = calloc(1, sizeof *feedback);
    if (!feedback) return ct_fail_memory(status, sizeof *feedback, "feedback");
    (void)pthread_mutex_init(&feedback->lock, NULL);
    ct_condition_init(&feedback->change);
    ct_arena_init(&feedback->arena, 0);
    feedback->max_candidates = options->max_candidates ? options->max_candidates : DEFAULT_MAX_CANDIDATES;
    feedback->calibration = options->calibration;
    feedback->capacity = options->queue_calls ? options->queue_calls : DEFAULT_QUEUE_CALLS;
    feedback->max_bytes = options->queue_bytes ? options->queue_bytes : DEFAULT_QUEUE_BYTES;
    feedback->queue = calloc(feedback->capacity, sizeof *feedback->queue);
    feedback->written = calloc(feedback->capacity, sizeof *feedback->written);
    ct_code code = CT_OK;
    if (!feedback->queue || !feedback->written) {
        code = ct_fail_memory(status, feedback->capacity * sizeof *feedback->written, "feedback");
        goto fail;
    }
    const ct_line_files_options files = {options->folder, "feedback", options->rotate_bytes, options->rotate_ms};
    CT_TRY_GOTO(code, ct_line_files_open(&files, &feedback->files, status), fail);
    if (!ct_thread_start("ct-feedback", write_feedback, feedback, &feedback->thread)) {
        code = ct_line_files_close(feedback->files, status);
        if (code == CT_OK) code = ct_fail(status, CT_EXHAUSTED, "cannot start the thread that writes feedback");
        goto fail;
    }
    *out_feedback = feedback;
    return CT_OK;
fail:
    feedback_free(feedback);
    return code;
}

ct_code ct_feedback_close(ct_feedback *feedback, ct_status *status) {
    if (!feedback) return CT_OK;
    (void)pthread_mutex_lock(&feedback->lock);
    feedback->stop = true;
    (void)pthread_cond_signal(&feedback->change);
    (void)pthread_mutex_unlock(&feedback->lock);
    (void)pthread_join(feedback->thread, NULL);
    const ct_code code = ct_line_files_close(feedback->files, status);
    feedback_free(feedback);
    return code;
}
