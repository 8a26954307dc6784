/* Writing a synth log: options, lines, the schema and the three files. The planted model is in synth_model.c, its best scores in
 * synth_truth.c. */
#include "data/synth.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file.h"
#include "base/progress.h"
#include "data/synth_internal.h"
#include "data/vectors.h"

enum { CHUNK_BYTES = 1 << 18, GZIP_LEVEL = 1, STOP_ROWS = 1024 /* rows between two looks at the stop flag */ };

/* --- options --- */

void ct_synth_options_init(ct_synth_options *options) {
    *options = (ct_synth_options){.rows = 100000,
                                  .seed = 1,
                                  .items = 2000,
                                  .users = 5000,
                                  .vocabulary = 10000,
                                  .vector_dim = 16,
                                  .tail_slope = 1.05,
                                  .rate = 0.25,
                                  .pairs_share = 0.3,
                                  .item_share = 0.3,
                                  .content_share = 0.8,
                                  .new_item_share = 0.3,
                                  .signal = 1.5};
}

static ct_code check_integer(const char *name, int64_t value, int64_t low, int64_t high, ct_status *status) {
    if (value >= low && value <= high) return CT_OK;
    return ct_fail(status, CT_INVALID, "synth: %s is %lld; it must be %lld to %lld", name, (long long)value, (long long)low,
                   (long long)high);
}

static ct_code check_real(const char *name, double value, double low, double high, ct_status *status) {
    if (value >= low && value <= high) return CT_OK; /* false for NaN */
    return ct_fail(status, CT_INVALID, "synth: %s is %g; it must be %g to %g", name, value, low, high);
}

ct_code ct_synth_options_check(const ct_synth_options *options, ct_status *status) {
    CT_TRY(check_integer("rows", options->rows, 1, 1000000000, status));
    CT_TRY(check_integer("items", options->items, 10, 1000000, status));
    CT_TRY(check_integer("users", options->users, 1, 10000000, status));
    CT_TRY(check_integer("vocabulary", options->vocabulary, 10, 1000000, status));
    CT_TRY(check_integer("vector_dim", options->vector_dim, 1, 4096, status));
    CT_TRY(check_integer("tail", options->tail, 0, 4000000000, status));
    CT_TRY(check_real("tail_slope", options->tail_slope, 0.0, 3.0, status));
    CT_TRY(check_real("rate", options->rate, 0.0001, 0.9999, status));
    CT_TRY(check_real("pairs_share", options->pairs_share, 0.0, 1.0, status));
    CT_TRY(check_real("item_share", options->item_share, 0.0, 1.0, status));
    CT_TRY(check_real("pairs_share + item_share", options->pairs_share + options->item_share, 0.0, 1.0, status));
    CT_TRY(check_real("content_share", options->content_share, 0.0, 1.0, status));
    CT_TRY(check_real("new_item_share", options->new_item_share, 0.0, 1.0, status));
    return check_real("signal", options->signal, 0.0, 10.0, status);
}

static bool ends_with(const char *text, const char *end) {
    const size_t text_bytes = strlen(text), end_bytes = strlen(end);
    return text_bytes >= end_bytes && strcmp(text + text_bytes - end_bytes, end) == 0;
}

static ct_code check_paths(const ct_synth_options *options, ct_status *status) {
    if (options->path == NULL || options->path[0] == '\0')
        return ct_fail(status, CT_INVALID, "synth: path is empty; name the log to write");
    if (options->vectors_path != NULL && !ends_with(options->vectors_path, ".npy"))
        return ct_fail(status, CT_INVALID, "synth: vectors_path is %s; it must end in .npy", options->vectors_path);
    if (options->schema_path != NULL && options->schema_path[0] == '\0') return ct_fail(status, CT_INVALID, "synth: schema_path is empty");
    return CT_OK;
}

ct_code ct_synth_probabilities(const ct_synth_options *options, int64_t first_row, size_t rows, double *out_probability,
                               int64_t *out_item_birth, ct_status *status) {
    if (first_row < 0) return ct_fail(status, CT_INVALID, "synth: row %lld; the first row is 0", (long long)first_row);
    ct_synth_model *model;
    CT_TRY(ct_synth_model_create(options, &model, status));
    for (size_t i = 0; i < rows; i++) {
        ct_synth_row row;
        ct_synth_model_row(model, first_row + (int64_t)i, &row);
        out_probability[i] = row.probability;
        if (out_item_birth != NULL) out_item_birth[i] = model->birth[row.id[CT_SYNTH_ITEM]];
    }
    ct_synth_model_destroy(model);
    return CT_OK;
}

/* --- where the lines go: a file, a gzip file or standard output --- */

typedef struct sink {
    ct_file_writer *writer; /* NULL: standard output */
    bool gzip;
    z_stream deflate;
    unsigned char *packed; /* (CHUNK_BYTES) */
} sink;

static ct_code sink_open(sink *sink, const char *path, ct_status *status) {
    memset(sink, 0, sizeof(*sink));
    if (strcmp(path, "-") == 0) return CT_OK;
    if (ends_with(path, ".gz")) {
        sink->packed = malloc(CHUNK_BYTES);
        if (sink->packed == NULL) return ct_fail_memory(status, CHUNK_BYTES, "compression");
        /* 15 + 16: a gzip header, which zlib leaves without time and name. */
        if (deflateInit2(&sink->deflate, GZIP_LEVEL, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
            free(sink->packed);
            return ct_fail_memory(status, 1 << 18, "compression");
        }
        sink->gzip = true;
    }
    const ct_code code = ct_file_writer_open(path, &sink->writer, status);
    if (code != CT_OK && sink->gzip) {
        deflateEnd(&sink->deflate);
        free(sink->packed);
    }
    return code;
}

static ct_code write_standard_output(const char *data, size_t bytes, ct_status *status) {
    while (bytes > 0) {
        const ssize_t written = write(STDOUT_FILENO, data, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return ct_fail_errno(status, "standard output: cannot write");
        data += written;
        bytes -= (size_t)written;
    }
    return CT_OK;
}

static ct_code sink_deflate(sink *sink, const char *data, size_t bytes, int flush, ct_status *status) {
    sink->deflate.next_in = (z_const Bytef *)data;
    sink->deflate.avail_in = (uInt)bytes;
    do {
        sink->deflate.next_out = sink->packed;
        sink->deflate.avail_out = CHUNK_BYTES;
        if (deflate(&sink->deflate, flush) == Z_STREAM_ERROR) return ct_fail(status, CT_INTERNAL, "zlib refuses its own stream");
        CT_TRY(ct_file_writer_write(sink->writer, sink->packed, CHUNK_BYTES - sink->deflate.avail_out, status));
    } while (sink->deflate.avail_out == 0);
    return CT_OK;
}

static ct_code sink_write(sink *sink, const char *data, size_t bytes, ct_status *status) {
    if (sink->writer == NULL) return write_standard_output(data, bytes, status);
    if (sink->gzip) return sink_deflate(sink, data, bytes, Z_NO_FLUSH, status);
    return ct_file_writer_write(sink->writer, data, bytes, status);
}

/* Ends the stream; the file is not in place yet. */
static ct_code sink_finish(sink *sink, ct_status *status) { return sink->gzip ? sink_deflate(sink, NULL, 0, Z_FINISH, status) : CT_OK; }

/* Frees in any case; puts the file into place where `commit` is true. */
static ct_code sink_close(sink *sink, bool commit, ct_status *status) {
    if (sink->gzip) {
        deflateEnd(&sink->deflate);
        free(sink->packed);
    }
    if (sink->writer == NULL) return CT_OK;
    if (commit) return ct_file_writer_commit(sink->writer, status);
    ct_file_writer_abort(sink->writer);
    return CT_OK;
}

/* --- lines --- */

static char *put_number(char *to, int32_t value) {
    char digits[12];
    size_t count = 0;
    uint32_t rest = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (value < 0) *to++ = '-';
    while (count > 0) *to++ = digits[--count];
    return to;
}

/* Label, 13 numbers, 26 ids; returns the end. */
static char *put_line(const ct_synth_model *model, const ct_synth_row *row, char *to) {
    *to++ = row->click ? '1' : '0';
    for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) {
        *to++ = '\t';
        if (!row->missing[j]) to = put_number(to, row->number[j]);
    }
    for (size_t f = 0; f < CT_SYNTH_IDS; f++) {
        *to++ = '\t';
        const ct_synth_id *id = &model->ids[f];
        if (row->id[f] == (id->tail.values ? UINT32_MAX : id->empty)) continue;
        const uint64_t token = id->tail.values ? ct_synth_token(row->id[f], id->tail.key) : id->tokens[row->id[f]];
        memcpy(to, &token, 8);
        to += 8;
    }
    *to++ = '\n';
    return to;
}

static ct_code write_lines(const ct_synth_options *options, const ct_synth_model *model, sink *sink, ct_synth_score *score,
                           ct_status *status) {
    char *buffer = malloc(CHUNK_BYTES);
    if (buffer == NULL) return ct_fail_memory(status, CHUNK_BYTES, "lines");
    ct_progress progress;
    ct_progress_init(&progress);
    char *to = buffer;
    ct_code code = CT_OK;
    for (int64_t r = 0; r < options->rows && code == CT_OK; r++) {
        if (r % STOP_ROWS == 0) {
            if (options->stop != NULL && atomic_load(options->stop)) {
                code = ct_fail(status, CT_CANCELLED, "synth: stopped after %lld of %lld rows", (long long)r, (long long)options->rows);
                break;
            }
            ct_progress_update(&progress, "synth: %lld of %lld rows", (long long)r, (long long)options->rows);
        }
        ct_synth_row row;
        ct_synth_model_row(model, r, &row);
        if (score != NULL) ct_synth_score_add(score, row.logit, row.probability, row.click);
        to = put_line(model, &row, to);
        if (to - buffer > CHUNK_BYTES - CT_SYNTH_LINE_MAX_BYTES || r + 1 == options->rows) {
            code = sink_write(sink, buffer, (size_t)(to - buffer), status);
            to = buffer;
        }
    }
    ct_progress_finish(&progress);
    free(buffer);
    return code;
}

/* --- vectors and schema --- */

/* PATH.npy to PATH.txt, malloc'd. */
static char *ids_path_of(const char *vectors_path) {
    char *path = strdup(vectors_path);
    if (path != NULL) memcpy(path + strlen(path) - 4, ".txt", 4);
    return path;
}

static ct_code write_vectors(const ct_synth_model *model, const char *path, const char *ids_path, ct_status *status) {
    const size_t items = model->items;
    char(*texts)[9] = calloc(items, sizeof(*texts));
    const char **ids = malloc(items * sizeof(*ids));
    ct_code code;
    if (texts == NULL || ids == NULL) {
        code = ct_fail_memory(status, items * 17, "the items' ids");
    } else {
        for (size_t i = 0; i < items; i++) {
            memcpy(texts[i], &model->ids[CT_SYNTH_ITEM].tokens[i], 8);
            ids[i] = texts[i];
        }
        code = ct_vectors_write(path, ids_path, model->vectors, items, model->vector_dim, ids, status);
    }
    free(texts);
    free(ids);
    return code;
}

/* The real path of the folder that `path` is in, malloc'd. */
static ct_code folder_of(const char *path, char **out_folder, ct_status *status) {
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (folder == NULL) return ct_fail_memory(status, strlen(path) + 1, "a path");
    *out_folder = realpath(folder, NULL);
    const ct_code code = *out_folder == NULL ? ct_fail_errno(status, "%s: no such folder for %s", folder, path) : CT_OK;
    free(folder);
    return code;
}

/* How a file in folder `from` names `path`, malloc'd. */
static ct_code relative_path(const char *from, const char *path, char **out_relative, ct_status *status) {
    char *to;
    CT_TRY(folder_of(path, &to, status));
    const char *name = strrchr(path, '/') == NULL ? path : strrchr(path, '/') + 1;
    /* `common`: bytes of the longest common folder, without a final slash. */
    size_t common = 0;
    for (size_t i = 0;; i++) {
        if ((from[i] == '/' || from[i] == '\0') && (to[i] == '/' || to[i] == '\0')) common = i;
        if (from[i] != to[i] || from[i] == '\0') break;
    }
    const char *up = from + common, *down = to + common;
    while (*up == '/') up++;
    while (*down == '/') down++;
    size_t levels = *up != '\0';
    for (const char *c = up; *c != '\0'; c++) levels += *c == '/';
    const size_t bytes = 3 * levels + strlen(down) + 1 + strlen(name) + 1;
    char *relative = malloc(bytes);
    if (relative != NULL) {
        char *end = relative;
        for (size_t i = 0; i < levels; i++) end = stpcpy(end, "../");
        if (*down != '\0') end = stpcpy(stpcpy(end, down), "/");
        stpcpy(end, name);
    }
    free(to);
    if (relative == NULL) return ct_fail_memory(status, bytes, "a path");
    *out_relative = relative;
    return CT_OK;
}

/* A YAML text in double quotes. */
static ct_code write_quoted(ct_file_writer *writer, const char *text, ct_status *status) {
    CT_TRY(ct_file_writer_write(writer, "\"", 1, status));
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) return ct_fail(status, CT_INVALID, "synth: control character in the path %s", text);
        if (*c == '"' || *c == '\\') CT_TRY(ct_file_writer_write(writer, "\\", 1, status));
        CT_TRY(ct_file_writer_write(writer, c, 1, status));
    }
    return ct_file_writer_write(writer, "\"", 1, status);
}

static ct_code write_schema_fields(ct_file_writer *writer, const char *vectors, const char *ids, ct_status *status) {
    static const char *const SIDES[2] = {"context", "candidate"};
    CT_TRY(ct_file_writer_printf(writer, status,
                                 "name: synth\n"
                                 "format: {separator: \"\\t\", header: false, columns: %d}\n"
                                 "fields:\n"
                                 "  - {name: label, kind: label, column: 1}\n",
                                 CT_SYNTH_COLUMNS));
    for (int j = 0; j < CT_SYNTH_NUMBERS; j++)
        CT_TRY(ct_file_writer_printf(writer, status, "  - {name: I%d, kind: number, column: %d, side: %s}\n", j + 1, 2 + j, SIDES[j % 2]));
    for (int f = 0; f < CT_SYNTH_IDS; f++)
        CT_TRY(ct_file_writer_printf(writer, status, "  - {name: C%d, kind: id, column: %d, side: %s, type: text}\n", f + 1,
                                     2 + CT_SYNTH_NUMBERS + f, SIDES[f % 2]));
    CT_TRY(ct_file_writer_printf(writer, status, "  - {name: unit, kind: unit, column: %d}\n", 2 + CT_SYNTH_NUMBERS + CT_SYNTH_USER));
    if (vectors == NULL) return CT_OK;
    CT_TRY(ct_file_writer_printf(writer, status, "  - {name: item_vector, kind: vector, of: C%d, file: ", CT_SYNTH_ITEM + 1));
    CT_TRY(write_quoted(writer, vectors, status));
    CT_TRY(ct_file_writer_printf(writer, status, ", ids: "));
    CT_TRY(write_quoted(writer, ids, status));
    return ct_file_writer_printf(writer, status, "}\n");
}

/* `vectors_path` and `ids_path` may be NULL. */
static ct_code write_schema(const char *path, const char *vectors_path, const char *ids_path, ct_status *status) {
    char *folder = NULL, *vectors = NULL, *ids = NULL;
    ct_file_writer *writer;
    ct_code code;
    if (vectors_path != NULL) {
        CT_TRY_GOTO(code, folder_of(path, &folder, status), done);
        CT_TRY_GOTO(code, relative_path(folder, vectors_path, &vectors, status), done);
        CT_TRY_GOTO(code, relative_path(folder, ids_path, &ids, status), done);
    }
    CT_TRY_GOTO(code, ct_file_writer_open(path, &writer, status), done);
    code = write_schema_fields(writer, vectors, ids, status);
    if (code == CT_OK) {
        code = ct_file_writer_commit(writer, status);
    } else {
        ct_file_writer_abort(writer);
    }
done:
    free(folder);
    free(vectors);
    free(ids);
    return code;
}

/* --- all of it --- */

ct_code ct_synth_write(const ct_synth_options *options, ct_synth_truth *out_truth, ct_status *status) {
    CT_TRY(check_paths(options, status));
    ct_synth_model *model;
    CT_TRY(ct_synth_model_create(options, &model, status));
    ct_synth_score *score = NULL;
    ct_synth_truth truth;
    char *ids_path = NULL;
    bool opened = false, vectors_written = false, schema_written = false;
    sink sink;
    ct_code code;
    if (out_truth != NULL) CT_TRY_GOTO(code, ct_synth_score_create(options->rows, &score, status), fail);
    CT_TRY_GOTO(code, sink_open(&sink, options->path, status), fail);
    opened = true;
    CT_TRY_GOTO(code, write_lines(options, model, &sink, score, status), fail);
    CT_TRY_GOTO(code, sink_finish(&sink, status), fail);
    if (score != NULL) CT_TRY_GOTO(code, ct_synth_score_finish(score, &truth, status), fail);
    if (options->vectors_path != NULL) {
        ids_path = ids_path_of(options->vectors_path);
        if (ids_path == NULL) {
            code = ct_fail_memory(status, strlen(options->vectors_path) + 1, "a path");
            goto fail;
        }
        CT_TRY_GOTO(code, write_vectors(model, options->vectors_path, ids_path, status), fail);
        vectors_written = true;
    }
    if (options->schema_path != NULL) {
        CT_TRY_GOTO(code, write_schema(options->schema_path, options->vectors_path, ids_path, status), fail);
        schema_written = true;
    }
    opened = false;
    CT_TRY_GOTO(code, sink_close(&sink, true, status), fail);
    if (out_truth != NULL) *out_truth = truth;
    code = CT_OK;
    goto done;
fail:
    if (opened) (void)!sink_close(&sink, false, &(ct_status)CT_STATUS_INIT);
    if (vectors_written) {
        unlink(options->vectors_path);
        unlink(ids_path);
    }
    if (schema_written) unlink(options->schema_path);
done:
    free(ids_path);
    ct_synth_score_destroy(score);
    ct_synth_model_destroy(model);
    return code;
}
