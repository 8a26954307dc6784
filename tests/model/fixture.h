/* What the tests of model/ and trainer/ share: a small log that has every kind of feature, its schema and vector file, and short ways to
 * read, train and score. */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/reader.h"
#include "model/model.h"
#include "tests/base/temp.h"

#define assert_code(expected, call)                                                                                           \
    do {                                                                                                                      \
        ct_status status = CT_STATUS_INIT;                                                                                    \
        const ct_code expected_ = (expected), got_ = (call);                                                                  \
        if (got_ != expected_) fail_msg("%s instead of %s: %s", ct_code_name(got_), ct_code_name(expected_), status.message); \
    } while (0)
/* `call` ends in &status. */
#define assert_ok(call) assert_code(CT_OK, call)
#define assert_refused(expected, word, call)                                                                                  \
    do {                                                                                                                      \
        ct_status status = CT_STATUS_INIT;                                                                                    \
        const ct_code expected_ = (expected), got_ = (call);                                                                  \
        if (got_ != expected_) fail_msg("%s instead of %s: %s", ct_code_name(got_), ct_code_name(expected_), status.message); \
        if (strstr(status.message, (word)) == NULL) fail_msg("'%s' is not in '%s'", (word), status.message);                  \
    } while (0)

/* --- the log: label, weight, user, tags, age, item, likes, price, spread; tab-separated ---
 * Columns of the schema in this order, then vectors of item and likes and the unit. user, tags, age, likes are the context. A pure
 * function of the row's number. */
enum {
    SHOP_LABEL,
    SHOP_WEIGHT,
    SHOP_USER,
    SHOP_TAGS,
    SHOP_AGE,
    SHOP_ITEM,
    SHOP_LIKES,
    SHOP_PRICE,
    SHOP_SPREAD,
    SHOP_ITEM_TEXT,
    SHOP_LIKES_TEXT,
    SHOP_WHO,
    SHOP_FIELDS,
    SHOP_VECTOR_DIM = 5
};
/* Rows [first, first + rows) into folder/name; malloc'd path. label: 0 or 1 for all rows, -1 = as they fall. */
char *shop_log(const char *folder, const char *name, size_t first, size_t rows, int label);
/* folder/shop.yaml, folder/items.npy, folder/items.txt; malloc'd path of the first. */
char *shop_files(const char *folder);
ct_schema *shop_schema(const char *folder); /* the same, loaded */
/* Behind its fields one more, "alike": a history of clicked items, at most 4, pooled by attention. `shop`: shop_schema of that folder. */
enum { SHOP_ALIKE = SHOP_FIELDS, SHOP_ALIKE_FIELDS };
ct_schema *shop_alike_schema(const char *folder, const ct_schema *shop);

/* What a test of the log needs: trained rows as a file, and the rows that follow them (some ids are unknown) as one batch. */
typedef struct shop {
    char *folder, *log;
    ct_schema *schema;
    ct_pool *pool; /* two threads */
    ct_batch *rows;
} shop;
void shop_init(shop *shop, size_t log_rows, size_t rows);
void shop_deinit(shop *shop);

/* --- short ways; each fails the test where the library does --- */
ct_pool *make_pool(size_t threads);
ct_model_spec *make_spec(const char *name, const char *const *sets, size_t set_count);
ct_model *make_model(const ct_schema *schema, const char *name, const char *const *sets, size_t set_count, uint64_t seed, size_t batch_rows,
                     ct_pool *pool);
ct_model *open_model(const char *folder, ct_model_mode mode, ct_pool *pool);
void save_model(ct_model *model, const char *folder); /* with no metrics to speak of */
ct_reader *open_reader(const ct_schema *schema, const char *source, size_t batch_rows);
ct_batch *next_batch(ct_reader *reader); /* NULL at the end */
/* Trains on all batches of a source, or only on batches [first, last). */
void train_on(ct_model *model, const char *source, uint32_t epoch, size_t first, size_t last);
void digest_of(ct_model *model, char out_hex[CT_DIGEST_HEX_BYTES]);
/* All rows of a source as one batch; freed by ct_batch_destroy. */
ct_batch *read_all(const ct_schema *schema, const char *source, size_t rows);
/* Logits of all rows of a batch by one scorer; malloc'd (rows). */
float *score_all(ct_model *model, const ct_batch *batch);
/* A batch of its own whose row r holds, for each column c, row `row_of(context, c, r)` of `from`; a column with shared[c] (NULL = none)
 * holds one row, that of r = 0. */
typedef size_t (*row_of_fn)(const void *context, size_t column, size_t row);
ct_batch *pick_rows(const ct_schema *schema, const ct_batch *from, size_t rows, row_of_fn row_of, const void *context, const bool *shared);

#endif
