/* Files that were summed up before are not read again; any other file is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "model/prints.h"
#include "tests/base/temp.h"

static void write_over(const char *path, const char *text, const struct stat *times) {
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    const struct timespec both[2] = {times->st_mtim, times->st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, path, both, 0), 0);
}

static void test_known_files(void **unused) {
    (void)unused;
    char *folder = temp_folder(), *path = temp_path(folder, "a.sst"), *linked = temp_path(folder, "b.sst");
    ct_status status = CT_STATUS_INIT;
    file_prints none = {0}, first = {0}, second = {0};
    char truth[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    uint64_t bytes = 0;
    struct stat info;
    assert_int_equal(ct_file_write(path, "abc", 3, &status), CT_OK);
    assert_int_equal(ct_file_digest(path, truth, &bytes, &status), CT_OK);
    assert_int_equal(file_print_of(&none, &first, path, got, &bytes, &status), CT_OK);
    assert_string_equal(got, truth);
    assert_int_equal(bytes, 3);

    /* Under another name, with a content that nobody may notice: it is not looked at. */
    assert_int_equal(link(path, linked), 0);
    assert_int_equal(stat(path, &info), 0);
    write_over(path, "xyz", &info);
    assert_int_equal(file_print_of(&first, &second, linked, got, &bytes, &status), CT_OK);
    assert_string_equal(got, truth);
    assert_int_equal(second.count, 1);

    /* Another size, another time, another file of the same name: it is. */
    assert_int_equal(ct_file_digest(path, other, &bytes, &status), CT_OK);
    info.st_mtim.tv_nsec = (info.st_mtim.tv_nsec + 1) % 1000000000;
    write_over(path, "xyz", &info);
    assert_int_equal(file_print_of(&first, &second, path, got, &bytes, &status), CT_OK);
    assert_string_equal(got, other);
    assert_int_equal(ct_file_write(path, "abcd", 4, &status), CT_OK);
    assert_int_equal(ct_file_digest(path, other, &bytes, &status), CT_OK);
    assert_int_equal(file_print_of(&first, &second, path, got, &bytes, &status), CT_OK);
    assert_string_equal(got, other);
    assert_int_equal(bytes, 4);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(file_print_of(&first, &second, path, got, &bytes, &status), CT_NOT_FOUND);
    file_prints_deinit(&first);
    file_prints_deinit(&second);
    temp_remove(folder);
    free(path);
    free(linked);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
