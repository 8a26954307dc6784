/* Compare: the arms of an experiment (arms.h), offline. One pass over the training log, or several, feeds the trainers of all arms and
 * seeds with the same batches in the same order. With validation sources each model is judged by the epoch with the least validation log
 * loss, and a model that gained nothing in eight epochs trains no more; the test sources never choose anything. Differences are paired: the
 * same rows, the same draws of units and seeds. Model s of an arm has the seed `seed + s`; of an A/A arm `seed + seeds + s`.
 *
 * Slices of the test rows: by how often the row's item was trained on (new 0, cold below 5, warm 5 to 99, hot 100 or more), by whether
 * training had its unit, and by the features that the arms file names.
 *
 * Interval: 95 %, bootstrap over units and seeds together (bootstrap.h). Units are the values of the unit field, or blocks of 1,000
 * consecutive rows, stretches of time, where there is none (the report says so); at most 2,048 are clusters of their own, more are hashed
 * into 2,048. Draws are a pure function of the seed. Verdicts go by grouped AUC where there is a group or a unit field, else by AUC, and
 * are corrected for the number of pairs (Holm), in each slice for itself.
 *
 * All models see the same batches, whether the rows come in the log's order or shuffled in windows. Histories are those of the log's order
 * either way; target statistics, which are too, refuse a window.
 *
 * The training rows are read once before any training (survey.c), so that what is wrong with them is told before the work. Arms train in
 * groups of `parallel_arms`, each group with passes of its own over the log; the report does not depend on it. A vector file is in memory
 * once, for all arms that use it.
 *
 * A comparison that was broken off goes on where it was (compare_state.c): models that are finished are not trained again, others go on
 * from the end of the last epoch that was saved.
 *
 * Memory: the models of a group at once (arms times seeds), 4 bytes for each test row and model, some 90 bytes for each test row, and 32
 * MiB for each model while it is compared. */
#ifndef EXPERIMENT_COMPARE_H
#define EXPERIMENT_COMPARE_H

#include <jansson.h>

#include "data/reader.h"
#include "trainer/trainer.h"

typedef struct ct_compare_options {
    const ct_schema *schema;
    const char *arms_path;
    const char *const *train_sources;
    size_t train_source_count;
    const char *const *valid_sources;
    size_t valid_source_count; /* may be 0 */
    const char *const *test_sources;
    size_t test_source_count;
    uint32_t seeds; /* >= 1; default 3 */
    uint64_t seed;  /* first seed */
    size_t batch_rows;
    size_t shuffle_rows;        /* training rows are drawn from windows of so many, anew in each epoch; 0 = in the log's order */
    uint32_t draws;             /* of the bootstrap; default 1,000 */
    uint32_t epochs;            /* at most so many passes over the training log; 0 = 1 */
    size_t ndcg_at;             /* k of nDCG@k; 0 = 10 */
    size_t parallel_arms;       /* arms that train at once, all their seeds; 0 = all */
    uint64_t memory_bytes;      /* for the tables of all models that train at once; 0 = no limit */
    const char *state_folder;   /* what going on needs; NULL = a comparison that is broken off is lost */
    const char *scratch_folder; /* where there is a limit on memory: for what does not fit; made and removed */
    int64_t save_ms;            /* models are saved at the end of an epoch when so long has passed since they were last */
    ct_pool *pool;
    const atomic_bool *stop;
    bool progress;
    ct_warn_fn say; /* before the work: what it will take, and what is wrong with the rows; a line each; may be NULL */
    void *say_context;
} ct_compare_options;

/* The report (caller owns). docs/ab.md describes its members. CT_INVALID where a file is in two of the roles, a source is standard input,
 * or the state folder is of another comparison; CT_CANCELLED where it was stopped. */
CT_MUST_CHECK ct_code ct_compare_run(const ct_compare_options *options, json_t **out_report, ct_status *status);
/* Once the report is where it belongs: the state is needed no more. */
CT_MUST_CHECK ct_code ct_compare_forget(const char *state_folder, ct_status *status);
/* The report as a table for a terminal: plain ASCII, at most 100 columns, no colour; malloc'd; NULL when out of memory. */
char *ct_compare_table(const json_t *report);
/* The report as a page that stands alone, with charts; malloc'd. */
CT_MUST_CHECK ct_code ct_compare_html(const json_t *report, char **out_html, ct_status *status);

#endif
