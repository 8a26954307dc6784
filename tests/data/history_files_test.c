/* Histories in files: a chain costs what has changed, and holds what one file of everything would; what began anew, what failed, what is
 * damaged, what an earlier program wrote. */
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/history.h"
#include "tests/data/history_files.h"

static void assert_same(ct_histories *a, ct_histories *b) {
    char one[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
    digest_of(a, one);
    digest_of(b, other);
    assert_string_equal(one, other);
}

static ct_histories *open_all(const ct_schema *schema, const char *path) {
    ct_histories *histories = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_histories_open(schema, path, count_files(path), &histories, &status), &status);
    return histories;
}

/* Units of each history in a file, read as the format is written down, and whether all that was before is gone. */
static void look(const char *path, size_t number, uint64_t out_units[HISTORIES], bool *out_all) {
    char *file = file_of(path, number), *bytes = NULL;
    size_t size = 0;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_file_read(file, SIZE_MAX / 2, &bytes, &size, &status), &status);
    const uint64_t *words = (const uint64_t *)(const void *)bytes;
    assert_memory_equal(bytes, "CTHISTD\n", 8);
    assert_int_equal(words[2], HISTORIES);
    *out_all = words[3] != 0;
    size_t at = HEAD;
    for (size_t h = 0; h < HISTORIES; h++) {
        out_units[h] = words[at + 1];
        at += 3 + 2 * words[at + 1] + 3 * words[at + 2];
    }
    assert_int_equal(8 * at, size);
    free(bytes);
    free(file);
}

/* Entries of one time are kept until a later one comes, then all of them but the newest few go at once. */
static void what_opening_takes_is_known_before(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create(schema), NULL};
    char *saved = new_folder("saved");
    for (size_t round = 0; round < 2; round++) {
        ct_status status = CT_STATUS_INIT;
        text t = {0};
        for (size_t i = 0; i < (round == 0 ? 40 : 1); i++) text_add(&t, "1\tu\t%zu\t%zu\n", i, 5 + round);
        char *path = write_bytes(folder, "clicks.tsv", t.bytes, t.size);
        enter(set[0], schema, path);
        const uint64_t opened_bytes = save(set[0], saved);
        ct_histories *back = open_all(schema, saved);
        assert_int_equal(ct_histories_bytes(back), opened_bytes);
        ct_histories_destroy(back);
        assert_ok(ct_folder_remove(saved, &status), &status);
        free(t.bytes);
        free(path);
    }
    free(saved);
    ct_histories_destroy(set[0]);
    ct_schema_destroy(schema);
}

static void a_file_holds_what_has_changed(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create_beside(schema, "scratch"), create(schema), NULL}, *back = NULL; /* the second one is never saved */
    char *saved[3] = {new_folder("a"), new_folder("b"), new_folder("c")};
    uint64_t units[HISTORIES], opened_bytes[3];
    bool all = false;
    click(set, schema, 0, USERS, 5);
    opened_bytes[0] = save(set[0], saved[0]);
    assert_int_equal(count_files(saved[0]), 1);
    look(saved[0], 0, units, &all);
    assert_true(all && units[0] == USERS && units[1] == USERS);
    click(set, schema, 300, PART, 1);
    opened_bytes[1] = save(set[0], saved[1]);
    assert_int_equal(count_files(saved[1]), 2);
    look(saved[1], 1, units, &all);
    assert_true(!all && units[0] == PART && units[1] == PART);
    const struct stat first = stat_of(saved[0], 0), again = stat_of(saved[1], 0), change = stat_of(saved[1], 1);
    assert_true(first.st_ino == again.st_ino && first.st_dev == again.st_dev);
    assert_in_range(change.st_size, 1, first.st_size * 2 / 100); /* with one entry more each */
    opened_bytes[2] = save(set[0], saved[2]);                    /* nothing has changed */
    assert_int_equal(count_files(saved[2]), 3);
    assert_int_equal(stat_of(saved[2], 2).st_size, 8 * (HEAD + 3 * HISTORIES));
    for (size_t i = 0; i < 3; i++) {
        back = open_all(schema, saved[i]);
        if (i > 0) assert_same(back, set[1]);
        assert_int_equal(ct_histories_bytes(back), opened_bytes[i]);
        ct_histories_destroy(back);
        free(saved[i]);
    }
    ct_histories_destroy(set[0]);
    ct_histories_destroy(set[1]);
    ct_schema_destroy(schema);
}

/* Many changes, of a percent and of one unit: what is written stays in proportion, what a folder has is bounded, and it always holds all.
 */
static void a_chain_stays_short(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    static const struct {
        size_t units, rounds, anew;              /* each round; of them all is written so often */
    } ways[] = {{1, 66, 2}, {10 * PART, 25, 3}}; /* by the number of files; by their bytes: ten rounds or so are a whole */
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        ct_histories *set[] = {create_beside(schema, "scratch"), create(schema), NULL};
        char *saved = new_folder("saved"), *before = new_folder("before");
        click(set, schema, 0, USERS, 10); /* as long as they get: a later one pushes out the first */
        uint64_t written = 0, whole = 0;
        size_t anew = 0;
        for (size_t round = 0; round < ways[way].rounds; round++) {
            ct_status status = CT_STATUS_INIT;
            uint64_t chain = 0;
            click(set, schema, round * 31, ways[way].units, 1);
            const uint64_t opened_bytes = save(set[0], saved);
            const size_t files = count_files(saved);
            assert_in_range(files, 1, CT_HISTORIES_MOST_FILES);
            for (size_t i = 0; i < files; i++) chain += (uint64_t)stat_of(saved, i).st_size;
            written += (uint64_t)stat_of(saved, files - 1).st_size;
            whole = (uint64_t)stat_of(saved, 0).st_size;
            anew += files == 1;
            assert_in_range(chain, whole, 2 * whole);
            if (round % 12 == 11) {
                ct_histories *back = open_all(schema, saved);
                assert_same(back, set[1]);
                assert_int_equal(ct_histories_bytes(back), opened_bytes);
                ct_histories_destroy(back);
            }
            assert_ok(ct_folder_remove(before, &status), &status);
            assert_int_equal(rename(saved, before), 0);
        }
        assert_int_equal(anew, ways[way].anew);
        const uint64_t changed = ways[way].rounds * ways[way].units * whole / USERS;
        assert_in_range(written, anew * whole,
                        anew * whole + changed + changed / 10 + 100 * ways[way].rounds); /* whole each time, it would be whole * rounds */
        char *scratch = temp_path(folder, "scratch");
        assert_int_equal(count_files(scratch), count_files(before)); /* it keeps no more */
        free(scratch);
        free(saved);
        free(before);
        ct_histories_destroy(set[0]);
        ct_histories_destroy(set[1]);
    }
    ct_schema_destroy(schema);
}

static void what_began_anew_begins_a_chain(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create_beside(schema, "scratch"), create(schema), NULL};
    uint64_t units[HISTORIES];
    bool all = false;
    for (int round = 0; round < 3; round++) { /* cleared before, between two savings, and while one is written */
        ct_histories_saving *saving = NULL;
        char *a = new_folder("a"), *b = new_folder("b"), *c = new_folder("c"), then[CT_DIGEST_HEX_BYTES], hex[CT_DIGEST_HEX_BYTES];
        ct_status status = CT_STATUS_INIT;
        click(set, schema, 0, USERS, 3);
        save(set[0], a);
        click(set, schema, 7, 11, 1);
        digest_of(set[0], then);
        assert_ok(ct_histories_saving_begin(set[0], &saving, &status), &status);
        for (size_t i = 0; i < 2; i++) ct_histories_clear(set[i]);
        click(set, schema, 40, 50, 2);
        assert_ok(write_saving(saving, b, hex, &status), &status);
        assert_string_equal(hex, then);
        assert_int_equal(count_files(b), 2);
        ct_histories *back = open_all(schema, b);
        digest_of(back, hex);
        assert_string_equal(hex, then);
        ct_histories_destroy(back);
        save(set[0], c);
        assert_int_equal(count_files(c), 1);
        look(c, 0, units, &all);
        assert_true(all && units[0] == 50 && units[1] == 50);
        back = open_all(schema, c);
        assert_same(back, set[1]);
        ct_histories_destroy(back);
        free(a);
        free(b);
        free(c);
    }
    ct_histories_destroy(set[0]);
    ct_histories_destroy(set[1]);
    ct_schema_destroy(schema);
}

/* A run that goes on takes the chain up; without the folder that they came from, it begins one. */
static void a_chain_goes_on(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create_beside(schema, "scratch"), NULL};
    char *a = new_folder("a"), *b = new_folder("b");
    ct_status status = CT_STATUS_INIT;
    click(set, schema, 0, USERS, 4);
    save(set[0], a);
    click(set, schema, 5, PART, 1);
    save(set[0], b);
    for (int with = 0; with < 2; with++) {
        char *scratch = new_folder("second"), *c = new_folder("c");
        ct_histories *on[] = {open_all(schema, b), NULL}, *back = NULL;
        assert_ok(ct_histories_save_beside(on[0], scratch, with ? b : NULL, &status), &status);
        click(on, schema, 900, PART, 1);
        save(on[0], c);
        assert_int_equal(count_files(c), with ? 3 : 1);
        back = open_all(schema, c);
        assert_same(back, on[0]);
        ct_histories_destroy(back);
        ct_histories_destroy(on[0]);
        free(scratch);
        free(c);
    }
    free(a);
    free(b);
    ct_histories_destroy(set[0]);
    ct_schema_destroy(schema);
}

typedef struct write_work {
    ct_histories_saving *saving;
    const char *path;
    char hex[CT_DIGEST_HEX_BYTES];
    ct_status status;
    ct_code code;
} write_work;

static void *write_main(void *context) {
    write_work *work = context;
    work->code = write_saving(work->saving, work->path, work->hex, &work->status);
    return NULL;
}

/* What is published, and asked for its digest, while a saving is at work: before it is written, or beside another thread that does. */
static void deltas_and_savings_do_not_mind_each_other(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create_beside(schema, "scratch"), create(schema), NULL}, *copy = create(schema);
    ct_status status = CT_STATUS_INIT;
    uint64_t *words = NULL;
    size_t count = 0;
    click(set, schema, 0, USERS, 2);
    for (size_t round = 0; round < 8; round++) {
        char *saved = new_folder("saved"), then[CT_DIGEST_HEX_BYTES], hex[CT_DIGEST_HEX_BYTES];
        write_work work = {.path = saved, .status = CT_STATUS_INIT};
        pthread_t thread;
        const bool beside = round % 4 >= 2;
        click(set, schema, 100 * round, 60, 1);
        if (round % 2 == 0) assert_same(set[0], set[1]);
        digest_of(set[1], then);
        assert_ok(ct_histories_saving_begin(set[0], &work.saving, &status), &status);
        if (beside) assert_int_equal(pthread_create(&thread, NULL, write_main, &work), 0);
        for (size_t half = 0; half < 2; half++) {
            click(set, schema, 100 * round + 30, 60, 1); /* half of it is to be written */
            assert_same(set[0], set[1]);
            assert_ok(ct_histories_changes(set[0], &words, &count, &status), &status);
            ct_histories_forget_changes(set[0]);
            if (half == 1 || round > 0) assert_in_range(count, 1, HEAD + HISTORIES * (3 + 140 * (2 + 3 * 10)));
            assert_ok(ct_histories_apply(copy, words, count, "words", &status), &status);
            assert_same(copy, set[1]);
            free(words);
        }
        if (beside)
            assert_int_equal(pthread_join(thread, NULL), 0);
        else
            (void)write_main(&work);
        assert_ok(work.code, &work.status);
        assert_string_equal(work.hex, then);
        assert_same(set[0], set[1]);
        ct_histories *back = open_all(schema, saved);
        digest_of(back, hex);
        assert_string_equal(hex, then);
        ct_histories_destroy(back);
        free(saved);
    }
    ct_histories_destroy(copy);
    ct_histories_destroy(set[0]);
    ct_histories_destroy(set[1]);
    ct_schema_destroy(schema);
}

static void after_a_failure_all_is_written(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create_beside(schema, "scratch"), create(schema), NULL};
    char *a = new_folder("a"), *file = write_text(folder, "file", "no folder"), *inside = temp_path(file, "inside");
    ct_histories_saving *saving = NULL;
    ct_status status = CT_STATUS_INIT;
    char hex[CT_DIGEST_HEX_BYTES];
    click(set, schema, 0, USERS, 4);
    save(set[0], a);
    for (int way = 0; way < 3; way++) { /* it can't be linked; not be written; was never asked for */
        char *b = new_folder("b"), *scratch = temp_path(folder, "scratch"), *away = temp_path(folder, "away");
        click(set, schema, 100, PART, 1);
        assert_ok(ct_histories_saving_begin(set[0], &saving, &status), &status);
        if (way == 1) assert_int_equal(rename(scratch, away), 0);
        if (way == 2)
            ct_histories_saving_end(saving);
        else
            assert_true(write_saving(saving, way == 0 ? inside : b, hex, &status) != CT_OK);
        if (way == 1) assert_int_equal(rename(away, scratch), 0);
        status = (ct_status)CT_STATUS_INIT;
        click(set, schema, 200, PART, 1);
        assert_ok(ct_folder_remove(b, &status), &status);
        save(set[0], b);
        assert_int_equal(count_files(b), 1);
        ct_histories *back = open_all(schema, b);
        assert_same(back, set[1]);
        ct_histories_destroy(back);
        free(b);
        free(scratch);
        free(away);
    }
    free(a);
    free(file);
    free(inside);
    ct_histories_destroy(set[0]);
    ct_histories_destroy(set[1]);
    ct_schema_destroy(schema);
}

/* A file of an earlier program is all words of the first one of a chain but the fourth, under another name. Its digest was that of its
 * bytes. */
static void an_earlier_file_is_a_chain_of_one(void **state) {
    (void)state;
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create(schema), NULL, NULL}, *old = NULL;
    char *a = new_folder("a"), *first = NULL, *bytes = NULL, hex[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    ct_digest *digest = NULL;
    ct_status status = CT_STATUS_INIT;
    size_t size = 0;
    click(set, schema, 0, 500, 4);
    save(set[0], a);
    first = file_of(a, 0);
    assert_ok(ct_file_read(first, SIZE_MAX / 2, &bytes, &size, &status), &status);
    memcpy(bytes, "CTHIST1\n", 8);
    memmove(bytes + 24, bytes + 32, size - 32);
    size -= 8;
    char *file = write_bytes(folder, "histories", bytes, size);
    assert_ok(ct_digest_create(&digest, &status), &status);
    ct_digest_update(digest, bytes, size);
    ct_digest_hex(digest, hex);
    ct_digest_destroy(digest);
    assert_ok(ct_histories_open(schema, file, 0, &old, &status), &status);
    digest_of(old, got);
    assert_string_equal(got, hex);
    ct_histories_digest_anew(old);
    assert_same(old, set[0]);
    ct_histories_destroy(old);
    assert_ok(ct_histories_open(schema, file, 0, &old, &status), &status);
    set[1] = old;
    click(set, schema, 30, 80, 2); /* rows have entered */
    assert_same(old, set[0]);
    char *scratch = new_folder("scratch"), *b = new_folder("b");
    assert_ok(ct_histories_save_beside(old, scratch, folder, &status), &status);
    save(old, b);
    assert_int_equal(count_files(b), 1);
    ct_histories_destroy(old);
    for (size_t cut = 0; cut < size; cut += 1 + size / 50) {
        char *short_file = write_bytes(folder, "histories", bytes, cut);
        assert_code(CT_CORRUPT, ct_histories_open(schema, short_file, 0, &old, &status), &status);
        free(short_file);
    }
    ct_histories_destroy(set[0]);
    free(scratch);
    free(a);
    free(b);
    free(first);
    free(file);
    free(bytes);
    ct_schema_destroy(schema);
}

static void what_is_damaged_is_refused(void **state) {
    (void)state;
    enum { FILES = 3 };
    ct_schema *schema = schema_of(yaml);
    ct_histories *set[] = {create_beside(schema, "scratch"), NULL}, *bad = NULL;
    ct_status status = CT_STATUS_INIT;
    char *saved = NULL, *bytes[FILES];
    size_t sizes[FILES];
    click(set, schema, 0, 400, 3);
    for (size_t i = 0; i < FILES; i++) {
        free(saved);
        saved = new_folder("saved");
        save(set[0], saved);
        click(set, schema, 10 * i, 4, 1);
    }
    char *broken = new_folder("broken");
    assert_ok(ct_folder_create(broken, &status), &status);
    for (size_t i = 0; i < FILES; i++) {
        char *file = file_of(saved, i);
        assert_ok(ct_file_read(file, SIZE_MAX / 2, &bytes[i], &sizes[i], &status), &status);
        free(file);
    }
    for (size_t i = 0; i < FILES; i++) { /* the file that is damaged */
        char name[FILES][CT_HISTORIES_NAME_BYTES];
        for (size_t k = 0; k < FILES; k++) {
            ct_histories_file_name(k, name[k]);
            free(write_bytes(broken, name[k], bytes[k], sizes[k]));
        }
        bad = open_all(schema, broken);
        ct_histories_destroy(bad);
        char *file = temp_path(broken, name[i]);
        for (size_t cut = 0; cut < sizes[i]; cut += 1 + sizes[i] / 20) {
            free(write_bytes(broken, name[i], bytes[i], cut));
            assert_code(CT_CORRUPT, ct_histories_open(schema, broken, FILES, &bad, &status), &status);
            assert_contains(status.message, file);
            assert_contains(status.message, "copy the folder again");
        }
        for (size_t at = 0; at < sizes[i] && at < 360; at += 3) { /* no crash, whatever stands there */
            bytes[i][at] = (char)(bytes[i][at] ^ 0x41);
            free(write_bytes(broken, name[i], bytes[i], sizes[i]));
            if (ct_histories_open(schema, broken, FILES, &bad, &status) == CT_OK) ct_histories_destroy(bad);
            bytes[i][at] = (char)(bytes[i][at] ^ 0x41);
        }
        const size_t wrong = i == 0 ? 1 : 0; /* the first one in the place of another, and the other way round */
        free(write_bytes(broken, name[i], bytes[wrong], sizes[wrong]));
        assert_code(CT_CORRUPT, ct_histories_open(schema, broken, FILES, &bad, &status), &status);
        assert_contains(status.message, file);
        assert_int_equal(remove(file), 0);
        assert_code(CT_NOT_FOUND, ct_histories_open(schema, broken, FILES, &bad, &status), &status);
        assert_contains(status.message, file);
        free(file);
    }
    ct_schema *another = schema_of(yaml);
    another->fields[OF_SEEN].hash++;
    assert_code(CT_CORRUPT, ct_histories_open(another, saved, FILES, &bad, &status), &status);
    ct_schema_destroy(another);
    for (size_t i = 0; i < FILES; i++) free(bytes[i]);
    free(saved);
    free(broken);
    ct_histories_destroy(set[0]);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_opening_takes_is_known_before),
                                       cmocka_unit_test(a_file_holds_what_has_changed),
                                       cmocka_unit_test(a_chain_stays_short),
                                       cmocka_unit_test(what_began_anew_begins_a_chain),
                                       cmocka_unit_test(a_chain_goes_on),
                                       cmocka_unit_test(deltas_and_savings_do_not_mind_each_other),
                                       cmocka_unit_test(after_a_failure_all_is_written),
                                       cmocka_unit_test(an_earlier_file_is_a_chain_of_one),
                                       cmocka_unit_test(what_is_damaged_is_refused)};
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
