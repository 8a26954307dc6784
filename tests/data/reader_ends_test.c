/* The reader as its caller sees it: pauses, batches that are held, what can't be opened, damage, stops, an early end. */
#include "data/reader.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/data/rows.h"

static char *folder;

/* From now on standard input is a pipe, whose other end is *out_to; returns what it was before. */
static int read_from_pipe(int *out_to) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const int before = dup(0);
    assert_true(before >= 0 && dup2(ends[0], 0) == 0);
    (void)close(ends[0]);
    *out_to = ends[1];
    return before;
}

static void read_again_from(int before) {
    assert_true(dup2(before, 0) == 0);
    (void)close(before);
}

/* Rows that a pipe brings come out though it stays open. */
static void test_pipe_pauses(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_batch *batch;
    int to;
    const int kept = read_from_pipe(&to);
    const ct_reader_options options = options_of((const char *const[]){"-"}, 1, 4);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(write(to, "1000\n2000\n3000\n4000\n50", 22), 22);
        assert_ok(ct_reader_next(reader, &batch, &status), &status);
        assert_int_equal(batch->rows, 4);
        assert_true(ct_column_f32(&batch->columns[0])[0] == (i ? 501000.0f : 1000.0f));
        ct_reader_release(reader, batch);
    }
    (void)close(to);
    assert_ok(ct_reader_next(reader, &batch, &status), &status);
    assert_true(batch->rows == 1 && ct_column_f32(&batch->columns[0])[0] == 50.0f);
    ct_reader_close(reader);
    read_again_from(kept);
    ct_schema_destroy(schema);
}

/* A pipe that never pauses, in the test's own time: whenever the reader asks whether there is more, a line comes, and 1 ms has passed. */
static struct {
    bool on;
    int to;
    atomic_size_t lines;
} steady;
enum { STEADY_MOST = 20000 };

int __real_poll(struct pollfd *descriptors, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *descriptors, nfds_t count, int timeout_ms);
int64_t __real_ct_clock_ns(void);
int64_t __wrap_ct_clock_ns(void);

int __wrap_poll(struct pollfd *descriptors, nfds_t count, int timeout_ms) {
    if (steady.on && atomic_load(&steady.lines) < STEADY_MOST && write(steady.to, "1000000\n", 8) == 8) atomic_fetch_add(&steady.lines, 1);
    return __real_poll(descriptors, count, timeout_ms);
}

int64_t __wrap_ct_clock_ns(void) { return steady.on ? (int64_t)atomic_load(&steady.lines) * 1000000 : __real_ct_clock_ns(); }

/* Rows of a pipe that never pauses come out, though they are far from a chunk. */
static void test_pipe_steady(void **state) {
    (void)state;
    enum { BATCHES = 3 };
    ct_schema *schema = schema_of(one_number);
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_batch *batch;
    const int kept = read_from_pipe(&steady.to);
    ct_reader_options options = options_of((const char *const[]){"-"}, 1, 4);
    options.chunk_bytes = 8 * STEADY_MOST;
    atomic_store(&steady.lines, 1); /* the clock is not 0 */
    steady.on = true;
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    for (int i = 0; i < BATCHES; i++) {
        assert_ok(ct_reader_next(reader, &batch, &status), &status);
        ct_reader_release(reader, batch);
    }
    const size_t lines = atomic_load(&steady.lines);
    ct_reader_close(reader);
    (void)close(steady.to);
    steady.on = false;
    read_again_from(kept);
    ct_schema_destroy(schema);
    assert_true(lines < STEADY_MOST);
}

/* When a batch's rows came: of a pipe that pauses in the middle of a batch, its first ones came before the pause. The reader's thread may
 * be slow to read them, so one batch of many must show it. */
static void test_read_times(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader = NULL;
    ct_batch *batch;
    int to, waiting;
    bool shown = false;
    const int kept = read_from_pipe(&to);
    const ct_reader_options options = options_of((const char *const[]){"-"}, 1, 4);
    assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
    for (int i = 0; i < 200 && !shown; i++) {
        const int64_t before = ct_clock_unix_ms();
        assert_int_equal(write(to, "100000001\n100000002\n", 20), 20);
        do {
            assert_int_equal(ioctl(0, FIONREAD, &waiting), 0);
            (void)sched_yield();
        } while (waiting > 0);
        const int64_t read = ct_clock_unix_ms();
        while (ct_clock_unix_ms() <= read + 50) (void)sched_yield(); /* the reader waits for more for 20 ms */
        const int64_t behind = ct_clock_unix_ms();
        assert_int_equal(write(to, "3\n4\n", 4), 4);
        assert_ok(ct_reader_next(reader, &batch, &status), &status);
        assert_int_equal(batch->rows, 4);
        assert_true(batch->oldest_ms >= before && batch->oldest_ms <= batch->newest_ms);
        assert_true(batch->newest_ms >= behind && batch->newest_ms <= ct_clock_unix_ms());
        shown = batch->oldest_ms < behind;
        ct_reader_release(reader, batch);
    }
    assert_true(shown);
    (void)close(to);
    ct_reader_close(reader);
    read_again_from(kept);
    ct_schema_destroy(schema);
}

/* Batches stay as they are while held, whatever is released in which order; one too many is refused. */
static void test_held(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    text t = {0};
    for (int i = 0; i < 100; i++) text_add(&t, "%d\n", i);
    char *path = write_bytes(folder, "held", t.bytes, t.size);
    for (size_t lookahead = 2; lookahead < 6; lookahead++) {
        ct_status status = CT_STATUS_INIT;
        ct_reader *reader = NULL;
        ct_batch *held[8] = {0}, *one_more = NULL;
        size_t count = 0;
        int next = 0;
        uint64_t seed = lookahead;
        ct_reader_options options = options_of((const char *const[]){path}, 1, 5);
        options.lookahead = lookahead;
        assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
        for (;;) {
            if (count == lookahead - 1) {
                assert_code(CT_INTERNAL, ct_reader_next(reader, &one_more, &status), &status);
                const size_t which = draw(&seed, (uint32_t)count);
                assert_true(*ct_column_f32(&held[which]->columns[0]) == (float)held[which]->first_row);
                ct_reader_release(reader, held[which]);
                held[which] = held[--count];
                continue;
            }
            const ct_code code = ct_reader_next(reader, &held[count], &status);
            if (code == CT_END) break;
            assert_ok(code, &status);
            assert_true(*ct_column_f32(&held[count]->columns[0]) == (float)next);
            assert_int_equal(held[count]->first_row, next);
            next += 5;
            count++;
        }
        assert_int_equal(next, 100);
        ct_reader_close(reader);
    }
    free(path);
    free(t.bytes);
    ct_schema_destroy(schema);
}

/* A failure comes after the whole batches before it, names the file, and stays. */
static void test_corrupt(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(one_number);
    text t = {0};
    for (int i = 0; i < 100000; i++) text_add(&t, "%d\n", i * 7919);
    size_t zipped;
    rows r;
    unsigned char *gzip = gzip_bytes(t.bytes, t.size, 6, &zipped);
    char *good = write_text(folder, "before", "1\n2\n3\n"), *cut = write_bytes(folder, "cut.gz", gzip, zipped - 1);
    ct_reader_options options = options_of((const char *const[]){good, cut, good}, 3, 1000);
    assert_code(CT_CORRUPT, rows_read(schema, &options, &r, &status), &status);
    assert_contains(status.message, "cut.gz");
    assert_int_equal(r.rows, 100000);
    rows_free(&r);
    gzip[zipped / 2] ^= 0x55;
    char *flipped = write_bytes(folder, "flipped.gz", gzip, zipped);
    options = options_of((const char *const[]){flipped}, 1, 1000);
    assert_code(CT_CORRUPT, rows_read(schema, &options, &r, &status), &status);
    assert_contains(status.message, "flipped.gz");
    assert_contains(status.message, "compressed byte");
    rows_free(&r);
    free(gzip);
    free(good);
    free(cut);
    free(flipped);
    free(t.bytes);
    ct_schema_destroy(schema);
}

static void test_open(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = schema_of(one_number);
    ct_reader *reader = NULL;
    rows r;
    char *empty = write_text(folder, "empty", ""), *blank = write_text(folder, "blank", "\n\r\n\n");
    ct_reader_options options = options_of((const char *const[]){empty, blank}, 2, 3);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 0);
    assert_int_equal(r.report.blank_lines, 3);
    assert_int_equal(r.report.bad_total, 0);
    rows_free(&r);
    options = options_of((const char *const[]){empty, "/nowhere/day_1"}, 2, 3);
    assert_code(CT_NOT_FOUND, ct_reader_open(schema, &options, &reader, &status), &status);
    assert_contains(status.message, "/nowhere/day_1");
    options = options_of((const char *const[]){"-", empty, "-"}, 3, 3);
    assert_code(CT_INVALID, ct_reader_open(schema, &options, &reader, &status), &status);
    options = options_of((const char *const[]){"| "}, 1, 3);
    assert_code(CT_INVALID, ct_reader_open(schema, &options, &reader, &status), &status);
    options = options_of((const char *const[]){empty}, 1, 3);
    options.threads = 1000;
    assert_code(CT_INVALID, ct_reader_open(schema, &options, &reader, &status), &status);
    options = options_of(NULL, 0, 3);
    assert_code(CT_INVALID, ct_reader_open(schema, &options, &reader, &status), &status);
    options = options_of((const char *const[]){empty}, 1, 0);
    assert_code(CT_INVALID, ct_reader_open(schema, &options, &reader, &status), &status);
    assert_null(reader);
    ct_reader_close(NULL);
    free(empty);
    free(blank);
    ct_schema_destroy(schema);
}

static void *set_flag(void *flag) {
    atomic_store((atomic_bool *)flag, true);
    return NULL;
}

/* Standard input that gives nothing: a stop is heard while waiting, and closing does not hang. */
static void test_stop(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    int to;
    const int kept = read_from_pipe(&to);
    for (int kind = 0; kind < 3; kind++) {
        ct_status status = CT_STATUS_INIT;
        ct_reader *reader = NULL;
        ct_batch *batch;
        atomic_bool stop = kind == 0;
        pthread_t thread;
        ct_reader_options options = options_of((const char *const[]){"-"}, 1, 2);
        if (kind < 2) options.stop = &stop;
        assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
        if (kind == 1) assert_int_equal(pthread_create(&thread, NULL, set_flag, &stop), 0);
        if (kind < 2) assert_code(CT_CANCELLED, ct_reader_next(reader, &batch, &status), &status);
        if (kind == 1) assert_int_equal(pthread_join(thread, NULL), 0);
        ct_reader_close(reader);
    }
    assert_int_equal(write(to, "1\n2\n3", 5), 5);
    (void)close(to);
    ct_status status = CT_STATUS_INIT;
    rows r;
    const ct_reader_options options = options_of((const char *const[]){"-"}, 1, 2);
    assert_ok(rows_read(schema, &options, &r, &status), &status);
    assert_int_equal(r.rows, 3);
    rows_free(&r);
    read_again_from(kept);
    ct_schema_destroy(schema);
}

/* A reader that is closed at any time leaves nothing behind (the sanitizers look). */
static void test_close_early(void **state) {
    (void)state;
    ct_schema *schema = schema_of(one_number);
    text t = {0};
    for (int i = 0; i < 1000; i++) text_add(&t, "%d\n", i);
    char *path = write_bytes(folder, "early", t.bytes, t.size);
    for (int taken = 0; taken < 5; taken++) {
        ct_status status = CT_STATUS_INIT;
        ct_reader *reader = NULL;
        ct_batch *batch;
        const ct_reader_options options = options_of((const char *const[]){path}, 1, 7);
        assert_ok(ct_reader_open(schema, &options, &reader, &status), &status);
        for (int i = 0; i < taken; i++) {
            assert_ok(ct_reader_next(reader, &batch, &status), &status);
            if (i != 1) ct_reader_release(reader, batch);
        }
        ct_reader_close(reader);
    }
    free(path);
    free(t.bytes);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipe_pauses), cmocka_unit_test(test_pipe_steady), cmocka_unit_test(test_read_times),
        cmocka_unit_test(test_held),        cmocka_unit_test(test_corrupt),     cmocka_unit_test(test_open),
        cmocka_unit_test(test_stop),        cmocka_unit_test(test_close_early),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
