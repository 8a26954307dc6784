/* Files of lines: their names, when they are rotated, and that a failure leaves no half line behind. */
#include "base/line_files.h"

#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
/* after them */
#include <cmocka.h>
#include <fcntl.h>

#include "base/clock.h"
#include "tests/base/temp.h"

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

static ct_line_files *open_files(const char *folder, uint64_t rotate_bytes, int64_t rotate_ms) {
    ct_status status = CT_STATUS_INIT;
    ct_line_files *files = NULL;
    MUST(ct_line_files_open(&(ct_line_files_options){folder, "things", rotate_bytes, rotate_ms}, &files, &status), status);
    return files;
}

static void append(ct_line_files *files, const char *lines) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_line_files_append(files, lines, strlen(lines), &status), status);
}

static void tend(ct_line_files *files) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_line_files_tend(files, &status), status);
}

static void close_files(ct_line_files *files) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_line_files_close(files, &status), status);
}

/* The contents of all files in the order of their names, " | " between; a name is checked, and `part` counts those that end so. */
static char *contents(const char *folder, size_t *out_parts) {
    ct_status status = CT_STATUS_INIT;
    ct_file_list list;
    regex_t pattern;
    char *all = calloc(1, 100000);
    assert_int_equal(regcomp(&pattern, "^things-[0-9]{8}T[0-9]{9}-[0-9]+-[0-9]+\\.jsonl(\\.part)?$", REG_EXTENDED), 0);
    MUST(ct_folder_list(folder, &list, &status), status);
    *out_parts = 0;
    for (size_t i = 0; i < list.count; i++) {
        const char *name = list.names[i];
        if (regexec(&pattern, name, 0, NULL, 0) != 0) fail_msg("the name %s", name);
        *out_parts += strlen(name) > 5 && strcmp(name + strlen(name) - 5, ".part") == 0;
        char *path = temp_path(folder, name), *data = NULL;
        size_t bytes = 0;
        MUST(ct_file_read(path, 1 << 20, &data, &bytes, &status), status);
        if (i) strcat(all, " | ");
        strcat(all, data);
        free(data);
        free(path);
    }
    ct_file_list_deinit(&list);
    regfree(&pattern);
    return all;
}

static void assert_contents(const char *folder, const char *wanted, size_t parts) {
    size_t found = 0;
    char *all = contents(folder, &found);
    assert_string_equal(all, wanted);
    assert_int_equal(found, parts);
    free(all);
}

static void rotated_by_size_and_at_the_end(void **state) {
    char *folder = temp_path(*state, "made/by/open");
    ct_line_files *files = open_files(folder, 8, 1000000000);
    assert_contents(folder, "", 0); /* no file without a line */
    assert_int_equal(ct_line_files_due_ms(files), -1);
    tend(files);
    append(files, "a\nb\n");
    tend(files);
    assert_contents(folder, "a\nb\n", 1);
    append(files, "c\nd\n"); /* 8 bytes: as many as asked for */
    tend(files);
    assert_contents(folder, "a\nb\nc\nd\n", 0);
    append(files, "e\n");
    assert_contents(folder, "a\nb\nc\nd\n | e\n", 1);
    close_files(files);
    assert_contents(folder, "a\nb\nc\nd\n | e\n", 0);
    free(folder);
}

static void rotated_by_age(void **state) {
    ct_line_files *files = open_files(*state, 1 << 20, 1000000000);
    append(files, "young\n");
    assert_true(ct_line_files_due_ms(files) > 900000000);
    tend(files);
    assert_contents(*state, "young\n", 1);
    close_files(files);
    files = open_files(*state, 1 << 20, 0);
    append(files, "old\n");
    assert_int_equal(ct_line_files_due_ms(files), 0);
    tend(files);
    assert_contents(*state, "young\n | old\n", 0);
    close_files(files);
}

/* What a process of our number in another container has rotated: the names of all that may be begun within two seconds. */
static void none_takes_the_name_of_another(void **state) {
    enum { TIMES = 2000 };
    const int64_t from_ms = ct_clock_unix_ms();
    ct_status status = CT_STATUS_INIT;
    ct_file_list list;
    for (int64_t ms = from_ms; ms < from_ms + TIMES; ms++) {
        const time_t seconds = (time_t)(ms / 1000);
        char name[64], when[32];
        struct tm utc;
        (void)gmtime_r(&seconds, &utc);
        (void)strftime(when, sizeof when, "%Y%m%dT%H%M%S", &utc);
        (void)snprintf(name, sizeof name, "things-%s%03d-%ld-0.jsonl", when, (int)(ms % 1000), (long)getpid());
        char *path = temp_path(*state, name);
        const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
        assert_int_equal(close(fd), 0);
        free(path);
    }
    ct_line_files *files = open_files(*state, 1 << 20, 0);
    append(files, "x\n");
    close_files(files);
    MUST(ct_folder_list(*state, &list, &status), status);
    assert_int_equal(list.count, TIMES + 1);
    ct_file_list_deinit(&list);
}

/* The name is of the time of the first line, in UTC. */
static void named_by_its_time(void **state) {
    const time_t before = (time_t)(ct_clock_unix_ms() / 1000);
    ct_line_files *files = open_files(*state, 1, 0);
    append(files, "x\n");
    close_files(files);
    const time_t after = (time_t)(ct_clock_unix_ms() / 1000);
    ct_status status = CT_STATUS_INIT;
    ct_file_list list;
    MUST(ct_folder_list(*state, &list, &status), status);
    assert_int_equal(list.count, 1);
    struct tm utc = {0};
    int millis = 0;
    long pid = 0;
    assert_int_equal(sscanf(list.names[0], "things-%4d%2d%2dT%2d%2d%2d%3d-%ld-0.jsonl", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
                            &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &millis, &pid),
                     8);
    utc.tm_year -= 1900;
    utc.tm_mon--;
    const time_t named = timegm(&utc);
    assert_true(named >= before && named <= after);
    assert_int_equal(pid, getpid());
    ct_file_list_deinit(&list);
}

/* The disk is full, played by a limit on the size of files. */
static void a_full_disk_leaves_no_half_line(void **state) {
    ct_status status = CT_STATUS_INIT;
    struct rlimit before, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    low.rlim_cur = 10;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (int first = 0; first < 2; first++) { /* in the first line of a file, and behind others */
        ct_line_files *files = open_files(*state, 1 << 20, 1000000000);
        if (!first) append(files, "12345\n");
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        const ct_code code = ct_line_files_append(files, "123456789\n123456789\n", 20, &status);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(code, CT_EXHAUSTED);
        assert_non_null(strstr(status.message, *state));
        assert_contents(*state, first ? "12345\nmore\n" : "12345\n", first ? 0 : 1);
        if (!first) append(files, "more\n");
        close_files(files);
    }
    assert_contents(*state, "12345\nmore\n", 0);
    (void)signal(SIGXFSZ, handler);
}

static void a_folder_that_goes_and_comes_back(void **state) {
    ct_status status = CT_STATUS_INIT;
    char *folder = temp_path(*state, "away");
    ct_line_files *files = open_files(folder, 1, 1000000000), *none = NULL;
    MUST(ct_folder_remove(folder, &status), status);
    assert_int_equal(ct_line_files_append(files, "lost\n", 5, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, folder));
    MUST(ct_folder_create(folder, &status), status);
    append(files, "kept\n");
    /* It is renamed under our hands: the file is let go, the next lines find another. */
    MUST(ct_folder_remove(folder, &status), status);
    assert_int_equal(ct_line_files_tend(files, &status), CT_NOT_FOUND);
    MUST(ct_folder_create(folder, &status), status);
    append(files, "new\n");
    close_files(files);
    assert_contents(folder, "new\n", 0);
    /* A file stands where the folder should be. */
    char *path = temp_path(*state, "file");
    MUST(ct_file_write(path, "x", 1, &status), status);
    assert_int_not_equal(ct_line_files_open(&(ct_line_files_options){path, "things", 1, 1}, &none, &status), CT_OK);
    assert_non_null(strstr(status.message, path));
    free(path);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rotated_by_size_and_at_the_end, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(rotated_by_age, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(none_takes_the_name_of_another, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(named_by_its_time, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_no_half_line, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(a_folder_that_goes_and_comes_back, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
