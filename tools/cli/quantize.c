/* clicktower quantize: vectors to semantic IDs. */
#include "experiment/quantize.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/source.h"
#include "data/vectors.h"
#include "tools/cli/cli.h"

/* id, then each level's prefix: 3, 3-17, 3-17-0. Prefixes, so that a level's number means the same wherever it stands. */
static ct_code write_row(ct_file_writer *writer, const char *id, size_t id_bytes, const uint32_t *codes, uint32_t levels,
                         ct_status *status) {
    char text[CT_QUANTIZE_MAX_LEVELS * (CT_QUANTIZE_MAX_LEVELS * 6 + 1) + 2];
    size_t used = 0, prefix = 0;
    CT_TRY(ct_file_writer_write(writer, id, id_bytes, status));
    for (uint32_t level = 0; level < levels; level++) {
        const size_t before = prefix;
        char last[CT_QUANTIZE_MAX_LEVELS * 6 + 1];
        if (level > 0) memcpy(last, text + before, used - before);
        const size_t kept = level > 0 ? used - before : 0;
        text[used++] = '\t';
        prefix = used;
        memcpy(text + used, last, kept);
        used += kept;
        used += (size_t)snprintf(text + used, sizeof text - used, level > 0 ? "-%" PRIu32 : "%" PRIu32, codes[level]);
    }
    text[used++] = '\n';
    return ct_file_writer_write(writer, text, used, status);
}

/* Ids as the vector file's: lines of `ids_path`, else 1 .. N. */
static ct_code write_codes(const char *path, const char *ids_path, const uint32_t *codes, size_t count, uint32_t levels,
                           ct_status *status) {
    ct_file_writer *writer = NULL;
    ct_lines *lines = NULL;
    ct_line line = {0};
    ct_code code;
    CT_TRY(ct_file_writer_open(path, &writer, status));
    if (ids_path != NULL) CT_TRY_GOTO(code, ct_lines_open(&ids_path, 1, &lines, status), fail);
    CT_TRY_GOTO(code, ct_file_writer_printf(writer, status, "id"), fail);
    for (uint32_t level = 1; level <= levels; level++)
        CT_TRY_GOTO(code, ct_file_writer_printf(writer, status, "\tcode%" PRIu32, level), fail);
    CT_TRY_GOTO(code, ct_file_writer_printf(writer, status, "\n"), fail);
    for (size_t row = 0; row < count; row++) {
        char number[24];
        const char *id = number;
        size_t bytes = (size_t)snprintf(number, sizeof number, "%zu", row + 1);
        if (lines != NULL) {
            CT_TRY_GOTO(code, ct_lines_next(lines, &line, status), fail);
            id = line.text;
            bytes = line.bytes;
        }
        CT_TRY_GOTO(code, write_row(writer, id, bytes, codes + row * levels, levels, status), fail);
    }
    ct_lines_close(lines);
    return ct_file_writer_commit(writer, status);
fail:
    ct_lines_close(lines);
    ct_file_writer_abort(writer);
    return code;
}

ct_code ct_verb_quantize(int argc, char **argv, ct_status *status) {
    const char *vectors_path = NULL, *ids_path = NULL, *out = NULL;
    int64_t levels = 3, codes = 256, steps = 25, threads = 0;
    uint64_t seed = 1;
    const ct_option options[] = {
        {"vectors", "FILE.npy", CT_OPTION_TEXT, true, &vectors_path, "one row a vector", 0, 0, NULL},
        {"ids", "FILE.txt", CT_OPTION_TEXT, false, &ids_path, "their ids, one a line; without it 1 .. N", 0, 0, NULL},
        {"out", "FILE.tsv", CT_OPTION_TEXT, true, &out, "a table: id, then the code's prefix of each level", 0, 0, NULL},
        {"levels", "N", CT_OPTION_INTEGER, false, &levels, "of residual k-means", 1, CT_QUANTIZE_MAX_LEVELS, NULL},
        {"codes", "N", CT_OPTION_INTEGER, false, &codes, "of a level", 1, CT_QUANTIZE_MAX_CODES, NULL},
        {"steps", "N", CT_OPTION_INTEGER, false, &steps, "at most so many for each level", 1, 100000, NULL},
        {"seed", "N", CT_OPTION_SEED, false, &seed, "draws the first centres", 0, 0, NULL},
        {"threads", "N", CT_OPTION_INTEGER, false, &threads, "0 = all processors; the codes do not depend on it", 0, 1024, NULL},
    };
    const ct_command command = {"quantize",
                                "Turns vectors into semantic IDs: codes of a few levels by residual k-means, as prefixes. "
                                "Near vectors share prefixes.",
                                "  clicktower quantize --vectors items.npy --ids items.txt --levels 3 \\\n"
                                "      --codes 256 --out codes.tsv",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_vectors *vectors = NULL;
    ct_pool *pool = NULL;
    uint32_t *found = NULL;
    double left[CT_QUANTIZE_MAX_LEVELS];
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_output("out", out, (const char *const[]){vectors_path, ids_path}, 2, status), done);
    if (ids_path != NULL && strlen(ids_path) > 4 && strcmp(ids_path + strlen(ids_path) - 4, ".npy") == 0) {
        code = ct_fail(status, CT_UNSUPPORTED, "%s: quantize takes ids as text, one a line", ids_path);
        goto done;
    }
    CT_TRY_GOTO(code, ct_vectors_load(vectors_path, ids_path, NULL, &vectors, status), done);
    CT_TRY_GOTO(code, ct_pool_create((size_t)threads, &pool, status), done);
    found = malloc(vectors->count * (size_t)levels * sizeof *found);
    if (found == NULL) {
        code = ct_fail_memory(status, vectors->count * (size_t)levels * sizeof *found, "the codes");
        goto done;
    }
    const ct_quantize_options quantize = {.levels = (uint32_t)levels,
                                          .codes = (uint32_t)codes,
                                          .steps = (uint32_t)steps,
                                          .seed = seed,
                                          .pool = pool,
                                          .stop = ct_stop_on_signals(),
                                          .progress = true};
    if (ct_quantize(vectors->values, vectors->count, vectors->dim, &quantize, found, left, status) != CT_OK) {
        code = ct_stop_explain("no codes were written", status);
        goto done;
    }
    CT_TRY_GOTO(code, write_codes(out, ids_path, found, vectors->count, (uint32_t)levels, status), done);
    (void)printf("vectors %zu\n", vectors->count);
    for (int64_t level = 0; level < levels; level++) (void)printf("left_after_level_%" PRId64 " %.4f\n", level + 1, left[level]);
    (void)printf("file %s\n", out);
done:
    free(found);
    ct_pool_destroy(pool);
    ct_vectors_destroy(vectors);
    return code;
}
