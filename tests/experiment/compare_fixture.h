/* What the tests of compare share: a made log in three parts, a call with defaults, and ways into the report. */
#ifndef TESTS_EXPERIMENT_COMPARE_FIXTURE_H
#define TESTS_EXPERIMENT_COMPARE_FIXTURE_H

#include "experiment/compare.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "data/synth.h"

enum { PATH_BYTES = 600, LINE_BYTES = 4096, SMALL_ROWS = 6000, ROWS = 60000 };

typedef struct log_files {
    char folder[PATH_BYTES - 64], all[PATH_BYTES], train[PATH_BYTES], valid[PATH_BYTES], test[PATH_BYTES], schema_path[PATH_BYTES],
        vectors[PATH_BYTES], arms[PATH_BYTES];
    ct_schema *schema;
} log_files;

/* Rows [first, last) of a log. */
static inline void cut(const char *from, const char *to, long first, long last) {
    static char line[LINE_BYTES];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    assert_true(in != NULL && out != NULL);
    for (long row = 0; fgets(line, sizeof line, in) != NULL; row++)
        if (row >= first && row < last) fputs(line, out);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static inline void write_text(const char *path, const char *text) {
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, text, strlen(text), &status), CT_OK);
}

/* `planted` (may be NULL) changes the world. */
static inline void make_world(log_files *files, int64_t rows, void (*planted)(ct_synth_options *options)) {
    ct_status status = CT_STATUS_INIT;
    const char *temporary = getenv("TEST_TMPDIR");
    snprintf(files->folder, sizeof files->folder, "%s/compare_test_XXXXXX", temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(files->folder));
    snprintf(files->all, PATH_BYTES, "%s/all.tsv", files->folder);
    snprintf(files->train, PATH_BYTES, "%s/train.tsv", files->folder);
    snprintf(files->valid, PATH_BYTES, "%s/valid.tsv", files->folder);
    snprintf(files->test, PATH_BYTES, "%s/test.tsv", files->folder);
    snprintf(files->schema_path, PATH_BYTES, "%s/schema.yaml", files->folder);
    snprintf(files->vectors, PATH_BYTES, "%s/vectors.npy", files->folder);
    snprintf(files->arms, PATH_BYTES, "%s/arms.yaml", files->folder);
    ct_synth_options options;
    ct_synth_truth truth;
    ct_synth_options_init(&options);
    if (planted != NULL) planted(&options);
    options.rows = rows;
    options.path = files->all;
    options.vectors_path = files->vectors;
    options.schema_path = files->schema_path;
    assert_int_equal(ct_synth_write(&options, &truth, &status), CT_OK);
    cut(files->all, files->train, 0, rows * 15 / 20);
    cut(files->all, files->valid, rows * 15 / 20, rows * 16 / 20);
    cut(files->all, files->test, rows * 16 / 20, rows);
    assert_int_equal(ct_schema_load(files->schema_path, &files->schema, &status), CT_OK);
}

static inline void make_log(log_files *files, int64_t rows) { make_world(files, rows, NULL); }

static inline void remove_log(log_files *files) {
    ct_status status = CT_STATUS_INIT;
    ct_schema_destroy(files->schema);
    assert_int_equal(ct_folder_remove(files->folder, &status), CT_OK);
}

typedef struct compare_call {
    const char *train, *valid, *test;
    ct_compare_options options;
} compare_call;

static inline void call_init(compare_call *call, const log_files *files, ct_pool *pool) {
    call->train = files->train, call->valid = files->valid, call->test = files->test;
    call->options = (ct_compare_options){.schema = files->schema,
                                         .arms_path = files->arms,
                                         .train_sources = &call->train,
                                         .train_source_count = 1,
                                         .valid_sources = &call->valid,
                                         .valid_source_count = 1,
                                         .test_sources = &call->test,
                                         .test_source_count = 1,
                                         .seeds = 2,
                                         .seed = 1,
                                         .batch_rows = 256,
                                         .draws = 200,
                                         .pool = pool};
}

static inline ct_pool *pool_of(size_t threads) {
    ct_status status = CT_STATUS_INIT;
    ct_pool *pool = NULL;
    assert_int_equal(ct_pool_create(threads, &pool, &status), CT_OK);
    return pool;
}

static inline json_t *run(const compare_call *call) {
    ct_status status = CT_STATUS_INIT;
    json_t *report = NULL;
    const ct_code code = ct_compare_run(&call->options, &report, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return report;
}

static inline const json_t *find_pair(const json_t *report, const char *a, const char *b) {
    const json_t *comparisons = json_object_get(report, "comparisons");
    for (size_t i = 0; i < json_array_size(comparisons); i++) {
        const json_t *pair = json_array_get(comparisons, i);
        if (strcmp(json_string_value(json_object_get(pair, "a")), a) == 0 && strcmp(json_string_value(json_object_get(pair, "b")), b) == 0)
            return pair;
    }
    fail_msg("no pair %s, %s", a, b);
    return NULL;
}

static inline const json_t *find_slice(const json_t *pair, const char *name) {
    const json_t *slices = json_object_get(pair, "slices");
    for (size_t i = 0; i < json_array_size(slices); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(slices, i), "slice")), name) == 0) return json_array_get(slices, i);
    fail_msg("no slice %s", name);
    return NULL;
}

static inline const char *verdict(const json_t *pair, const char *slice) {
    return json_string_value(json_object_get(find_slice(pair, slice), "verdict"));
}

static inline const json_t *at(const json_t *json, const char *first, const char *second) {
    return json_object_get(json_object_get(json, first), second);
}

static inline bool has_warning(const json_t *report, const char *words) {
    const json_t *warnings = json_object_get(report, "warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++)
        if (strstr(json_string_value(json_array_get(warnings, i)), words) != NULL) return true;
    return false;
}

/* --- the table --- */

static inline void check_table(const json_t *report, bool print) {
    char *text = ct_compare_table(report);
    assert_non_null(text);
    if (print) printf("%s", text);
    size_t column = 0;
    for (const char *c = text; *c != '\0'; c++) {
        assert_true(*c == '\n' || (*c >= ' ' && *c < 0x7f));
        column = *c == '\n' ? 0 : column + 1;
        assert_true(column <= 100);
    }
    assert_int_equal(column, 0);
    free(text);
}

static inline const json_t *arm_at(const json_t *report, size_t arm) { return json_array_get(json_object_get(report, "arms"), arm); }

#endif
