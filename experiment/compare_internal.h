/* What the files of compare share. Nobody else includes it. */
#ifndef EXPERIMENT_COMPARE_INTERNAL_H
#define EXPERIMENT_COMPARE_INTERNAL_H

#include "experiment/arms.h"
#include "experiment/bootstrap.h"
#include "experiment/compare.h"
#include "experiment/counts.h"

enum { UNIT_BLOCK_ROWS = 1000, FEW_UNITS = 30, FEW_CLICKS = 20, FEW_GROUPS = 20 };

typedef struct arm_run {
    const char *name;
    ct_arm_kind kind;
    ct_model_spec *spec;
    ct_model **models;        /* (seeds) */
    ct_trainer **trainers;    /* (seeds) */
    float **logits;           /* (seeds): (test rows), in the log's order, of the best epoch */
    ct_metrics *valid, *test; /* (seeds), of the best epoch */
    uint32_t *best_epoch;     /* (seeds), from 0 */
    bool *stopped;            /* (seeds): has gained nothing for too long, and trains no more */
    int64_t epochs;           /* trained, of all seeds */
    int64_t train_ns;         /* all seeds and epochs */
} arm_run;

/* A feature by which the report slices. */
typedef struct slice_field {
    int64_t field;
    uint64_t *values; /* (count): keys, or the bits of a float */
} slice_field;

/* The test rows, read once before any training. */
typedef struct test_rows {
    size_t count, capacity;
    float *labels;                    /* (count) */
    uint64_t *units, *groups, *items; /* (count) keys; NULL = there is no such column */
    slice_field fields[CT_ARMS_MAX_SLICES];
    size_t field_count;
    int64_t first_time; /* the least of them; INT64_MAX = no time column */
    ct_counts *hashes;  /* of whole rows: to find training rows that are the same */
    double clicks;
    /* once all is read: */
    uint32_t *clusters; /* (count) */
    size_t unit_count, cluster_count;
    size_t *group_offsets;
    uint32_t *group_rows;
    ct_tally_groups by_group;
} test_rows;

/* Some of the test rows. */
enum { SLICE_TEXT_BYTES = 64, CODES_MAX = 2 + CT_ARMS_MAX_SLICES, SLICES_MAX = 96 };
typedef struct slice {
    char of[SLICE_TEXT_BYTES];   /* "all", "items", "units" or a field's name */
    char name[SLICE_TEXT_BYTES]; /* "all", "new", "cold", ... */
    const uint8_t *codes;        /* rows with codes first .. last; NULL = all */
    uint8_t first, last;
} slice;
typedef struct slices {
    slice list[SLICES_MAX];
    size_t count;
    uint8_t *codes[CODES_MAX];
    size_t code_count;
    uint8_t *bucket; /* (test rows): finer steps of the item's training count, for the plot; NULL = no item */
} slices;

enum { ITEM_BUCKETS = 10 };
extern const uint64_t item_bucket_least[ITEM_BUCKETS]; /* training count from which on a row is in the bucket */

typedef struct compare_run {
    const ct_compare_options *options;
    ct_arms *arms_file;
    arm_run *arms;
    size_t arm_count;
    int64_t item, unit, group;            /* fields, -1 = none; group: the unit where there is no group field */
    int64_t time;                         /* field, -1 = none */
    ct_counts *item_counts, *unit_counts; /* of training rows; NULL = no such field */
    test_rows test;
    slices slices;
    ct_tally_metric decides;
    ct_histories *learned, *after_valid; /* of the training rows of the epoch; with the validation rows; NULL = none (yet) */
    int64_t late_rows;                   /* of training, validation and test: see data/history.h */
    int64_t repeated_rows, later_rows;   /* training rows that are test rows, byte for byte; that are later than the first test row */
    uint32_t epochs;                     /* trained */
    ct_read_report train_report, valid_report, test_report;
    json_t *warnings; /* array */
} compare_run;

/* --- compare.c --- */
ct_reader_options compare_reader(const ct_compare_options *options, const char *const *sources, size_t count);

/* --- test_rows.c --- */
/* Reads the test sources; forms clusters and groups. */
CT_MUST_CHECK ct_code test_rows_read(compare_run *run, ct_status *status);
void test_rows_deinit(test_rows *rows);
/* A batch of training rows, of the first epoch: counts items and units, and what training has in common with the test. */
CT_MUST_CHECK ct_code test_rows_compare(compare_run *run, const ct_batch *batch, ct_status *status);

/* --- slices.c: after training --- */
CT_MUST_CHECK ct_code slices_make(compare_run *run, ct_status *status);
void slices_deinit(slices *slices);
extern const struct item_slice {
    const char *name;
    uint64_t least, most; /* training counts */
} item_slices[4];

/* --- differences.c --- */
/* "comparisons": every pair of arms by slice. */
CT_MUST_CHECK ct_code compare_differences(const compare_run *run, json_t **out_json, ct_status *status);
/* "item_curve": each arm's AUC over the item's training count; null without items. */
CT_MUST_CHECK ct_code compare_item_curve(const compare_run *run, json_t **out_json, ct_status *status);

/* --- report.c --- */
/* The whole report. Adds warnings. */
CT_MUST_CHECK ct_code compare_report(compare_run *run, json_t **out_report, ct_status *status);

#endif
