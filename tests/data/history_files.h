/* What the tests of histories in files share: a schema with two of them, users who click, and a chain of files. */
#ifndef TESTS_DATA_HISTORY_FILES_H
#define TESTS_DATA_HISTORY_FILES_H

#include <sys/stat.h>

#include "tests/data/histories.h"
#include "tests/data/rows.h"

static char *folder;

/* Row: label, user, item, time. */
static const char yaml[] =
    "name: h\nformat: {columns: 4}\nfields:\n"
    "  - {name: click, kind: label, column: 1}\n"
    "  - {name: user, kind: unit, column: 2}\n"
    "  - {name: item, kind: id, column: 3, type: integer}\n"
    "  - {name: liked, kind: history, of: item, clicked: true, max: 5}\n"
    "  - {name: seen, kind: history, of: item, max: 9}\n"
    "  - {name: when, kind: time, column: 4}\n";
enum { OF_ITEM = 2, OF_LIKED, OF_SEEN, HISTORIES = 2, USERS = 2000, PART = USERS / 100, HEAD = 4 /* words */ };

static inline ct_histories *create(const ct_schema *schema) {
    ct_histories *histories = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_histories_create(schema, &histories, &status), &status);
    return histories;
}

static inline void enter(ct_histories *histories, const ct_schema *schema, const char *path) {
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_status status = CT_STATUS_INIT;
    ct_code code;
    const ct_reader_options options = options_of(&path, 1, 500);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        assert_ok(ct_histories_add(histories, batch, &status), &status);
        ct_reader_release(reader, batch);
    }
    assert_int_equal(code, CT_END);
    ct_reader_close(reader);
}

/* Users [first, first + count) click `each` items, later than anything before, and enter all of `set` (a NULL ends it). */
static inline void click(ct_histories *const *set, const ct_schema *schema, size_t first, size_t count, size_t each) {
    static unsigned long time = 10000000;
    text t = {0};
    for (size_t i = 0; i < each; i++, time++)
        for (size_t u = first; u < first + count; u++) text_add(&t, "1\tu%zu\t%lu\t%lu\n", u % USERS, (time * 7 + u) % 5000, time);
    char *path = write_bytes(folder, "clicks.tsv", t.bytes, t.size);
    for (; *set != NULL; set++) enter(*set, schema, path);
    free(t.bytes);
    free(path);
}

static inline ct_code write_saving(ct_histories_saving *saving, const char *path, char out_hex[CT_DIGEST_HEX_BYTES], ct_status *status) {
    ct_digest *digest = NULL;
    assert_ok(ct_digest_create(&digest, status), status);
    const ct_code code = ct_histories_saving_write(saving, path, digest, status);
    ct_digest_hex(digest, out_hex);
    ct_digest_destroy(digest);
    ct_histories_saving_end(saving);
    return code;
}

/* Returns what they will take that are opened from it, as is said before. */
static inline uint64_t save(ct_histories *histories, const char *path) {
    ct_histories_saving *saving = NULL;
    char hex[CT_DIGEST_HEX_BYTES], now[CT_DIGEST_HEX_BYTES];
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_histories_saving_begin(histories, &saving, &status), &status);
    const uint64_t opened_bytes = ct_histories_saving_opened_bytes(saving);
    assert_ok(write_saving(saving, path, hex, &status), &status);
    digest_of(histories, now);
    assert_string_equal(hex, now);
    return opened_bytes;
}

static inline char *file_of(const char *path, size_t number) {
    char name[CT_HISTORIES_NAME_BYTES];
    ct_histories_file_name(number, name);
    return temp_path(path, name);
}

static inline struct stat stat_of(const char *path, size_t number) {
    struct stat info;
    char *file = file_of(path, number);
    if (stat(file, &info) != 0) fail_msg("%s is not there", file);
    free(file);
    return info;
}

static inline size_t count_files(const char *path) {
    for (size_t count = 0;; count++) {
        char *file = file_of(path, count);
        const bool there = ct_path_exists(file);
        free(file);
        if (!there) return count;
    }
}

static inline char *new_folder(const char *name) {
    char *path = temp_path(folder, name);
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_folder_remove(path, &status), &status);
    return path;
}

static inline ct_histories *create_beside(const ct_schema *schema, const char *scratch) {
    ct_histories *histories = create(schema);
    char *path = new_folder(scratch);
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_histories_save_beside(histories, path, NULL, &status), &status);
    free(path);
    return histories;
}

#endif
