/* Metrics by slice: the rows of an evaluation, divided by the values of fields of the schema.
 *
 * An id, unit or group: a slice for each of the 20 values with the most rows (equal numbers: the smaller key first), and `other` for the
 * rows of all other values. A batch holds keys, no tokens, so a value is its key in hex. Of a field with several values a row stands in the
 * slice of each of its different values, and in `other` once for each that is not among the 20. A number or time: 10 bins of equal numbers
 * of rows. Rows of equal value stay together: a block of n rows with s rows below it and N in all belongs to bin floor(10 (s + n / 2) / N);
 * a bin that no block's middle falls into is left out. Rows without a value (a missing number, an empty list) are the slice `missing`.
 *
 * Every metric is exact, and the same as an evaluation of the slice's rows alone gives (of `other` and of bins, whose rows come in the
 * order of their values, up to rounding). Each row is kept, 24 bytes for each field, in sorters that share memory_bytes and go to a
 * temporary file beyond it; finishing takes one field at a time and twice 16 MiB more. */
#ifndef TRAINER_SLICES_H
#define TRAINER_SLICES_H

#include <jansson.h>

#include "data/batch.h"

enum { CT_SLICE_VALUES = 20, CT_SLICE_BINS = 10 };

typedef struct ct_slices ct_slices;
/* CT_INVALID names the field that is unknown, named twice, or of a kind that has no slices. schema must outlive the slices. memory_bytes: 0
 * = 64 MiB. */
CT_MUST_CHECK ct_code ct_slices_create(const ct_schema *schema, const char *const *fields, size_t field_count, size_t memory_bytes,
                                       ct_slices **out_slices, ct_status *status);
void ct_slices_destroy(ct_slices *slices); /* NULL is fine */
/* The rows of a batch; logits, labels: (rows); weights, groups: (rows) or NULL, the same for all calls. Rows as the metrics' collector
 * takes them: hand them to it first. */
CT_MUST_CHECK ct_code ct_slices_add(ct_slices *slices, const ct_batch *batch, const float *logits, const float *labels,
                                    const float *weights, const uint64_t *groups, ct_status *status);
/* Once, behind the last row. An array with an object for each field:
 *     {field, kind, by: "value", values, slices: [{value: "0x...", METRICS}, ...], other: {values, METRICS} | null, missing: {METRICS} |
 * null} {field, kind, by: "quantile", slices: [{low, high, METRICS}, ...], missing: {METRICS} | null} where METRICS are those of
 * ct_metrics_to_json; times are in milliseconds. */
CT_MUST_CHECK ct_code ct_slices_finish(ct_slices *slices, json_t **out_json, ct_status *status);

#endif
