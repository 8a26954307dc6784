/* Second reading: each row's place in its part's file follows from the lengths of the rows before it, so lines are written where they
 * belong, in any order of the log, with one buffer for each file. Rows in order are written in large pieces. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "data/raw_rows.h"
#include "experiment/split_internal.h"

enum { BUFFER_BYTES = 1 << 20, STOP_ROWS = 4096 };

typedef struct part_file {
    int fd; /* -1 = not open */
    char *path, *buffer;
    int64_t at; /* in the file, of the buffer's first byte */
    size_t bytes;
} part_file;

static ct_code flush_part(part_file *file, ct_status *status) {
    for (size_t done = 0; done < file->bytes;) {
        const ssize_t wrote = pwrite(file->fd, file->buffer + done, file->bytes - done, (off_t)(file->at + (int64_t)done));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return ct_fail_errno(status, "%s", file->path);
        done += (size_t)wrote;
    }
    file->at += (int64_t)file->bytes;
    file->bytes = 0;
    return CT_OK;
}

/* Puts `bytes` of text and a newline at `at`. */
static ct_code put_line(part_file *file, int64_t at, const char *text, size_t bytes, ct_status *status) {
    if (at != file->at + (int64_t)file->bytes || file->bytes + bytes + 1 > BUFFER_BYTES) CT_TRY(flush_part(file, status));
    if (file->bytes == 0) file->at = at;
    if (bytes + 1 > BUFFER_BYTES) return ct_fail(status, CT_INTERNAL, "a line of %zu bytes", bytes);
    memcpy(file->buffer + file->bytes, text, bytes);
    file->buffer[file->bytes + bytes] = '\n';
    file->bytes += bytes + 1;
    return CT_OK;
}

static ct_code open_parts(const split_run *run, const char *folder, part_file files[CT_SPLIT_PARTS], ct_status *status) {
    for (size_t part = 0; part < CT_SPLIT_PARTS; part++) {
        if (run->options->parts[part] == 0) continue;
        char name[16];
        split_file_name(run->options->schema, part, name);
        files[part].path = ct_path_join(folder, name);
        files[part].buffer = malloc(BUFFER_BYTES);
        if (files[part].path == NULL || files[part].buffer == NULL) return ct_fail_memory(status, BUFFER_BYTES, "a part's buffer");
        files[part].fd = open(files[part].path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (files[part].fd < 0) return ct_fail_errno(status, "%s", files[part].path);
    }
    return CT_OK;
}

/* Where each row's line goes in its part's file; malloc'd. */
static int64_t *find_places(const split_run *run, size_t header_bytes) {
    const split_rows *rows = &run->rows;
    int64_t *places = malloc(rows->count * sizeof *places), next[CT_SPLIT_PARTS + 1];
    for (size_t part = 0; part <= CT_SPLIT_PARTS; part++) next[part] = (int64_t)header_bytes;
    for (size_t i = 0; places != NULL && i < rows->count; i++) {
        const size_t row = run->order[i];
        places[row] = next[rows->part[row]];
        next[rows->part[row]] += rows->bytes[row];
    }
    return places;
}

typedef struct copying {
    const split_run *run;
    ct_raw_rows *raw;
    part_file files[CT_SPLIT_PARTS];
    char *header; /* of the first source */
    size_t header_bytes;
    int64_t *places;
} copying;

static ct_code take_header(copying *c, const ct_line *line, ct_status *status) {
    if (c->header != NULL && (line->bytes != c->header_bytes - 1 || memcmp(line->text, c->header, line->bytes) != 0))
        return ct_fail(status, CT_INVALID, "%s: its header differs from that of the first source; split sources of one layout at a time",
                       line->source);
    if (c->header != NULL) return CT_OK;
    c->header = strndup(line->text, line->bytes);
    if (c->header == NULL) return ct_fail_memory(status, line->bytes, "a header");
    c->header_bytes = line->bytes + 1;
    for (size_t part = 0; part < CT_SPLIT_PARTS; part++)
        if (c->files[part].fd >= 0) CT_TRY(put_line(&c->files[part], 0, line->text, line->bytes, status));
    return CT_OK;
}

static ct_code copy_lines(copying *c, ct_status *status) {
    const split_run *run = c->run;
    const split_rows *rows = &run->rows;
    ct_progress progress;
    ct_raw_row row;
    size_t next = 0;
    ct_code code;
    if (run->options->progress) ct_progress_init(&progress);
    while ((code = ct_raw_rows_next(c->raw, &row, status)) == CT_OK) {
        if (row.is_header) CT_TRY_GOTO(code, take_header(c, &row.line, status), done);
        if (row.is_header || row.is_bad) continue;
        if (c->places == NULL && (c->places = find_places(run, c->header_bytes)) == NULL) {
            code = ct_fail_memory(status, rows->count * sizeof *c->places, "the places of rows");
            goto done;
        }
        const uint64_t hash = ct_hash64(row.line.text, row.line.bytes, 0);
        if (next == rows->count || hash != rows->hash[next]) continue; /* a row that was bad at the first reading; see below */
        const uint8_t part = rows->part[next];
        if (part != LEFT_OUT) CT_TRY_GOTO(code, put_line(&c->files[part], c->places[next], row.line.text, row.line.bytes, status), done);
        if (++next % STOP_ROWS != 0) continue;
        if (run->options->progress) ct_progress_update(&progress, "split: %zu rows written", next);
        if (run->options->stop != NULL && atomic_load(run->options->stop)) {
            code = ct_fail(status, CT_CANCELLED, "the split was stopped");
            goto done;
        }
    }
    if (code == CT_END) code = CT_OK;
    if (code == CT_OK && next != rows->count)
        code = ct_fail(status, CT_INVALID, "the sources changed between two readings: row %zu of %zu was not there again", next + 1,
                       rows->count);
    for (size_t part = 0; part < CT_SPLIT_PARTS && code == CT_OK; part++) code = flush_part(&c->files[part], status);
done:
    if (run->options->progress) ct_progress_finish(&progress);
    return code;
}

ct_code split_write(const split_run *run, const char *folder, ct_status *status) {
    copying c = {.run = run, .files = {{.fd = -1}, {.fd = -1}, {.fd = -1}}};
    const ct_split_options *options = run->options;
    ct_code code;
    CT_TRY_GOTO(code, open_parts(run, folder, c.files, status), done);
    CT_TRY_GOTO(code, ct_raw_rows_open(options->schema, options->sources, options->source_count, &c.raw, status), done);
    ct_raw_rows_set_stop(c.raw, options->stop);
    code = copy_lines(&c, status);
done:
    ct_raw_rows_close(c.raw);
    for (size_t part = 0; part < CT_SPLIT_PARTS; part++) {
        if (c.files[part].fd >= 0 && close(c.files[part].fd) != 0 && code == CT_OK) code = ct_fail_errno(status, "%s", c.files[part].path);
        free(c.files[part].path);
        free(c.files[part].buffer);
    }
    free(c.header);
    free(c.places);
    return code;
}
