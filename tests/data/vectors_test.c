/* Vector files, from bytes made by hand after numpy's format description (numpy.lib.format) and IEEE 754's half precision. */
#include "data/vectors.h"

#include <math.h>
#include <xxhash.h>

#include "tests/data/fixture.h"

static char *folder;

static int set_up(void **state) {
    (void)state;
    folder = temp_folder();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    temp_remove(folder);
    return 0;
}

/* A .npy of version `major` with this header text (padded to 64 bytes) and these numbers. */
static char *npy_of(const char *name, int major, const char *header, const void *data, size_t bytes) {
    text t = {0};
    const size_t prefix = major == 1 ? 10 : 12, used = strlen(header) + 1, header_bytes = (prefix + used + 63) / 64 * 64 - prefix;
    text_add(&t, "\x93NUMPY%c%c", major, 'x');
    t.bytes[7] = 0;
    text_add(&t, "%c%c", 'l', 'h');
    t.bytes[8] = (char)header_bytes;
    t.bytes[9] = (char)(header_bytes >> 8);
    if (major > 1) {
        text_add(&t, "..");
        t.bytes[10] = t.bytes[11] = 0;
    }
    text_add(&t, "%-*s\n", (int)header_bytes - 1, header);
    char *all = malloc(t.size + bytes);
    assert_non_null(all);
    memcpy(all, t.bytes, t.size);
    if (bytes > 0) memcpy(all + t.size, data, bytes);
    char *path = write_bytes(folder, name, all, t.size + bytes);
    free(all);
    free(t.bytes);
    return path;
}

static const float VALUES[6] = {1.0f, -2.5f, 0.0f, 65504.0f, 0x1p-24f, -0.333251953125f}; /* all exact in half precision */
static const uint16_t HALVES[6] = {0x3c00, 0xc100, 0x0000, 0x7bff, 0x0001, 0xb555};
static const double DOUBLES[6] = {1.0, -2.5, 0.0, 65504.0, 0x1p-24, -0.333251953125};

static void check_values(const ct_vectors *v) {
    assert_int_equal(v->count, 3);
    assert_int_equal(v->dim, 2);
    assert_memory_equal(v->values, VALUES, sizeof(VALUES));
}

/* Loads, or fails the test. */
static ct_vectors *load(const char *path, const char *ids_path) {
    ct_vectors *v = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_vectors_load(path, ids_path, NULL, &v, &status), &status);
    assert_non_null(v);
    return v;
}

static void refuse(ct_code code, const char *path, const char *ids_path, const char *part) {
    ct_vectors *v = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_code(code, ct_vectors_load(path, ids_path, NULL, &v, &status), &status);
    assert_null(v);
    assert_contains(status.message, part);
}

static void types_and_versions(void **state) {
    (void)state;
    static const struct {
        const char *name, *header;
        int major;
        const void *data;
        size_t bytes;
    } CASES[] = {
        {"f4.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", 1, VALUES, sizeof(VALUES)},
        {"f2.npy", "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 2), }", 2, HALVES, sizeof(HALVES)},
        {"f8.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }", 3, DOUBLES, sizeof(DOUBLES)},
        {"any.npy", "{\"shape\":(3,2,),\"fortran_order\":False,\"descr\":\"<f4\"}", 1, VALUES, sizeof(VALUES)},
    };
    char hash[CT_DIGEST_HEX_BYTES] = "";
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char *path = npy_of(CASES[i].name, CASES[i].major, CASES[i].header, CASES[i].data, CASES[i].bytes);
        ct_vectors *v = load(path, NULL);
        check_values(v);
        for (size_t row = 0; row < 3; row++) {
            const char id = (char)('1' + row);
            assert_int_equal(v->keys[row], XXH3_64bits(&id, 1));
        }
        if (i > 0) assert_string_equal(v->content_hash, hash); /* the content, not the file */
        memcpy(hash, v->content_hash, sizeof(hash));
        ct_vectors_destroy(v);
        free(path);
    }
    assert_int_equal(strlen(hash), 32);
}

static void every_half(void **state) {
    (void)state;
    uint16_t *halves = malloc(65536 * sizeof(*halves));
    float *expected = malloc(65536 * sizeof(*expected));
    assert_non_null(halves);
    assert_non_null(expected);
    size_t count = 0;
    for (unsigned h = 0; h < 65536; h++) {
        const int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
        if (exponent == 31) continue; /* infinite or not a number */
        const double size = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        halves[count] = (uint16_t)h;
        expected[count++] = (float)(h & 0x8000 ? -size : size);
    }
    char header[128];
    (void)snprintf(header, sizeof(header), "{'descr': '<f2', 'fortran_order': False, 'shape': (%zu, 1), }", count);
    char *path = npy_of("halves.npy", 1, header, halves, count * 2);
    ct_vectors *v = load(path, NULL);
    assert_int_equal(v->count, count);
    assert_memory_equal(v->values, expected, count * sizeof(*expected));
    ct_vectors_destroy(v);
    free(path);
    for (unsigned h = 0x7c00; h <= 0xfe00; h += h == 0x7c00 ? 1 : 0x7fff) { /* infinities and a NaN */
        halves[0] = (uint16_t)h;
        path = npy_of("half.npy", 1, "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1), }", halves, 2);
        refuse(CT_INVALID, path, NULL, "row 1, column 1 is not a finite");
        free(path);
    }
    free(halves);
    free(expected);
}

static void ids_in_three_forms(void **state) {
    (void)state;
    char *path = npy_of("v.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", VALUES, sizeof(VALUES));
    static const struct {
        const char *text;
        const char *ids[3];
    } CASES[] = {
        {"a\nB c\n\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\n", {"a", "B c", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"}},
        {"a\r\nb\r\nc\r\n", {"a", "b", "c"}},
        {"007\n7\n-3", {"007", "7", "-3"}},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char *ids = write_text(folder, "ids.txt", CASES[i].text);
        ct_vectors *v = load(path, ids);
        check_values(v);
        for (size_t row = 0; row < 3; row++) assert_int_equal(v->keys[row], XXH3_64bits(CASES[i].ids[row], strlen(CASES[i].ids[row])));
        ct_vectors_destroy(v);
        free(ids);
    }
    const int64_t integers[3] = {-9223372036854775807 - 1, 0, 42};
    const char *const texts[3] = {"-9223372036854775808", "0", "42"};
    char *ids = npy_of("ids.npy", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", integers, sizeof(integers));
    ct_vectors *v = load(path, ids);
    for (size_t row = 0; row < 3; row++) assert_int_equal(v->keys[row], XXH3_64bits(texts[row], strlen(texts[row])));
    ct_vectors_destroy(v);
    free(ids);
    free(path);
}

static void wrong_ids(void **state) {
    (void)state;
    char *path = npy_of("v.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", VALUES, sizeof(VALUES));
    static const struct {
        const char *text;
        size_t bytes;
        const char *part;
    } CASES[] = {
        {"a\nb\n", 4, "2 lines"},
        {"a\nb\nc\nd\n", 8, "4 lines"},
        {"", 0, "0 lines"},
        {"a\n\nc\n", 5, "line 2: the id is empty"},
        {"a\nb\n\r\n", 6, "line 3: the id is empty"},
        {"a\nb\0b\nc\n", 8, "line 2: the id holds a NUL byte"},
        {"a\nb\nc\xff\n", 7, "line 3: the id is not UTF-8"},
        {"a\n\xc0\xaf\nc\n", 7, "line 2: the id is not UTF-8"},     /* overlong */
        {"a\n\xed\xa0\x80\nc\n", 8, "line 2: the id is not UTF-8"}, /* surrogate */
        {"a\nb\n\xe2\x82\n", 7, "line 3: the id is not UTF-8"},     /* cut */
        {"same\nb\nsame\n", 12, "the id same stands in rows 1 and 3"},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char *ids = write_bytes(folder, "ids.txt", CASES[i].text, CASES[i].bytes);
        refuse(CT_INVALID, path, ids, CASES[i].part);
        refuse(CT_INVALID, path, ids, "ids.txt");
        free(ids);
    }
    const int64_t integers[4] = {5, 6, 5, 7};
    char *ids = npy_of("twice.npy", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", integers, 24);
    refuse(CT_INVALID, path, ids, "the id 5 stands in rows 1 and 3");
    free(ids);
    ids = npy_of("four.npy", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (4,), }", integers, 32);
    refuse(CT_INVALID, path, ids, "4 ids");
    free(ids);
    ids = npy_of("float.npy", 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }", integers, 24);
    refuse(CT_INVALID, path, ids, "must be int64");
    free(ids);
    ids = npy_of("cut.npy", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", integers, 23);
    refuse(CT_CORRUPT, path, ids, "cut.npy");
    free(ids);
    ids = temp_path(folder, "absent.txt");
    refuse(CT_NOT_FOUND, path, ids, "absent.txt");
    free(ids);
    free(path);
}

static void wrong_files(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t bytes;
        ct_code code;
        const char *part;
    } CASES[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", 23, CT_CORRUPT, "23 bytes follow"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", 24, CT_CORRUPT, "says 2 x 2 numbers of 4 bytes, but 24"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 0, CT_CORRUPT, "4294967296 x 4294967296"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905, 4), }", 16, CT_CORRUPT, "16 bytes follow"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2), }", 0, CT_INVALID, "no numbers"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0), }", 0, CT_INVALID, "no numbers"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", 24, CT_INVALID, "two axes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, 1), }", 24, CT_INVALID, "two axes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4, CT_INVALID, "two axes"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", 24, CT_UNSUPPORTED, "Fortran order"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (3, 2), }", 24, CT_UNSUPPORTED, "type >f4"},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (3, 1), }", 24, CT_UNSUPPORTED, "int64"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 2), }", 24, CT_UNSUPPORTED, "structured"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3, 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'shape': (3, 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), 'more': 1}", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), } x", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (3, 2), }", 24, CT_CORRUPT, "not a .npy header"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), ", 24, CT_CORRUPT, "not a .npy header"},
        {"", 24, CT_CORRUPT, "not a .npy header"},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char *path = npy_of("v.npy", 1, CASES[i].header, VALUES, CASES[i].bytes);
        refuse(CASES[i].code, path, NULL, CASES[i].part);
        refuse(CASES[i].code, path, NULL, "v.npy");
        free(path);
    }
    char *path = write_text(folder, "v.npy", "");
    refuse(CT_CORRUPT, path, NULL, "v.npy");
    free(path);
    path = write_text(folder, "v.npy", "not a numpy file at all");
    refuse(CT_CORRUPT, path, NULL, "not a .npy file");
    free(path);
    path = write_bytes(folder, "v.npy", "\x93NUMPY\x04\0\0\0\0\0", 12);
    refuse(CT_UNSUPPORTED, path, NULL, "version 4.0");
    free(path);
    path = write_bytes(folder, "v.npy", "\x93NUMPY\x02\0\xff\xff\xff\xff", 12);
    refuse(CT_CORRUPT, path, NULL, "a header of 4294967295 bytes");
    free(path);
    path = temp_path(folder, "absent.npy");
    refuse(CT_NOT_FOUND, path, NULL, "absent.npy");
    free(path);
    refuse(CT_INVALID, folder, NULL, "not a regular file");
}

static void not_finite(void **state) {
    (void)state;
    const float nan_values[6] = {1, 2, 3, NAN, 5, 6};
    char *path = npy_of("v.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", nan_values, sizeof(nan_values));
    refuse(CT_INVALID, path, NULL, "row 2, column 2");
    free(path);
    const double wide[4] = {3.4028234663852886e38, -3.4028234663852886e38, 0, 1e39}; /* float32's largest, and beyond */
    path = npy_of("v.npy", 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4), }", wide, sizeof(wide));
    refuse(CT_INVALID, path, NULL, "row 1, column 4");
    free(path);
    path = npy_of("v.npy", 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3), }", wide, 3 * sizeof(double));
    ct_vectors *v = load(path, NULL);
    assert_true(v->values[0] == 3.4028234663852886e38f && v->values[1] == -v->values[0]);
    ct_vectors_destroy(v);
    free(path);
}

/* Any one byte of the header replaced: loads or refuses, reads nothing out of bounds (under the sanitizers), and never other values. */
static void damaged_headers(void **state) {
    (void)state;
    char *path = npy_of("v.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", VALUES, sizeof(VALUES));
    char *good;
    size_t bytes;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_file_read(path, 1 << 20, &good, &bytes, &status), &status);
    free(path);
    static const unsigned char REPLACEMENTS[] = {0, ' ', '\'', '(', ')', ',', '9', '{', '}', '\n', 0x7f, 0xff};
    for (size_t at = 0; at < bytes - sizeof(VALUES); at++) {
        const char was = good[at];
        for (size_t i = 0; i < sizeof(REPLACEMENTS); i++) {
            good[at] = (char)REPLACEMENTS[i];
            path = write_bytes(folder, "damaged.npy", good, bytes);
            ct_vectors *v = NULL;
            ct_status got = CT_STATUS_INIT;
            if (ct_vectors_load(path, NULL, NULL, &v, &got) == CT_OK) {
                check_values(v);
                ct_vectors_destroy(v);
            } else {
                assert_true(got.code == CT_CORRUPT || got.code == CT_UNSUPPORTED || got.code == CT_INVALID);
                assert_contains(got.message, "damaged.npy");
            }
            free(path);
        }
        good[at] = was;
    }
    free(good);
}

static void content_hash(void **state) {
    (void)state;
    float values[6];
    memcpy(values, VALUES, sizeof(values));
    char *path = npy_of("v.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", values, sizeof(values));
    char *wide = npy_of("w.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", values, sizeof(values));
    char *same_ids = write_text(folder, "same.txt", "1\n2\n3\n"), *ids = write_text(folder, "ids.txt", "1\n2\n4\n");
    values[5] += 1.0f;
    char *other = npy_of("o.npy", 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", values, sizeof(values));
    ct_vectors *v = load(path, NULL), *same = load(path, same_ids), *rest[3] = {load(path, ids), load(wide, NULL), load(other, NULL)};
    assert_string_equal(v->content_hash, same->content_hash);
    for (size_t i = 0; i < 3; i++) {
        assert_string_not_equal(v->content_hash, rest[i]->content_hash);
        ct_vectors_destroy(rest[i]);
    }
    ct_vectors_destroy(v);
    ct_vectors_destroy(same);
    free(path);
    free(wide);
    free(other);
    free(ids);
    free(same_ids);
}

static void written_and_read(void **state) {
    (void)state;
    char *path = temp_path(folder, "out.npy"), *ids_path = temp_path(folder, "out.txt");
    const char *const ids[3] = {"x", "y z", "\xc3\xa9"};
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_vectors_write(path, ids_path, VALUES, 3, 2, ids, &status), &status);
    ct_vectors *v = load(path, ids_path);
    check_values(v);
    for (size_t row = 0; row < 3; row++) assert_int_equal(v->keys[row], XXH3_64bits(ids[row], strlen(ids[row])));
    ct_vectors_destroy(v);
    /* Byte by byte what the format description says: header of 10 + 118 bytes. */
    char *data;
    size_t bytes;
    assert_ok(ct_file_read(path, 1 << 20, &data, &bytes, &status), &status);
    assert_int_equal(bytes, 128 + sizeof(VALUES));
    assert_memory_equal(data, "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), } ", 10 + 60);
    assert_int_equal(data[127], '\n');
    assert_memory_equal(data + 128, VALUES, sizeof(VALUES));
    free(data);
    free(path);
    free(ids_path);
}

static void refused_writes_leave_nothing(void **state) {
    (void)state;
    char *path = temp_path(folder, "out.npy"), *ids_path = temp_path(folder, "out.txt"), *nowhere = temp_path(folder, "no/out.txt");
    const float nan_values[2] = {1.0f, NAN};
    const char *const good[2] = {"a", "b"}, *const empty[2] = {"a", ""}, *const newline[2] = {"a", "b\nc"}, *const wrong[2] = {"a", "\xff"};
    ct_status status = CT_STATUS_INIT;
    assert_code(CT_INVALID, ct_vectors_write(path, ids_path, nan_values, 1, 2, good, &status), &status);
    assert_contains(status.message, "row 1, column 2");
    assert_code(CT_INVALID, ct_vectors_write(path, ids_path, VALUES, 2, 2, empty, &status), &status);
    assert_code(CT_INVALID, ct_vectors_write(path, ids_path, VALUES, 2, 2, newline, &status), &status);
    assert_code(CT_INVALID, ct_vectors_write(path, ids_path, VALUES, 2, 2, wrong, &status), &status);
    assert_code(CT_INVALID, ct_vectors_write(path, ids_path, VALUES, 0, 2, good, &status), &status);
    assert_code(CT_NOT_FOUND, ct_vectors_write(path, nowhere, VALUES, 2, 2, good, &status), &status);
    assert_int_equal(temp_count(folder), 0);
    free(path);
    free(ids_path);
    free(nowhere);
}

/* Each id gets one vector, another one for nearly all; the seed alone decides. */
static void shuffled(void **state) {
    (void)state;
    enum { N = 200 };
    ct_status status = CT_STATUS_INIT;
    float values[N];
    char path[512];
    for (size_t i = 0; i < N; i++) values[i] = (float)i;
    (void)snprintf(path, sizeof path, "%s/many.npy", folder);
    assert_ok(ct_vectors_write(path, NULL, values, N, 1, NULL, &status), &status);
    ct_vectors *plain = load(path, NULL), *once = load(path, NULL), *again = load(path, NULL), *other = load(path, NULL);
    assert_ok(ct_vectors_shuffle(once, 5, &status), &status);
    assert_ok(ct_vectors_shuffle(again, 5, &status), &status);
    assert_ok(ct_vectors_shuffle(other, 6, &status), &status);
    assert_memory_equal(once->values, values, sizeof values);
    size_t found = 0, moved = 0, same = 0;
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) found += once->keys[j] == plain->keys[i];
        moved += once->keys[i] != plain->keys[i];
        same += once->keys[i] == other->keys[i];
    }
    assert_int_equal(found, N);
    assert_in_range(moved, N - 8, N); /* a random order keeps 1 in its place, on average */
    assert_in_range(same, 0, 8);
    assert_memory_equal(once->keys, again->keys, N * sizeof *once->keys);
    assert_string_equal(once->content_hash, again->content_hash);
    assert_string_not_equal(once->content_hash, plain->content_hash);
    ct_vectors_destroy(plain);
    ct_vectors_destroy(once);
    ct_vectors_destroy(again);
    ct_vectors_destroy(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(types_and_versions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_half, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ids_in_three_forms, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_ids, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(not_finite, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damaged_headers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(content_hash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shuffled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(written_and_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused_writes_leave_nothing, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
