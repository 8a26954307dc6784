/* Opening histories takes next to no memory beside what comes of it: processes of their own open them within a limit. */
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/data/history_files.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static size_t mapped_bytes(void) {
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%zu", &pages) != 1) pages = 0;
    if (file != NULL) (void)fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* In a process of its own: opens the folder within so many bytes more than there are (0 = any), and says what they take. */
static bool open_within(const ct_schema *schema, const char *path, size_t files, size_t room, uint64_t *out_bytes) {
    int ends[2], state = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ct_histories *histories = NULL;
        ct_status status = CT_STATUS_INIT;
        const rlim_t most = mapped_bytes() + room;
        const struct rlimit limit = {most, most};
        if (room > 0 && setrlimit(RLIMIT_AS, &limit) != 0) _exit(2);
        const ct_code code = ct_histories_open(schema, path, files, &histories, &status);
        const uint64_t bytes = code == CT_OK ? ct_histories_bytes(histories) : 0;
        _exit(code == CT_OK && write(ends[1], &bytes, sizeof bytes) == sizeof bytes ? 0 : 1);
    }
    (void)close(ends[1]);
    const bool read_it = read(ends[0], out_bytes, sizeof *out_bytes) == sizeof *out_bytes;
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &state, 0), child);
    return read_it && WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

/* 20,000 users in a file, a tenth of them in a second one; by another process, as what it has freed would be room for the others. */
static bool make_large(const ct_schema *schema, const char *first, const char *second) {
    int state = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ct_histories *set[] = {create_beside(schema, "scratch"), NULL};
        text t = {0};
        for (size_t u = 0; u < 10 * USERS; u++)
            for (size_t i = 0; i < 7; i++) text_add(&t, "1\tu%zu\t%zu\t%zu\n", u, u, 100 * u + i);
        char *path = write_bytes(folder, "large.tsv", t.bytes, t.size);
        enter(set[0], schema, path);
        save(set[0], first);
        click(set, schema, 0, USERS, 1); /* later than any row there */
        save(set[0], second);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &state, 0), child);
    return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

static void opening_takes_what_they_take(void **state) {
    (void)state;
    if (SANITIZED) {
        printf("SKIP: a sanitizer's memory is not the program's\n");
        return;
    }
    ct_schema *schema = schema_of(yaml);
    char *a = new_folder("a"), *b = new_folder("b");
    uint64_t bytes = 0, again = 0;
    assert_true(make_large(schema, a, b));
    assert_int_equal(count_files(b), 2);
    const size_t file = (size_t)stat_of(b, 0).st_size;
    assert_true(open_within(schema, b, 2, 0, &bytes));
    assert_true(bytes > 6 << 20 && file > 5 << 20);
    const size_t beside = (2 << 20) + bytes / 8; /* cursors, growing lists, what malloc keeps */
    assert_true(beside < file);
    assert_true(open_within(schema, b, 2, bytes + beside, &again));
    assert_int_equal(again, bytes);
    assert_false(open_within(schema, b, 2, bytes - (2 << 20), &again)); /* the limit is one */
    free(a);
    free(b);
    ct_schema_destroy(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(opening_takes_what_they_take)};
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
