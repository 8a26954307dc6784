/* Finding rows without changing any, and gather, which reads the values for training and reading alike. */
#include <string.h>

#include "base/math.h"
#include "embedding_store/half.h"
#include "embedding_store/sorted.h"
#include "embedding_store/store_internal.h"

enum { KEYS_AHEAD = 16, STARTS_AHEAD = 32, ROWS_AHEAD = 16 };

#define INLINE static inline __attribute__((always_inline))

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* --- acquire --- */

/* Brings near what the first look-ups read, and what those some way behind number i do. */
INLINE void begin_ahead(const ct_table *table, const uint64_t *keys, size_t count) {
    for (size_t i = 0; i < least(count, STARTS_AHEAD); i++) ct_table_prefetch_start(table, keys[i]);
    for (size_t i = 0; i < least(count, KEYS_AHEAD); i++) ct_table_prefetch_keys(table, keys[i]);
}
INLINE void look_ahead(const ct_table *table, const uint64_t *keys, size_t count, size_t i) {
    if (i + STARTS_AHEAD < count) ct_table_prefetch_start(table, keys[i + STARTS_AHEAD]);
    if (i + KEYS_AHEAD < count) ct_table_prefetch_keys(table, keys[i + KEYS_AHEAD]);
}

/* Where the values of `count` keys are, and their target statistics, which a key without a row has as well; returns how many have no row.
 */
static size_t resolve_counted(const ct_table *table, const uint64_t *keys, size_t count, const float *instead, const float **out,
                              ct_seen *out_seen) {
    size_t unknown = 0;
    begin_ahead(table, keys, count);
    for (size_t i = 0; i < count; i++) {
        look_ahead(table, keys, count, i);
        const ct_partition *partition = &table->partitions[ct_partition_of(keys[i], table->partition_bits)];
        const ct_found found = ct_partition_look(partition, keys[i], 0);
        const bool has_row = found.slot != CT_SLOT_EMPTY && found.slot != CT_SLOT_STUB;
        unknown += !has_row;
        out[i] = has_row ? ct_slab_at(&partition->values, found.slot - 1) : instead;
        ct_prefetch(out[i]);
        out_seen[i] = found.counts ? ct_counts_in_epoch(found.counts, table->counted_epoch) : (ct_seen){0, 0};
    }
    return unknown;
}

/* Where the values of `count` keys are; returns how many have no row. */
static size_t resolve_values(const ct_table *table, const uint64_t *keys, size_t count, const float *instead, const float **out) {
    size_t unknown = 0;
    begin_ahead(table, keys, count);
    for (size_t i = 0; i < count; i++) {
        look_ahead(table, keys, count, i);
        const float *values = ct_table_values(table, keys[i]);
        unknown += !values;
        out[i] = values ? values : instead;
        ct_prefetch(out[i]);
    }
    return unknown;
}

/* The same in a view (following.h): an overlay is asked first, and what has expired since the base is still there. */
static size_t resolve_over(const ct_ticket *ticket, const uint64_t *keys, size_t at, size_t count, const float *instead) {
    const ct_table *table = ticket->table;
    size_t unknown = 0;
    begin_ahead(table, keys, count);
    for (size_t i = 0; i < count; i++) {
        const float *values = NULL;
        ct_seen seen = {0, 0};
        if (ticket->overlay && i + KEYS_AHEAD < count) ct_table_prefetch(ticket->overlay, keys[i + KEYS_AHEAD]);
        look_ahead(table, keys, count, i);
        if (!ticket->overlay || !ct_overlay_find(ticket->overlay, keys[i], &values, &seen)) {
            const ct_partition *partition = &table->partitions[ct_partition_of(keys[i], table->partition_bits)];
            const ct_found found = ct_partition_look(partition, keys[i], table->oldest_day);
            if (found.slot != CT_SLOT_EMPTY && found.slot != CT_SLOT_STUB) values = ct_slab_at(&partition->values, found.slot - 1);
            if (found.counts && ticket->seen) seen = ct_counts_in_epoch(found.counts, table->counted_epoch);
        }
        unknown += !values;
        ticket->tokens[at + i] = values ? values : instead;
        ct_prefetch(ticket->tokens[at + i]);
        if (ticket->seen) ticket->seen[at + i] = seen;
    }
    return unknown;
}

/* Occurrences [at, at + count) of the ticket. */
static size_t resolve(const ct_ticket *ticket, const uint64_t *keys, size_t at, size_t count, const float *instead) {
    if (ticket->overlay || (ticket->table->spec.expire_days && ticket->store->view)) return resolve_over(ticket, keys, at, count, instead);
    if (ticket->seen) return resolve_counted(ticket->table, keys, count, instead, &ticket->tokens[at], &ticket->seen[at]);
    return resolve_values(ticket->table, keys, count, instead, &ticket->tokens[at]);
}

static const float *rare_values(const ct_ticket *ticket, const ct_key_column *column) {
    const ct_table *table = ticket->table;
    const float *values = NULL;
    ct_seen seen;
    if (column->rare_key && !(ticket->overlay && ct_overlay_find(ticket->overlay, column->rare_key, &values, &seen)))
        values = ct_table_values(table, column->rare_key);
    return values ? values : table->zeros;
}

static size_t resolve_block(const ct_ticket *ticket, size_t block) {
    const ct_lookup *lookup = &ticket->lookup;
    const uint32_t *starts = &ticket->starts[block * lookup->column_count];
    const size_t first = block * ticket->block_rows;
    size_t unknown = 0;
    for (size_t i = 0; i < lookup->column_count; i++) {
        const ct_key_column *column = &lookup->columns[i];
        if (column->shared) continue;
        const uint64_t *keys = column->keys + (column->offsets ? column->offsets[first] : first);
        unknown += resolve(ticket, keys, starts[i], starts[i + 1] - starts[i], rare_values(ticket, column));
    }
    return unknown;
}

static void count(const ct_ticket *ticket, size_t found, size_t unknown) {
    atomic_fetch_add_explicit(&ticket->table->lookups, (int64_t)found, memory_order_relaxed);
    atomic_fetch_add_explicit(&ticket->table->unknown, (int64_t)unknown, memory_order_relaxed);
}

static void block_task(void *context, size_t task, size_t worker) {
    (void)worker;
    const ct_ticket *ticket = context;
    const uint32_t *starts = &ticket->starts[task * ticket->lookup.column_count];
    const size_t unknown = resolve_block(ticket, task);
    count(ticket, starts[ticket->lookup.column_count] - starts[0] - unknown, unknown);
}

void ct_read_acquire(ct_ticket *ticket) {
    const ct_lookup *lookup = &ticket->lookup;
    if (lookup->mode == CT_LOOKUP_TRAIN) { /* a frozen table in a training step */
        ct_run(ticket->store->pool, ticket->blocks, block_task, ticket);
        return;
    }
    size_t unknown = 0;
    for (size_t block = 0; block < ticket->blocks; block++) unknown += resolve_block(ticket, block);
    for (size_t i = 0; i < lookup->column_count; i++) {
        const ct_key_column *column = &lookup->columns[i];
        if (!column->shared) continue;
        const size_t count = column->offsets ? column->offsets[1] : 1;
        unknown += resolve(ticket, column->keys, ticket->shared_start[i], count, rare_values(ticket, column));
    }
    count(ticket, ticket->occurrences + ticket->shared_occurrences - unknown, unknown);
}

/* --- gather --- */

/* Rows of one block, every column with one key a row: row by row, so that the output is written in order. */
INLINE void copy_rows(const float *const *tokens, const uint32_t *starts, const ct_key_column *columns, size_t column_count, size_t rows,
                      float *out, size_t stride, size_t dim) {
    const size_t ahead = column_count < ROWS_AHEAD ? ROWS_AHEAD / column_count : 1;
    for (size_t row = 0; row < ahead && row < rows; row++)
        for (size_t i = 0; i < column_count; i++) ct_prefetch(tokens[starts[i] + row]);
    for (size_t row = 0; row < rows; row++, out += stride) {
        for (size_t i = 0; i < column_count; i++) {
            const float *const *at = &tokens[starts[i] + row];
            ct_prefetch(at[ahead]); /* of the last rows: of another column, or of the slack: harmless */
            memcpy(out + columns[i].output_column, at[0], dim * sizeof(float));
        }
    }
}

static void gather_plain(const ct_ticket *ticket, const float *const *tokens, const uint32_t *starts, size_t rows, float *out,
                         size_t stride) {
    const ct_key_column *columns = ticket->lookup.columns;
    const size_t count = ticket->lookup.column_count, dim = ticket->table->spec.dim;
    switch (dim) {
        case 1:
            copy_rows(tokens, starts, columns, count, rows, out, stride, 1);
            break;
        case 4:
            copy_rows(tokens, starts, columns, count, rows, out, stride, 4);
            break;
        case 8:
            copy_rows(tokens, starts, columns, count, rows, out, stride, 8);
            break;
        case 16:
            copy_rows(tokens, starts, columns, count, rows, out, stride, 16);
            break;
        case 32:
            copy_rows(tokens, starts, columns, count, rows, out, stride, 32);
            break;
        default:
            copy_rows(tokens, starts, columns, count, rows, out, stride, dim);
            break;
    }
}

CT_HOT static void copy_halves(const float *token, float *restrict out, size_t dim) {
    const uint16_t *restrict values = (const uint16_t *)(const void *)token;
    for (size_t i = 0; i < dim; i++) out[i] = ct_half_to_float(values[i]);
}

/* One row of one column with one key a row. */
static void copy_values(const ct_table_spec *spec, const float *token, float *out) {
    if (spec->precision == CT_ROW_FP16)
        copy_halves(token, out, spec->dim);
    else
        memcpy(out, token, spec->dim * sizeof(float));
}

/* One row of one column: ((0 + w_1 v_1) + w_2 v_2) + ...; a mean is divided by ((0 + w_1) + w_2) + ... */
INLINE void pool(const float *const *tokens, const float *weights, size_t count, ct_pooling pooling, float *restrict out, size_t dim,
                 bool half) {
    memset(out, 0, dim * sizeof(float));
    float sum = 0.0f;
    for (size_t j = 0; j < count; j++) {
        const float weight = weights ? weights[j] : 1.0f;
        const float *restrict values = tokens[j];
        const uint16_t *restrict halves = (const uint16_t *)(const void *)tokens[j];
        sum += weight;
        for (size_t i = 0; i < dim; i++) out[i] += weight * (half ? ct_half_to_float(halves[i]) : values[i]);
    }
    if (pooling == CT_POOL_SUM || count == 0) return;
    if (sum == 0.0f)
        memset(out, 0, dim * sizeof(float));
    else
        for (size_t i = 0; i < dim; i++) out[i] /= sum;
}

CT_HOT static void pool_floats(const float *const *tokens, const float *weights, size_t count, ct_pooling pooling, float *restrict out,
                               size_t dim) {
    pool(tokens, weights, count, pooling, out, dim, false);
}

CT_HOT static void pool_halves(const float *const *tokens, const float *weights, size_t count, ct_pooling pooling, float *restrict out,
                               size_t dim) {
    pool(tokens, weights, count, pooling, out, dim, true);
}

static void pool_values(const ct_table_spec *spec, const float *const *tokens, const float *weights, size_t count, ct_pooling pooling,
                        float *out) {
    (spec->precision == CT_ROW_FP16 ? pool_halves : pool_floats)(tokens, weights, count, pooling, out, spec->dim);
}

/* Rows [first, first + rows) of one block, of one column. */
static void gather_column(const ct_ticket *ticket, const ct_key_column *column, size_t start, size_t block_first, size_t first, size_t rows,
                          float *out, size_t stride) {
    const float *const *tokens = ticket->tokens;
    const ct_table_spec *spec = &ticket->table->spec;
    const uint32_t *offsets = column->offsets;
    for (size_t row = first; row < first + rows; row++, out += stride) {
        const size_t value = offsets ? offsets[row] : row, end = offsets ? offsets[row + 1] : row + 1;
        const float *const *at = &tokens[start + value - (offsets ? offsets[block_first] : block_first)];
        ct_prefetch(at[ROWS_AHEAD]);
        if (!offsets && !column->weights)
            copy_values(spec, at[0], out + column->output_column);
        else
            pool_values(spec, at, column->weights ? column->weights + value : NULL, end - value, column->pooling,
                        out + column->output_column);
    }
}

static void gather_shared(const ct_ticket *ticket, size_t number, size_t rows, float *out, size_t stride) {
    const ct_key_column *column = &ticket->lookup.columns[number];
    const size_t dim = ticket->table->spec.dim;
    float *first = out + column->output_column;
    const float *const *at = &ticket->tokens[ticket->shared_start[number]];
    if (!column->offsets && !column->weights)
        copy_values(&ticket->table->spec, at[0], first);
    else
        pool_values(&ticket->table->spec, at, column->weights, column->offsets ? column->offsets[1] : 1, column->pooling, first);
    for (size_t row = 1; row < rows; row++) memcpy(first + row * stride, first, dim * sizeof(float));
}

void ct_store_gather(const ct_store *store, const ct_ticket *ticket, size_t first_row, size_t rows, bool shared_once, float *out,
                     size_t out_stride) {
    (void)store;
    const ct_lookup *lookup = &ticket->lookup;
    const size_t columns = lookup->column_count;
    if (!columns || !rows) return;
    for (size_t i = 0; !ticket->plain && i < columns; i++) {
        if (!lookup->columns[i].shared || lookup->columns[i].pooling == CT_POOL_ATTENTION) continue;
        if (!shared_once)
            gather_shared(ticket, i, rows, out, out_stride);
        else if (first_row == 0)
            gather_shared(ticket, i, 1, out, out_stride);
    }
    for (size_t row = first_row; row < first_row + rows;) {
        const size_t block = row / ticket->block_rows, block_first = block * ticket->block_rows;
        size_t end = block_first + ticket->block_rows;
        if (end > first_row + rows) end = first_row + rows;
        const uint32_t *starts = &ticket->starts[block * columns];
        float *to = out + (row - first_row) * out_stride;
        if (ticket->plain && ticket->table->spec.precision == CT_ROW_FP32) {
            gather_plain(ticket, ticket->tokens + (row - block_first), starts, end - row, to, out_stride);
        } else {
            for (size_t i = 0; i < columns; i++) {
                const ct_key_column *column = &lookup->columns[i];
                if (column->pooling == CT_POOL_ATTENTION)
                    ct_attend(ticket, i, row, end - row, to, out_stride);
                else if (!column->shared)
                    gather_column(ticket, column, starts[i], block_first, row, end - row, to, out_stride);
            }
        }
        row = end;
    }
}
