/* Compare: the arms of an experiment (arms.h), offline. One pass over the training log, or several, feeds the trainers of all arms and
 * seeds with the same batches in the same order. With validation sources each model is judged by the epoch with the least validation log
 * loss, and a model that gained nothing in three epochs trains no more; the test sources never choose anything. Differences are paired: the
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
 * Memory: all models at once (arms times seeds), 4 bytes for each test row and model, some 90 bytes for each test row, and 32 MiB for each
 * model while it is compared. */
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
    uint32_t draws;  /* of the bootstrap; default 1,000 */
    uint32_t epochs; /* at most so many passes over the training log; 0 = 1 */
    size_t ndcg_at;  /* k of nDCG@k; 0 = 10 */
    ct_pool *pool;
    const atomic_bool *stop;
    bool progress;
} ct_compare_options;

/* The report (caller owns). docs/ab.md describes its members. CT_INVALID where a file is in two of the roles, or a validation or test
 * source is standard input; CT_CANCELLED where it was stopped. */
CT_MUST_CHECK ct_code ct_compare_run(const ct_compare_options *options, json_t **out_report, ct_status *status);
/* The report as a table for a terminal: plain ASCII, at most 100 columns, no colour; malloc'd; NULL when out of memory. */
char *ct_compare_table(const json_t *report);
/* The report as a page that stands alone, with charts; malloc'd. */
CT_MUST_CHECK ct_code ct_compare_html(const json_t *report, char **out_html, ct_status *status);

#endif
