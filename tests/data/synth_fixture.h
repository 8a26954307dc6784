/* What the tests of synth share: a folder for each test, logs and models of given options. */
#ifndef TESTS_DATA_SYNTH_FIXTURE_H
#define TESTS_DATA_SYNTH_FIXTURE_H

#include "data/synth_internal.h"
#include "tests/data/fixture.h"

static char *folder; /* of the test that runs */

static inline int set_up(void **state) {
    (void)state;
    folder = temp_folder();
    return 0;
}

static inline int tear_down(void **state) {
    (void)state;
    temp_remove(folder);
    return 0;
}

static inline ct_synth_options options_for(int64_t rows) {
    ct_synth_options options;
    ct_synth_options_init(&options);
    options.rows = rows;
    options.seed = 7;
    return options;
}

static inline ct_synth_truth write_log(const ct_synth_options *options) {
    ct_synth_truth truth;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_synth_write(options, &truth, &status), &status);
    return truth;
}

static inline char *read_file(const char *path, size_t *out_bytes) {
    char *data;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_file_read(path, 1 << 28, &data, out_bytes, &status), &status);
    return data;
}

/* The whole log, malloc'd. */
static inline char *log_of(ct_synth_options options, size_t *out_bytes) {
    char *path = temp_path(folder, "some.tsv");
    options.path = path;
    (void)write_log(&options);
    char *data = read_file(path, out_bytes);
    free(path);
    return data;
}

static inline ct_synth_model *model_of(const ct_synth_options *options) {
    ct_synth_model *model = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_synth_model_create(options, &model, &status), &status);
    return model;
}

#endif
