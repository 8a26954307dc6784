/* Two windows: one is given out in the order of a permutation, the other one is filled with what comes next. Each batch that goes out lets
 * one come in, so that reading ahead goes on beside training. */
#include "data/shuffle.h"

#include <stdlib.h>

#include "base/random.h"
#include "data/internal.h"

typedef struct slot {
    ct_batch *batch;
    bool held;
} slot;

struct ct_shuffle {
    ct_shuffle_options options;
    ct_batch *given, *filled; /* windows */
    uint32_t *order;          /* (rows of `given`) */
    size_t order_capacity;
    size_t at; /* rows of `given` that went out */
    slot *slots;
    size_t held;
    int64_t rows;
    ct_code end_code; /* CT_OK: more may come; else why there is no more to fill with */
    ct_status end_status;
};

void ct_shuffle_order(uint64_t seed, uint32_t epoch, uint64_t first_row, uint32_t *out_rows, size_t count) {
    for (size_t i = 0; i < count; i++) out_rows[i] = (uint32_t)i;
    for (size_t i = count; i-- > 1;) { /* Fisher and Yates, from the end */
        const uint64_t word = ct_random_u64(seed, CT_PLACE_SHUFFLE, epoch, first_row + i, 0);
        const size_t k = (size_t)((unsigned __int128)word * (i + 1) >> 64);
        const uint32_t row = out_rows[i];
        out_rows[i] = out_rows[k];
        out_rows[k] = row;
    }
}

/* --- life --- */

ct_code ct_shuffle_create(const ct_schema *schema, const ct_shuffle_options *options, ct_shuffle **out_shuffle, ct_status *status) {
    ct_code code = CT_OK;
    ct_shuffle *shuffle = calloc(1, sizeof *shuffle);
    if (!shuffle) return ct_fail_memory(status, sizeof *shuffle, "a shuffle window");
    shuffle->options = *options;
    shuffle->slots = calloc(options->slots, sizeof *shuffle->slots);
    if (!shuffle->slots) {
        code = ct_fail_memory(status, options->slots * sizeof *shuffle->slots, "a shuffle window");
        goto fail;
    }
    CT_TRY_GOTO(code, ct_batch_create(schema, 0, &shuffle->given, status), fail);
    CT_TRY_GOTO(code, ct_batch_create(schema, 0, &shuffle->filled, status), fail);
    for (size_t i = 0; i < options->slots; i++) {
        CT_TRY_GOTO(code, ct_batch_create(schema, options->batch_rows, &shuffle->slots[i].batch, status), fail);
    }
    *out_shuffle = shuffle;
    return CT_OK;
fail:
    ct_shuffle_destroy(shuffle);
    return code;
}

void ct_shuffle_destroy(ct_shuffle *shuffle) {
    if (!shuffle) return;
    ct_batch_destroy(shuffle->given);
    ct_batch_destroy(shuffle->filled);
    for (size_t i = 0; shuffle->slots && i < shuffle->options.slots; i++) ct_batch_destroy(shuffle->slots[i].batch);
    free(shuffle->slots);
    free(shuffle->order);
    free(shuffle);
}

/* --- filling --- */

/* Room for `more` rows: grown by half, so that a short log does not take a window's memory. */
static ct_code reserve(const ct_shuffle *shuffle, ct_batch *window, size_t more, ct_status *status) {
    const size_t wanted = window->rows + more;
    size_t room = window->row_capacity + window->row_capacity / 2;
    if (wanted <= window->row_capacity) return CT_OK;
    if (room > shuffle->options.window_rows) room = shuffle->options.window_rows;
    return ct_batch_reserve_rows(window, room < wanted ? wanted : room, status);
}

/* One batch more into the window that is being filled, if there is one; a failure is kept until what came before it has gone out. */
static void fill(ct_shuffle *shuffle) {
    ct_batch *batch, *window = shuffle->filled;
    if (shuffle->end_code != CT_OK) return;
    shuffle->end_code = shuffle->options.next(shuffle->options.source, &batch, &shuffle->end_status);
    if (shuffle->end_code != CT_OK) return;
    shuffle->end_code = reserve(shuffle, window, batch->rows, &shuffle->end_status);
    if (window->rows == 0) window->oldest_ms = batch->oldest_ms;
    window->newest_ms = batch->newest_ms;
    if (shuffle->end_code == CT_OK) shuffle->end_code = ct_batch_append(window, batch, 0, batch->rows, &shuffle->end_status);
    shuffle->options.release(shuffle->options.source, batch);
}

/* The next window, in its new order; where there is none, why. */
static ct_code turn(ct_shuffle *shuffle, ct_status *status) {
    while (shuffle->end_code == CT_OK && shuffle->filled->rows < shuffle->options.window_rows) fill(shuffle);
    const size_t rows = shuffle->filled->rows;
    if (!rows || (shuffle->end_code != CT_OK && shuffle->end_code != CT_END)) { /* part of a window would be in another order */
        if (shuffle->end_code != CT_END) *status = shuffle->end_status;
        return shuffle->end_code;
    }
    if (rows > shuffle->order_capacity) {
        uint32_t *order = realloc(shuffle->order, rows * sizeof *order);
        if (!order) return ct_fail_memory(status, rows * sizeof *order, "a shuffle window");
        shuffle->order = order;
        shuffle->order_capacity = rows;
    }
    ct_batch *empty = shuffle->given;
    shuffle->given = shuffle->filled;
    shuffle->filled = empty;
    empty->rows = 0;
    shuffle->at = 0;
    ct_shuffle_order(shuffle->options.seed, shuffle->options.epoch, (uint64_t)shuffle->rows, shuffle->order, rows);
    return CT_OK;
}

/* --- giving out --- */

static slot *free_slot(ct_shuffle *shuffle) {
    if (shuffle->held + 1 >= shuffle->options.slots) return NULL;
    for (slot *s = shuffle->slots;; s++) {
        if (!s->held) return s;
    }
}

ct_code ct_shuffle_next(ct_shuffle *shuffle, ct_batch **out_batch, ct_status *status) {
    slot *free = free_slot(shuffle);
    if (!free) return ct_fail(status, CT_INTERNAL, "%zu batches are held and none was released", shuffle->held);
    if (shuffle->at == shuffle->given->rows) CT_TRY(turn(shuffle, status));
    const ct_batch *window = shuffle->given;
    const size_t left = window->rows - shuffle->at, count = left < shuffle->options.batch_rows ? left : shuffle->options.batch_rows;
    CT_TRY(ct_batch_gather(free->batch, window, shuffle->order + shuffle->at, count, status));
    free->batch->first_row = shuffle->rows;
    free->batch->oldest_ms = window->oldest_ms;
    free->batch->newest_ms = window->newest_ms;
    free->batch->tail = window->rows < shuffle->options.window_rows;
    free->held = true;
    shuffle->held++;
    shuffle->at += count;
    shuffle->rows += (int64_t)count;
    if (shuffle->filled->rows < shuffle->options.window_rows) fill(shuffle);
    *out_batch = free->batch;
    return CT_OK;
}

void ct_shuffle_release(ct_shuffle *shuffle, ct_batch *batch) {
    for (size_t i = 0; i < shuffle->options.slots; i++) {
        if (shuffle->slots[i].batch != batch || !shuffle->slots[i].held) continue;
        shuffle->slots[i].held = false;
        shuffle->held--;
    }
}

int64_t ct_shuffle_rows(const ct_shuffle *shuffle) { return shuffle->rows; }
