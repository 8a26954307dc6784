#include "embedding_store/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/pause.h"
#include "base/random.h"
#include "embedding_store/half.h"
#include "embedding_store/optimiser.h"

enum { FIRST_INDEX_BITS = 4, FIRST_ROWS = 16, HUGE_BYTES = 2 << 20, MAX_CHUNK_BYTES = 16 << 20 };

ct_code ct_table_allocate(const ct_table *table, size_t bytes, void **out_memory, ct_status *status) {
    return table->device->ops->memory_alloc(table->device, CT_MEMORY_DEVICE, bytes, out_memory, status);
}

void ct_table_release(const ct_table *table, void *memory, size_t bytes) {
    table->device->ops->memory_free(table->device, CT_MEMORY_DEVICE, memory, bytes);
}

/* --- slabs --- */

static void slab_init(ct_slab *slab, uint32_t floats) {
    slab->floats = floats;
    if (!floats) return;
    const size_t record = floats * sizeof(float);
    while (record << slab->shift < HUGE_BYTES) slab->shift++;
    while ((record << slab->shift) % HUGE_BYTES && record << slab->shift < MAX_CHUNK_BYTES) slab->shift++; /* waste no huge page */
}

static size_t slab_chunk_bytes(const ct_slab *slab, size_t chunk) {
    return (chunk + 1 < slab->chunk_count ? (size_t)1 << slab->shift : slab->last_rows) * slab->floats * sizeof(float);
}

static void slab_deinit(ct_slab *slab, const ct_table *table) {
    for (size_t i = 0; i < slab->chunk_count; i++) ct_table_release(table, slab->chunks[i], slab_chunk_bytes(slab, i));
    free(slab->chunks);
    slab->chunks = NULL;
}

static ct_code retire(ct_retired *retired, void *memory, size_t bytes, ct_status *status) {
    if (retired->count == retired->capacity) {
        const size_t capacity = retired->capacity ? 2 * retired->capacity : 16;
        void *items = realloc(retired->items, capacity * sizeof *retired->items);
        if (!items) return ct_fail_memory(status, capacity * sizeof *retired->items, "memory to be given back");
        retired->items = items;
        retired->capacity = capacity;
    }
    retired->items[retired->count].memory = memory;
    retired->items[retired->count++].bytes = bytes;
    return CT_OK;
}

void ct_retired_release(ct_retired *retired, const ct_table *table) {
    for (size_t i = 0; i < retired->count; i++) {
        if (retired->items[i].bytes)
            ct_table_release(table, retired->items[i].memory, retired->items[i].bytes);
        else
            free(retired->items[i].memory);
    }
    free(retired->items);
    *retired = (ct_retired){0};
}

/* The list of chunks may be read by others: another one takes its place. */
static ct_code slab_list_aside(ct_slab *slab, ct_retired *retired, ct_status *status) {
    if (!slab->chunks) return CT_OK;
    float **chunks = malloc(slab->chunk_capacity * sizeof *chunks);
    if (!chunks) return ct_fail_memory(status, slab->chunk_capacity * sizeof *chunks, "a table's chunks");
    memcpy(chunks, slab->chunks, slab->chunk_count * sizeof *chunks);
    const ct_code code = retire(retired, slab->chunks, 0, status);
    if (code == CT_OK)
        slab->chunks = chunks;
    else
        free(chunks);
    return code;
}

/* How many rows the last chunk is to have, where `before` rows are in front of it and it has `now`. A first one is as large as it must be.
 */
static size_t chunk_rows(const ct_slab *slab, size_t before, size_t now, size_t rows, size_t most_rows) {
    const size_t full = (size_t)1 << slab->shift;
    if (rows <= most_rows && most_rows - before < full) return most_rows - before; /* all that it will ever need: nothing is copied */
    if (before) return full;
    size_t wanted = now ? now * 2 : FIRST_ROWS;
    while (wanted < rows && wanted < full) wanted *= 2;
    return wanted < full ? wanted : full;
}

/* Another last chunk takes its place. retired: NULL = nobody else reads it. */
static ct_code chunk_replace(ct_slab *slab, const ct_table *table, size_t rows, uint64_t *bytes, ct_retired *retired, ct_status *status) {
    const size_t record = slab->floats * sizeof(float), kept = rows < slab->last_rows ? rows : slab->last_rows;
    float **last = &slab->chunks[slab->chunk_count - 1];
    void *memory;
    CT_TRY(ct_table_allocate(table, rows * record, &memory, status));
    memcpy(memory, *last, kept * record);
    if (retired) {
        const ct_code code = retire(retired, *last, slab->last_rows * record, status);
        if (code != CT_OK) {
            ct_table_release(table, memory, rows * record);
            return code;
        }
    } else {
        ct_table_release(table, *last, slab->last_rows * record);
    }
    *last = memory;
    *bytes = *bytes + rows * record - slab->last_rows * record;
    slab->capacity_rows = slab->capacity_rows + rows - slab->last_rows;
    slab->last_rows = rows;
    return CT_OK;
}

static ct_code chunk_add(ct_slab *slab, const ct_table *table, size_t rows, uint64_t *bytes, ct_status *status) {
    const size_t record = slab->floats * sizeof(float);
    if (slab->chunk_count == slab->chunk_capacity) {
        const uint32_t capacity = slab->chunk_capacity ? slab->chunk_capacity * 2 : 1;
        float **chunks = realloc(slab->chunks, capacity * sizeof *chunks);
        if (!chunks) return ct_fail_memory(status, capacity * sizeof *chunks, "a table's chunks");
        slab->chunks = chunks;
        slab->chunk_capacity = capacity;
    }
    void *memory;
    CT_TRY(ct_table_allocate(table, rows * record, &memory, status));
    slab->chunks[slab->chunk_count++] = memory;
    *bytes += rows * record;
    slab->capacity_rows += rows;
    slab->last_rows = rows;
    return CT_OK;
}

/* Room for rows [0, rows). retired: NULL = nobody else reads it. */
static ct_code slab_reserve(ct_slab *slab, const ct_table *table, size_t rows, size_t most_rows, uint64_t *bytes, ct_retired *retired,
                            ct_status *status) {
    if (!slab->floats || slab->capacity_rows >= rows) return CT_OK;
    const size_t full = (size_t)1 << slab->shift;
    if (retired) CT_TRY(slab_list_aside(slab, retired, status));
    while (slab->capacity_rows < rows) {
        if (slab->chunk_count && slab->last_rows < full) {
            const size_t wanted = chunk_rows(slab, slab->capacity_rows - slab->last_rows, slab->last_rows, rows, most_rows);
            CT_TRY(chunk_replace(slab, table, wanted, bytes, retired, status));
        } else {
            CT_TRY(chunk_add(slab, table, chunk_rows(slab, slab->capacity_rows, 0, rows, most_rows), bytes, status));
        }
    }
    return CT_OK;
}

/* No more than `rows` rows' memory. */
static ct_code slab_trim(ct_slab *slab, const ct_table *table, size_t rows, uint64_t *bytes, ct_status *status) {
    while (slab->chunk_count && slab->capacity_rows - slab->last_rows >= rows) {
        const size_t last = slab->last_rows * slab->floats * sizeof(float);
        ct_table_release(table, slab->chunks[--slab->chunk_count], last);
        *bytes -= last;
        slab->capacity_rows -= slab->last_rows;
        slab->last_rows = slab->chunk_count ? (size_t)1 << slab->shift : 0;
    }
    if (slab->capacity_rows <= rows) return CT_OK;
    return chunk_replace(slab, table, slab->last_rows - (slab->capacity_rows - rows), bytes, NULL, status);
}

/* --- tables --- */

static size_t index_bytes(const ct_partition *partition, uint32_t bits) { return sizeof(ct_index_entry) << bits << partition->entry_shift; }

/* Zeroed: all empty. */
static ct_code index_create(const ct_table *table, const ct_partition *partition, uint32_t bits, ct_index_entry **out_index,
                            ct_status *status) {
    void *memory;
    CT_TRY(ct_table_allocate(table, index_bytes(partition, bits), &memory, status));
    *out_index = memory;
    return CT_OK;
}

ct_code ct_table_init(ct_table *table, const ct_table_spec *spec, ct_device *device, uint32_t partition_bits, uint32_t state_floats,
                      ct_status *status) {
    memset(table, 0, sizeof *table);
    table->spec = *spec;
    table->learning_rate = spec->learning_rate;
    table->device = device;
    table->partition_bits = partition_bits;
    const size_t count = (size_t)1 << partition_bits;
    ct_code code = CT_OK;
    table->zeros = calloc(spec->dim, sizeof(float));
    table->partitions = calloc(count, sizeof *table->partitions);
    if (!table->zeros || !table->partitions) {
        code = ct_fail_memory(status, count * sizeof *table->partitions, "a table's partitions");
        goto fail;
    }
    for (size_t i = 0; i < count; i++) {
        ct_partition *partition = &table->partitions[i];
        partition->index_bits = FIRST_INDEX_BITS;
        partition->entry_shift = ct_entry_shift(spec);
        partition->most_rows = CT_SLOT_STUB - 2;
        CT_TRY_GOTO(code, index_create(table, partition, FIRST_INDEX_BITS, &partition->index, status), fail);
        table->partition_count = i + 1;
        partition->bytes = index_bytes(partition, FIRST_INDEX_BITS);
        slab_init(&partition->values, ct_value_floats(spec));
        slab_init(&partition->state, state_floats);
        slab_init(&partition->counts, partition->entry_shift ? sizeof(ct_key_counts) / sizeof(float) : 0);
    }
    return CT_OK;
fail:
    ct_table_deinit(table);
    return code;
}

/* The last one that has them frees them. */
static void drop_partitions(ct_table *table) {
    if (table->sharers && atomic_fetch_sub(table->sharers, 1) > 1) return;
    free(table->sharers);
    for (size_t i = 0; i < table->partition_count; i++) {
        ct_partition *partition = &table->partitions[i];
        ct_table_release(table, partition->index, index_bytes(partition, partition->index_bits));
        slab_deinit(&partition->values, table);
        slab_deinit(&partition->state, table);
        slab_deinit(&partition->counts, table);
        free(partition->touched);
        free(partition->free_rows);
        free(partition->marks);
        ct_pause_point();
    }
    free(table->partitions);
    if (table->sorted_memory) ct_table_release(table, table->sorted_memory->memory, table->sorted_memory->bytes);
    free(table->sorted_memory);
}

void ct_table_deinit(ct_table *table) {
    drop_partitions(table);
    free(table->zeros);
    memset(table, 0, sizeof *table);
}

ct_code ct_table_share(ct_table *table, ct_table *from, ct_status *status) {
    if (table->partitions == from->partitions) return CT_OK;
    if (!from->sharers) {
        from->sharers = malloc(sizeof *from->sharers);
        if (!from->sharers) return ct_fail_memory(status, sizeof *from->sharers, "a table's partitions");
        atomic_init(from->sharers, 1);
    }
    drop_partitions(table);
    atomic_fetch_add(from->sharers, 1);
    table->partitions = from->partitions;
    table->partition_count = from->partition_count;
    table->sorted_memory = from->sorted_memory;
    table->sharers = from->sharers;
    return CT_OK;
}

static ct_code index_resize(ct_table *table, ct_partition *partition, uint32_t bits, ct_retired *retired, ct_status *status) {
    const ct_partition old = *partition;
    const size_t old_count = (size_t)1 << old.index_bits, count = (size_t)1 << bits, mask = count - 1;
    uint32_t *touched = old.touched ? calloc(count, sizeof *touched) : NULL;
    uint8_t *marks = old.marks ? calloc(count, sizeof *marks) : NULL;
    ct_code code =
        (old.touched && !touched) || (old.marks && !marks) ? ct_fail_memory(status, count * sizeof *touched, "a table's index") : CT_OK;
    if (code == CT_OK) code = index_create(table, partition, bits, &partition->index, status);
    if (code != CT_OK) {
        free(touched);
        free(marks);
        return code;
    }
    partition->index_bits = bits;
    partition->touched = touched;
    partition->marks = marks;
    for (size_t i = 0; i < old_count; i++) {
        const ct_index_entry *entry = ct_partition_entry(&old, i);
        if (entry->slot == CT_SLOT_EMPTY) continue;
        size_t at = ct_key_home(entry->key, partition->index_bits);
        while (ct_partition_entry(partition, at)->slot != CT_SLOT_EMPTY) at = (at + 1) & mask;
        memcpy(ct_partition_entry(partition, at), entry, sizeof *entry << old.entry_shift);
        if (touched) touched[at] = old.touched[i];
        if (marks) marks[at] = old.marks[i];
    }
    free(old.touched);
    free(old.marks);
    partition->bytes += index_bytes(partition, bits) - index_bytes(&old, old.index_bits);
    if (touched) partition->bytes += (count - old_count) * sizeof *touched;
    if (marks) partition->bytes += (count - old_count) * sizeof *marks;
    if (retired) return retire(retired, old.index, index_bytes(&old, old.index_bits), status);
    ct_table_release(table, old.index, index_bytes(&old, old.index_bits));
    return CT_OK;
}

static ct_code index_grow(ct_table *table, ct_partition *partition, ct_retired *retired, ct_status *status) {
    return index_resize(table, partition, partition->index_bits + 1, retired, status);
}

/* Rows with numbers from `rows` on move to free ones below. */
static void pack_rows(ct_partition *partition, uint32_t rows) {
    uint32_t free_count = 0;
    for (uint32_t i = 0; i < partition->free_count; i++)
        if (partition->free_rows[i] < rows) partition->free_rows[free_count++] = partition->free_rows[i];
    for (size_t place = 0; place < (size_t)1 << partition->index_bits; place++) {
        ct_index_entry *entry = ct_partition_entry(partition, place);
        if (entry->slot == CT_SLOT_EMPTY || entry->slot == CT_SLOT_STUB || entry->slot <= rows) continue;
        const uint32_t from = entry->slot - 1, to = partition->free_rows[--free_count];
        ct_slab *slabs[2] = {&partition->values, &partition->state};
        for (size_t i = 0; i < 2; i++)
            if (slabs[i]->floats) memcpy(ct_slab_at(slabs[i], to), ct_slab_at(slabs[i], from), slabs[i]->floats * sizeof(float));
        entry->slot = to + 1;
    }
    partition->rows = rows;
    partition->free_count = free_count;
}

ct_code ct_partition_shrink(ct_table *table, ct_partition *partition, uint32_t rows, uint32_t bits, ct_status *status) {
    if (partition->rows > rows) pack_rows(partition, rows);
    CT_TRY(slab_trim(&partition->values, table, rows, &partition->bytes, status));
    CT_TRY(slab_trim(&partition->state, table, rows, &partition->bytes, status));
    return partition->index_bits > bits ? index_resize(table, partition, bits, NULL, status) : CT_OK;
}

ct_code ct_partition_claim(ct_table *table, ct_partition *partition, uint64_t key, ct_index_entry **out_entry, ct_status *status) {
    for (;;) {
        const size_t mask = ((size_t)1 << partition->index_bits) - 1;
        size_t at = ct_key_home(key, partition->index_bits);
        ct_index_entry *entry;
        while ((entry = ct_partition_entry(partition, at))->slot != CT_SLOT_EMPTY && entry->key != key) at = (at + 1) & mask;
        const bool is_new = entry->slot == CT_SLOT_EMPTY;
        if (!is_new || (partition->used + 1) * 10 <= (mask + 1) * 7) {
            if (is_new) {
                *entry = (ct_index_entry){.key = key, .slot = CT_SLOT_STUB, .count = 0};
                if (partition->marks) partition->marks[at] = partition->mark;
                partition->used++;
            }
            *out_entry = entry;
            return CT_OK;
        }
        CT_TRY(index_grow(table, partition, NULL, status));
    }
}

static ct_code reserve(ct_table *table, ct_partition *partition, size_t rows, ct_retired *retired, ct_status *status) {
    if (rows <= partition->free_count) return CT_OK;
    const size_t wanted = (size_t)partition->rows + rows - partition->free_count;
    if (wanted > partition->most_rows)
        return ct_fail(status, CT_EXHAUSTED, "table %s: a partition has no row numbers left", table->spec.name);
    CT_TRY(slab_reserve(&partition->values, table, wanted, partition->most_rows, &partition->bytes, retired, status));
    return slab_reserve(&partition->state, table, wanted, partition->most_rows, &partition->bytes, retired, status);
}

ct_code ct_partition_reserve(ct_table *table, ct_partition *partition, size_t rows, ct_status *status) {
    return reserve(table, partition, rows, NULL, status);
}

ct_code ct_partition_reserve_counts(ct_table *table, ct_partition *partition, size_t rows, ct_status *status) {
    return slab_reserve(&partition->counts, table, rows, partition->most_rows, &partition->bytes, NULL, status);
}

ct_code ct_partition_grow_aside(ct_table *table, ct_partition *partition, size_t entries, size_t rows, ct_retired *retired,
                                ct_status *status) {
    while ((partition->used + entries) * 10 > ((uint64_t)7 << partition->index_bits)) CT_TRY(index_grow(table, partition, retired, status));
    return reserve(table, partition, rows, retired, status);
}

ct_code ct_partition_trim(ct_table *table, ct_partition *partition, ct_status *status) {
    CT_TRY(slab_trim(&partition->values, table, partition->rows, &partition->bytes, status));
    CT_TRY(slab_trim(&partition->state, table, partition->rows, &partition->bytes, status));
    return slab_trim(&partition->counts, table, partition->sorted.count, &partition->bytes, status);
}

ct_code ct_partition_add_row(ct_table *table, ct_partition *partition, ct_index_entry *entry, ct_status *status) {
    CT_TRY(ct_partition_reserve(table, partition, 1, status));
    entry->slot = partition->free_count ? partition->free_rows[--partition->free_count] + 1 : ++partition->rows;
    return CT_OK;
}

void ct_partition_free_row(ct_partition *partition, ct_index_entry *entry) {
    if (entry->slot != CT_SLOT_STUB) partition->free_rows[partition->free_count++] = entry->slot - 1;
    entry->slot = CT_SLOT_STUB;
}

ct_code ct_partition_drop_row(ct_partition *partition, ct_index_entry *entry, ct_status *status) {
    const uint32_t count = partition->free_count;
    if (entry->slot == CT_SLOT_STUB) return CT_OK;
    if (!partition->touched && (count & (count - 1)) == 0) { /* a cache has room for all rows; else a power of two, or more */
        const size_t room = count ? 2 * (size_t)count : 1;
        uint32_t *free_rows = realloc(partition->free_rows, room * sizeof *free_rows);
        if (!free_rows) return ct_fail_memory(status, room * sizeof *free_rows, "a table's free rows");
        partition->free_rows = free_rows;
    }
    ct_partition_free_row(partition, entry);
    return CT_OK;
}

void ct_partition_remove(ct_partition *partition, size_t place) {
    const size_t mask = ((size_t)1 << partition->index_bits) - 1;
    ct_index_entry *entry = ct_partition_entry(partition, place);
    ct_partition_free_row(partition, entry);
    size_t hole = place;
    for (size_t at = (place + 1) & mask;; at = (at + 1) & mask) {
        entry = ct_partition_entry(partition, at);
        if (entry->slot == CT_SLOT_EMPTY) break;
        const size_t home = ct_key_home(entry->key, partition->index_bits);
        if (((at - home) & mask) < ((at - hole) & mask)) continue; /* it would stand before its home */
        memcpy(ct_partition_entry(partition, hole), entry, sizeof *entry << partition->entry_shift);
        if (partition->touched) partition->touched[hole] = partition->touched[at];
        if (partition->marks) partition->marks[hole] = partition->marks[at];
        hole = at;
    }
    if (partition->marks) partition->marks[hole] = 0;
    memset(ct_partition_entry(partition, hole), 0, sizeof *entry << partition->entry_shift); /* with its target statistics */
    if (partition->touched) partition->touched[hole] = 0;
    partition->used--;
}

void ct_partition_set_first(const ct_table *table, ct_partition *partition, uint32_t row, uint64_t key, bool rare) {
    const ct_table_spec *spec = &table->spec;
    float *values = ct_slab_at(&partition->values, row);
    uint16_t *halves = spec->precision == CT_ROW_FP16 ? (uint16_t *)(void *)values : NULL;
    if (rare || spec->first_value_scale == 0.0f) {
        memset(values, 0, ct_value_bytes(spec));
    } else {
        for (uint32_t i = 0; i < spec->dim; i += 4) {
            const ct_random4 random = ct_random(spec->seed, CT_PLACE_FIRST_VALUE, 0, key, i / 4);
            for (uint32_t j = i; j < spec->dim && j < i + 4; j++) {
                const float value = (2.0f * ct_unit_float(random.word[j - i]) - 1.0f) * spec->first_value_scale;
                if (halves)
                    halves[j] = ct_half_of(value, CT_HALF_NEAREST);
                else
                    values[j] = value;
            }
        }
    }
    if (partition->state.floats) ct_state_set_first(spec, ct_slab_at(&partition->state, row));
}

/* --- sorted entries: radix sort, lowest byte first; a byte that is the same everywhere costs only its counting --- */

ct_code ct_partition_sorted(const ct_partition *partition, ct_index_entry **out_entries, ct_status *status) {
    const size_t count = (size_t)partition->used, slots = (size_t)1 << partition->index_bits;
    if (!count) {
        *out_entries = NULL;
        return CT_OK;
    }
    ct_index_entry *from = malloc(count * sizeof *from), *to = malloc(count * sizeof *to);
    size_t(*counts)[256] = calloc(8, sizeof *counts);
    if (!from || !to || !counts) {
        free(from);
        free(to);
        free(counts);
        return ct_fail_memory(status, 2 * count * sizeof *from, "a table's sorted keys");
    }
    size_t n = 0;
    for (size_t i = 0; i < slots; i++) {
        const ct_index_entry *entry = ct_partition_entry(partition, i);
        if (entry->slot == CT_SLOT_EMPTY) continue;
        from[n++] = *entry;
        for (size_t byte = 0; byte < 8; byte++) counts[byte][entry->key >> (8 * byte) & 255]++;
    }
    for (size_t byte = 0; byte < 8; byte++) {
        if (counts[byte][from[0].key >> (8 * byte) & 255] == n) continue;
        size_t before = 0;
        for (size_t value = 0; value < 256; value++) {
            const size_t here = counts[byte][value];
            counts[byte][value] = before;
            before += here;
        }
        for (size_t i = 0; i < n; i++) to[counts[byte][from[i].key >> (8 * byte) & 255]++] = from[i];
        ct_index_entry *swap = from;
        from = to;
        to = swap;
    }
    free(to);
    free(counts);
    *out_entries = from;
    return CT_OK;
}
