#include "base/file.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/base/temp.h"

static void assert_content(const char *path, const void *expected, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    char *data = NULL;
    size_t got = 0;
    assert_int_equal(ct_file_read(path, SIZE_MAX, &data, &got, &status), CT_OK);
    assert_int_equal(got, bytes);
    if (bytes) assert_memory_equal(data, expected, bytes);
    assert_int_equal(data[got], 0);
    free(data);
}

/* Pieces of all sizes around the buffer's 256 KiB arrive in order. */
static void writes_pieces_of_any_size(void **state) {
    const char *folder = *state;
    static const size_t sizes[] = {0, 1, 100, 262143, 262144, 262145, 3, 700000, 1, 262140, 5};
    size_t total = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) total += sizes[i];
    unsigned char *data = malloc(total);
    assert_non_null(data);
    for (size_t i = 0; i < total; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);

    ct_status status = CT_STATUS_INIT;
    ct_file_writer *writer = NULL;
    char *path = temp_path(folder, "pieces");
    assert_int_equal(ct_file_writer_open(path, &writer, &status), CT_OK);
    size_t at = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(ct_file_writer_write(writer, data + at, sizes[i], &status), CT_OK);
        at += sizes[i];
        assert_int_equal(ct_file_writer_position(writer), at);
        assert_false(ct_path_exists(path)); /* nothing under the final name yet */
    }
    assert_int_equal(ct_file_writer_commit(writer, &status), CT_OK);
    assert_content(path, data, total);
    assert_int_equal(temp_count(folder), 1);
    free(path);
    free(data);
}

static void prints_lines(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "lines"), text[5001];
    memset(text, 'y', 5000);
    text[5000] = '\0';
    ct_status status = CT_STATUS_INIT;
    ct_file_writer *writer = NULL;
    assert_int_equal(ct_file_writer_open(path, &writer, &status), CT_OK);
    assert_int_equal(ct_file_writer_printf(writer, &status, "%d\t%s\n", 42, "x"), CT_OK);
    assert_int_equal(ct_file_writer_printf(writer, &status, "%s", text), CT_OK); /* longer than any small buffer */
    assert_int_equal(ct_file_writer_position(writer), 5 + 5000);
    assert_int_equal(ct_file_writer_commit(writer, &status), CT_OK);
    char expected[5005];
    memcpy(expected, "42\tx\n", 5);
    memcpy(expected + 5, text, 5000);
    assert_content(path, expected, 5005);
    free(path);
}

static void abort_keeps_the_old_file(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "kept");
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, "old", 3, &status), CT_OK);
    ct_file_writer *writer = NULL;
    assert_int_equal(ct_file_writer_open(path, &writer, &status), CT_OK);
    assert_int_equal(ct_file_writer_write(writer, "new text", 8, &status), CT_OK);
    ct_file_writer_abort(writer);
    ct_file_writer_abort(NULL);
    assert_content(path, "old", 3);
    assert_int_equal(temp_count(folder), 1);
    assert_int_equal(ct_file_write(path, "new", 3, &status), CT_OK);
    assert_content(path, "new", 3);
    assert_int_equal(temp_count(folder), 1);
    free(path);
}

/* Left by a process of the same number that was killed: not ours, not in the way. */
static void replaces_a_left_partial_file(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "again"), *left = NULL;
    assert_true(asprintf(&left, "%s.partial-%ld", path, (long)getpid()) > 0);
    FILE *file = fopen(left, "w");
    assert_non_null(file);
    assert_true(fputs("a longer text of somebody else", file) >= 0);
    assert_int_equal(fclose(file), 0);
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, "mine", 4, &status), CT_OK);
    assert_content(path, "mine", 4);
    assert_int_equal(temp_count(folder), 1);
    free(left);
    free(path);
}

/* A device is written to, not replaced. It is reached by a link, so that a writer that gets this wrong takes away the link only. */
static void a_device_stays_a_device(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "nothing");
    ct_status status = CT_STATUS_INIT;
    struct stat info;
    assert_int_equal(symlink("/dev/null", path), 0);
    assert_int_equal(ct_file_write(path, "gone", 4, &status), CT_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    ct_file_writer *writer = NULL;
    assert_int_equal(ct_file_writer_open(path, &writer, &status), CT_OK);
    ct_file_writer_abort(writer);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void a_pipe_is_written_to(void **state) {
    (void)state;
    char path[64], got[16];
    ct_status status = CT_STATUS_INIT;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
    assert_int_equal(ct_file_write(path, "through", 7, &status), CT_OK);
    assert_int_equal(read(ends[0], got, sizeof got), 7);
    assert_memory_equal(got, "through", 7);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void a_folder_is_refused_at_once(void **state) {
    ct_status status = CT_STATUS_INIT;
    ct_file_writer *writer = NULL;
    assert_int_equal(ct_file_writer_open(*state, &writer, &status), CT_INVALID);
    assert_non_null(strstr(status.message, ": is a folder"));
    assert_int_equal(temp_count(*state), 0);
}

/* The disk is full, played by a limit on the size of files. */
static void a_full_disk_is_named_and_leaves_nothing(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "too_large"), *data = calloc(1, 1 << 20);
    assert_non_null(data);
    struct rlimit before, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    low.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);

    for (int at_commit = 0; at_commit < 2; at_commit++) { /* the limit is met in write, or only when the buffer is written out */
        const size_t bytes = at_commit ? 200000 : 1 << 20;
        ct_status status = CT_STATUS_INIT;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        const ct_code code = ct_file_write(path, data, bytes, &status);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(code, CT_EXHAUSTED);
        assert_int_equal(status.code, CT_EXHAUSTED);
        assert_non_null(strstr(status.message, path));
        assert_non_null(strstr(status.message, strerror(EFBIG)));
        assert_int_equal(temp_count(folder), 0);
    }
    (void)signal(SIGXFSZ, handler);
    free(data);
    free(path);
}

static void names_what_it_cannot_open(void **state) {
    const char *folder = *state;
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(folder, "none/file"), *data = NULL;
    size_t bytes = 0;
    char hex[CT_DIGEST_HEX_BYTES];
    assert_int_equal(ct_file_write(path, "x", 1, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, path));
    assert_int_equal(ct_file_read(path, 10, &data, &bytes, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, path));
    assert_int_equal(ct_file_digest(path, hex, NULL, &status), CT_NOT_FOUND);
    assert_int_equal(ct_file_read(folder, 10, &data, &bytes, &status), CT_IO); /* a folder */
    assert_null(data);
    /* A folder has the name already: commit fails and cleans up. */
    char *taken = temp_path(folder, "taken");
    assert_int_equal(ct_folder_create(taken, &status), CT_OK);
    assert_int_not_equal(ct_file_write(taken, "x", 1, &status), CT_OK);
    assert_int_equal(temp_count(folder), 0);
    free(taken);
    free(path);
}

static void reads_within_its_limit(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "sized"), *data = NULL;
    size_t bytes = 0;
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_file_write(path, "", 0, &status), CT_OK);
    assert_content(path, "", 0);
    assert_int_equal(ct_file_write(path, "12345", 5, &status), CT_OK);
    assert_int_equal(ct_file_read(path, 4, &data, &bytes, &status), CT_EXHAUSTED);
    assert_non_null(strstr(status.message, path));
    assert_null(data);
    assert_int_equal(ct_file_read(path, 5, &data, &bytes, &status), CT_OK);
    assert_int_equal(bytes, 5);
    free(data);
    free(path);

    /* A file without a size: the limit and growth still hold. */
    assert_int_equal(ct_file_read("/proc/self/status", 1 << 20, &data, &bytes, &status), CT_OK);
    assert_memory_equal(data, "Name:", 5);
    assert_int_equal(strlen(data), bytes);
    free(data);
    data = NULL;
    assert_int_equal(ct_file_read("/proc/self/status", 10, &data, &bytes, &status), CT_EXHAUSTED);
    assert_int_equal(ct_file_read("/dev/zero", 100000, &data, &bytes, &status), CT_EXHAUSTED);
    assert_null(data);
}

/* Expected: `xxhsum -H2` of the same bytes. */
static void digests_a_file(void **state) {
    const char *folder = *state;
    char *path = temp_path(folder, "digest");
    unsigned char data[5000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 131 + i / 251);
    ct_status status = CT_STATUS_INIT;
    char hex[CT_DIGEST_HEX_BYTES];
    uint64_t bytes = 0;
    assert_int_equal(ct_file_write(path, data, sizeof data, &status), CT_OK);
    assert_int_equal(ct_file_digest(path, hex, &bytes, &status), CT_OK);
    assert_string_equal(hex, "cfbf9ab91ce7b0c8b9d5cf500f67ddde");
    assert_int_equal(bytes, 5000);
    free(path);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, temp_setup, temp_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(writes_pieces_of_any_size),
        IN_FOLDER(prints_lines),
        IN_FOLDER(abort_keeps_the_old_file),
        IN_FOLDER(replaces_a_left_partial_file),
        IN_FOLDER(a_device_stays_a_device),
        cmocka_unit_test(a_pipe_is_written_to),
        IN_FOLDER(a_folder_is_refused_at_once),
        IN_FOLDER(a_full_disk_is_named_and_leaves_nothing),
        IN_FOLDER(names_what_it_cannot_open),
        IN_FOLDER(reads_within_its_limit),
        IN_FOLDER(digests_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
