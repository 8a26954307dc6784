/* Compare: the arms of an experiment, offline. One pass over the training log feeds the trainers of all arms and seeds with the same
 * batches in the same order; each is then judged on the validation and, once, on the test sources. Differences are paired: the same rows,
 * the same draws of units and seeds.
 *
 * Arms file (YAML):
 *
 *     model: dcn-v2                # default for all arms
 *     set: ["deep=[64,32]"]        # for all arms
 *     item: C2                     # id field whose training count makes the slices new (0), cold (1..4), warm (5..99), hot; default: the
 * id of the first vector, else none arms:                        # the first one is the control
 *       - {name: id, exclude: [item_vector]}
 *       - {name: id+vector, model: dcn-v2, set: ["vector.adapter=16"]}
 *
 * Interval: 95 %, percentile bootstrap over units and seeds together (rows without a unit column: blocks of 1,000 consecutive rows are the
 * units, and the report says so); units are hashed into at most 512 clusters. Draws are a pure function of the seed. */
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
    uint32_t draws; /* of the bootstrap; default 1,000 */
    ct_pool *pool;
    const atomic_bool *stop;
    bool progress;
} ct_compare_options;

/* The report (caller owns). docs/ab.md describes its members. */
CT_MUST_CHECK ct_code ct_compare_run(const ct_compare_options *options, json_t **out_report, ct_status *status);
/* The report as a table for a terminal; malloc'd; NULL when out of memory. Plain words, no colour. */
char *ct_compare_table(const json_t *report);

#endif
