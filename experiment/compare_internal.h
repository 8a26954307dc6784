/* What the files of compare share. Nobody else includes it. */
#ifndef EXPERIMENT_COMPARE_INTERNAL_H
#define EXPERIMENT_COMPARE_INTERNAL_H

#include "experiment/arms.h"
#include "experiment/bootstrap.h"
#include "experiment/compare.h"
#include "experiment/counts.h"

enum { UNIT_BLOCK_ROWS = 1000, FEW_UNITS = 30, FEW_CLICKS = 20, FEW_GROUPS = 20 };

/* What the state folder holds of a model. */
typedef struct saved_model {
    uint32_t epochs;      /* of its folder; 0 = there is none */
    int64_t logits_epoch; /* best epoch of the logits that the folder goes with; -1 = none */
} saved_model;

typedef struct arm_run {
    const char *name;
    ct_arm_kind kind;
    ct_model_spec *spec;
    ct_model **models;             /* (seeds); NULL while their group does not train */
    float **logits;                /* (seeds): (test rows), in the log's order, of the best epoch; NULL = not judged yet */
    ct_metrics *valid, *test;      /* (seeds), of the best epoch */
    uint32_t *best_epoch;          /* (seeds), from 0 */
    uint32_t *epochs;              /* (seeds): trained and judged */
    int64_t *train_ns;             /* (seeds): of those */
    json_t **descriptions;         /* (seeds): of a model that is finished (ct_model_describe), else NULL */
    saved_model *saved;            /* (seeds) */
    json_t *trial;                 /* of a model as it begins (ct_model_describe) */
    double train_rate, score_rate; /* rows/s of one model, by its first rows; 0 = unknown */
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
    uint64_t print;     /* fingerprint of all rows */
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

typedef struct compare_feature compare_feature;

typedef struct compare_run {
    const ct_compare_options *options;
    ct_arms *arms_file;
    arm_run *arms;
    size_t arm_count;
    int64_t item, unit, group;            /* fields, -1 = none; group: the unit where there is no group field */
    int64_t time;                         /* field, -1 = none */
    ct_counts *item_counts, *unit_counts; /* of training rows; NULL = no such field */
    test_rows test;
    compare_feature **features; /* (feature_count): numbers and ids that an arm uses */
    size_t feature_count;
    size_t sample_rows, sample_stride; /* of the test, for features */
    slices slices;
    ct_tally_metric decides;
    ct_histories *learned, *after_valid; /* of the training rows of the epoch; with the validation rows; NULL = none (yet) */
    int64_t late_rows;                   /* of training, validation and test: see data/history.h */
    int64_t repeated_rows, later_rows;   /* training rows that are test rows, byte for byte; that are later than the first test row */
    int64_t valid_repeated_rows;         /* validation rows that are test rows */
    uint64_t train_print, valid_print;   /* fingerprints of the rows */
    int64_t began_ns;                    /* training */
    int64_t saved_ns;                    /* when models were last saved */
    double read_seconds;                 /* of a pass over the training rows */
    double planned_seconds;              /* of all that this run does, before it began */
    ct_read_report train_report, valid_report, test_report;
    json_t *warnings; /* array */
} compare_run;

/* --- compare.c --- */
ct_reader_options compare_reader(const ct_compare_options *options, const char *const *sources, size_t count);

/* What each model's seed is, what its vectors are shuffled by (0 = they are not). */
uint64_t compare_seed(const compare_run *run, const arm_run *arm, uint32_t seed);
uint64_t compare_shuffle(const compare_run *run, const arm_run *arm, uint32_t seed);

/* --- compare_train.c --- */
/* Trains and judges every model that is not finished, group by group. */
CT_MUST_CHECK ct_code compare_train(compare_run *run, ct_status *status);
/* Vectors of arms [first, last) that train at once. */
uint64_t compare_group_vectors(const compare_run *run, size_t first, size_t last);
uint32_t compare_epochs(const compare_run *run); /* at most */
/* Of a pass over the training rows: histories begin anew, and go on with the rows. */
ct_reader_options compare_training_reader(compare_run *run);
size_t compare_together(const compare_run *run); /* arms that train at once */
bool compare_finished(const compare_run *run, const arm_run *arm, uint32_t seed);
/* A failure of one model. */
ct_code compare_fail_arm(const arm_run *arm, uint64_t seed, ct_status *status);

/* --- compare_plan.c --- */
/* Makes a model of each arm and drops it again: tells what is wrong with the arms; sets `trial` and the rates. */
CT_MUST_CHECK ct_code plan_try_arms(compare_run *run, ct_status *status);
/* Behind the survey and the state: says what the rest takes. */
void plan_say(compare_run *run);
/* Bytes of the ids' rows of one model, without a limit, by the values that training has. */
uint64_t plan_table_bytes(const compare_run *run, const arm_run *arm);
/* Of a pass over the log for arms [first, last), judging too; of all that is left. */
double plan_pass_seconds(const compare_run *run, size_t first, size_t last, uint32_t epoch);
double plan_seconds_left(const compare_run *run);
enum { PLAN_TEXT_BYTES = 32 };
const char *plan_time_text(double seconds, char out[PLAN_TEXT_BYTES]);

/* --- compare_state.c --- */
/* Makes the state folder, or reads what is there of the same comparison: results of models, and where they stand. */
CT_MUST_CHECK ct_code state_open(compare_run *run, ct_status *status);
/* Opens the model that was saved. */
CT_MUST_CHECK ct_code state_load_model(compare_run *run, size_t arm, uint32_t seed, uint64_t memory_bytes, const char *live_folder,
                                       ct_status *status);
/* Saves a model that trains, with its results so far; or the results of one that is finished. */
CT_MUST_CHECK ct_code state_save(compare_run *run, size_t arm, uint32_t seed, ct_status *status);

/* --- compare_features.c: what each feature tells alone --- */
CT_MUST_CHECK ct_code features_init(compare_run *run, ct_status *status);
void features_deinit(compare_run *run);
void features_take_test(compare_run *run, const ct_batch *batch); /* the batch behind the run->test.count rows so far */
void features_test_done(compare_run *run);
void features_take_training(compare_run *run, const ct_batch *batch);
/* Behind the training rows: warns, or refuses a feature that holds the label. */
CT_MUST_CHECK ct_code features_judge(compare_run *run, ct_status *status);
json_t *features_json(const compare_run *run);
/* Distinct values of an id in training, about; 0 for other fields. */
double compare_distinct(const compare_run *run, size_t field);
/* Does the arm use this field of the schema? */
bool compare_arm_has(const compare_run *run, const arm_run *arm, size_t field);

/* --- survey.c --- */
/* Reads the training and the validation rows once, behind the test's: counts, fingerprints, what they have in common with the test. */
CT_MUST_CHECK ct_code survey_read(compare_run *run, ct_status *status);

/* --- test_rows.c --- */
/* Of every value of a row: equal rows have equal hashes. */
uint64_t test_row_hash(const ct_schema *schema, const ct_batch *batch, size_t row);
/* Reads the test sources; forms clusters and groups. */
CT_MUST_CHECK ct_code test_rows_read(compare_run *run, ct_status *status);
void test_rows_deinit(test_rows *rows);
/* A batch of training rows: counts items and units, and what training has in common with the test. */
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
