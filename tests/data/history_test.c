/* Histories against a plain loop over all rows; never anything of the row's own time or later; files. */
#include "data/history.h"

#include <pthread.h>

#include "tests/data/histories.h"
#include "tests/data/rows.h"

static char *folder;

/* Row: label, user, item, time. */
#define COMMON                                                            \
    "  - {name: click, kind: label, column: 1}\n"                         \
    "  - {name: user, kind: unit, column: 2}\n"                           \
    "  - {name: item, kind: id, column: 3, type: integer}\n"              \
    "  - {name: text, kind: vector, of: item, file: v.npy}\n"             \
    "  - {name: liked, kind: history, of: item, clicked: true, max: 5}\n" \
    "  - {name: seen, kind: history, of: item, max: 9}\n"                 \
    "  - {name: likes, kind: number, of: liked}\n"                        \
    "  - {name: close, kind: similarity, of: liked, vector: text, tiers: 4}\n"
static const char timed[] = "name: h\nformat: {columns: 4}\nfields:\n" COMMON "  - {name: when, kind: time, column: 4}\n";
static const char untimed[] = "name: h\nformat: {columns: 4}\nfields:\n" COMMON;
enum { OF_LABEL, OF_UNIT, OF_ITEM, OF_TEXT, OF_LIKED, OF_SEEN, OF_NUMBER, OF_CLOSE, OF_TIME };
enum { ROWS = 3000, USERS = 40, LIKED_MAX = 5, SEEN_MAX = 9 };

typedef struct row {
    bool click;
    uint32_t user, item, time;
} row;

/* Times rise, and are often equal: also those of one user. disorder: of 100 rows so many have a time from before. */
static row *make_rows(uint64_t seed, uint32_t disorder) {
    row *rows = calloc(ROWS, sizeof *rows);
    assert_non_null(rows);
    uint32_t time = 1000;
    for (size_t r = 0; r < ROWS; r++) {
        time += draw(&seed, 3) == 0;
        rows[r] = (row){draw(&seed, 2) == 0, draw(&seed, USERS) * draw(&seed, 2), draw(&seed, 200), time};
        if (draw(&seed, 100) < disorder) rows[r].time -= draw(&seed, 300);
    }
    return rows;
}

static char *write_rows(const char *name, const row *rows) {
    text t = {0};
    for (size_t r = 0; r < ROWS; r++) text_add(&t, "%d\tu%u\t%u\t%u\n", rows[r].click, rows[r].user, rows[r].item, rows[r].time);
    char *path = write_bytes(folder, name, t.bytes, t.size);
    free(t.bytes);
    return path;
}

static uint64_t key_of(const ct_field *field, uint32_t item) {
    char token[16];
    uint64_t key = 0;
    ct_status status = CT_STATUS_INIT;
    const int bytes = snprintf(token, sizeof token, "%u", item);
    assert_ok(ct_field_key(field, token, (size_t)bytes, &key, &status), &status);
    return key;
}

/* The last `most` of the rows before row r that it may see, by (time, place in the log); oldest first. */
static size_t expected_history(const row *rows, size_t r, bool with_time, bool clicked, size_t most, uint32_t *out_items) {
    size_t found[ROWS], count = 0;
    for (size_t q = 0; q < r; q++)
        if (rows[q].user == rows[r].user && (rows[q].click || !clicked) && (!with_time || rows[q].time < rows[r].time)) found[count++] = q;
    const size_t kept = count < most ? count : most; /* times rise */
    for (size_t i = 0; i < kept; i++) out_items[i] = rows[found[count - kept + i]].item;
    return kept;
}

static ct_histories *create(const ct_schema *schema) {
    ct_histories *histories = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_histories_create(schema, &histories, &status), &status);
    return histories;
}

static rows read_live(const ct_schema *schema, const char *path, size_t batch_rows, size_t threads, ct_histories *histories) {
    rows out;
    ct_status status = CT_STATUS_INIT;
    ct_reader_options options = options_of(&path, 1, batch_rows);
    options.threads = threads;
    options.chunk_bytes = threads > 1 ? 1000 : 0;
    options.histories = histories;
    options.live = true;
    assert_ok(rows_read(schema, &options, &out, &status), &status);
    return out;
}

static void check_column(const rows *got, size_t column, const row *rows, bool with_time, bool clicked, size_t most,
                         const ct_field *field) {
    const uint64_t *keys = (const uint64_t *)(const void *)got->values[column].data;
    const uint32_t *counts = (const uint32_t *)(const void *)got->counts[column].data;
    for (size_t r = 0; r < ROWS; r++) {
        uint32_t items[SEEN_MAX];
        const size_t count = expected_history(rows, r, with_time, clicked, most, items);
        if (counts[r] != count) fail_msg("%s of row %zu: %u values instead of %zu", field->name, r, counts[r], count);
        for (size_t i = 0; i < count; i++) assert_int_equal(*keys++, key_of(field, items[i]));
    }
}

static void check_schema(const char *text, bool with_time) {
    ct_schema *schema = schema_of(text);
    row *all = make_rows(3, 0);
    char *path = write_rows("log.tsv", all);
    ct_histories *histories = create(schema);
    rows got = read_live(schema, path, 64, 1, histories);
    assert_int_equal(got.rows, ROWS);
    const ct_field *item = &schema->fields[OF_ITEM], *vector = &schema->fields[OF_TEXT];
    assert_int_not_equal(item->salt, vector->salt);
    check_column(&got, OF_LIKED, all, with_time, true, LIKED_MAX, item);
    check_column(&got, OF_SEEN, all, with_time, false, SEEN_MAX, item);
    check_column(&got, OF_CLOSE, all, with_time, true, LIKED_MAX, vector);
    const float *counted = (const float *)(const void *)got.values[OF_NUMBER].data;
    size_t full = 0, ties = 0;
    for (size_t r = 0; r < ROWS; r++) {
        uint32_t items[SEEN_MAX], others[SEEN_MAX];
        const size_t count = expected_history(all, r, with_time, true, LIKED_MAX, items);
        assert_true(counted[r] == (float)count);
        full += count == LIKED_MAX;
        const size_t with_ties = expected_history(all, r, !with_time, true, LIKED_MAX, others);
        ties += count != with_ties || memcmp(items, others, count * sizeof *items) != 0;
    }
    assert_true(full > 100 && ties > 20); /* the log says something */
    assert_int_equal(ct_histories_late(histories), 0);

    for (size_t b = 0; b < 3; b++) { /* batches, threads and pieces change nothing */
        ct_histories *again = create(schema);
        rows other = read_live(schema, path, (const size_t[]){1, 999, 4096}[b], b + 1, again);
        assert_same_rows(&got, &other);
        rows_free(&other);
        ct_histories_destroy(again);
    }
    rows_free(&got);
    ct_histories_destroy(histories);
    free(path);
    free(all);
    ct_schema_destroy(schema);
}

static void rows_see_what_is_of_a_strictly_earlier_time(void **state) {
    (void)state;
    check_schema(timed, true);
}

static void rows_see_earlier_rows_where_there_is_no_time(void **state) {
    (void)state;
    check_schema(untimed, false);
}

/* Out of order, a row may see less than there was, never what is later; and it is counted. */
static void no_history_holds_the_future(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(5, 10);
    char *path = write_rows("disorder.tsv", all);
    ct_histories *histories = create(schema);
    rows got = read_live(schema, path, 128, 2, histories);
    const uint64_t *keys = (const uint64_t *)(const void *)got.values[OF_SEEN].data;
    const uint32_t *counts = (const uint32_t *)(const void *)got.counts[OF_SEEN].data;
    size_t late = 0;
    for (size_t r = 0; r < ROWS; r++) {
        bool after = false;
        for (size_t q = 0; q < r; q++) after = after || (all[q].user == all[r].user && all[q].time > all[r].time);
        late += after;
        uint32_t before = 0;
        for (size_t q = 0; q < r; q++) before += all[q].user == all[r].user && all[q].time < all[r].time;
        assert_true(counts[r] <= before && (after || counts[r] == (before < SEEN_MAX ? before : SEEN_MAX)));
        for (uint32_t i = 0; i < counts[r]; i++, keys++) {
            bool earlier = false;
            for (size_t q = 0; q < r && !earlier; q++)
                earlier = all[q].user == all[r].user && all[q].time < all[r].time && key_of(&schema->fields[OF_ITEM], all[q].item) == *keys;
            assert_true(earlier);
        }
    }
    assert_true(late > 100);
    assert_int_equal(ct_histories_late(histories), late);
    rows_free(&got);
    ct_histories_destroy(histories);
    free(path);
    free(all);
    ct_schema_destroy(schema);
}

/* As they stand: the newest values, whatever the row's time; nothing enters. */
static void standing_histories_are_the_newest_values(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(3, 0);
    const char *path = write_rows("log.tsv", all);
    ct_histories *histories = create(schema), *copy = NULL;
    rows live = read_live(schema, path, 64, 1, histories), standing, without;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_histories_copy(histories, &copy, &status), &status);
    ct_reader_options options = options_of(&path, 1, 100);
    options.histories = copy;
    assert_ok(rows_read(schema, &options, &standing, &status), &status);
    const uint64_t *keys = (const uint64_t *)(const void *)standing.values[OF_LIKED].data;
    const uint32_t *counts = (const uint32_t *)(const void *)standing.counts[OF_LIKED].data;
    for (size_t r = 0; r < ROWS; r++) {
        uint32_t items[ROWS], count = 0;
        for (size_t q = 0; q < ROWS; q++)
            if (all[q].user == all[r].user && all[q].click) items[count++] = all[q].item;
        const uint32_t kept = count < LIKED_MAX ? count : LIKED_MAX;
        uint64_t read[LIKED_MAX];
        assert_int_equal(counts[r], kept);
        assert_int_equal(ct_histories_read(copy, OF_LIKED, ((const uint64_t *)(const void *)live.values[OF_UNIT].data)[r], read), kept);
        for (uint32_t i = 0; i < kept; i++, keys++) {
            assert_int_equal(*keys, key_of(&schema->fields[OF_ITEM], items[count - kept + i]));
            assert_int_equal(*keys, read[i]);
        }
    }
    uint64_t none[LIKED_MAX];
    assert_int_equal(ct_histories_read(copy, OF_CLOSE, 12345, none), 0);
    options.histories = NULL; /* nobody asked for them */
    assert_ok(rows_read(schema, &options, &without, &status), &status);
    assert_false(without.present[OF_LIKED] || without.present[OF_CLOSE] || without.present[OF_NUMBER]);
    rows_free(&live);
    rows_free(&standing);
    rows_free(&without);
    ct_histories_destroy(histories);
    ct_histories_destroy(copy);
    free((char *)(uintptr_t)path);
    free(all);
    ct_schema_destroy(schema);
}

/* A block file leaves them out, and its rows get the same. */
static void block_files_give_the_same(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(3, 0);
    char *path = write_rows("log.tsv", all), *block = convert_file(folder, schema, path, "log.ctb", 500);
    ct_histories *a = create(schema), *b = create(schema);
    rows from_text = read_live(schema, path, 64, 1, a), from_block = read_live(schema, block, 64, 1, b);
    assert_same_rows(&from_text, &from_block);
    rows_free(&from_text);
    rows_free(&from_block);
    ct_histories_destroy(a);
    ct_histories_destroy(b);
    free(path);
    free(block);
    free(all);
    ct_schema_destroy(schema);
}

static void write_files(ct_histories *histories, const char *path) {
    ct_digest *digest = NULL;
    ct_histories_saving *saving = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_digest_create(&digest, &status), &status);
    assert_ok(ct_histories_saving_begin(histories, &saving, &status), &status);
    assert_ok(ct_histories_saving_write(saving, path, digest, &status), &status);
    ct_histories_saving_end(saving);
    ct_digest_destroy(digest);
}

typedef struct save_work {
    ct_histories_saving *saving;
    const char *path;
    char hex[CT_DIGEST_HEX_BYTES];
    ct_status status;
    ct_code code;
} save_work;

static void *save_thread(void *context) {
    save_work *work = context;
    ct_digest *digest = NULL;
    work->code = ct_digest_create(&digest, &work->status);
    if (work->code == CT_OK) work->code = ct_histories_saving_write(work->saving, work->path, digest, &work->status);
    if (work->code == CT_OK) ct_digest_hex(digest, work->hex);
    ct_digest_destroy(digest);
    ct_histories_saving_end(work->saving);
    return NULL;
}

/* A file holds what there was when saving began, whatever enters until it is written or while it is, also where all begins anew; and what
 * enters is what would have entered without. */
static void files_are_of_one_moment(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(7, 5), *more = make_rows(9, 5);
    char *path = write_rows("moment.tsv", all), *later = write_rows("later.tsv", more), *file = temp_path(folder, "moment");
    for (int way = 0; way < 6; way++) {
        const int clears = way % 3;
        const bool beside = way >= 3; /* written while rows enter, else behind them */
        char then[CT_DIGEST_HEX_BYTES], one[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
        ct_histories *set[2] = {create(schema), create(schema)}, *back = NULL; /* the second one is never saved */
        ct_status status = CT_STATUS_INIT;
        save_work work = {.path = file, .status = CT_STATUS_INIT};
        pthread_t thread;
        rows read;
        for (size_t i = 0; i < 2; i++) {
            read = read_live(schema, path, 64, 1, set[i]);
            rows_free(&read);
        }
        digest_of(set[0], then);
        assert_ok(ct_histories_saving_begin(set[0], &work.saving, &status), &status);
        if (beside) assert_int_equal(pthread_create(&thread, NULL, save_thread, &work), 0);
        for (size_t i = 0; i < 2; i++) {
            for (int c = 0; c <= clears; c++) {
                if (c > 0) ct_histories_clear(set[i]);
                read = read_live(schema, later, 64, 1, set[i]);
                rows_free(&read);
            }
        }
        if (beside)
            assert_int_equal(pthread_join(thread, NULL), 0);
        else
            (void)save_thread(&work);
        assert_ok(work.code, &work.status);
        assert_string_equal(work.hex, then);
        assert_ok(ct_histories_open(schema, file, 1, &back, &status), &status);
        digest_of(back, one);
        assert_string_equal(one, then);
        ct_histories_destroy(back);
        digest_of(set[0], one);
        digest_of(set[1], other);
        assert_string_equal(one, other);
        assert_string_not_equal(one, then);
        write_files(set[0], file); /* and once more */
        assert_ok(ct_histories_open(schema, file, 1, &back, &status), &status);
        digest_of(back, other);
        assert_string_equal(one, other);
        ct_histories_destroy(back);
        for (size_t i = 0; i < 2; i++) ct_histories_destroy(set[i]);
    }
    free(path);
    free(later);
    free(file);
    free(all);
    free(more);
    ct_schema_destroy(schema);
}

/* What comes back from a file goes on as if it had never been away. */
static void files_bring_them_back(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(7, 5);
    const char *path = write_rows("disorder.tsv", all);
    char *file = temp_path(folder, "histories"), one[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
    ct_histories *histories = create(schema), *back = NULL, *copy = NULL;
    ct_status status = CT_STATUS_INIT;
    rows first = read_live(schema, path, 64, 1, histories);
    write_files(histories, file);
    assert_ok(ct_histories_open(schema, file, 1, &back, &status), &status);
    assert_ok(ct_histories_copy(histories, &copy, &status), &status);
    digest_of(histories, one);
    digest_of(back, other);
    assert_string_equal(one, other);
    ct_histories *set[] = {histories, back, copy};
    rows again[3];
    for (size_t i = 0; i < 3; i++) again[i] = read_live(schema, path, 64, 1, set[i]); /* late rows, most of them */
    assert_same_rows(&again[0], &again[1]);
    assert_same_rows(&again[0], &again[2]);
    digest_of(histories, other);
    assert_string_not_equal(one, other);
    digest_of(back, one);
    assert_string_equal(one, other);
    for (size_t i = 0; i < 3; i++) {
        rows_free(&again[i]);
        ct_histories_destroy(set[i]);
    }
    rows_free(&first);
    free(file);
    free((char *)(uintptr_t)path);
    free(all);
    ct_schema_destroy(schema);
}

static void assert_digest(ct_histories *histories, const char *wanted) {
    char got[CT_DIGEST_HEX_BYTES];
    digest_of(histories, got);
    assert_string_equal(got, wanted);
}

/* Words of what has changed take a copy on to the same histories, and so make version after version, while the one before stays as it was,
 * also where one is dropped, and where all begins anew. */
static void changes_take_them_on(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(7, 5);
    const char *path = write_rows("disorder.tsv", all);
    ct_histories *leader = create(schema), *copy = create(schema), *read = create(schema), *next = NULL;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_status status = CT_STATUS_INIT;
    size_t batches = 0, most = 0, least = SIZE_MAX;
    ct_reader_options options = options_of(&path, 1, 50);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    for (; ct_reader_next(reader, &batch, &status) == CT_OK; batches++) {
        char before[CT_DIGEST_HEX_BYTES], after[CT_DIGEST_HEX_BYTES];
        uint64_t *words = NULL;
        size_t count = 0;
        digest_of(leader, before);
        if (batches == 20) ct_histories_clear(leader);
        assert_ok(ct_histories_add(leader, batch, &status), &status);
        ct_reader_release(reader, batch);
        digest_of(leader, after);
        assert_ok(ct_histories_changes(leader, &words, &count, &status), &status);
        ct_histories_forget_changes(leader);
        assert_ok(ct_histories_apply(copy, words, count, "delta", &status), &status);
        assert_digest(copy, after);
        assert_int_equal(ct_histories_units(copy), ct_histories_units(leader));
        for (int again = 0; again < 2; again++) { /* the first one is dropped */
            assert_ok(ct_histories_next(read, words, count, "delta", &next, &status), &status);
            assert_digest(read, before);
            assert_digest(next, after);
            if (again == 0) ct_histories_drop(next);
        }
        for (size_t cut = 0; batches % 20 == 3 && cut < count; cut++)
            assert_code(CT_CORRUPT, ct_histories_next(read, words, cut, "delta", &(ct_histories *){NULL}, &status), &status);
        ct_histories_retire(read, next);
        read = next;
        assert_digest(read, after);
        if (batches > 2 && count > most) most = count;
        if (count < least) least = count;
        free(words);
    }
    assert_int_equal(batches, ROWS / 50);
    assert_true(least < most / 2); /* only what has changed */
    ct_reader_close(reader);
    ct_histories_destroy(leader);
    ct_histories_destroy(copy);
    ct_histories_destroy(read);
    free((char *)(uintptr_t)path);
    free(all);
    ct_schema_destroy(schema);
}

static void what_is_missing_is_named(void **state) {
    (void)state;
    ct_schema *schema = schema_of(timed);
    row *all = make_rows(3, 0);
    const char *path = write_rows("log.tsv", all);
    ct_histories *histories = create(schema);
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_status status = CT_STATUS_INIT;
    const ct_reader_options options = options_of(&path, 1, 100);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    assert_ok(ct_reader_next(reader, &batch, &status), &status);
    static const size_t needed[] = {OF_UNIT, OF_LABEL, OF_ITEM, OF_TEXT, OF_TIME};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        batch->columns[needed[i]].present = false;
        assert_code(CT_INVALID, ct_histories_live(histories, batch, &status), &status);
        assert_contains(status.message, schema->fields[needed[i]].name);
        batch->columns[needed[i]].present = true;
    }
    ct_reader_close(reader);
    ct_histories_destroy(histories);
    free((char *)(uintptr_t)path);
    free(all);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_see_what_is_of_a_strictly_earlier_time),
                                       cmocka_unit_test(rows_see_earlier_rows_where_there_is_no_time),
                                       cmocka_unit_test(no_history_holds_the_future),
                                       cmocka_unit_test(standing_histories_are_the_newest_values),
                                       cmocka_unit_test(block_files_give_the_same),
                                       cmocka_unit_test(files_are_of_one_moment),
                                       cmocka_unit_test(files_bring_them_back),
                                       cmocka_unit_test(changes_take_them_on),
                                       cmocka_unit_test(what_is_missing_is_named)};
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
