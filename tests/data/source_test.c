/* Sources and lines. gzip data is made by zlib; what must come out is what went in. */
#include "data/source.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/internal.h"
#include "tests/data/source_fixture.h"

static char *folder;

static void test_plain(void **state) {
    (void)state;
    char *large = some_text(700000, 1);
    char *path = write_bytes(folder, "large", large, 700000);
    assert_content(path, large, 700000);
    free(path);
    path = write_bytes(folder, "small.gz.txt", "a\0b", 3);
    assert_content(path, "a\0b", 3);
    free(path);
    path = write_text(folder, "empty", "");
    assert_content(path, "", 0);
    free(path);
    /* A text that is called .gz is a text. */
    path = write_text(folder, "text.gz", "0\t1\t2\r\n1\t2\t3\n");
    assert_content(path, "0\t1\t2\r\n1\t2\t3\n", 13);
    free(path);
    free(large);
}

static void test_refused(void **state) {
    (void)state;
    char *path = temp_path(folder, "absent.tsv");
    assert_refused(path, CT_NOT_FOUND, "absent.tsv");
    free(path);
    assert_refused(folder, CT_INVALID, "folder");
    path = write_bytes(folder, "a.zip", "PK\3\4....", 8);
    assert_refused(path, CT_UNSUPPORTED, "|unzip -p FILE");
    free(path);
    path = write_bytes(folder, "a.txt",
                       "\xfd"
                       "7zXZ\0\0",
                       7);
    assert_refused(path, CT_UNSUPPORTED, "xz");
    free(path);
    path = write_bytes(folder, "empty.gz", "", 0);
    assert_refused(path, CT_CORRUPT, "empty.gz");
    free(path);
    for (size_t count = 0; count < 5; count++) { /* cut, and one byte wrong */
        path = write_bytes(folder, "wrong.zst", count < 4 ? "\x28\xb5\x2f" : "\x29\xb5\x2f\xfd\0", count < 4 ? count : 5);
        assert_refused(path, CT_CORRUPT, "wrong.zst");
        free(path);
    }
    path = write_bytes(folder, "wrong.ctb", "CTBLOCK\0\0\0", 10);
    assert_refused(path, CT_CORRUPT, "wrong.ctb");
    free(path);
}

/* A mark is dropped at the start of what a file holds, once, and nowhere else. */
static void test_byte_order_mark(void **state) {
    (void)state;
    static const char bom[] = "\xef\xbb\xbf", marked[] =
                                                  "\xef\xbb\xbf\xef\xbb\xbf"
                                                  "1\t2\n\xef\xbb\xbf";
    ct_status status = CT_STATUS_INIT;
    ct_source *source = NULL;
    char first[16];
    size_t count = 0, zipped;
    for (size_t bytes = 0; bytes <= 3; bytes++) {
        char *path = write_bytes(folder, "mark", bom, bytes);
        assert_content(path, bom, bytes < 3 ? bytes : 0);
        free(path);
    }
    char *path = write_text(folder, "mark", marked);
    assert_content(path, marked + 3, strlen(marked) - 3);
    assert_ok(ct_source_open(path, &source, &status), &status);
    assert_ok(ct_source_peek(source, first, &count, &status), &status);
    assert_int_equal(count, strlen(marked) - 3);
    assert_memory_equal(first, marked + 3, count);
    ct_source_close(source);
    free(path);
    unsigned char *gzip = gzip_bytes(marked, strlen(marked), 6, &zipped);
    path = write_bytes(folder, "mark.gz", gzip, zipped);
    assert_content(path, marked + 3, strlen(marked) - 3);
    free(path);
    free(gzip);
}

/* A named pipe is opened at once, listens to a stop while nobody writes, and is read when somebody does. */
static void test_named_pipe(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_source *source = NULL;
    const atomic_bool now = true;
    char *path = temp_path(folder, "pipe"), bytes[16];
    size_t got;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_ok(ct_source_open(path, &source, &status), &status);
    ct_source_set_stop(source, NULL, &now);
    assert_code(CT_CANCELLED, ct_source_read(source, bytes, sizeof bytes, &got, &status), &status);
    ct_source_set_stop(source, NULL, NULL);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && write(fd, "1\t2\n", 4) == 4);
    assert_int_equal(close(fd), 0);
    assert_ok(ct_source_read(source, bytes, sizeof bytes, &got, &status), &status); /* the bytes that told what it is */
    assert_true(got > 0 && got <= 4);
    assert_memory_equal(bytes, "1\t2\n", got);
    ct_source_close(source);
    free(path);
}

static void test_peek(void **state) {
    (void)state;
    static const char content[] = "0123456789abcdefghij";
    size_t zipped;
    unsigned char *gzip = gzip_bytes(content, 20, 6, &zipped);
    for (int kind = 0; kind < 2; kind++) {
        ct_status status = CT_STATUS_INIT;
        ct_source *source = NULL;
        char first[16], rest[32];
        size_t count = 0, got = 0;
        char *path = kind ? write_bytes(folder, "peek", gzip, zipped) : write_text(folder, "peek", content);
        assert_ok(ct_source_open(path, &source, &status), &status);
        assert_string_equal(ct_source_name(source), path);
        for (int again = 0; again < 2; again++) {
            assert_ok(ct_source_peek(source, first, &count, &status), &status);
            assert_int_equal(count, 16);
            assert_memory_equal(first, content, 16);
        }
        assert_ok(ct_source_read(source, rest, 10, &got, &status), &status);
        assert_int_equal(got, 10);
        assert_ok(ct_source_peek(source, first, &count, &status), &status); /* in the middle, near the end */
        assert_int_equal(count, 10);
        assert_memory_equal(first, content + 10, 10);
        assert_ok(ct_source_read(source, rest, sizeof rest, &got, &status), &status);
        assert_int_equal(got, 10);
        assert_memory_equal(rest, content + 10, 10);
        assert_code(CT_END, ct_source_read(source, rest, sizeof rest, &got, &status), &status);
        assert_ok(ct_source_peek(source, first, &count, &status), &status);
        assert_int_equal(count, 0);
        ct_source_close(source);
        free(path);
    }
    free(gzip);
}

static void test_gzip(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 15, 16, 17, 1000, 65535, 65536, 300000, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *content = some_text(sizes[i], i);
        static const int levels[] = {0, 1, 6, 9};
        for (size_t l = 0; l < 4; l++) {
            size_t bytes;
            unsigned char *gzip = gzip_bytes(content, sizes[i], levels[l], &bytes);
            char *path = write_bytes(folder, "a.gz", gzip, bytes);
            assert_content(path, content, sizes[i]);
            free(path);
            free(gzip);
        }
        free(content);
    }
}

/* Members one after the other, among them empty ones, are one stream. */
static void test_members(void **state) {
    (void)state;
    text expected = {0}, file = {0};
    file.bytes = malloc(1 << 20);
    assert_non_null(file.bytes);
    for (uint64_t i = 0; i < 40; i++) {
        const size_t size = i % 5 == 0 ? 0 : (size_t)(i * 37);
        size_t bytes;
        char *content = some_text(size, i);
        unsigned char *gzip = gzip_bytes(content, size, (int)(i % 10), &bytes);
        memcpy(file.bytes + file.size, gzip, bytes);
        file.size += bytes;
        text_add(&expected, "%s", content);
        free(gzip);
        free(content);
    }
    char *path = write_bytes(folder, "members.gz", file.bytes, file.size);
    assert_content(path, expected.bytes, expected.size);
    free(path);
    static const struct {
        const char *bytes;
        size_t count;
    } garbage[] = {{"\0", 1}, {"x", 1}, {"\x1f", 1}, {"\x1f\x8b", 2}, {"\x1f\x8b\x08", 3}, {"\0\0\0\0\0\0\0\0\0\0\0\0", 12}, {"0\t1\n", 4}};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        char offset[64];
        memcpy(file.bytes + file.size, garbage[i].bytes, garbage[i].count);
        path = write_bytes(folder, "garbage.gz", file.bytes, file.size + garbage[i].count);
        (void)snprintf(offset, sizeof offset, "byte %zu", garbage[i].bytes[0] == '\x1f' ? file.size + garbage[i].count : file.size);
        assert_refused(path, CT_CORRUPT, "garbage.gz");
        assert_refused(path, CT_CORRUPT, offset);
        free(path);
    }
    free(expected.bytes);
    free(file.bytes);
}

/* A header with every optional part. */
static unsigned char *gzip_with_header(const char *content, size_t size, size_t *out_bytes) {
    z_stream stream = {0};
    gz_header header = {.text = 1, .time = 12345, .os = 3, .hcrc = 1};
    static Bytef extra[300], name[] = "a long name.tsv", comment[] = "a comment";
    unsigned char *out = malloc(size + 2000);
    assert_non_null(out);
    for (size_t i = 0; i < sizeof extra; i++) extra[i] = (Bytef)(i * 7);
    header.extra = extra;
    header.extra_len = sizeof extra;
    header.name = name;
    header.comment = comment;
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflateSetHeader(&stream, &header), Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)content;
    stream.avail_in = (uInt)size;
    stream.next_out = out;
    stream.avail_out = (uInt)size + 2000;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    *out_bytes = stream.total_out;
    (void)deflateEnd(&stream);
    return out;
}

static void test_header_parts(void **state) {
    (void)state;
    char *content = some_text(500, 5);
    size_t bytes;
    unsigned char *gzip = gzip_with_header(content, 500, &bytes);
    char *path = write_bytes(folder, "header.gz", gzip, bytes);
    assert_content(path, content, 500);
    free(path);
    free(gzip);
    free(content);
}

/* Cut anywhere, a member is CT_CORRUPT and the message tells where the file ends; each bit of it flipped, it is refused or reads the same
 * (name, time and the like do not count). */
static void test_damaged(void **state) {
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        const size_t size = kind == 2 ? 3000 : 300;
        char *content = some_text(size, 7);
        size_t bytes, accepted = 0;
        unsigned char *gzip = kind == 1 ? gzip_with_header(content, size, &bytes) : gzip_bytes(content, size, kind == 2 ? 0 : 9, &bytes);
        for (size_t cut = 0; cut < bytes; cut++) {
            char place[64];
            char *path = write_bytes(folder, "cut.gz", gzip, cut);
            assert_refused(path, CT_CORRUPT, "cut.gz");
            (void)snprintf(place, sizeof place, "byte %zu", cut);
            if (cut > 3) assert_refused(path, CT_CORRUPT, place);
            free(path);
        }
        for (size_t bit = 0; bit < 8 * bytes; bit++) {
            ct_status status = CT_STATUS_INIT;
            char *data;
            size_t got;
            gzip[bit / 8] ^= (unsigned char)(1u << bit % 8);
            char *path = write_bytes(folder, "flip.gz", gzip, bytes);
            const ct_code code = read_all(path, 100, &data, &got, &status);
            gzip[bit / 8] ^= (unsigned char)(1u << bit % 8);
            if (code == CT_OK) {
                accepted++;
                assert_int_equal(got, size);
                assert_memory_equal(data, content, size);
            } else {
                assert_code(CT_CORRUPT, code, &status);
                assert_contains(status.message, "flip.gz");
            }
            free(data);
            free(path);
        }
        /* Without optional parts: text flag, time, extra flags and system, and hardly a bit more (deflate's padding). */
        if (kind != 1) assert_true(accepted <= 1 + 32 + 8 + 8 + 16);
        free(gzip);
        free(content);
    }
}

/* --- standard input --- */

typedef struct feed {
    int fd;
    const unsigned char *bytes;
    size_t count;
} feed;

static void *feed_slowly(void *argument) {
    const feed *f = argument;
    for (size_t i = 0; i < f->count; i += 13) {
        const size_t piece = f->count - i < 13 ? f->count - i : 13;
        if (write(f->fd, f->bytes + i, piece) != (ssize_t)piece) break;
    }
    (void)close(f->fd);
    return NULL;
}

static void test_standard_input(void **state) {
    (void)state;
    char *content = some_text(50000, 3);
    size_t zipped;
    unsigned char *gzip = gzip_bytes(content, 50000, 6, &zipped);
    for (int kind = 0; kind < 2; kind++) {
        ct_status status = CT_STATUS_INIT;
        int ends[2];
        pthread_t thread;
        char *data;
        size_t got;
        assert_int_equal(pipe(ends), 0);
        const int kept = dup(0);
        assert_true(kept >= 0 && dup2(ends[0], 0) == 0);
        (void)close(ends[0]);
        feed f = {ends[1], kind ? gzip : (const unsigned char *)content, kind ? zipped : 50000};
        assert_int_equal(pthread_create(&thread, NULL, feed_slowly, &f), 0);
        assert_ok(read_all("-", 1000, &data, &got, &status), &status);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(got, 50000);
        assert_memory_equal(data, content, 50000);
        assert_true(dup2(kept, 0) == 0);
        (void)close(kept);
        free(data);
    }
    free(gzip);
    free(content);
}

/* A pipe to which nobody writes: a stop is heard. */
static void test_stop(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_source *source = NULL;
    atomic_bool never = false, now = true;
    int ends[2];
    char byte;
    size_t got;
    assert_int_equal(pipe(ends), 0);
    const int kept = dup(0);
    assert_true(kept >= 0 && dup2(ends[0], 0) == 0);
    (void)close(ends[0]);
    assert_ok(ct_source_open("-", &source, &status), &status);
    assert_string_equal(ct_source_name(source), "standard input");
    ct_source_set_stop(source, &never, &now);
    assert_code(CT_CANCELLED, ct_source_read(source, &byte, 1, &got, &status), &status);
    ct_source_close(source);
    (void)close(ends[1]);
    assert_true(dup2(kept, 0) == 0);
    (void)close(kept);
}

/* --- lines --- */

typedef struct expected_line {
    const char *text;
    int64_t number;
    bool first;
} expected_line;

static void assert_lines(const char *const *paths, size_t count, const expected_line *expected, size_t lines_count) {
    ct_status status = CT_STATUS_INIT;
    ct_lines *lines = NULL;
    ct_line line;
    assert_ok(ct_lines_open(paths, count, &lines, &status), &status);
    for (size_t i = 0; i < lines_count; i++) {
        assert_ok(ct_lines_next(lines, &line, &status), &status);
        assert_int_equal(line.bytes, strlen(expected[i].text));
        assert_memory_equal(line.text, expected[i].text, line.bytes);
        assert_int_equal(line.number, expected[i].number);
        assert_int_equal(ct_lines_is_first(lines), expected[i].first);
        assert_false(line.too_long);
    }
    assert_code(CT_END, ct_lines_next(lines, &line, &status), &status);
    assert_code(CT_END, ct_lines_next(lines, &line, &status), &status);
    ct_lines_close(lines);
}

static void test_lines(void **state) {
    (void)state;
    char *a = write_text(folder, "a", "one\ntwo\r\n\n\r\nfive\r\r\nsix");
    char *b = write_text(folder, "b", "");
    char *c = write_text(folder, "c", "\nlast\r");
    const char *paths[] = {a, b, c, b};
    static const expected_line expected[] = {{"one", 1, true},     {"two", 2, false}, {"", 3, false}, {"", 4, false},
                                             {"five\r", 5, false}, {"six", 6, false}, {"", 1, true},  {"last", 2, false}};
    assert_lines(paths, 4, expected, 8);
    assert_lines(paths + 1, 1, expected, 0);
    assert_lines(paths, 0, expected, 0);
    ct_status status = CT_STATUS_INIT;
    ct_lines *lines = NULL;
    ct_line line;
    const char *absent[] = {c, "/nowhere/at/all"};
    assert_code(CT_NOT_FOUND, ct_lines_open(absent + 1, 1, &lines, &status), &status);
    assert_ok(ct_lines_open(absent, 2, &lines, &status), &status);
    assert_ok(ct_lines_next(lines, &line, &status), &status);
    assert_string_equal(line.source, c);
    assert_ok(ct_lines_next(lines, &line, &status), &status);
    assert_code(CT_NOT_FOUND, ct_lines_next(lines, &line, &status), &status);
    assert_contains(status.message, "/nowhere/at/all");
    ct_lines_close(lines);
    free(a);
    free(b);
    free(c);
}

/* Lines around the longest that is allowed, each between two short ones. */
static void test_long_lines(void **state) {
    (void)state;
    static const struct {
        size_t bytes;
        const char *end;
        bool too_long;
    } cases[] = {{CT_LINE_MAX_BYTES - 1, "\n", false}, {CT_LINE_MAX_BYTES, "\n", false},      {CT_LINE_MAX_BYTES, "\r\n", false},
                 {CT_LINE_MAX_BYTES + 1, "\n", true},  {CT_LINE_MAX_BYTES + 1, "\r\n", true}, {3 * CT_LINE_MAX_BYTES + 17, "\n", true}};
    char *data = malloc(4 * CT_LINE_MAX_BYTES);
    assert_non_null(data);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int last = 0; last < 2; last++) {
            size_t size = 0;
            ct_status status = CT_STATUS_INIT;
            ct_lines *lines = NULL;
            ct_line line;
            memcpy(data, "short\n", 6);
            size += 6;
            for (size_t k = 0; k < cases[i].bytes; k++) data[size++] = (char)('a' + k % 26);
            if (!last) {
                memcpy(data + size, cases[i].end, strlen(cases[i].end));
                size += strlen(cases[i].end);
                memcpy(data + size, "after", 5);
                size += 5;
            }
            char *path = write_bytes(folder, "long", data, size);
            assert_ok(ct_lines_open((const char *const[]){path}, 1, &lines, &status), &status);
            assert_ok(ct_lines_next(lines, &line, &status), &status);
            assert_ok(ct_lines_next(lines, &line, &status), &status);
            assert_int_equal(line.too_long, cases[i].too_long);
            assert_int_equal(line.bytes, cases[i].too_long ? 1024 : cases[i].bytes);
            assert_memory_equal(line.text, data + 6, line.bytes);
            if (!last) {
                assert_ok(ct_lines_next(lines, &line, &status), &status);
                assert_int_equal(line.bytes, 5);
                assert_memory_equal(line.text, "after", 5);
                assert_int_equal(line.number, 3);
                assert_false(line.too_long);
            }
            assert_code(CT_END, ct_lines_next(lines, &line, &status), &status);
            ct_lines_close(lines);
            free(path);
        }
    }
    free(data);
}

/* Many lines of many lengths, across every edge of the buffer, against a search by hand. */
static void test_many_lines(void **state) {
    (void)state;
    uint64_t seed = 11;
    text t = {0};
    for (int i = 0; i < 30000; i++) {
        const uint32_t bytes = i % 1000 == 0 ? draw(&seed, 60000) : draw(&seed, 60);
        for (uint32_t k = 0; k < bytes; k++) text_add(&t, "%c", (char)('!' + draw(&seed, 90)));
        text_add(&t, "\n");
    }
    size_t zipped;
    unsigned char *gzip = gzip_bytes(t.bytes, t.size, 1, &zipped);
    for (int kind = 0; kind < 2; kind++) {
        ct_status status = CT_STATUS_INIT;
        ct_lines *lines = NULL;
        ct_line line;
        char *path = kind ? write_bytes(folder, "many", gzip, zipped) : write_bytes(folder, "many", t.bytes, t.size);
        const char *at = t.bytes;
        assert_ok(ct_lines_open((const char *const[]){path}, 1, &lines, &status), &status);
        while (at < t.bytes + t.size) {
            const char *end = strchr(at, '\n');
            assert_ok(ct_lines_next(lines, &line, &status), &status);
            assert_int_equal(line.bytes, end - at);
            assert_memory_equal(line.text, at, line.bytes);
            at = end + 1;
        }
        assert_code(CT_END, ct_lines_next(lines, &line, &status), &status);
        assert_int_equal(line.number, 30000);
        ct_lines_close(lines);
        free(path);
    }
    free(gzip);
    free(t.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_order_mark), cmocka_unit_test(test_named_pipe),     cmocka_unit_test(test_plain),
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_peek),           cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_members),         cmocka_unit_test(test_header_parts),   cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_lines),           cmocka_unit_test(test_standard_input), cmocka_unit_test(test_stop),
        cmocka_unit_test(test_long_lines),      cmocka_unit_test(test_many_lines),
    };
    folder = temp_folder();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_remove(folder);
    return failed;
}
