/* Vector files. A .npy file is: "\x93NUMPY", version (2 bytes), length of the header (2 bytes, from version 2 on 4), the header (a Python
 * dictionary of exactly descr, fortran_order and shape), the numbers. It is believed only when every byte is accounted for. The numbers
 * are read in pieces, so that a file of other numbers than float32 takes no second copy in memory. */
#include "data/vectors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/random.h"
#include "base/text.h"

static const char MAGIC[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

enum { HEADER_MAX_BYTES = 1 << 16, PIECE_BYTES = 1 << 20, AXES = 2, ID_MAX_BYTES = 1 << 20 };

static const size_t IDS_MAX_BYTES = (size_t)1 << 34;

/* --- the header of a .npy file --- */

typedef enum npy_type { NPY_F16, NPY_F32, NPY_F64, NPY_I64 } npy_type;
static const size_t NPY_BYTES[] = {2, 4, 8, 8};

typedef struct npy {
    const char *path;
    int file;
    npy_type type;
    size_t axes;
    uint64_t shape[AXES];
    uint64_t data_offset, data_bytes;
} npy;

static void skip_blanks(const char **at) {
    while (**at == ' ') ++*at;
}

static bool take(const char **at, char c) {
    skip_blanks(at);
    if (**at != c) return false;
    ++*at;
    return true;
}

/* A text in single or double quotes, without escapes. */
static bool take_text(const char **at, char *out, size_t out_bytes) {
    skip_blanks(at);
    const char quote = **at;
    if (quote != '\'' && quote != '"') return false;
    const char *begin = ++*at;
    while (**at != quote) {
        if (**at == '\0' || **at == '\\') return false;
        ++*at;
    }
    const size_t bytes = (size_t)(*at - begin);
    if (bytes >= out_bytes) return false;
    memcpy(out, begin, bytes);
    out[bytes] = '\0';
    ++*at;
    return true;
}

static bool take_word(const char **at, const char *word) {
    skip_blanks(at);
    const size_t bytes = strlen(word);
    if (strncmp(*at, word, bytes) != 0) return false;
    *at += bytes;
    return true;
}

static bool take_size(const char **at, uint64_t *out_value) {
    skip_blanks(at);
    if (**at < '0' || **at > '9') return false;
    uint64_t value = 0;
    for (; **at >= '0' && **at <= '9'; ++*at) {
        if (__builtin_mul_overflow(value, 10u, &value) || __builtin_add_overflow(value, (uint64_t)(**at - '0'), &value)) return false;
    }
    *out_value = value;
    return true;
}

/* (), (n,), (n, m), (n, m,): out_axes counts all axes; the first two are kept. */
static bool take_shape(const char **at, uint64_t shape[AXES], size_t *out_axes) {
    if (!take(at, '(')) return false;
    size_t axes = 0;
    bool comma = true;
    while (!take(at, ')')) {
        uint64_t size;
        if (!comma || !take_size(at, &size)) return false;
        if (axes < AXES) shape[axes] = size;
        axes++;
        comma = take(at, ',');
    }
    if (axes == 1 && !comma) return false; /* (n) is a number in brackets */
    *out_axes = axes;
    return true;
}

/* `header` ends with NUL. Fills type, axes and shape. */
static ct_code parse_header(npy *npy, const char *header, ct_status *status) {
    const char *at = header;
    char descr[32] = "";
    bool seen_descr = false, seen_order = false, seen_shape = false, fortran = false, fine = take(&at, '{'), comma = true;
    while (fine && !take(&at, '}')) {
        char name[32];
        fine = comma && take_text(&at, name, sizeof(name)) && take(&at, ':');
        if (!fine) break;
        if (strcmp(name, "descr") == 0 && !seen_descr) {
            seen_descr = true;
            skip_blanks(&at);
            if (*at == '[') return ct_fail(status, CT_UNSUPPORTED, "%s: structured numbers; save a plain float32 array", npy->path);
            fine = take_text(&at, descr, sizeof(descr));
        } else if (strcmp(name, "fortran_order") == 0 && !seen_order) {
            seen_order = true;
            fortran = take_word(&at, "True");
            fine = fortran || take_word(&at, "False");
        } else if (strcmp(name, "shape") == 0 && !seen_shape) {
            seen_shape = true;
            fine = take_shape(&at, npy->shape, &npy->axes);
        } else {
            fine = false;
        }
        comma = fine && take(&at, ',');
    }
    skip_blanks(&at);
    if (*at == '\n') at++;
    if (!fine || *at != '\0' || !seen_descr || !seen_order || !seen_shape) {
        char shown[128];
        return ct_fail(status, CT_CORRUPT, "%s: not a .npy header: %s", npy->path,
                       ct_text_show(header, strlen(header), shown, sizeof(shown)));
    }
    if (strcmp(descr, "<f4") == 0) {
        npy->type = NPY_F32;
    } else if (strcmp(descr, "<f2") == 0) {
        npy->type = NPY_F16;
    } else if (strcmp(descr, "<f8") == 0) {
        npy->type = NPY_F64;
    } else if (strcmp(descr, "<i8") == 0) {
        npy->type = NPY_I64;
    } else {
        return ct_fail(status, CT_UNSUPPORTED,
                       "%s: numbers of type %s; vectors must be little-endian float32, float16 or float64 and ids int64", npy->path, descr);
    }
    if (fortran && npy->axes > 1)
        return ct_fail(status, CT_UNSUPPORTED, "%s: stored in Fortran order; save numpy.ascontiguousarray of it", npy->path);
    return CT_OK;
}

static ct_code read_at(const npy *npy, uint64_t offset, void *out, size_t bytes, ct_status *status) {
    char *to = out;
    while (bytes > 0) {
        const ssize_t got = pread(npy->file, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ct_fail_errno(status, "%s: cannot read", npy->path);
        if (got == 0) return ct_fail(status, CT_CORRUPT, "%s: ends at byte %llu", npy->path, (unsigned long long)offset);
        to += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return CT_OK;
}

static void npy_close(npy *npy) {
    if (npy->file >= 0) close(npy->file);
    npy->file = -1;
}

static ct_code npy_read_header(npy *npy, ct_status *status) {
    struct stat about;
    if (fstat(npy->file, &about) != 0) return ct_fail_errno(status, "%s: cannot read", npy->path);
    if (!S_ISREG(about.st_mode)) return ct_fail(status, CT_INVALID, "%s: not a regular file", npy->path);
    const uint64_t file_bytes = (uint64_t)about.st_size;
    unsigned char start[12];
    if (file_bytes < sizeof(start))
        return ct_fail(status, CT_CORRUPT, "%s: not a .npy file, or cut: %llu bytes", npy->path, (unsigned long long)file_bytes);
    CT_TRY(read_at(npy, 0, start, sizeof(start), status));
    if (memcmp(start, MAGIC, sizeof(MAGIC)) != 0)
        return ct_fail(status, CT_CORRUPT, "%s: not a .npy file (its first bytes are wrong)", npy->path);
    if (start[6] < 1 || start[6] > 3 || start[7] != 0)
        return ct_fail(status, CT_UNSUPPORTED, "%s: .npy version %u.%u; 1.0, 2.0 and 3.0 are known", npy->path, start[6], start[7]);
    const uint64_t header_offset = start[6] == 1 ? 10 : 12;
    const uint64_t header_bytes = start[6] == 1 ? (uint64_t)(start[8] | start[9] << 8) : ct_get_le32(start + 8);
    if (header_bytes > HEADER_MAX_BYTES || header_offset + header_bytes > file_bytes)
        return ct_fail(status, CT_CORRUPT, "%s: a header of %llu bytes in a file of %llu", npy->path, (unsigned long long)header_bytes,
                       (unsigned long long)file_bytes);
    char *header = malloc(header_bytes + 1);
    if (header == NULL) return ct_fail_memory(status, header_bytes + 1, "a .npy header");
    ct_code code = read_at(npy, header_offset, header, header_bytes, status);
    if (code == CT_OK) {
        header[header_bytes] = '\0';
        code = strlen(header) == header_bytes ? parse_header(npy, header, status)
                                              : ct_fail(status, CT_CORRUPT, "%s: NUL byte in the .npy header", npy->path);
    }
    free(header);
    if (code != CT_OK) return code;
    npy->data_offset = header_offset + header_bytes;
    npy->data_bytes = file_bytes - npy->data_offset;
    return CT_OK;
}

static ct_code npy_open(const char *path, npy *out_npy, ct_status *status) {
    npy npy = {.path = path};
    npy.file = open(path, O_RDONLY | O_CLOEXEC);
    if (npy.file < 0) return ct_fail_errno(status, "%s: cannot open", path);
    const ct_code code = npy_read_header(&npy, status);
    if (code != CT_OK) {
        npy_close(&npy);
        return code;
    }
    *out_npy = npy;
    return CT_OK;
}

/* The data must be exactly as long as type and shape say. */
static ct_code check_length(const npy *npy, ct_status *status) {
    uint64_t bytes = NPY_BYTES[npy->type];
    bool fits = true;
    for (size_t i = 0; i < npy->axes; i++) fits = fits && !__builtin_mul_overflow(bytes, npy->shape[i], &bytes);
    if (fits && bytes == npy->data_bytes) return CT_OK;
    char shape[64] = "";
    if (npy->axes == 1) {
        snprintf(shape, sizeof(shape), "%llu", (unsigned long long)npy->shape[0]);
    } else {
        snprintf(shape, sizeof(shape), "%llu x %llu", (unsigned long long)npy->shape[0], (unsigned long long)npy->shape[1]);
    }
    return ct_fail(status, CT_CORRUPT, "%s: the header says %s numbers of %zu bytes, but %llu bytes follow it (cut or damaged?)", npy->path,
                   shape, NPY_BYTES[npy->type], (unsigned long long)npy->data_bytes);
}

/* --- values --- */

static float float_from_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 1023u;
    if (exponent == 0) {
        const float small = (float)fraction * 0x1p-24f; /* subnormal or zero: exact */
        return sign != 0 ? -small : small;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static ct_code read_values(const npy *npy, float *values, size_t count, size_t dim, ct_status *status) {
    const size_t total = count * dim, size = NPY_BYTES[npy->type], step = PIECE_BYTES / size;
    unsigned char *piece = malloc(PIECE_BYTES);
    if (piece == NULL) return ct_fail_memory(status, PIECE_BYTES, "reading vectors");
    ct_code code = CT_OK;
    for (size_t done = 0; done < total && code == CT_OK; done += step) {
        const size_t now = total - done < step ? total - done : step;
        code = read_at(npy, npy->data_offset + done * size, piece, now * size, status);
        for (size_t i = 0; i < now && code == CT_OK; i++) {
            float value;
            if (npy->type == NPY_F32) {
                memcpy(&value, piece + 4 * i, 4);
            } else if (npy->type == NPY_F16) {
                uint16_t half;
                memcpy(&half, piece + 2 * i, 2);
                value = float_from_half(half);
            } else {
                double wide;
                memcpy(&wide, piece + 8 * i, 8);
                value = (float)wide; /* infinite where it is beyond float32 */
            }
            if (!isfinite(value))
                code = ct_fail(status, CT_INVALID, "%s: row %zu, column %zu is not a finite float32", npy->path, (done + i) / dim + 1,
                               (done + i) % dim + 1);
            values[done + i] = value;
        }
    }
    free(piece);
    return code;
}

/* --- ids --- */

/* The ids' texts, in one of three forms. */
typedef struct ids {
    const char *path;  /* NULL: 1 .. N */
    char *text;        /* lines; NULL: integers */
    size_t *line;      /* (count + 1): where line i begins; the byte before the next one is its newline, or the text's end */
    int64_t *integers; /* from a .npy */
} ids;

static size_t id_text(const ids *ids, size_t i, char buffer[24], const char **out_text) {
    if (ids->text != NULL) {
        size_t bytes = ids->line[i + 1] - ids->line[i] - 1;
        *out_text = ids->text + ids->line[i];
        if (bytes > 0 && (*out_text)[bytes - 1] == '\r') bytes--;
        return bytes;
    }
    *out_text = buffer;
    return (size_t)snprintf(buffer, 24, "%lld", ids->integers != NULL ? (long long)ids->integers[i] : (long long)(i + 1));
}

static ct_code check_id(const char *path, size_t line, const char *text, size_t bytes, ct_status *status) {
    const char *fault = NULL;
    if (bytes == 0) {
        fault = "the id is empty";
    } else if (bytes > ID_MAX_BYTES) {
        fault = "the id is longer than 1 MiB";
    } else if (memchr(text, '\0', bytes) != NULL) {
        fault = "the id holds a NUL byte";
    } else if (!ct_utf8_is_valid(text, bytes)) {
        fault = "the id is not UTF-8";
    }
    return fault == NULL ? CT_OK : ct_fail(status, CT_INVALID, "%s: line %zu: %s", path, line, fault);
}

static ct_code read_id_lines(const char *path, const char *vectors_path, size_t count, ids *ids, ct_status *status) {
    size_t bytes;
    CT_TRY(ct_file_read(path, IDS_MAX_BYTES, &ids->text, &bytes, status));
    size_t lines = 0;
    for (const char *c = ids->text; c < ids->text + bytes; lines++) {
        const char *newline = memchr(c, '\n', bytes - (size_t)(c - ids->text));
        c = newline == NULL ? ids->text + bytes : newline + 1;
    }
    if (lines != count)
        return ct_fail(status, CT_INVALID, "%s: %zu lines, but %s has %zu rows; there must be one id a row", path, lines, vectors_path,
                       count);
    ids->line = malloc((count + 1) * sizeof(*ids->line));
    if (ids->line == NULL) return ct_fail_memory(status, (count + 1) * sizeof(*ids->line), "vector ids");
    size_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        ids->line[i] = begin;
        const char *newline = memchr(ids->text + begin, '\n', bytes - begin);
        begin = newline == NULL ? bytes + 1 : (size_t)(newline - ids->text) + 1;
        ids->line[i + 1] = begin;
        const char *text;
        const size_t id_bytes = id_text(ids, i, NULL, &text);
        CT_TRY(check_id(path, i + 1, text, id_bytes, status));
    }
    return CT_OK;
}

static ct_code read_id_integers(const char *path, const char *vectors_path, size_t count, ids *ids, ct_status *status) {
    npy npy;
    CT_TRY(npy_open(path, &npy, status));
    ct_code code = CT_OK;
    if (npy.type != NPY_I64 || npy.axes != 1) {
        code = ct_fail(status, CT_INVALID, "%s: ids in a .npy file must be int64 with one axis", path);
        goto done;
    }
    CT_TRY_GOTO(code, check_length(&npy, status), done);
    if (npy.shape[0] != count) {
        code =
            ct_fail(status, CT_INVALID, "%s: %llu ids, but %s has %zu rows", path, (unsigned long long)npy.shape[0], vectors_path, count);
        goto done;
    }
    ids->integers = malloc(count * sizeof(*ids->integers));
    if (ids->integers == NULL) {
        code = ct_fail_memory(status, count * sizeof(*ids->integers), "vector ids");
        goto done;
    }
    code = read_at(&npy, npy.data_offset, ids->integers, count * sizeof(*ids->integers), status);
done:
    npy_close(&npy);
    return code;
}

/* Lines or int64 .npy, told by the first bytes: 0x93 opens no UTF-8 text. */
static ct_code read_ids(const char *path, const char *vectors_path, size_t count, ids *ids, ct_status *status) {
    ids->path = path;
    if (path == NULL) return CT_OK;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return ct_fail_errno(status, "%s: cannot open", path);
    char start[sizeof(MAGIC)];
    const ssize_t got = pread(file, start, sizeof(start), 0);
    const ct_code code = got < 0 ? ct_fail_errno(status, "%s: cannot read", path) : CT_OK;
    close(file);
    if (code != CT_OK) return code;
    if (got == sizeof(start) && memcmp(start, MAGIC, sizeof(MAGIC)) == 0) return read_id_integers(path, vectors_path, count, ids, status);
    return read_id_lines(path, vectors_path, count, ids, status);
}

typedef struct keyed_row {
    uint64_t key;
    size_t row;
} keyed_row;

static int compare_keys(const void *a, const void *b) {
    const keyed_row *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

static ct_code make_keys(const ids *ids, const char *vectors_path, size_t count, uint64_t *keys, ct_status *status) {
    keyed_row *sorted = calloc(count, sizeof(*sorted));
    if (sorted == NULL) return ct_fail_memory(status, count * sizeof(*sorted), "vector keys");
    char buffer[24];
    const char *text;
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = id_text(ids, i, buffer, &text);
        keys[i] = ct_hash64(text, bytes, 0);
        sorted[i] = (keyed_row){keys[i], i};
    }
    qsort(sorted, count, sizeof(*sorted), compare_keys);
    ct_code code = CT_OK;
    size_t first = count, second = count; /* the repetition that comes first in the file */
    for (size_t i = 1; i < count; i++) {
        if (sorted[i].key == sorted[i - 1].key && sorted[i].row < second) {
            first = sorted[i - 1].row;
            second = sorted[i].row;
        }
    }
    if (second < count) {
        char shown[128];
        const size_t bytes = id_text(ids, second, buffer, &text);
        ct_text_show(text, bytes, shown, sizeof(shown));
        code = ct_fail(status, CT_INVALID, "%s: the id %s stands in rows %zu and %zu; ids must be distinct",
                       ids->path != NULL ? ids->path : vectors_path, shown, first + 1, second + 1);
    }
    free(sorted);
    return code;
}

/* --- load, write --- */

static ct_code hash_content(ct_vectors *vectors, ct_status *status) {
    ct_digest *digest = NULL;
    CT_TRY(ct_digest_create(&digest, status));
    ct_digest_update_u64(digest, vectors->dim);
    ct_digest_update(digest, vectors->keys, vectors->count * sizeof(*vectors->keys));
    ct_digest_update(digest, vectors->values, vectors->count * vectors->dim * sizeof(*vectors->values));
    ct_digest_hex(digest, vectors->content_hash);
    ct_digest_destroy(digest);
    return CT_OK;
}

ct_code ct_vectors_shuffle(ct_vectors *vectors, uint64_t seed, ct_status *status) {
    for (size_t i = vectors->count; i > 1; i--) { /* Fisher and Yates, of the keys */
        const size_t pick = (size_t)(ct_random_unit(seed, CT_PLACE_SHUFFLE, 0, i, 0) * (double)i);
        const uint64_t key = vectors->keys[pick];
        vectors->keys[pick] = vectors->keys[i - 1];
        vectors->keys[i - 1] = key;
    }
    return hash_content(vectors, status);
}

ct_code ct_vectors_load(const char *path, const char *ids_path, ct_mapped *scratch, ct_vectors **out_vectors, ct_status *status) {
    ids ids = {0};
    ct_vectors *vectors = NULL;
    npy npy;
    CT_TRY(npy_open(path, &npy, status));
    ct_code code;
    if (npy.type == NPY_I64 || npy.axes != 2) {
        code = ct_fail(status, npy.type == NPY_I64 ? CT_UNSUPPORTED : CT_INVALID,
                       "%s: vectors must be float32, float16 or float64 with two axes (rows, dimension); this is %s with %zu", path,
                       npy.type == NPY_I64 ? "int64" : "float", npy.axes);
        goto fail;
    }
    CT_TRY_GOTO(code, check_length(&npy, status), fail);
    const uint64_t count = npy.shape[0], dim = npy.shape[1];
    if (count == 0 || dim == 0) {
        code = ct_fail(status, CT_INVALID, "%s: no numbers (%llu rows of %llu)", path, (unsigned long long)count, (unsigned long long)dim);
        goto fail;
    }
    /* The product fits: the file holds that many numbers of 2 bytes or more, and its size fits 63 bits. */
    vectors = calloc(1, sizeof(*vectors));
    if (vectors != NULL) {
        void *memory = NULL;
        if (scratch != NULL) CT_TRY_GOTO(code, ct_mapped_take(scratch, count * dim * sizeof(*vectors->values), &memory, status), fail);
        vectors->count = count;
        vectors->dim = dim;
        vectors->mapped = scratch != NULL;
        vectors->values = scratch != NULL ? memory : calloc(count * dim, sizeof(*vectors->values));
        vectors->keys = calloc(count, sizeof(*vectors->keys));
    }
    if (vectors == NULL || vectors->values == NULL || vectors->keys == NULL) {
        code = ct_fail_memory(status, count * dim * sizeof(float), path);
        goto fail;
    }
    CT_TRY_GOTO(code, read_values(&npy, vectors->values, count, dim, status), fail);
    CT_TRY_GOTO(code, read_ids(ids_path, path, count, &ids, status), fail);
    CT_TRY_GOTO(code, make_keys(&ids, path, count, vectors->keys, status), fail);
    CT_TRY_GOTO(code, hash_content(vectors, status), fail);
    *out_vectors = vectors;
    vectors = NULL;
fail:
    ct_vectors_destroy(vectors);
    free(ids.text);
    free(ids.line);
    free(ids.integers);
    npy_close(&npy);
    return code;
}

void ct_vectors_destroy(ct_vectors *vectors) {
    if (vectors == NULL) return;
    if (vectors->mapped)
        ct_mapped_give(vectors->values, vectors->count * vectors->dim * sizeof(*vectors->values));
    else
        free(vectors->values);
    free(vectors->keys);
    free(vectors);
}

/* Magic, version 1.0 and a header padded so that the numbers begin at a multiple of 64 bytes, as numpy does. */
static ct_code write_npy(ct_file_writer *writer, const float *values, size_t count, size_t dim, ct_status *status) {
    char text[128];
    const int used = snprintf(text, sizeof(text), "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", count, dim);
    const size_t header_bytes = ((size_t)used + 1 + 10 + 63) / 64 * 64 - 10;
    const unsigned char version[4] = {1, 0, (unsigned char)header_bytes, (unsigned char)(header_bytes >> 8)};
    CT_TRY(ct_file_writer_write(writer, MAGIC, sizeof(MAGIC), status));
    CT_TRY(ct_file_writer_write(writer, version, sizeof(version), status));
    CT_TRY(ct_file_writer_printf(writer, status, "%-*s\n", (int)header_bytes - 1, text));
    return ct_file_writer_write(writer, values, count * dim * sizeof(*values), status);
}

static ct_code write_ids(ct_file_writer *writer, const char *path, const char *const *ids, size_t count, ct_status *status) {
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = strlen(ids[i]);
        CT_TRY(check_id(path, i + 1, ids[i], bytes, status));
        if (strpbrk(ids[i], "\r\n") != NULL) return ct_fail(status, CT_INVALID, "%s: line %zu: the id holds a line end", path, i + 1);
        CT_TRY(ct_file_writer_write(writer, ids[i], bytes, status));
        CT_TRY(ct_file_writer_write(writer, "\n", 1, status));
    }
    return CT_OK;
}

ct_code ct_vectors_write(const char *path, const char *ids_path, const float *values, size_t count, size_t dim, const char *const *ids,
                         ct_status *status) {
    ct_file_writer *writer = NULL, *ids_writer = NULL;
    size_t bytes;
    if (count == 0 || dim == 0) return ct_fail(status, CT_INVALID, "%s: no vectors to write (%zu rows of %zu)", path, count, dim);
    if (__builtin_mul_overflow(count, dim, &bytes) || __builtin_mul_overflow(bytes, sizeof(*values), &bytes))
        return ct_fail(status, CT_INVALID, "%s: %zu rows of %zu are too many", path, count, dim);
    for (size_t i = 0; i < count * dim; i++) {
        if (!isfinite(values[i]))
            return ct_fail(status, CT_INVALID, "%s: row %zu, column %zu is not finite", path, i / dim + 1, i % dim + 1);
    }
    ct_code code;
    CT_TRY_GOTO(code, ct_file_writer_open(path, &writer, status), fail);
    CT_TRY_GOTO(code, write_npy(writer, values, count, dim, status), fail);
    if (ids_path != NULL) {
        CT_TRY_GOTO(code, ct_file_writer_open(ids_path, &ids_writer, status), fail);
        CT_TRY_GOTO(code, write_ids(ids_writer, ids_path, ids, count, status), fail);
        ct_file_writer *last = ids_writer;
        ids_writer = NULL;
        CT_TRY_GOTO(code, ct_file_writer_commit(last, status), fail);
    }
    return ct_file_writer_commit(writer, status);
fail:
    ct_file_writer_abort(ids_writer);
    ct_file_writer_abort(writer);
    return code;
}
