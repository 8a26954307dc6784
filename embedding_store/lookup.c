/* Tickets, and the calls of the face that use them: what is asked is checked and numbered here, then done by lookup_train.c or
 * lookup_read.c. */
#include <stdlib.h>
#include <string.h>

#include "embedding_store/tier.h"

enum { TOKEN_SLACK = 64 /* gather prefetches past the end */, MAX_OCCURRENCES = 1 << 30 };

void ct_run(ct_pool *pool, size_t tasks, ct_task_fn function, void *context) {
    if (pool) {
        ct_pool_run(pool, tasks, function, context);
    } else {
        for (size_t i = 0; i < tasks; i++) function(context, i, 0);
    }
}

void ct_failure_put(ct_failure *failure, const ct_status *status) {
    if (!atomic_exchange(&failure->set, true)) *failure->status = *status;
}

ct_code ct_scratch_reserve(ct_scratch *scratch, size_t bytes, ct_status *status) {
    if (scratch->memory && bytes <= scratch->bytes) return CT_OK;
    const size_t wanted = (bytes + bytes / 4) / 4096 * 4096 + 4096;
    void *memory = aligned_alloc(64, wanted);
    if (!memory) return ct_fail_memory(status, wanted, "a batch's scratch memory");
    memset(memory, 0, wanted);
    free(scratch->memory);
    scratch->memory = memory;
    scratch->bytes = wanted;
    return CT_OK;
}

ct_code ct_ticket_create(ct_store *store, ct_ticket **out_ticket, ct_status *status) {
    ct_ticket *ticket = calloc(1, sizeof *ticket);
    if (!ticket) return ct_fail_memory(status, sizeof *ticket, "a ticket");
    ticket->store = store;
    ticket->dedupe_count = store->pool ? ct_pool_threads(store->pool) : 1;
    ticket->dedupes = calloc(ticket->dedupe_count, sizeof *ticket->dedupes);
    if (!ticket->dedupes) {
        free(ticket);
        return ct_fail_memory(status, sizeof *ticket->dedupes, "a ticket");
    }
    if (store->tier) ct_tier_count_ticket(store->tier, 1);
    *out_ticket = ticket;
    return CT_OK;
}

void ct_ticket_destroy(ct_ticket *ticket) {
    if (!ticket) return;
    if (ticket->store->tier) ct_tier_count_ticket(ticket->store->tier, -1);
    ct_tier_ticket_destroy(ticket->tier);
    for (size_t i = 0; i < ticket->dedupe_count; i++) free(ticket->dedupes[i].scratch.memory);
    for (size_t i = 0; i < sizeof ticket->scratch / sizeof *ticket->scratch; i++) free(ticket->scratch[i].memory);
    free(ticket->dedupes);
    free(ticket);
}

static ct_code check_attention(const ct_lookup *lookup, size_t number, uint32_t dim, ct_status *status) {
    const ct_key_column *column = &lookup->columns[number];
    const ct_key_column *query = column->query < lookup->column_count ? &lookup->columns[column->query] : NULL;
    if (!column->offsets || column->weights)
        return ct_fail(status, CT_INVALID, "lookup: column %zu attends without offsets, or has weights", number);
    if (!query || query->offsets || query->weights)
        return ct_fail(status, CT_INVALID, "lookup: the query of column %zu is no column of one key a row", number);
    if (column->compared == 0 || column->compared > dim)
        return ct_fail(status, CT_INVALID, "lookup: column %zu compares %u of %u floats", number, column->compared, dim);
    for (size_t i = 0; i < (column->shared ? 1 : lookup->rows); i++)
        if (column->offsets[i + 1] - column->offsets[i] > CT_ATTENTION_MAX_VALUES)
            return ct_fail(status, CT_INVALID, "lookup: column %zu, row %zu: %u keys to attend to; at most %d", number, i,
                           column->offsets[i + 1] - column->offsets[i], CT_ATTENTION_MAX_VALUES);
    return CT_OK;
}

static ct_code check_column(const ct_lookup *lookup, size_t number, ct_status *status) {
    const ct_key_column *column = &lookup->columns[number];
    const size_t rows = column->shared ? 1 : lookup->rows;
    if (column->shared && lookup->mode == CT_LOOKUP_TRAIN)
        return ct_fail(status, CT_INVALID, "lookup: column %zu is shared; training rows bring their own keys", number);
    size_t values = rows;
    if (column->offsets) {
        bool bad = column->shared && column->offsets[0] != 0; /* a part of a batch begins where its first row does */
        for (size_t i = 0; i < rows; i++) bad |= column->offsets[i + 1] < column->offsets[i];
        if (bad) return ct_fail(status, CT_INVALID, "lookup: the offsets of column %zu do not rise", number);
        values = column->offsets[rows];
    }
    if (values && !column->keys) return ct_fail(status, CT_INVALID, "lookup: column %zu has no keys", number);
    if (values > MAX_OCCURRENCES) return ct_fail(status, CT_EXHAUSTED, "lookup: column %zu has %zu keys", number, values);
    return CT_OK;
}

static ct_code check(const ct_store *store, const ct_lookup *lookup, ct_status *status) {
    if (lookup->table >= store->table_count)
        return ct_fail(status, CT_INVALID, "lookup: table %zu of %zu", lookup->table, store->table_count);
    if (store->mode == CT_STORE_LOOK) return ct_fail(status, CT_INVALID, "lookup: the store was opened without its rows");
    if (lookup->rows > MAX_OCCURRENCES) return ct_fail(status, CT_EXHAUSTED, "lookup: %zu rows in a batch", lookup->rows);
    if (lookup->column_count >= CT_OCCURRENCE_DROPPED) return ct_fail(status, CT_EXHAUSTED, "lookup: %zu columns", lookup->column_count);
    if (lookup->mode == CT_LOOKUP_TRAIN) {
        if (store->mode != CT_STORE_TRAIN) return ct_fail(status, CT_INVALID, "lookup: the store was opened for reading, not for training");
        if (lookup->block_rows == 0 || lookup->block_rows > MAX_OCCURRENCES)
            return ct_fail(status, CT_INVALID, "lookup: blocks of %zu rows", lookup->block_rows);
        if (!(lookup->drop_rate >= 0.0 && lookup->drop_rate <= 1.0))
            return ct_fail(status, CT_INVALID, "lookup: a drop rate of %g; 0 to 1 is possible", lookup->drop_rate);
    }
    for (size_t i = 0; i < lookup->column_count; i++) CT_TRY(check_column(lookup, i, status));
    for (size_t i = 0; i < lookup->column_count; i++)
        if (lookup->columns[i].pooling == CT_POOL_ATTENTION)
            CT_TRY(check_attention(lookup, i, store->tables[lookup->table].spec.dim, status));
    return CT_OK;
}

/* Numbers the occurrences. */
static ct_code number(ct_ticket *ticket, ct_status *status) {
    const ct_lookup *lookup = &ticket->lookup;
    const size_t columns = lookup->column_count;
    size_t total = 0;
    uint32_t *start = ticket->starts;
    for (size_t block = 0; block < ticket->blocks; block++) {
        const size_t first = block * ticket->block_rows;
        const size_t end = lookup->rows - first < ticket->block_rows ? lookup->rows : first + ticket->block_rows;
        for (size_t i = 0; i < columns; i++) {
            const ct_key_column *column = &lookup->columns[i];
            *start++ = (uint32_t)total;
            if (column->shared) continue;
            total += column->offsets ? column->offsets[end] - column->offsets[first] : end - first;
            if (total > MAX_OCCURRENCES) return ct_fail(status, CT_EXHAUSTED, "lookup: more than %d keys in a batch", MAX_OCCURRENCES);
        }
    }
    *start = (uint32_t)total;
    ticket->occurrences = total;
    ticket->shared_occurrences = 0;
    for (size_t i = 0; i < columns; i++) {
        const ct_key_column *column = &lookup->columns[i];
        if (!column->shared) continue;
        ticket->shared_start[i] = total + ticket->shared_occurrences;
        ticket->shared_occurrences += column->offsets ? column->offsets[1] : 1;
    }
    if (total + ticket->shared_occurrences > MAX_OCCURRENCES)
        return ct_fail(status, CT_EXHAUSTED, "lookup: more than %d keys in a batch", MAX_OCCURRENCES);
    return CT_OK;
}

/* The columns' distinct rare keys: one for each group of features that shares rows. */
static void find_rare_keys(ct_ticket *ticket) {
    const ct_lookup *lookup = &ticket->lookup;
    const size_t columns = lookup->column_count;
    ticket->rare_count = 0;
    for (size_t i = 0; i < columns; i++) {
        const uint64_t key = lookup->columns[i].rare_key;
        ticket->output_column[i] = lookup->columns[i].output_column;
        ticket->rare_of[i] = CT_NO_ROW;
        if (!key) continue;
        size_t at = 0;
        while (at < ticket->rare_count && ticket->rare_keys[at] != key) at++;
        if (at == ticket->rare_count) ticket->rare_keys[ticket->rare_count++] = key;
        ticket->rare_of[i] = (uint32_t)at;
    }
}

#define RESERVE(pointer, number, count)                                                                  \
    do {                                                                                                 \
        CT_TRY(ct_scratch_reserve(&ticket->scratch[number], (count) * sizeof *ticket->pointer, status)); \
        ticket->pointer = ticket->scratch[number].memory;                                                \
    } while (0)

static ct_code reserve_attention(ct_ticket *ticket, ct_status *status) {
    const ct_lookup *lookup = &ticket->lookup;
    uint32_t attending = 0;
    RESERVE(attended, 26, lookup->column_count);
    for (size_t i = 0; i < lookup->column_count; i++)
        ticket->attended[i] = lookup->columns[i].pooling == CT_POOL_ATTENTION ? ++attending : 0;
    ticket->query_stride = ticket->table->spec.dim;
    RESERVE(slopes, 24, ticket->occurrences);
    RESERVE(queries, 25, attending * lookup->rows * ticket->query_stride);
    return CT_OK;
}

ct_code ct_lookup_plan(ct_store *store, ct_ticket *ticket, const ct_lookup *lookup, ct_status *status) {
    CT_TRY(check(store, lookup, status));
    const size_t columns = lookup->column_count;
    ticket->lookup = *lookup;
    ticket->table = &store->tables[lookup->table];
    ticket->training = lookup->mode == CT_LOOKUP_TRAIN && ticket->table->spec.kind == CT_TABLE_TRAINED;
    ticket->block_rows = lookup->mode == CT_LOOKUP_TRAIN ? lookup->block_rows : lookup->rows;
    ticket->blocks = lookup->rows ? (lookup->rows + ticket->block_rows - 1) / ticket->block_rows : 0;
    ticket->plain = true;
    ticket->weighted = ticket->attends = false;
    for (size_t i = 0; i < columns; i++) {
        const ct_key_column *column = &lookup->columns[i];
        if (column->offsets || column->weights || column->shared) ticket->plain = false;
        if (column->weights || (column->offsets && column->pooling != CT_POOL_SUM)) ticket->weighted = true;
        if (column->pooling == CT_POOL_ATTENTION) ticket->attends = true;
    }
    RESERVE(starts, 0, ticket->blocks * columns + 1);
    RESERVE(shared_start, 1, columns);
    CT_TRY(number(ticket, status));
    RESERVE(tokens, 2, ticket->occurrences + ticket->shared_occurrences + TOKEN_SLACK);
    ticket->seen = NULL;
    if (ticket->table->spec.target_stats) RESERVE(seen, 21, ticket->occurrences + ticket->shared_occurrences);
    if (!ticket->training) return CT_OK;

    const size_t n = ticket->occurrences, parts = ticket->table->partition_count;
    RESERVE(output_column, 3, columns);
    RESERVE(rare_of, 4, columns);
    RESERVE(rare_keys, 5, columns);
    find_rare_keys(ticket);
    ticket->dropped = lookup->drop_rate > 0.0 && ticket->rare_count > 0;
    if (ticket->weighted) RESERVE(factors, 6, n);
    RESERVE(sorted_keys, 7, n);
    RESERVE(sorted, 8, n);
    RESERVE(segments, 9, ticket->blocks * (parts + 1));
    RESERVE(bases, 10, parts + 1);
    RESERVE(unique_counts, 11, parts);
    RESERVE(uniques, 12, n);
    RESERVE(unique_of, 13, n);
    RESERVE(list, 14, n);
    RESERVE(rerouted, 15, parts);
    RESERVE(rare_uniques, 16, ticket->rare_count);
    RESERVE(rare_list, 17, n);
    RESERVE(rare_cursors, 18, ticket->blocks * ticket->rare_count);
    RESERVE(open, 19, n);
    RESERVE(open_counts, 20, ticket->blocks);
    if (ticket->seen) {
        RESERVE(noted, 22, n);
        RESERVE(noted_bits, 23, parts);
    }
    return ticket->attends ? reserve_attention(ticket, status) : CT_OK;
}

size_t ct_store_rows_at_once(const ct_store *store, const ct_lookup *lookup) {
    return store->tier ? ct_tier_rows_at_once(store->tier, lookup) : lookup->rows;
}

ct_code ct_store_prefetch(ct_store *store, ct_ticket *ticket, const ct_lookup *lookup, ct_status *status) {
    if (ticket->stage != CT_TICKET_FREE) return ct_fail(status, CT_INVALID, "prefetch: the ticket was not released");
    CT_TRY(ct_lookup_plan(store, ticket, lookup, status));
    if (ticket->training) CT_TRY(ct_train_prefetch(ticket, status));
    if (ticket->training && store->tier) CT_TRY(ct_tier_plan(store->tier, ticket, status));
    ticket->stage = CT_TICKET_PREFETCHED;
    return CT_OK;
}

ct_code ct_store_acquire(ct_store *store, ct_ticket *ticket, ct_status *status) {
    if (ticket->stage != CT_TICKET_PREFETCHED) return ct_fail(status, CT_INVALID, "acquire: the ticket was not prefetched");
    const bool outside = ticket->table->outside_rows + ticket->table->outside_stubs > 0 || (store->view && store->tier);
    if (!ticket->training) {
        const ct_store *overlay = atomic_load_explicit(&store->overlay, memory_order_acquire);
        ticket->overlay = overlay && ticket->table->spec.kind == CT_TABLE_TRAINED ? &overlay->tables[ticket->lookup.table] : NULL;
        if (outside)
            CT_TRY(ct_tier_read(store->tier, ticket, status));
        else
            ct_read_acquire(ticket);
    } else {
        if (ticket->table->spec.expire_days) CT_TRY(ct_expire(store, ticket->table, ticket->lookup.day, status));
        if (store->tier) CT_TRY(ct_tier_admit(store->tier, ticket, status));
        CT_TRY(ct_train_acquire(ticket, status));
        if (store->tier) ct_tier_acquired(store->tier, ticket);
    }
    ticket->stage = CT_TICKET_ACQUIRED;
    return CT_OK;
}

ct_code ct_store_apply(ct_store *store, ct_ticket *ticket, const float *gradients, size_t stride, const float *labels, ct_status *status) {
    if (ticket->lookup.mode != CT_LOOKUP_TRAIN) return ct_fail(status, CT_INVALID, "apply: the lookup was made for reading");
    if (ticket->stage != CT_TICKET_ACQUIRED) return ct_fail(status, CT_INVALID, "apply: the ticket was not acquired, or applied twice");
    if (ticket->training) CT_TRY(ct_train_apply(ticket, gradients, stride, labels, status));
    if (store->tier) ct_tier_applied(store->tier, ticket);
    ticket->stage = CT_TICKET_APPLIED;
    return CT_OK;
}

void ct_store_release(ct_store *store, ct_ticket *ticket) {
    if (store->tier) ct_tier_applied(store->tier, ticket);
    ticket->stage = CT_TICKET_FREE;
}
