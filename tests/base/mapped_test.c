/* Memory of a scratch file: zeroed, apart from each other, no name, no anonymous memory, and a disk without room is an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mapped.h"
#include "tests/base/temp.h"

static ct_status status = CT_STATUS_INIT;

static long long anonymous_kib(void) {
    char line[256];
    long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %lld", &kib) == 1) break;
    if (file) (void)fclose(file);
    return kib;
}

static void test_take(void **unused) {
    (void)unused;
    enum { BYTES = 16 << 20, PIECES = 3 };
    char *folder = temp_folder(), *beside = temp_path(folder, "live");
    ct_mapped *mapped;
    unsigned char *pieces[PIECES];
    const size_t sizes[PIECES] = {BYTES, 1, 100000};
    assert_int_equal(ct_mapped_create(beside, &mapped, &status), CT_OK);
    const long long before = anonymous_kib();
    for (size_t i = 0; i < PIECES; i++) {
        void *memory;
        assert_int_equal(ct_mapped_take(mapped, sizes[i], &memory, &status), CT_OK);
        pieces[i] = memory;
        for (size_t b = 0; b < sizes[i]; b++) assert_int_equal(pieces[i][b], 0);
        memset(pieces[i], (int)i + 1, sizes[i]);
    }
    const long long more = anonymous_kib() - before;
    if (more >= BYTES / 2048) fail_msg("%lld KiB of anonymous memory more", more);
    ct_file_list list;
    assert_int_equal(ct_folder_list(folder, &list, &status), CT_OK);
    assert_int_equal(list.count, 0); /* no name */
    ct_file_list_deinit(&list);
    ct_mapped_destroy(mapped); /* what was taken stays */
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t b = 0; b < sizes[i]; b++) assert_int_equal(pieces[i][b], (int)i + 1);
        ct_mapped_give(pieces[i], sizes[i]);
    }
    free(beside);
    temp_remove(folder);
}

static void test_refused(void **unused) {
    (void)unused;
    char *folder = temp_folder(), *beside = temp_path(folder, "live"), *nowhere = temp_path(folder, "no/where");
    ct_mapped *mapped;
    void *memory;
    assert_int_equal(ct_mapped_create(nowhere, &mapped, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, "scratch file"));
    assert_int_equal(ct_mapped_create(beside, &mapped, &status), CT_OK);
    assert_int_not_equal(ct_mapped_take(mapped, (size_t)1 << 61, &memory, &status),
                         CT_OK); /* no disk has so much: now, not by a signal later */
    assert_non_null(strstr(status.message, folder));
    assert_int_equal(ct_mapped_take(mapped, 10, &memory, &status), CT_OK);
    ct_mapped_give(memory, 10);
    ct_mapped_give(NULL, 10);
    ct_mapped_destroy(mapped);
    ct_mapped_destroy(NULL);
    free(beside);
    free(nowhere);
    temp_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_take), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
