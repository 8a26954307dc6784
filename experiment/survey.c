/* A pass over the training rows and one over the validation rows before any training: what slices and fingerprints need, and what is wrong
 * with the rows, so that it is told before the work. */
#include "base/clock.h"
#include "base/hash.h"
#include "experiment/compare_internal.h"
#include "experiment/report_internal.h"

static ct_code take_training(compare_run *run, const ct_batch *batch, ct_status *status) {
    features_take_training(run, batch);
    return test_rows_compare(run, batch, status);
}

typedef ct_code (*take_fn)(compare_run *run, const ct_batch *batch, ct_status *status);

static ct_code take_valid(compare_run *run, const ct_batch *batch, ct_status *status) {
    (void)status; /* it is a take_fn */
    for (size_t i = 0; i < batch->rows; i++) {
        const uint64_t hash = test_row_hash(run->options->schema, batch, i);
        run->valid_print = ct_hash64(&hash, sizeof hash, run->valid_print);
        run->valid_repeated_rows += ct_counts_get(run->test.hashes, hash) > 0;
    }
    return CT_OK;
}

static ct_code read_rows(compare_run *run, const char *const *sources, size_t count, const char *purpose, take_fn take,
                         ct_read_report *out_report, ct_status *status) {
    const ct_reader_options reading = compare_reader(run->options, sources, count);
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    CT_TRY(ct_reader_open(run->options->schema, &reading, &reader, status));
    ct_code code = CT_OK;
    while ((code = ct_reader_next(reader, &batch, status)) == CT_OK) {
        code = take(run, batch, status);
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
    }
    ct_reader_report(reader, out_report);
    ct_reader_close(reader);
    if (code != CT_END) return code;
    if (out_report->rows > 0) return CT_OK;
    return ct_fail(status, CT_INVALID, "%s: no good row to %s (%lld bad ones)%s%s", sources[0], purpose, (long long)out_report->bad_total,
                   out_report->shown > 0 ? "; the first: " : "", out_report->shown > 0 ? out_report->first_bad[0] : "");
}

static ct_code warn_of_overlap(compare_run *run, ct_status *status) {
    if (run->repeated_rows > 0)
        CT_TRY(report_warn(run->warnings, status, "%lld training rows are also test rows, value for value: are they the same events?",
                           (long long)run->repeated_rows));
    if (run->valid_repeated_rows > 0)
        CT_TRY(report_warn(run->warnings, status, "%lld validation rows are also test rows, value for value: are they the same events?",
                           (long long)run->valid_repeated_rows));
    if (run->later_rows > 0)
        CT_TRY(report_warn(run->warnings, status,
                           "%lld training rows are later than the first test row: what came after it may be known to the models",
                           (long long)run->later_rows));
    return CT_OK;
}

ct_code survey_read(compare_run *run, ct_status *status) {
    const ct_compare_options *options = run->options;
    const int64_t began = ct_clock_ns();
    CT_TRY(read_rows(run, options->train_sources, options->train_source_count, "train on", take_training, &run->train_report, status));
    run->read_seconds = (double)(ct_clock_ns() - began) / 1e9;
    CT_TRY(features_judge(run, status));
    if (options->valid_source_count > 0)
        CT_TRY(read_rows(run, options->valid_sources, options->valid_source_count, "choose by", take_valid, &run->valid_report, status));
    return warn_of_overlap(run, status);
}
