/* zstd sources: frames written by hand, and the library's own; cut and damaged ones. */
#include "tests/data/source_fixture.h"

static char *folder;

/* Frames by RFC 8878's letter: a raw block, a run, two blocks, and one to be skipped. */
static void test_zstd_by_hand(void **state) {
    (void)state;
    static const unsigned char raw[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 0x21, 0, 0, '1', '\t', '2', '\n'},
                               run[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, 0x2b, 0, 0, '7'},
                               two[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 3, 0x08, 0, 0, 'a', 0x11, 0, 0, 'b', 'c'},
                               none[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 0x01, 0, 0},
                               skipped[] = {0x57, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'x', 'y', 'z'};
    static const struct {
        const unsigned char *bytes;
        size_t count;
        const char *content;
    } frames[] = {{raw, sizeof raw, "1\t2\n"},
                  {run, sizeof run, "77777"},
                  {two, sizeof two, "abc"},
                  {none, sizeof none, ""},
                  {skipped, sizeof skipped, ""}};
    unsigned char file[512];
    char content[512] = "";
    size_t bytes = 0;
    for (size_t i = 0; i < 25; i++) {
        const size_t f = (i * 7 + i / 5) % 5;
        memcpy(file + bytes, frames[f].bytes, frames[f].count);
        bytes += frames[f].count;
        strcat(content, frames[f].content);
        char *path = write_bytes(folder, "hand", file, bytes);
        assert_content(path, content, strlen(content));
        free(path);
    }
}

static void test_zstd(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 131072, 300000, 1000003};
    static const int levels[] = {-5, 1, 3, 19};
    text expected = {0};
    unsigned char *file = malloc(8 << 20);
    size_t file_bytes = 0;
    assert_non_null(file);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *content = some_text(sizes[i], i);
        for (size_t l = 0; l < 4; l++) {
            size_t bytes;
            unsigned char *zstd = zstd_bytes(content, sizes[i], levels[l], &bytes);
            char *path = write_bytes(folder, "a.zst", zstd, bytes);
            assert_content(path, content, sizes[i]);
            if (l == i % 4) {
                memcpy(file + file_bytes, zstd, bytes);
                file_bytes += bytes;
                text_add(&expected, "%s", content);
            }
            free(path);
            free(zstd);
        }
        free(content);
    }
    char *path = write_bytes(folder, "frames", file, file_bytes);
    assert_content(path, expected.bytes, expected.size);
    free(path);
    static const char *const garbage[] = {"x", "0\t1\n", "\x28\xb5\x2f", "\x1f\x8b\x08"};
    for (size_t i = 0; i < 4; i++) {
        char offset[128];
        memcpy(file + file_bytes, garbage[i], strlen(garbage[i]));
        path = write_bytes(folder, "garbage.zst", file, file_bytes + strlen(garbage[i]));
        (void)snprintf(offset, sizeof offset, "garbage.zst: garbage behind the last zstd frame, from compressed byte %zu", file_bytes);
        assert_refused(path, CT_CORRUPT, offset);
        free(path);
    }
    free(expected.bytes);
    free(file);
}

/* Cut anywhere, a frame is CT_CORRUPT; each bit of it flipped, it is refused or reads the same. */
static void test_zstd_damaged(void **state) {
    (void)state;
    char *content = some_text(300, 7);
    size_t bytes;
    unsigned char *zstd = zstd_bytes(content, 300, 9, &bytes);
    for (size_t cut = 0; cut < bytes; cut++) {
        char place[64];
        char *path = write_bytes(folder, "cut.zst", zstd, cut);
        assert_refused(path, CT_CORRUPT, "cut.zst");
        (void)snprintf(place, sizeof place, "byte %zu", cut);
        if (cut > 3) assert_refused(path, CT_CORRUPT, place);
        free(path);
    }
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        ct_status status = CT_STATUS_INIT;
        char *data;
        size_t got;
        zstd[bit / 8] ^= (unsigned char)(1u << bit % 8);
        char *path = write_bytes(folder, "flip.zst", zstd, bytes);
        const ct_code code = read_all(path, 100, &data, &got, &status);
        zstd[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (code == CT_OK) {
            assert_int_equal(got, 300);
            assert_memory_equal(data, content, 300);
        } else {
            if (code != CT_UNSUPPORTED) assert_code(CT_CORRUPT, code, &status); /* a window that is too large */
            assert_contains(status.message, "flip.zst");
        }
        free(data);
        free(path);
    }
    free(zstd);
    free(content);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zstd_by_hand),
        cmocka_unit_test(test_zstd),
        cmocka_unit_test(test_zstd_damaged),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
