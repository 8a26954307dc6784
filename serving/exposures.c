/* A record of the ring is a head, the floats (probabilities of each output, then derived columns), the histories (rule, number of keys,
 * keys: 64 bits each), the texts with a NUL behind each, and the request's packed bytes, which the writing thread unpacks: a scoring thread
 * does nothing but copy. */
#include "serving/exposures.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/line_files.h"
#include "base/ring.h"
#include "base/thread.h"
#include "serving/decode.h"
#include "serving/line_text.h"
#include "serving/rpc.h"

enum {
    WRITE_BYTES = 1024 * 1024, /* of lines that are written at one time */
    KEPT_BYTES = 4 * 1024 * 1024,
    NAP_NS = 20 * 1000 * 1000,
    TEXTS = 6 /* request id, experiment, arm, fallback arm, model, version; then names of outputs, of derived columns, of histories */
};

struct ct_exposures {
    double sample_rate;
    uint64_t sample_below; /* hashes; UINT64_MAX = all */
    ct_ring *ring;
    uint64_t id_prefix;
    atomic_uint_fast64_t next_id;
    pthread_t thread;
    atomic_bool stop;
    /* the thread's own */
    ct_calibration *calibration; /* NULL = none */
    ct_line_files *files;
    ct_line_text text;
    ct_arena arena;
    /* figures */
    atomic_uint_fast64_t written, written_bytes, dropped_full, dropped_unwritable;
    pthread_mutex_t lock;
    uint64_t failures;
    char last_failure[CT_EXPOSURES_MESSAGE_BYTES];
};

typedef struct record_head {
    int64_t time_ms, latency_us;
    uint32_t rows, outputs, derived, histories;
    uint32_t code, how;
    uint32_t texts_bytes, request_bytes;
    uint32_t derived_counts[CT_EXPOSURE_DERIVED]; /* only the first `derived` of them are in the record */
} record_head;

static size_t head_bytes(size_t derived) { return sizeof(record_head) - (CT_EXPOSURE_DERIVED - derived) * sizeof(uint32_t); }

/* --- putting --- */

static char *put_text(char *at, const void *text, size_t bytes) {
    if (bytes) memcpy(at, text, bytes);
    at[bytes] = '\0';
    return at + bytes + 1;
}

static char *put_history(char *at, uint64_t rule, const uint64_t *keys, size_t count) {
    const uint64_t words[] = {rule, count};
    memcpy(at, words, sizeof words);
    if (count) memcpy(at + sizeof words, keys, count * sizeof *keys);
    return at + sizeof words + count * sizeof *keys;
}

void ct_exposures_put(ct_exposures *exposures, const ct_exposure *e) {
    const char *const texts[] = {e->experiment, e->arm, e->fallback_arm, e->model, e->version};
    record_head head = {.time_ms = ct_clock_unix_ms(),
                        .latency_us = e->latency_ns / 1000,
                        .rows = (uint32_t)e->rows,
                        .outputs = (uint32_t)e->output_count,
                        .derived = (uint32_t)e->derived_count,
                        .histories = (uint32_t)e->history_count,
                        .code = (uint32_t)e->code,
                        .how = (uint32_t)e->how,
                        .request_bytes = (uint32_t)e->request_bytes};
    size_t floats = e->rows * e->output_count, history_words = 0, texts_bytes = e->request_id_bytes + 1;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) texts_bytes += strlen(texts[i]) + 1;
    for (size_t o = 0; o < e->output_count; o++) texts_bytes += strlen(e->outputs[o].name) + 1;
    for (size_t d = 0; d < e->derived_count; d++) {
        texts_bytes += strlen(e->derived[d].name) + 1;
        floats += e->derived[d].count;
        head.derived_counts[d] = (uint32_t)e->derived[d].count;
    }
    for (size_t h = 0; h < e->history_count; h++) {
        texts_bytes += strlen(e->histories[h].name) + 1;
        history_words += 2 + e->histories[h].count;
    }
    head.texts_bytes = (uint32_t)texts_bytes;
    char *record = ct_ring_reserve(exposures->ring, head_bytes(e->derived_count) + floats * sizeof(float) +
                                                        history_words * sizeof(uint64_t) + texts_bytes + e->request_bytes);
    if (!record) {
        (void)atomic_fetch_add_explicit(&exposures->dropped_full, 1, memory_order_relaxed);
        return;
    }
    char *at = record;
    memcpy(at, &head, head_bytes(e->derived_count));
    at += head_bytes(e->derived_count);
    for (size_t o = 0; o < e->output_count; o++, at += e->rows * sizeof(float))
        memcpy(at, e->outputs[o].probabilities, e->rows * sizeof(float));
    for (size_t d = 0; d < e->derived_count; d++) {
        memcpy(at, e->derived[d].values, e->derived[d].count * sizeof(float));
        at += e->derived[d].count * sizeof(float);
    }
    for (size_t h = 0; h < e->history_count; h++) at = put_history(at, e->histories[h].rule, e->histories[h].keys, e->histories[h].count);
    at = put_text(at, e->request_id, e->request_id_bytes);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) at = put_text(at, texts[i], strlen(texts[i]));
    for (size_t o = 0; o < e->output_count; o++) at = put_text(at, e->outputs[o].name, strlen(e->outputs[o].name));
    for (size_t d = 0; d < e->derived_count; d++) at = put_text(at, e->derived[d].name, strlen(e->derived[d].name));
    for (size_t h = 0; h < e->history_count; h++) at = put_text(at, e->histories[h].name, strlen(e->histories[h].name));
    if (e->request_bytes) memcpy(at, e->request, e->request_bytes);
    ct_ring_commit(exposures->ring, record);
}

bool ct_exposures_sampled(const ct_exposures *exposures, const void *request_id, size_t bytes) {
    return exposures->sample_below == UINT64_MAX || ct_hash64(request_id, bytes, 0) < exposures->sample_below;
}

size_t ct_exposures_make_id(ct_exposures *exposures, char out_id[CT_MADE_ID_BYTES]) {
    const uint64_t number = atomic_fetch_add_explicit(&exposures->next_id, 1, memory_order_relaxed);
    const int length = snprintf(out_id, CT_MADE_ID_BYTES, "%016" PRIx64 "%08" PRIx64, exposures->id_prefix, number);
    return length < CT_MADE_ID_BYTES ? (size_t)length : CT_MADE_ID_BYTES - 1;
}

/* --- writing --- */

static void put_strings(ct_line_text *text, const ProtobufCBinaryData *values, size_t count) {
    ct_line_text_member(text, "tokens");
    ct_line_text_put(text, "[");
    for (size_t i = 0; i < count; i++) {
        if (i) ct_line_text_put(text, ",");
        ct_line_text_string(text, values[i].data, values[i].len);
    }
    ct_line_text_put(text, "]");
}

static void put_floats(ct_line_text *text, const char *name, const float *values, size_t count) {
    ct_line_text_member(text, name);
    ct_line_text_put(text, "[");
    for (size_t i = 0; i < count; i++) {
        if (i) ct_line_text_put(text, ",");
        ct_line_text_float(text, values[i]);
    }
    ct_line_text_put(text, "]");
}

static void put_column(ct_line_text *text, const Clicktower__V1__Column *column) {
    ct_line_text_put(text, "{");
    ct_line_text_member(text, "name");
    ct_line_text_string(text, column->name.data, column->name.len);
    if (column->n_tokens) put_strings(text, column->tokens, column->n_tokens);
    if (column->n_integers) {
        ct_line_text_member(text, "integers");
        ct_line_text_put(text, "[");
        for (size_t i = 0; i < column->n_integers; i++) {
            if (i) ct_line_text_put(text, ",");
            ct_line_text_integer(text, column->integers[i]);
        }
        ct_line_text_put(text, "]");
    }
    if (column->n_numbers) put_floats(text, "numbers", column->numbers, column->n_numbers);
    if (column->n_lengths) {
        ct_line_text_member(text, "lengths");
        ct_line_text_put(text, "[");
        for (size_t i = 0; i < column->n_lengths; i++) {
            if (i) ct_line_text_put(text, ",");
            ct_line_text_integer(text, column->lengths[i]);
        }
        ct_line_text_put(text, "]");
    }
    ct_line_text_put(text, "}");
}

static void put_columns(ct_line_text *text, const char *name, Clicktower__V1__Column *const *columns, size_t count) {
    ct_line_text_member(text, name);
    ct_line_text_put(text, "[");
    for (size_t i = 0; i < count; i++) {
        if (i) ct_line_text_put(text, ",");
        put_column(text, columns[i]);
    }
    ct_line_text_put(text, "]");
}

static void put_member_text(ct_line_text *text, const char *name, const char *value) {
    ct_line_text_member(text, name);
    ct_line_text_string(text, value, strlen(value));
}

static void put_member_integer(ct_line_text *text, const char *name, int64_t value) {
    ct_line_text_member(text, name);
    ct_line_text_integer(text, value);
}

/* One history, from `words`, which need not be aligned; returns where the next one stands. */
static const char *put_keys(ct_line_text *text, const char *name, const char *words) {
    uint64_t head[2], key;
    char hex[24];
    memcpy(head, words, sizeof head);
    put_member_text(text, "name", name);
    (void)snprintf(hex, sizeof hex, "%016" PRIx64, head[0]);
    put_member_text(text, "rule", hex);
    ct_line_text_member(text, "keys");
    ct_line_text_put(text, "[");
    words += sizeof head;
    for (uint64_t i = 0; i < head[1]; i++, words += sizeof key) {
        memcpy(&key, words, sizeof key);
        (void)snprintf(hex, sizeof hex, "%s\"%016" PRIx64 "\"", i ? "," : "", key);
        ct_line_text_put(text, hex);
    }
    ct_line_text_put(text, "]");
    return words;
}

/* What is there of a request that was answered. `names`: of outputs, then of derived columns, then of histories. */
static void put_answer(ct_line_text *text, const record_head *head, const float *values, const char *histories, const char *names,
                       const Clicktower__V1__ScoreRequest *request) {
    const float *derived = values + (size_t)head->rows * head->outputs;
    const char *derived_name = names;
    for (size_t o = 0; o < head->outputs; o++) derived_name += strlen(derived_name) + 1;
    put_columns(text, "context", request->context, request->n_context);
    put_columns(text, "columns", request->candidates, request->n_candidates);
    ct_line_text_member(text, "derived");
    ct_line_text_put(text, "[");
    for (size_t d = 0; d < head->derived; d++) {
        ct_line_text_put(text, d ? ",{" : "{");
        put_member_text(text, "name", derived_name);
        put_floats(text, "numbers", derived, head->derived_counts[d]);
        ct_line_text_put(text, "}");
        derived += head->derived_counts[d];
        derived_name += strlen(derived_name) + 1;
    }
    for (size_t h = 0; h < head->histories; h++, derived_name += strlen(derived_name) + 1) {
        ct_line_text_put(text, h || head->derived ? ",{" : "{");
        histories = put_keys(text, derived_name, histories);
        ct_line_text_put(text, "}");
    }
    ct_line_text_put(text, "]");
    ct_line_text_member(text, "scores");
    ct_line_text_put(text, "{");
    for (size_t o = 0; o < head->outputs; o++, values += head->rows, names += strlen(names) + 1)
        put_floats(text, names, values, head->rows);
    ct_line_text_put(text, "}");
}

/* False where the record could not become a line. */
static bool put_line(ct_exposures *exposures, const char *record) {
    record_head head;
    const char *texts[TEXTS];
    memcpy(&head, record, head_bytes(0));
    memcpy(&head, record, head_bytes(head.derived));
    const float *values = (const float *)(const void *)(record + head_bytes(head.derived));
    size_t floats = (size_t)head.rows * head.outputs;
    for (size_t d = 0; d < head.derived; d++) floats += head.derived_counts[d];
    const char *const histories = (const char *)(values + floats), *names = histories;
    for (size_t h = 0; h < head.histories; h++) {
        uint64_t count;
        memcpy(&count, names + sizeof count, sizeof count);
        names += (2 + count) * sizeof count;
    }
    const uint8_t *request_bytes = (const uint8_t *)names + head.texts_bytes;
    for (size_t i = 0; i < TEXTS; i++) {
        texts[i] = names;
        names += strlen(names) + 1;
    }
    Clicktower__V1__ScoreRequest *request = NULL;
    ct_status status = CT_STATUS_INIT;
    if (ct_request_unpack(&exposures->arena, request_bytes, head.request_bytes, &request, &status) != CT_OK) return false;

    ct_line_text *text = &exposures->text;
    ct_line_text_put(text, "{");
    put_member_integer(text, "time_ms", head.time_ms);
    put_member_text(text, "request_id", texts[0]);
    ct_line_text_member(text, "unit");
    ct_line_text_string(text, request->unit.data, request->unit.len);
    put_member_text(text, "experiment", texts[1]);
    put_member_text(text, "arm", texts[2]);
    put_member_text(text, "assigned", ct_assign_how_name((ct_assign_how)head.how));
    if (texts[3][0] != '\0') put_member_text(text, "fallback_arm", texts[3]);
    put_member_text(text, "model", texts[4]);
    put_member_text(text, "model_version", texts[5]);
    ct_line_text_member(text, "sample_rate");
    ct_line_text_double(text, exposures->sample_rate);
    put_member_integer(text, "latency_us", head.latency_us);
    if (head.code == CT_OK) {
        put_member_integer(text, "candidates", head.rows);
        ct_calibration_expose(exposures->calibration, texts[0], texts[4], texts[2], values, head.rows);
        put_answer(text, &head, values, histories, names, request);
    } else {
        put_member_text(text, "error", ct_rpc_code_name((ct_code)head.code));
    }
    ct_line_text_put(text, "}\n");
    ct_arena_reset(&exposures->arena);
    return !text->failed;
}

static void note_failure(ct_exposures *exposures, const char *message) {
    (void)pthread_mutex_lock(&exposures->lock);
    exposures->failures++;
    (void)snprintf(exposures->last_failure, sizeof exposures->last_failure, "%s", message);
    (void)pthread_mutex_unlock(&exposures->lock);
}

/* Lines of what is in the ring, up to WRITE_BYTES; how many. */
static size_t take_lines(ct_exposures *exposures) {
    size_t lines = 0, bytes = 0;
    const char *record;
    while (exposures->text.bytes < WRITE_BYTES && (record = ct_ring_read(exposures->ring, &bytes))) {
        const size_t before = exposures->text.bytes;
        if (put_line(exposures, record)) {
            lines++;
        } else {
            exposures->text.bytes = before;
            exposures->text.failed = false;
            note_failure(exposures, "out of memory for an exposure"); /* before it is counted: who sees the count finds the reason */
            (void)atomic_fetch_add(&exposures->dropped_unwritable, 1);
        }
        ct_ring_release(exposures->ring);
    }
    return lines;
}

static void write_lines(ct_exposures *exposures, size_t lines) {
    ct_status status = CT_STATUS_INIT;
    const size_t bytes = exposures->text.bytes;
    if (ct_line_files_append(exposures->files, exposures->text.data, bytes, &status) == CT_OK) {
        (void)atomic_fetch_add(&exposures->written, lines);
        (void)atomic_fetch_add(&exposures->written_bytes, bytes);
    } else {
        note_failure(exposures, status.message);
        (void)atomic_fetch_add(&exposures->dropped_unwritable, lines);
    }
    ct_line_text_reset(&exposures->text, KEPT_BYTES);
    if (ct_arena_bytes(&exposures->arena) > KEPT_BYTES) {
        ct_arena_deinit(&exposures->arena);
        ct_arena_init(&exposures->arena, 0);
    }
}

static void *write_exposures(void *argument) {
    ct_exposures *exposures = argument;
    for (;;) {
        const bool stopped = atomic_load(&exposures->stop); /* before the last look into the ring */
        const size_t lines = take_lines(exposures);
        if (lines) write_lines(exposures, lines);
        ct_status status = CT_STATUS_INIT;
        if (ct_line_files_tend(exposures->files, &status) != CT_OK) note_failure(exposures, status.message);
        if (lines) {
            size_t bytes;
            if (!ct_ring_read(exposures->ring, &bytes)) (void)ct_ring_nap(exposures->ring, ct_clock_ns() + NAP_NS);
        } else if (stopped) {
            return NULL;
        } else {
            const int64_t due_ms = ct_line_files_due_ms(exposures->files);
            ct_ring_sleep(exposures->ring, due_ms < 0 ? INT64_MAX : ct_clock_ns() + due_ms * 1000000);
        }
    }
}

/* --- life --- */

static void exposures_free(ct_exposures *exposures) {
    ct_ring_destroy(exposures->ring);
    ct_line_text_deinit(&exposures->text);
    ct_arena_deinit(&exposures->arena);
    (void)pthread_mutex_destroy(&exposures->lock);
    free(exposures);
}

ct_code ct_exposures_open(const ct_exposures_options *options, ct_exposures **out_exposures, ct_status *status) {
    if (!(options->sample_rate > 0.0 && options->sample_rate <= 1.0))
        return ct_fail(status, CT_INVALID, "a sample of %g of the requests: give more than 0, and at most 1", options->sample_rate);
    ct_exposures *exposures = calloc(1, sizeof *exposures);
    if (!exposures) return ct_fail_memory(status, sizeof *exposures, "exposures");
    (void)pthread_mutex_init(&exposures->lock, NULL);
    ct_arena_init(&exposures->arena, 0);
    exposures->sample_rate = options->sample_rate;
    exposures->calibration = options->calibration;
    exposures->sample_below = options->sample_rate >= 1.0 ? UINT64_MAX : (uint64_t)(options->sample_rate * 0x1p64);
    ct_code code = CT_OK;
    if (getrandom(&exposures->id_prefix, sizeof exposures->id_prefix, 0) != (ssize_t)sizeof exposures->id_prefix) {
        code = ct_fail_errno(status, "no random bytes for request ids");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_ring_create(options->buffer_bytes, &exposures->ring, status), fail);
    const ct_line_files_options files = {options->folder, "exposures", options->rotate_bytes, options->rotate_ms};
    CT_TRY_GOTO(code, ct_line_files_open(&files, &exposures->files, status), fail);
    if (!ct_thread_start("ct-exposures", write_exposures, exposures, &exposures->thread)) {
        code = ct_line_files_close(exposures->files, status);
        if (code == CT_OK) code = ct_fail(status, CT_EXHAUSTED, "cannot start the thread that writes exposures");
        goto fail;
    }
    *out_exposures = exposures;
    return CT_OK;
fail:
    exposures_free(exposures);
    return code;
}

ct_code ct_exposures_close(ct_exposures *exposures, ct_exposures_stats *out_stats, ct_status *status) {
    if (!exposures) return CT_OK;
    atomic_store(&exposures->stop, true);
    ct_ring_stop(exposures->ring);
    (void)pthread_join(exposures->thread, NULL);
    const ct_code code = ct_line_files_close(exposures->files, status);
    if (out_stats) ct_exposures_stats_get(exposures, out_stats);
    exposures_free(exposures);
    return code;
}

void ct_exposures_stats_get(ct_exposures *exposures, ct_exposures_stats *out_stats) {
    *out_stats = (ct_exposures_stats){.written = atomic_load(&exposures->written),
                                      .written_bytes = atomic_load(&exposures->written_bytes),
                                      .dropped_full = atomic_load(&exposures->dropped_full),
                                      .dropped_unwritable = atomic_load(&exposures->dropped_unwritable)};
    (void)pthread_mutex_lock(&exposures->lock);
    out_stats->failures = exposures->failures;
    memcpy(out_stats->last_failure, exposures->last_failure, sizeof out_stats->last_failure);
    (void)pthread_mutex_unlock(&exposures->lock);
}

double ct_exposures_sample_rate(const ct_exposures *exposures) { return exposures->sample_rate; }
