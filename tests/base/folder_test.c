#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "tests/base/temp.h"

static void put(const char *folder, const char *name, const char *text) {
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(folder, name);
    assert_int_equal(ct_file_write(path, text, strlen(text), &status), CT_OK);
    free(path);
}

static void assert_text(const char *folder, const char *name, const char *expected) {
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(folder, name), *data = NULL;
    size_t bytes = 0;
    assert_int_equal(ct_file_read(path, 1000, &data, &bytes, &status), CT_OK);
    assert_string_equal(data, expected);
    free(data);
    free(path);
}

static void make(const char *folder, const char *name) {
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(folder, name);
    assert_int_equal(ct_folder_create(path, &status), CT_OK);
    free(path);
}

static bool there(const char *folder, const char *name) {
    char *path = temp_path(folder, name);
    const bool exists = ct_path_exists(path);
    free(path);
    return exists;
}

static void assert_joined(const char *folder, const char *name, const char *expected) {
    char *joined = ct_path_join(folder, name);
    assert_string_equal(joined, expected);
    free(joined);
}

static void joins_paths(void **state) {
    (void)state;
    assert_joined("a", "b", "a/b");
    assert_joined("a/", "b", "a/b");
    assert_joined("/", "b", "/b");
    assert_joined("", "b", "b");
    assert_joined("a", "/b", "/b");
    assert_joined("a", "b/c", "a/b/c");
}

static void creates_with_parents(void **state) {
    const char *top = *state;
    ct_status status = CT_STATUS_INIT;
    make(top, "a/b/c");
    assert_true(there(top, "a/b/c"));
    make(top, "a/b/c");   /* again */
    make(top, "a//d///"); /* untidy */
    assert_true(there(top, "a/d"));
    put(top, "a/file", "x");
    char *below_file = temp_path(top, "a/file/x"), *file = temp_path(top, "a/file");
    assert_int_equal(ct_folder_create(below_file, &status), CT_EXISTS);
    assert_non_null(strstr(status.message, file));
    assert_int_equal(ct_folder_create(file, &status), CT_EXISTS);
    assert_int_equal(ct_folder_create("", &status), CT_INVALID);
    assert_int_equal(ct_folder_create("/", &status), CT_OK);
    assert_true(ct_path_is_folder(top));
    assert_false(ct_path_is_folder(file));
    assert_false(ct_path_exists(below_file));
    free(below_file);
    free(file);
}

static void removes_all_but_what_links_name(void **state) {
    const char *top = *state;
    ct_status status = CT_STATUS_INIT;
    make(top, "gone/deep/deeper");
    put(top, "gone/deep/file", "x");
    put(top, "stays", "y");
    make(top, "kept");
    put(top, "kept/file", "z");
    char *link_file = temp_path(top, "gone/link"), *link_folder = temp_path(top, "gone/deep/link"), *dangling = temp_path(top, "gone/none");
    char *kept = temp_path(top, "kept"), *gone = temp_path(top, "gone"), *stays = temp_path(top, "stays");
    assert_int_equal(symlink(stays, link_file), 0);
    assert_int_equal(symlink(kept, link_folder), 0);
    assert_int_equal(symlink("nowhere", dangling), 0);
    assert_int_equal(ct_folder_remove(gone, &status), CT_OK);
    assert_false(there(top, "gone"));
    assert_text(top, "stays", "y");
    assert_text(top, "kept/file", "z");
    assert_int_equal(ct_folder_remove(gone, &status), CT_OK); /* absent */
    assert_int_equal(ct_folder_remove(stays, &status), CT_INVALID);
    assert_text(top, "stays", "y");
    free(link_file);
    free(link_folder);
    free(dangling);
    free(kept);
    free(gone);
    free(stays);
}

static void lists_files_by_bytes(void **state) {
    const char *top = *state;
    ct_status status = CT_STATUS_INIT;
    ct_file_list list;
    assert_int_equal(ct_folder_list(top, &list, &status), CT_OK);
    assert_int_equal(list.count, 0);
    ct_file_list_deinit(&list);

    make(top, "b/empty");
    put(top, "b/x", "");
    put(top, "b.x", ""); /* '.' comes before '/' */
    put(top, "B", "");
    put(top, "a", "");
    put(top, ".hidden", "");
    put(top, "\xc3\xa4", "");
    assert_int_equal(ct_folder_list(top, &list, &status), CT_OK);
    static const char *const expected[] = {".hidden", "B", "a", "b.x", "b/x", "\xc3\xa4"};
    assert_int_equal(list.count, 6);
    for (size_t i = 0; i < 6; i++) assert_string_equal(list.names[i], expected[i]);
    ct_file_list_deinit(&list);
    ct_file_list_deinit(&list); /* is empty then */

    char *link = temp_path(top, "b/link"), *file = temp_path(top, "a"), *none = temp_path(top, "none");
    assert_int_equal(ct_folder_list(none, &list, &status), CT_NOT_FOUND);
    assert_int_equal(ct_folder_list(file, &list, &status), CT_INVALID);
    assert_int_equal(symlink(file, link), 0);
    assert_int_equal(ct_folder_list(top, &list, &status), CT_INVALID);
    assert_non_null(strstr(status.message, link));
    free(link);
    free(file);
    free(none);
}

static void stage_and_commit(const char *top, const char *name, const char *text) {
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(top, name), *staged = NULL;
    assert_int_equal(ct_folder_stage(path, &staged, &status), CT_OK);
    assert_true(ct_path_is_folder(staged));
    put(staged, "text", text);
    make(staged, "sub");
    put(staged, "sub/more", text);
    if (ct_folder_commit(staged, path, &status) != CT_OK) fail_msg("%s", status.message);
    assert_false(ct_path_exists(staged));
    free(staged);
    free(path);
}

static size_t entries(const char *top) {
    ct_status status = CT_STATUS_INIT;
    ct_file_list list;
    assert_int_equal(ct_folder_list(top, &list, &status), CT_OK);
    const size_t count = list.count;
    ct_file_list_deinit(&list);
    return count;
}

static void commits_anew_and_over(void **state) {
    const char *top = *state;
    stage_and_commit(top, "x/y/model", "one"); /* parents are made */
    assert_text(top, "x/y/model/text", "one");
    put(top, "x/y/model/old_only", "o");
    stage_and_commit(top, "x/y/model/", "two"); /* a final slash is nothing */
    assert_text(top, "x/y/model/text", "two");
    assert_text(top, "x/y/model/sub/more", "two");
    assert_int_equal(entries(top), 2); /* nothing of the old one, nothing beside */
}

static void refuses_what_is_no_folder(void **state) {
    const char *top = *state;
    ct_status status = CT_STATUS_INIT;
    put(top, "file", "x");
    char *file = temp_path(top, "file"), *staged = NULL, *path = temp_path(top, "m");
    assert_int_equal(ct_folder_stage(file, &staged, &status), CT_EXISTS);
    assert_null(staged);
    assert_non_null(strstr(status.message, file));
    assert_int_equal(ct_folder_stage("/", &staged, &status), CT_INVALID);
    assert_int_equal(ct_folder_stage("", &staged, &status), CT_INVALID);
    assert_int_equal(ct_folder_stage(".", &staged, &status), CT_INVALID);
    assert_int_equal(ct_folder_stage("x/../", &staged, &status), CT_INVALID);
    assert_int_equal(ct_folder_stage(path, &staged, &status), CT_OK);
    put(staged, "text", "t");
    assert_int_equal(ct_folder_commit(staged, file, &status), CT_EXISTS);
    assert_text(top, "file", "x");
    assert_text(staged, "text", "t"); /* stays the caller's */
    free(staged);
    free(path);
    free(file);
}

/* What dead processes left beside the name goes; what living ones or other names have there stays. */
static void removes_what_the_dead_left(void **state) {
    const char *top = *state;
    const pid_t dead = fork();
    if (dead == 0) _exit(0);
    assert_true(dead > 0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    static const struct {
        const char *format;
        int process; /* 0 = dead, 1 = our parent, alive */
        bool goes;
    } cases[] = {{"m.partial-%ld", 0, true},   {"m.old-%ld", 0, true},       {"m.partial-%ld", 1, false}, {"m.partial-%ldx", 0, false},
                 {"mm.partial-%ld", 0, false}, {"m.partialx-%ld", 0, false}, {"m.partial--%ld", 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[100];
        (void)snprintf(name, sizeof name, cases[i].format, cases[i].process ? (long)getppid() : (long)dead);
        make(top, name);
        put(top, strcat(name, "/inside"), "x");
    }
    ct_status status = CT_STATUS_INIT;
    char *path = temp_path(top, "m"), *first = NULL, *second = NULL;
    assert_int_equal(ct_folder_stage(path, &first, &status), CT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[100];
        (void)snprintf(name, sizeof name, cases[i].format, cases[i].process ? (long)getppid() : (long)dead);
        if (there(top, name) == cases[i].goes) fail_msg("%s %s", name, cases[i].goes ? "is still there" : "is gone");
    }
    put(first, "text", "left behind");
    assert_int_equal(ct_folder_stage(path, &second, &status), CT_OK); /* our own number: as if a dead process had had it */
    assert_string_equal(first, second);
    assert_int_equal(entries(second), 0);
    free(first);
    free(second);
    free(path);
}

/* From here on renameat2 does not exist in this process, as on old kernels and some file systems. */
static void forbid_exchange(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(77);
    if (syscall(SYS_renameat2, 0, "", 0, "", 0) == 0 || errno != ENOSYS) _exit(77);
}

static void commits_without_exchange(void **state) {
    const char *top = *state;
    stage_and_commit(top, "model", "one");
    char *path = temp_path(top, "model");
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        ct_status status = CT_STATUS_INIT;
        char *staged = NULL;
        forbid_exchange();
        if (ct_folder_stage(path, &staged, &status) != CT_OK) _exit(1);
        put(staged, "text", "two");
        _exit(ct_folder_commit(staged, path, &status) == CT_OK ? 0 : 2);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    free(path);
    if (WIFEXITED(result) && WEXITSTATUS(result) == 77) {
        print_message("SKIP: no seccomp filter can be set here\n");
        return;
    }
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    assert_text(top, "model/text", "two");
    assert_int_equal(entries(top), 1); /* the old one and its name are gone */
}

/* A child takes the lock and says so; it is refused to us with the child's number until the child is dead, by SIGKILL. */
static void one_writer_holds_a_folder(void **state) {
    const char *top = *state;
    char *path = temp_path(top, "new/model/"), *file = temp_path(top, "new/model.lock");
    ct_status status = CT_STATUS_INIT;
    ct_folder_lock *lock = NULL;
    int said[2];
    char word;
    assert_int_equal(pipe(said), 0);
    const pid_t child = fork();
    if (child == 0) {
        if (ct_folder_lock_take(path, &lock, &status) != CT_OK || write(said[1], "", 1) != 1) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(said[0], &word, 1), 1);
    char expected[64];
    (void)snprintf(expected, sizeof expected, "model: process %ld writes it", (long)child);
    assert_int_equal(ct_folder_lock_take(path, &lock, &status), CT_EXISTS);
    assert_non_null(strstr(status.message, expected));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(ct_path_exists(file)); /* the dead do not tidy up, and their file holds nobody up */
    status = (ct_status)CT_STATUS_INIT;
    assert_int_equal(ct_folder_lock_take(path, &lock, &status), CT_OK);

    ct_folder_lock *second = NULL; /* nor are two of one process let in */
    (void)snprintf(expected, sizeof expected, "process %ld writes it", (long)getpid());
    assert_int_equal(ct_folder_lock_take(path, &second, &status), CT_EXISTS);
    assert_non_null(strstr(status.message, expected));
    ct_folder_lock_release(lock);
    assert_false(ct_path_exists(file));
    status = (ct_status)CT_STATUS_INIT;
    assert_int_equal(ct_folder_lock_take(path, &second, &status), CT_OK);
    ct_folder_lock_release(second);
    (void)close(said[0]);
    (void)close(said[1]);
    free(path);
    free(file);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, temp_setup, temp_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_paths),         IN_FOLDER(creates_with_parents),     IN_FOLDER(removes_all_but_what_links_name),
        IN_FOLDER(lists_files_by_bytes),       IN_FOLDER(commits_anew_and_over),    IN_FOLDER(refuses_what_is_no_folder),
        IN_FOLDER(removes_what_the_dead_left), IN_FOLDER(commits_without_exchange), IN_FOLDER(one_writer_holds_a_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
