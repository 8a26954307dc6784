/* Two steps: protobuf-c unpacks the message, then each column that the model uses becomes a column of the batch. Keys and numbers are made
 * by data/'s own functions, so a value has the same key here as in a log. A vector's column is its id field's tokens under salt 0. */
#include "serving/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"

typedef Clicktower__V1__Column request_column;
typedef Clicktower__V1__ScoreRequest request;

/* --- protobuf-c's memory --- */

enum { PIECE_BYTES = 16 * 1024, MESSAGE_MEMORY_BYTES = 256 * 1024 * 1024, COLUMN_NAME_SHOWN = 80 };

/* protobuf-c asks for many small pieces: they are cut from larger ones. What it frees is the arena's to take back. */
typedef struct unpack_memory {
    ct_arena *arena;
    char *at;
    size_t left, taken;
    bool too_large;
} unpack_memory;

static void *unpack_alloc(void *data, size_t bytes) {
    unpack_memory *memory = data;
    if (bytes > MESSAGE_MEMORY_BYTES) {
        memory->too_large = true;
        return NULL;
    }
    bytes = (bytes + 7) & ~(size_t)7;
    if (bytes > memory->left) {
        const size_t piece = bytes > PIECE_BYTES / 4 ? bytes : PIECE_BYTES;
        if (memory->taken + piece > MESSAGE_MEMORY_BYTES) {
            memory->too_large = true;
            return NULL;
        }
        char *fresh = ct_arena_alloc(memory->arena, piece);
        if (!fresh) return NULL;
        memory->taken += piece;
        if (piece == bytes) return fresh; /* a large one of its own */
        memory->at = fresh;
        memory->left = piece;
    }
    char *out = memory->at;
    memory->at += bytes;
    memory->left -= bytes;
    return out;
}

static void unpack_free(void *data, void *pointer) {
    (void)data;
    (void)pointer;
}

ct_code ct_message_unpack(ct_arena *arena, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t bytes, const char *what,
                          ProtobufCMessage **out_message, ct_status *status) {
    unpack_memory memory = {.arena = arena};
    ProtobufCAllocator allocator = {unpack_alloc, unpack_free, &memory};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, bytes, data);
    if (!message) {
        if (memory.too_large) return ct_fail(status, CT_EXHAUSTED, "the message takes too much memory: send fewer values");
        return ct_fail(status, CT_INVALID, "the %zu bytes are no %s", bytes, what);
    }
    *out_message = message;
    return CT_OK;
}

/* --- texts --- */

static ct_code check_text(const ProtobufCBinaryData *text, size_t max_bytes, const char *what, ct_status *status) {
    if (text->len > max_bytes) return ct_fail(status, CT_INVALID, "%s has %zu bytes: at most %zu", what, text->len, max_bytes);
    char shown[COLUMN_NAME_SHOWN];
    if (!ct_utf8_is_valid(text->data, text->len))
        return ct_fail(status, CT_INVALID, "%s \"%s\" is not UTF-8", what,
                       ct_text_show((const char *)text->data, text->len, shown, sizeof shown));
    return CT_OK;
}

static ct_code check_columns(request_column *const *columns, size_t count, ct_status *status) {
    for (size_t i = 0; i < count; i++) CT_TRY(check_text(&columns[i]->name, SIZE_MAX, "a column's name", status));
    return CT_OK;
}

ct_code ct_request_unpack(ct_arena *arena, const uint8_t *data, size_t bytes, request **out_request, ct_status *status) {
    ProtobufCMessage *message = NULL;
    CT_TRY(ct_message_unpack(arena, &clicktower__v1__score_request__descriptor, data, bytes, "ScoreRequest", &message, status));
    request *r = (request *)message;
    CT_TRY(check_text(&r->model, SIZE_MAX, "model", status));
    CT_TRY(check_text(&r->request_id, CT_REQUEST_ID_MAX_BYTES, "request_id", status));
    CT_TRY(check_text(&r->unit, CT_REQUEST_UNIT_MAX_BYTES, "unit", status));
    CT_TRY(check_text(&r->arm, SIZE_MAX, "arm", status));
    CT_TRY(check_columns(r->context, r->n_context, status));
    CT_TRY(check_columns(r->candidates, r->n_candidates, status));
    *out_request = r;
    return CT_OK;
}

/* --- a glance --- */

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        const uint8_t byte = *(*at)++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* One field of a message: of a varint its value, of any other its bytes. */
typedef struct wire_field {
    uint64_t tag, value;
    const uint8_t *data;
    size_t bytes;
} wire_field;
enum { VARINT = 0, DELIMITED = 2, FIXED32 = 5 };

static bool read_field(const uint8_t **at, const uint8_t *end, wire_field *out) {
    uint64_t bytes = 4;
    *out = (wire_field){0};
    if (!read_varint(at, end, &out->tag)) return false;
    const unsigned type = out->tag & 7;
    if (type == VARINT) return read_varint(at, end, &out->value);
    if (type == DELIMITED ? !read_varint(at, end, &bytes) : type != FIXED32) return false;
    if (bytes > (uint64_t)(end - *at)) return false;
    out->data = *at;
    out->bytes = (size_t)bytes;
    *at += bytes;
    return true;
}

/* Of a list of varints, packed or one at a time. */
static size_t values_of(const wire_field *field) {
    size_t count = field->data == NULL;
    for (size_t i = 0; i < field->bytes; i++) count += field->data[i] < 0x80;
    return count;
}

/* As the decoder will count them where the column is as it should be. 0 = it can't be told. */
static size_t rows_of_column(const wire_field *column) {
    enum { TOKENS = 2, INTEGERS = 3, NUMBERS = 4, LENGTHS = 5 };
    size_t values = 0, lengths = 0;
    wire_field field;
    for (const uint8_t *at = column->data, *const end = at + column->bytes; at < end;) {
        if (!read_field(&at, end, &field)) return 0;
        switch (field.tag >> 3) {
            case TOKENS:
                values++;
                break;
            case INTEGERS:
                values += values_of(&field);
                break;
            case NUMBERS:
                values += field.bytes / 4;
                break;
            case LENGTHS:
                lengths += values_of(&field);
                break;
            default:
                break;
        }
    }
    return lengths ? lengths : values;
}

size_t ct_request_rows_guess(const uint8_t *data, size_t bytes) {
    enum { BYTES_OF_A_ROW = 64, CANDIDATES = 5, CANDIDATE_COUNT = 6 };
    if (bytes == 0) return 1;
    const size_t guess = 1 + bytes / BYTES_OF_A_ROW;
    wire_field field, column = {0};
    for (const uint8_t *at = data, *const end = data + bytes; at < end;) {
        if (!read_field(&at, end, &field)) return guess;
        if (field.tag == (CANDIDATE_COUNT << 3 | VARINT) && field.value) return field.value < SIZE_MAX / 2 ? (size_t)field.value : guess;
        if (field.tag == (CANDIDATES << 3 | DELIMITED) && !column.data) column = field;
    }
    const size_t rows = column.data ? rows_of_column(&column) : 0;
    return rows ? rows : guess;
}

/* --- the decoder --- */

struct ct_decoder {
    const ct_schema *schema;
    uint32_t max_candidates;
    bool *used;      /* (field_count): by the model, or as the id of a vector that it uses */
    int64_t *vector; /* (field_count): id, history: the first used vector or similarity of it, or -1; those: the next of the same, or -1 */
    size_t slots;    /* of the index, a power of two */
    int32_t *index;  /* (slots): field of a name, open addressing; -1 = free */
    const ct_histories *histories; /* NULL = a request must bring what follows from them */
    const ct_decoder *others[CT_DECODER_OTHERS];
    size_t other_count;
};

static size_t name_slot(const ct_decoder *decoder, const void *name, size_t bytes) {
    const size_t mask = decoder->slots - 1;
    size_t slot = (size_t)ct_hash64(name, bytes, 0) & mask;
    for (; decoder->index[slot] >= 0; slot = (slot + 1) & mask) {
        const char *at = decoder->schema->fields[decoder->index[slot]].name;
        if (strlen(at) == bytes && memcmp(at, name, bytes) == 0) break;
    }
    return slot;
}

/* The field of that name, or -1. */
static int32_t find_field(const ct_decoder *decoder, const ProtobufCBinaryData *name) {
    return decoder->index[name_slot(decoder, name->data ? name->data : (const uint8_t *)"", name->len)];
}

void ct_decoder_also_knows(ct_decoder *decoder, const ct_decoder *other) {
    for (size_t i = 0; i < decoder->other_count; i++)
        if (decoder->others[i] == other) return;
    if (other != decoder && decoder->other_count < CT_DECODER_OTHERS) decoder->others[decoder->other_count++] = other;
}

static bool others_know(const ct_decoder *decoder, const ProtobufCBinaryData *name) {
    for (size_t i = 0; i < decoder->other_count; i++)
        if (find_field(decoder->others[i], name) >= 0) return true;
    return false;
}

ct_code ct_decoder_create(const ct_schema *schema, const bool *used, uint32_t max_candidates, ct_decoder **out_decoder, ct_status *status) {
    const size_t count = schema->field_count;
    ct_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return ct_fail_memory(status, sizeof *decoder, "a decoder");
    decoder->schema = schema;
    decoder->max_candidates = max_candidates;
    decoder->slots = 16;
    while (decoder->slots < 2 * count) decoder->slots *= 2;
    decoder->used = calloc(count + 1, sizeof *decoder->used);
    decoder->vector = calloc(count + 1, sizeof *decoder->vector);
    decoder->index = calloc(decoder->slots, sizeof *decoder->index);
    if (!decoder->used || !decoder->vector || !decoder->index) {
        ct_decoder_destroy(decoder);
        return ct_fail_memory(status, count * 8, "a decoder");
    }
    memset(decoder->index, 0xff, decoder->slots * sizeof *decoder->index);
    memset(decoder->vector, 0xff, (count + 1) * sizeof *decoder->vector);
    memcpy(decoder->used, used, count * sizeof *used);
    for (size_t f = 0; f < count; f++) {
        const ct_field *field = &schema->fields[f];
        decoder->index[name_slot(decoder, field->name, strlen(field->name))] = (int32_t)f;
        if ((field->kind != CT_FIELD_VECTOR && field->kind != CT_FIELD_SIMILARITY) || !used[f]) continue;
        if (field->kind == CT_FIELD_VECTOR) decoder->used[field->of] = true; /* a history that it alone needs is not missed */
        decoder->vector[f] = decoder->vector[field->of];
        decoder->vector[field->of] = (int64_t)f;
    }
    *out_decoder = decoder;
    return CT_OK;
}

void ct_decoder_set_histories(ct_decoder *decoder, const ct_histories *histories) { decoder->histories = histories; }

void ct_decoder_destroy(ct_decoder *decoder) {
    if (!decoder) return;
    free(decoder->used);
    free(decoder->vector);
    free(decoder->index);
    free(decoder);
}

/* --- columns --- */

/* A column of the request with what is known about it. */
typedef struct source {
    const request_column *column;
    const ct_field *field;
    const char *side; /* for messages */
    size_t rows;
} source;

static size_t value_count(const request_column *column) { return column->n_tokens + column->n_integers + column->n_numbers; }
static size_t row_count(const request_column *column) { return column->n_lengths ? column->n_lengths : value_count(column); }

static ct_code fail_column(const source *from, ct_status *status, const char *format, ...) CT_PRINTF(3, 4);
static ct_code fail_column(const source *from, ct_status *status, const char *format, ...) {
    char what[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return ct_fail(status, CT_INVALID, "%s column '%s': %s", from->side, from->field->name, what);
}

/* The row that holds value `value`, for messages. */
static size_t row_of(const request_column *column, size_t value) {
    if (!column->n_lengths) return value;
    size_t row = 0;
    for (uint64_t end = 0; row < column->n_lengths; row++) {
        end += column->lengths[row];
        if (value < end) break;
    }
    return row;
}

static ct_code check_lists(const source *from, ct_status *status) {
    const request_column *c = from->column;
    const bool number = from->field->kind == CT_FIELD_NUMBER;
    if (number && c->n_tokens) return fail_column(from, status, "a number needs `numbers`, not `tokens`");
    if (number && c->n_integers) return fail_column(from, status, "a number needs `numbers`, not `integers`");
    if (!number && c->n_numbers) return fail_column(from, status, "an id needs `tokens` or `integers`, not `numbers`");
    if (c->n_tokens && c->n_integers) return fail_column(from, status, "both `tokens` and `integers`: give one of them");
    if (row_count(c) != from->rows) {
        if (c->n_lengths)
            return fail_column(from, status, "%zu lengths, but there %s %zu row%s", c->n_lengths, from->rows == 1 ? "is" : "are",
                               from->rows, from->rows == 1 ? "" : "s");
        return fail_column(from, status, "%zu values, but there %s %zu row%s (`lengths` says how many values a row has)", value_count(c),
                           from->rows == 1 ? "is" : "are", from->rows, from->rows == 1 ? "" : "s");
    }
    if (!c->n_lengths) return CT_OK;
    const bool many = from->field->kind != CT_FIELD_NUMBER && from->field->value_separator;
    uint64_t sum = 0;
    for (size_t r = 0; r < c->n_lengths; r++) {
        sum += c->lengths[r];
        if (number && c->lengths[r] > 1)
            return fail_column(from, status, "row %zu has length %u: a number has 0 (missing) or 1", r, c->lengths[r]);
        if (!number && !many && c->lengths[r] != 1)
            return fail_column(from, status, "row %zu has length %u: the id has exactly 1 value", r, c->lengths[r]);
    }
    if (sum != value_count(c))
        return fail_column(from, status, "lengths sum to %llu, but there are %zu values", (unsigned long long)sum, value_count(c));
    return CT_OK;
}

static ct_code number_column(const source *from, ct_arena *arena, ct_column *out, ct_status *status) {
    const request_column *c = from->column;
    for (size_t i = 0; i < c->n_numbers; i++)
        if (!isfinite(c->numbers[i])) return fail_column(from, status, "row %zu is not finite", row_of(c, i));
    if (!c->n_lengths) {
        out->values = c->numbers; /* the unpacked array is ours */
        return CT_OK;
    }
    float *values = ct_arena_alloc(arena, from->rows * sizeof *values);
    if (!values) return ct_fail_memory(status, from->rows * sizeof *values, from->field->name);
    size_t at = 0;
    for (size_t r = 0; r < from->rows; r++) values[r] = c->lengths[r] ? c->numbers[at++] : NAN;
    out->values = values;
    return CT_OK;
}

/* Canonical decimal text, as ct_field_key makes of an integer; returns its length. */
static size_t integer_text(int64_t value, char out[20]) {
    char reversed[20];
    size_t digits = 0, at = 0;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        reversed[digits++] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0) out[at++] = '-';
    while (digits) out[at++] = reversed[--digits];
    return at;
}

/* Key of value `i` under the rule of `field`, which is the column's field or the same with another salt. */
static ct_code value_key(const source *from, const ct_field *field, size_t i, uint64_t *out_key, ct_status *status) {
    const request_column *c = from->column;
    char text[20];
    const char *token = text;
    size_t bytes;
    if (c->n_integers) {
        bytes = integer_text(c->integers[i], text);
    } else {
        token = c->tokens[i].data ? (const char *)c->tokens[i].data : "";
        bytes = c->tokens[i].len;
        if (bytes == 0 && field->value_separator)
            return fail_column(from, status, "row %zu has an empty token: leave it out, a row may have no values", row_of(c, i));
    }
    if (ct_field_key(field, token, bytes, out_key, status) == CT_OK) return CT_OK;
    return ct_fail_within(status, "%s column '%s': row %zu", from->side, from->field->name, row_of(c, i));
}

/* One key column: the id's own, or that of a vector of it (salt 0). */
static ct_code key_column(const source *from, uint64_t salt, ct_arena *arena, ct_column *out, ct_status *status) {
    const request_column *c = from->column;
    ct_field field = *from->field;
    field.salt = salt;
    const bool many = field.value_separator != 0;
    const size_t count = value_count(c);
    uint64_t *keys = ct_arena_alloc(arena, count * sizeof *keys);
    if (!keys) return ct_fail_memory(status, count * sizeof *keys, field.name);
    out->values = keys;
    if (!many) {
        for (size_t i = 0; i < count; i++) CT_TRY(value_key(from, &field, i, &keys[i], status));
        return CT_OK;
    }
    uint32_t *offsets = ct_arena_alloc(arena, (from->rows + 1) * sizeof *offsets);
    if (!offsets) return ct_fail_memory(status, (from->rows + 1) * sizeof *offsets, field.name);
    size_t begin = 0, kept = 0;
    offsets[0] = 0;
    for (size_t r = 0; r < from->rows; r++) {
        const size_t length = c->n_lengths ? c->lengths[r] : 1;
        const size_t keep = length < field.max_values ? length : field.max_values;
        const size_t first = begin + (field.newest_first ? 0 : length - keep);
        for (size_t i = 0; i < keep; i++) CT_TRY(value_key(from, &field, first + i, &keys[kept + i], status));
        kept += keep;
        begin += length;
        offsets[r + 1] = (uint32_t)kept;
    }
    out->offsets = offsets;
    return CT_OK;
}

static ct_code add_column(const ct_decoder *decoder, ct_arena *arena, const source *from, bool shared, ct_batch *batch, ct_status *status) {
    const size_t f = (size_t)(from->field - decoder->schema->fields);
    CT_TRY(check_lists(from, status));
    ct_column *out = &batch->columns[f];
    out->present = true;
    out->shared = shared;
    if (from->field->kind == CT_FIELD_NUMBER) return number_column(from, arena, out, status);
    CT_TRY(key_column(from, from->field->salt, arena, out, status));
    for (int64_t v = decoder->vector[f]; v >= 0; v = decoder->vector[v]) {
        ct_column *vector = &batch->columns[v];
        vector->present = true;
        vector->shared = shared;
        CT_TRY(key_column(from, decoder->schema->fields[v].salt, arena, vector, status));
    }
    return CT_OK;
}

static ct_code add_side(const ct_decoder *decoder, ct_arena *arena, request_column *const *columns, size_t count, bool shared, bool *seen,
                        ct_batch *batch, ct_status *status) {
    const char *side = shared ? "context" : "candidates";
    for (size_t i = 0; i < count; i++) {
        const request_column *c = columns[i];
        char shown[COLUMN_NAME_SHOWN];
        const int32_t f = find_field(decoder, &c->name);
        if (f < 0 && others_know(decoder, &c->name)) continue;
        if (f < 0)
            return ct_fail(status, CT_INVALID, "%s column '%s': schema '%s' has no such field", side,
                           ct_text_show((const char *)c->name.data, c->name.len, shown, sizeof shown), decoder->schema->name);
        const ct_field *field = &decoder->schema->fields[f];
        if (seen[f])
            return ct_fail(status, CT_INVALID, "%s column '%s': given twice; it is either context or candidates", side, field->name);
        seen[f] = true;
        if (!decoder->used[f] && field->kind != CT_FIELD_HISTORY) continue;
        if (field->kind == CT_FIELD_VECTOR)
            return ct_fail(status, CT_INVALID, "%s column '%s': a vector is chosen by its id: send '%s'", side, field->name,
                           decoder->schema->fields[field->of].name);
        if (field->derived && field->kind != CT_FIELD_HISTORY)
            return ct_fail(status, CT_INVALID, "%s column '%s': it follows from a history: send '%s', or nothing", side, field->name,
                           decoder->schema->fields[field->of].name);
        const source from = {c, field, side, shared ? 1 : batch->rows};
        CT_TRY(add_column(decoder, arena, &from, shared, batch, status));
    }
    return CT_OK;
}

/* --- histories --- */

static bool has_column(request_column *const *columns, size_t count, const char *name) {
    const size_t bytes = strlen(name);
    for (size_t i = 0; i < count; i++)
        if (columns[i]->name.len == bytes && memcmp(columns[i]->name.data, name, bytes) == 0) return true;
    return false;
}

bool ct_request_brings(const request *r, const char *name) {
    return has_column(r->context, r->n_context, name) || has_column(r->candidates, r->n_candidates, name);
}

/* How many values of its history each row has. */
static ct_code count_values(const ct_column *history, size_t rows, ct_arena *arena, ct_column *out, ct_status *status) {
    float *counts = ct_arena_alloc(arena, rows * sizeof *counts);
    if (!counts) return ct_fail_memory(status, rows * sizeof *counts, out->name);
    for (size_t r = 0; r < rows; r++) counts[r] = (float)(history->offsets[r + 1] - history->offsets[r]);
    out->values = counts;
    out->present = true;
    out->shared = history->shared;
    return CT_OK;
}

/* The unit's history as it stands: one row for all. */
static ct_code take_history(const ct_decoder *decoder, ct_arena *arena, size_t f, const uint64_t *unit, ct_column *out, ct_status *status) {
    const uint32_t most = decoder->schema->fields[f].max_values;
    uint64_t *keys = ct_arena_alloc(arena, most * sizeof *keys);
    uint32_t *offsets = ct_arena_alloc(arena, 2 * sizeof *offsets);
    if (!keys || !offsets) return ct_fail_memory(status, most * sizeof *keys, out->name);
    offsets[0] = 0;
    offsets[1] = unit ? (uint32_t)ct_histories_read(decoder->histories, f, *unit, keys) : 0;
    out->values = keys;
    out->offsets = offsets;
    out->present = out->shared = true;
    return CT_OK;
}

/* What follows from histories and did not come with the request. Without a unit there is nothing that it liked. */
static ct_code add_derived(const ct_decoder *decoder, ct_arena *arena, const request *r, ct_batch *batch, ct_status *status) {
    const ct_schema *schema = decoder->schema;
    const int64_t unit_field = ct_schema_find_kind(schema, CT_FIELD_UNIT);
    uint64_t key = 0, *unit = NULL;
    if (r->unit.len > 0 && decoder->histories) {
        if (ct_field_key(&schema->fields[unit_field], (const char *)r->unit.data, r->unit.len, &key, status) != CT_OK)
            return ct_fail_within(status, "unit");
        unit = &key;
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        ct_column *column = &batch->columns[f];
        if (decoder->histories && schema->fields[f].derived && !column->present && schema->fields[f].kind != CT_FIELD_NUMBER)
            CT_TRY(take_history(decoder, arena, f, unit, column, status));
    }
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_column *history = &batch->columns[schema->fields[f].of];
        if (schema->fields[f].derived && schema->fields[f].kind == CT_FIELD_NUMBER && history->present)
            CT_TRY(count_values(history, history->shared ? 1 : batch->rows, arena, &batch->columns[f], status));
    }
    return CT_OK;
}

ct_code ct_request_batch(const ct_decoder *decoder, ct_arena *arena, const request *r, ct_batch *out_batch, ct_status *status) {
    const ct_schema *schema = decoder->schema;
    const size_t rows = r->candidate_count ? r->candidate_count : r->n_candidates ? row_count(r->candidates[0]) : 0;
    if (rows == 0)
        return ct_fail(status, CT_INVALID, "no candidates: candidate_count is 0 and %s",
                       r->n_candidates ? "the first candidates column is empty" : "there is no candidates column");
    if (rows > decoder->max_candidates)
        return ct_fail(status, CT_EXHAUSTED, "%zu candidates: at most %u in a request", rows, decoder->max_candidates);
    ct_batch batch = {.rows = rows, .column_count = schema->field_count};
    batch.columns = ct_arena_zalloc(arena, schema->field_count + 1, sizeof *batch.columns);
    bool *seen = ct_arena_zalloc(arena, schema->field_count + 1, sizeof *seen);
    if (!batch.columns || !seen) return ct_fail_memory(status, schema->field_count * sizeof *batch.columns, "a request's columns");
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        batch.columns[f] = (ct_column){.name = field->name, .kind = field->kind, .type = ct_field_type(field), .hash = field->hash};
    }
    CT_TRY(add_side(decoder, arena, r->context, r->n_context, true, seen, &batch, status));
    CT_TRY(add_side(decoder, arena, r->candidates, r->n_candidates, false, seen, &batch, status));
    CT_TRY(add_derived(decoder, arena, r, &batch, status));
    for (size_t f = 0; f < schema->field_count; f++)
        if (decoder->used[f] && !batch.columns[f].present)
            return ct_fail(status, CT_INVALID, "column '%s' is missing: the model uses it", schema->fields[f].name);
    *out_batch = batch;
    return CT_OK;
}
