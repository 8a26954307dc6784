/* What the files of compare share. Nobody else includes it. */
#ifndef EXPERIMENT_COMPARE_INTERNAL_H
#define EXPERIMENT_COMPARE_INTERNAL_H

#include "experiment/arms.h"
#include "experiment/bootstrap.h"
#include "experiment/compare.h"
#include "experiment/counts.h"

enum { COLD_LEAST = 1, WARM_LEAST = 5, HOT_LEAST = 100 }; /* training counts */
enum { UNIT_BLOCK_ROWS = 1000, MAX_CLUSTERS = 512, FEW_UNITS = 30, FEW_CLICKS = 20 };

/* Slices by the training count of the row's item. */
typedef enum slice { SLICE_NEW, SLICE_COLD, SLICE_WARM, SLICE_HOT, SLICE_ALL, SLICES } slice;
extern const char *const slice_names[SLICES];
slice slice_of(uint64_t training_count);

typedef struct arm_run {
    const char *name;
    ct_model_spec *spec;
    ct_model **models;        /* (seeds) */
    ct_trainer **trainers;    /* (seeds) */
    float **logits;           /* (seeds): (test rows), in the log's order */
    ct_metrics *valid, *test; /* (seeds) */
    int64_t train_ns;         /* all seeds */
} arm_run;

/* The test rows, once for all arms. */
typedef struct test_rows {
    size_t count, capacity;
    float *labels;      /* (count) */
    uint64_t *units;    /* (count); NULL = blocks of rows */
    uint8_t *slices;    /* (count), of slice; NULL = no item */
    uint32_t *clusters; /* (count), once they are formed */
    size_t unit_count, cluster_count;
    double clicks;
} test_rows;
void test_rows_deinit(test_rows *rows);
/* Room for `more` rows. */
ct_code test_rows_reserve(test_rows *rows, size_t more, bool units, bool items, ct_status *status);
/* Units to clusters: each its own while they are few, else by hash. */
ct_code test_rows_cluster(test_rows *rows, ct_status *status);

typedef struct compare_run {
    const ct_compare_options *options;
    ct_arms *arms_file;
    arm_run *arms;
    size_t arm_count;
    int64_t item;           /* field, -1 = none */
    int64_t unit;           /* field, -1 = none */
    ct_counts *item_counts; /* of training rows; NULL = no item */
    test_rows test;
    ct_read_report train_report, valid_report, test_report;
    json_t *warnings; /* array */
} compare_run;

ct_code compare_warn(compare_run *run, ct_status *status, const char *format, ...) CT_PRINTF(3, 4);

/* "comparisons": every pair of arms by slice. */
ct_code compare_differences(const compare_run *run, json_t **out_json, ct_status *status);
/* The whole report. Adds warnings. */
ct_code compare_report(compare_run *run, json_t **out_report, ct_status *status);

#endif
