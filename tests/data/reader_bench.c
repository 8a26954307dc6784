/* Reading alone, beside its bounds: a log is written as text, gzip (level 6), zstd (level 3) and block file, and read with 1 and 2 threads.
 *
 *     reader_bench [ROWS | FILE]      (default 1,000,000 rows of our own making; FILE: a log in the criteo form)
 *
 * Bounds, measured in the same run: the system's read and a memchr for each line; a memcpy of the same bytes; decompression alone. Each
 * line is the best of three runs; memory is the peak of that run. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/clock.h"
#include "base/random.h"
#include "data/block_file.h"
#include "data/reader.h"
#include "data/source.h"
#include "tests/base/temp.h"

enum { PIECE = 1 << 20, ROUNDS = 3 };

static char *piece; /* (PIECE) */

static void die(const char *what) {
    (void)fprintf(stderr, "reader_bench: %s\n", what);
    exit(1);
}
#define MUST(x) \
    if (!(x)) die(#x)
#define MUST_OK(x) \
    if ((x) != CT_OK) die(status.message)

/* --- files --- */

static void write_log(const char *path, size_t rows) {
    FILE *file = fopen(path, "wb");
    MUST(file);
    for (size_t r = 0; r < rows; r++) {
        char line[1024], *at = line;
        *at++ = (char)('0' + (ct_random_u64(1, CT_PLACE_TEST, 0, r, 99) % 100 < 26));
        for (uint32_t f = 0; f < 39; f++) {
            const ct_random4 x = ct_random(1, CT_PLACE_TEST, 0, r, f);
            *at++ = '\t';
            if (x.word[0] % 100 < (f < 13 ? 15 : 12)) continue; /* missing */
            if (f < 13) {
                at += sprintf(at, "%u", x.word[1] >> (12 + x.word[2] % 20));
            } else { /* few values often, many rarely */
                at += sprintf(at, "%08x", (x.word[1] >> (x.word[2] % 31)) * 2654435761u + f);
            }
        }
        *at++ = '\n';
        MUST(fwrite(line, 1, (size_t)(at - line), file) == (size_t)(at - line));
    }
    MUST(fclose(file) == 0);
}

static void pack(const char *from, const char *gzip_path, const char *zstd_path) {
    FILE *in = fopen(from, "rb"), *zstd = fopen(zstd_path, "wb");
    gzFile gzip = gzopen(gzip_path, "wb6");
    ZSTD_CCtx *context = ZSTD_createCCtx();
    char *out = malloc(ZSTD_CStreamOutSize());
    MUST(in && zstd && gzip && context && out);
    for (;;) {
        const size_t bytes = fread(piece, 1, PIECE, in);
        ZSTD_inBuffer input = {piece, bytes, 0};
        size_t left;
        MUST(gzwrite(gzip, piece, (unsigned)bytes) == (int)bytes);
        do {
            ZSTD_outBuffer output = {out, ZSTD_CStreamOutSize(), 0};
            left = ZSTD_compressStream2(context, &output, &input, bytes ? ZSTD_e_continue : ZSTD_e_end);
            MUST(!ZSTD_isError(left));
            MUST(fwrite(out, 1, output.pos, zstd) == output.pos);
        } while (input.pos < input.size || (!bytes && left));
        if (!bytes) break;
    }
    MUST(gzclose(gzip) == Z_OK && fclose(zstd) == 0 && fclose(in) == 0);
    free(out);
    (void)ZSTD_freeCCtx(context);
}

static void convert(const ct_schema *schema, const char *from, const char *to) {
    ct_status status = CT_STATUS_INIT;
    ct_reader *reader;
    ct_block_writer *writer;
    ct_batch *batch;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    ct_code code;
    options.sources = &from;
    options.source_count = 1;
    options.batch_rows = CT_BLOCK_FILE_ROWS;
    MUST_OK(ct_reader_open(schema, &options, &reader, &status));
    MUST_OK(ct_block_writer_open(to, schema, &writer, &status));
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        MUST_OK(ct_block_writer_write(writer, batch, &status));
        ct_reader_release(reader, batch);
    }
    if (code != CT_END) die(status.message);
    MUST_OK(ct_block_writer_commit(writer, &status));
    ct_reader_close(reader);
}

static double file_bytes(const char *path) {
    struct stat info;
    MUST(stat(path, &info) == 0);
    return (double)info.st_size;
}

/* --- measuring --- */

/* Peak resident KiB since the last call of forget_peak. */
static long peak_kib(void) {
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) (void)sscanf(line, "VmHWM: %ld", &kib);
    if (file) (void)fclose(file);
    return kib;
}

static void forget_peak(void) {
    const int fd = open("/proc/self/clear_refs", O_WRONLY);
    if (fd < 0 || write(fd, "5", 1) != 1) (void)fprintf(stderr, "reader_bench: the peak cannot be reset: memory is the peak so far\n");
    if (fd >= 0) (void)close(fd);
}

static double cpu_seconds(void) {
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

typedef size_t (*work_fn)(const char *path, const ct_schema *schema, size_t threads); /* returns rows */

static void measure(const char *name, work_fn work, const char *path, const ct_schema *schema, size_t threads, double text_bytes,
                    double rows) {
    double best = 1e30, cpu = 0;
    forget_peak();
    for (int i = 0; i < ROUNDS; i++) {
        const double cpu_before = cpu_seconds();
        const int64_t begin = ct_clock_ns();
        const size_t got = work(path, schema, threads);
        const double seconds = 1e-9 * (double)(ct_clock_ns() - begin);
        if (schema && (double)got != rows) die("another number of rows than before");
        if (seconds < best) {
            best = seconds;
            cpu = cpu_seconds() - cpu_before;
        }
    }
    (void)printf("%-44s %7.2f M rows/s %8.0f MB/s of text %6.0f ns CPU a row %6.1f MiB\n", name, 1e-6 * rows / best,
                 1e-6 * text_bytes / best, 1e9 * cpu / rows, (double)peak_kib() / 1024);
    (void)fflush(stdout);
}

/* --- works --- */

static size_t read_rows(const char *path, const ct_schema *schema, size_t threads) {
    ct_status status = CT_STATUS_INIT;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    ct_reader *reader;
    ct_batch *batch;
    ct_code code;
    size_t rows = 0;
    options.sources = &path;
    options.source_count = 1;
    options.threads = threads;
    MUST_OK(ct_reader_open(schema, &options, &reader, &status));
    while ((code = ct_reader_next(reader, &batch, &status)) == CT_OK) {
        rows += batch->rows;
        ct_reader_release(reader, batch);
    }
    if (code != CT_END) die(status.message);
    ct_reader_close(reader);
    return rows;
}

static size_t find_lines(const char *path, const ct_schema *schema, size_t threads) {
    (void)schema, (void)threads;
    const int fd = open(path, O_RDONLY);
    size_t lines = 0;
    MUST(fd >= 0);
    for (ssize_t got; (got = read(fd, piece, PIECE)) > 0;) {
        const char *end = piece + got;
        for (const char *at = piece; at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) lines++;
    }
    (void)close(fd);
    return lines;
}

static size_t copy_bytes(const char *path, const ct_schema *schema, size_t threads) {
    (void)schema, (void)threads;
    static char to[PIECE];
    for (double left = file_bytes(path); left > 0; left -= PIECE) {
        memcpy(to, piece, PIECE);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
    return 0;
}

static size_t unpack(const char *path, const ct_schema *schema, size_t threads) {
    (void)schema, (void)threads;
    ct_status status = CT_STATUS_INIT;
    ct_source *source;
    size_t got;
    ct_code code;
    MUST_OK(ct_source_open(path, &source, &status));
    while ((code = ct_source_read(source, piece, PIECE / 4, &got, &status)) == CT_OK) {}
    if (code != CT_END) die(status.message);
    ct_source_close(source);
    return 0;
}

int main(int argc, char **argv) {
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema;
    char *end = NULL, *folder = temp_folder();
    const bool own = argc < 2 || (strtoull(argv[1], &end, 10) && !*end);
    char *text = own ? temp_path(folder, "log.tsv") : strdup(argv[1]), *gzip = temp_path(folder, "log.tsv.gz"),
         *zstd = temp_path(folder, "log.tsv.zst"), *blocks = temp_path(folder, "log.ctb");
    const char *const path[] = {text, gzip, zstd, blocks}, *const form[] = {"text", "gzip", "zstd", "block file"};
    piece = malloc(PIECE);
    MUST(piece && text);
    memset(piece, 1, PIECE);
    MUST_OK(ct_schema_load("criteo", &schema, &status));
    if (own) write_log(text, argc < 2 ? 1000000 : (size_t)strtoull(argv[1], NULL, 10));
    pack(text, gzip, zstd);
    convert(schema, text, blocks);
    const double bytes = file_bytes(text), rows = (double)read_rows(text, schema, 1);
    (void)printf("%.0f rows, %.1f MB of text, gzip %.1f, zstd %.1f, block file %.1f; best of %d\n", rows, 1e-6 * bytes,
                 1e-6 * file_bytes(gzip), 1e-6 * file_bytes(zstd), 1e-6 * file_bytes(blocks), ROUNDS);
    measure("bound: memcpy", copy_bytes, text, NULL, 1, bytes, rows);
    measure("bound: read, memchr of each line", find_lines, text, NULL, 1, bytes, rows);
    measure("bound: inflate alone (ISA-L)", unpack, gzip, NULL, 1, bytes, rows);
    measure("bound: zstd alone", unpack, zstd, NULL, 1, bytes, rows);
    for (int f = 0; f < 4; f++) {
        for (size_t threads = 1; threads <= 2; threads++) {
            char name[64];
            (void)snprintf(name, sizeof name, "%s, %zu thread%s", form[f], threads, threads > 1 ? "s" : "");
            measure(name, read_rows, path[f], schema, threads, bytes, rows);
        }
    }
    ct_schema_destroy(schema);
    free(piece);
    free(text);
    free(gzip);
    free(zstd);
    free(blocks);
    temp_remove(folder);
    return 0;
}
