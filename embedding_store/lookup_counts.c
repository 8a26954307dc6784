/* Ordered target statistics: impressions and clicks of every key, stubs too, counted anew in each epoch. A batch reads what stood before it
 * (acquire) and is added as a whole once all of it was read (apply), so that no row sees a label of its own batch. Rare rows keep none. */
#include "embedding_store/store_internal.h"

enum { AHEAD = 16 };

void ct_counts_apply(ct_ticket *ticket, size_t part, const float *labels) {
    const ct_partition *partition = &ticket->table->partitions[part];
    const size_t parts = ticket->table->partition_count, base = ticket->bases[part], count = ticket->unique_counts[part];
    const uint32_t *unique_of = &ticket->unique_of[base], epoch = ticket->lookup.epoch;
    const ct_noted *noted = &ticket->noted[base];
    const bool true_places = ticket->noted_bits[part] == partition->index_bits; /* else new keys have let it grow */
    ct_unique *uniques = &ticket->uniques[base];
    for (size_t i = 0; i < count; i++) uniques[i].clicks = 0;
    size_t n = 0;
    for (size_t block = 0; block < ticket->blocks; block++) {
        const uint32_t *segment = &ticket->segments[block * (parts + 1) + part];
        for (uint32_t i = segment[0]; i < segment[1]; i++) uniques[unique_of[n++]].clicks += labels[ticket->sorted[i].row] > 0.5f;
    }
    for (size_t i = 0; i < count; i++) {
        if (true_places && i + AHEAD < count) ct_prefetch(ct_partition_entry(partition, noted[i + AHEAD].place));
        ct_key_counts *counts =
            ct_entry_counts(true_places ? ct_partition_entry(partition, noted[i].place) : ct_partition_find(partition, uniques[i].key));
        const ct_seen before = ct_counts_in_epoch(counts, epoch);
        counts->impressions = ct_add_counts(before.impressions, uniques[i].count);
        counts->clicks = ct_add_counts(before.clicks, uniques[i].clicks);
        counts->epoch = epoch;
    }
}

void ct_store_gather_counts(const ct_store *store, const ct_ticket *ticket, size_t first_row, size_t rows, size_t number,
                            uint32_t *out_impressions, uint32_t *out_clicks) {
    (void)store;
    const ct_key_column *column = &ticket->lookup.columns[number];
    const uint32_t *offsets = column->offsets;
    for (size_t i = 0; i < rows; i++) {
        ct_seen sum = {0, 0};
        if (ticket->seen) {
            const size_t row = column->shared ? 0 : first_row + i, block = row / ticket->block_rows;
            const size_t block_first = column->shared ? 0 : block * ticket->block_rows;
            const size_t start =
                column->shared ? ticket->shared_start[number] : ticket->starts[block * ticket->lookup.column_count + number];
            const ct_seen *seen = &ticket->seen[start + (offsets ? offsets[row] - offsets[block_first] : row - block_first)];
            for (size_t j = offsets ? offsets[row + 1] - offsets[row] : 1; j > 0; j--, seen++) {
                sum.impressions = ct_add_counts(sum.impressions, seen->impressions);
                sum.clicks = ct_add_counts(sum.clicks, seen->clicks);
            }
        }
        out_impressions[i] = sum.impressions;
        out_clicks[i] = sum.clicks;
    }
}
