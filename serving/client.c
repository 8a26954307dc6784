/* The client: lines of a log to ScoreRequests. It sends what stands in the log (tokens, numbers), never keys; the server makes keys.
 * A row that a reader would call bad ends the run: a request that leaves rows out would put the answers beside the wrong rows. */
#include "serving/client.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/text.h"
#include "data/block_file.h"
#include "data/reader.h"
#include "data/source.h"
#include "serving/decode.h"
#include "serving/rpc.h"

enum { DEFAULT_ROWS_PER_REQUEST = 256, DEFAULT_TIMEOUT_MS = 10000, LAST_TRY_MS = 2000 };

static const char SCORE[] = "/clicktower.v1.Scorer/Score", MODELS[] = "/clicktower.v1.Scorer/Models";

struct ct_client {
    ct_rpc_channel *channel;
};

ct_code ct_client_create(const char *target, const ct_rpc_access *access, ct_client **out_client, ct_status *status) {
    ct_client *client = calloc(1, sizeof *client);
    if (!client) return ct_fail_memory(status, sizeof *client, "a client");
    const ct_code code = ct_rpc_channel_create(target, access, &client->channel, status);
    if (code != CT_OK) {
        free(client);
        return code;
    }
    *out_client = client;
    return CT_OK;
}

void ct_client_destroy(ct_client *client) {
    if (!client) return;
    ct_rpc_channel_destroy(client->channel);
    free(client);
}

/* --- models --- */

static json_t *json_text(ProtobufCBinaryData text) { return json_stringn(text.data ? (const char *)text.data : "", text.len); }

static json_t *feature_json(const Clicktower__V1__Feature *feature) {
    return json_pack("{s:o, s:o, s:o, s:o, s:I}", "name", json_text(feature->name), "kind", json_text(feature->kind), "side",
                     json_text(feature->side), "type", json_text(feature->type), "max_values", (json_int_t)feature->max_values);
}

static json_t *model_json(const Clicktower__V1__Model *model) {
    json_t *features = json_array(), *outputs = json_array();
    for (size_t i = 0; i < model->n_features; i++) (void)json_array_append_new(features, feature_json(model->features[i]));
    for (size_t i = 0; i < model->n_outputs; i++) (void)json_array_append_new(outputs, json_text(model->outputs[i]));
    return json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "name", json_text(model->name), "version",
                     json_text(model->version), "schema", json_text(model->schema), "architecture", json_text(model->architecture), "rows",
                     (json_int_t)model->rows, "step", (json_int_t)model->step, "created_unix_ms", (json_int_t)model->created_unix_ms,
                     "trained_instruction_set", json_text(model->trained_instruction_set), "instruction_set",
                     json_text(model->instruction_set), "precision", json_text(model->precision), "features", features, "outputs", outputs);
}

ct_code ct_client_models(ct_client *client, int64_t timeout_ms, json_t **out_models, ct_status *status) {
    const uint8_t *reply = NULL;
    size_t bytes = 0;
    (void)ct_rpc_channel_reserve(client->channel, 0); /* ModelsRequest has no fields */
    ct_code code = ct_rpc_channel_call(client->channel, MODELS, timeout_ms, true, &reply, &bytes, status);
    if (code == CT_DEADLINE) { /* whom we waited for did not come: a call that does not wait says why */
        *status = (ct_status)CT_STATUS_INIT;
        (void)ct_rpc_channel_reserve(client->channel, 0);
        code = ct_rpc_channel_call(client->channel, MODELS, LAST_TRY_MS, false, &reply, &bytes, status);
        if (code == CT_DEADLINE || code == CT_UNAVAILABLE) {
            status->code = CT_UNAVAILABLE;
            return ct_fail_within(status, "no answer within %lld ms", (long long)timeout_ms);
        }
    }
    if (code != CT_OK) return code;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ProtobufCMessage *message = NULL;
    code = ct_message_unpack(&arena, &clicktower__v1__models_response__descriptor, reply, bytes, "ModelsResponse", &message, status);
    if (code == CT_OK) {
        const Clicktower__V1__ModelsResponse *response = (const Clicktower__V1__ModelsResponse *)message;
        json_t *models = json_array();
        for (size_t i = 0; i < response->n_models; i++) (void)json_array_append_new(models, model_json(response->models[i]));
        json_t *all = json_pack("{s:o}", "models", models);
        if (all)
            *out_models = all;
        else
            code = ct_fail_memory(status, bytes, "the list of models");
    }
    ct_arena_deinit(&arena);
    return code;
}

/* --- rows to requests --- */

typedef struct piece {
    const char *text;
    size_t bytes;
} piece;

typedef struct scoring {
    const ct_client_rows *options;
    ct_client_request_fn take; /* who gets the requests */
    void *take_context;
    ct_schema schema;   /* a copy whose columns and fields a header has resolved */
    ct_field *fields;   /* (field_count), of the copy */
    const char **begin; /* (columns) of the line at hand */
    size_t *bytes;
    size_t columns_capacity;
    int64_t unit;   /* field whose text a request's unit is; -1 = the schema has no histories */
    piece *line;    /* (field_count): texts of the line at hand */
    piece *rows;    /* (rows_per_request, field_count): texts of the request at hand, in the arena */
    ct_arena arena; /* of the request at hand */
    size_t count;   /* rows in it */
    int64_t first_line;
    const char *first_source;
    int64_t total;
} scoring;

static bool is_sent(const ct_field *field) { return !field->derived && (field->kind == CT_FIELD_NUMBER || field->kind == CT_FIELD_ID); }

static ct_code reserve_columns(scoring *s, size_t columns, ct_status *status) {
    if (columns <= s->columns_capacity) return CT_OK;
    const char **begin = realloc(s->begin, columns * sizeof *begin);
    if (begin) s->begin = begin;
    size_t *bytes = realloc(s->bytes, columns * sizeof *bytes);
    if (bytes) s->bytes = bytes;
    if (!begin || !bytes) return ct_fail_memory(status, columns * sizeof *bytes, "a line's columns");
    s->columns_capacity = columns;
    return CT_OK;
}

/* Finds the schema's columns by their names in a source's first line. */
static ct_code read_header(scoring *s, const ct_line *line, ct_status *status) {
    const ct_schema *given = s->options->schema;
    if (line->too_long) return ct_fail(status, CT_INVALID, "the header is too long");
    size_t columns = 1;
    for (size_t i = 0; i < line->bytes; i++) columns += line->text[i] == given->separator;
    if (given->columns && columns != given->columns)
        return ct_fail(status, CT_INVALID, "the header has %zu columns instead of the schema's %zu", columns, given->columns);
    CT_TRY(reserve_columns(s, columns, status));
    s->schema.columns = columns;
    CT_TRY(ct_line_split(&s->schema, line->text, line->bytes, s->begin, s->bytes, status));
    for (size_t f = 0; f < given->field_count; f++) {
        const ct_field *field = &given->fields[f];
        if (field->kind == CT_FIELD_VECTOR || field->derived) continue;
        int64_t found = field->column;
        if (field->column_name) {
            found = -1;
            const size_t wanted = strlen(field->column_name);
            for (size_t c = 0; c < columns; c++) {
                if (s->bytes[c] != wanted || memcmp(s->begin[c], field->column_name, wanted) != 0) continue;
                if (found >= 0) return ct_fail(status, CT_INVALID, "the header has two columns '%s'", field->column_name);
                found = (int64_t)c;
            }
        }
        if (found < 0 || (size_t)found >= columns)
            return ct_fail(status, CT_INVALID, "the header has no column for field '%s' of the schema", field->name);
        s->fields[f].column = found;
    }
    return CT_OK;
}

/* The checks that a reader makes of a row. */
static ct_code check_field(const ct_field *field, piece text, ct_status *status) {
    float number = 0;
    uint64_t key = 0;
    double real = 0;
    switch (field->kind) {
        case CT_FIELD_LABEL:
            return ct_field_label(field, text.text, text.bytes, &number, status);
        case CT_FIELD_NUMBER:
            return ct_field_number(field, text.text, text.bytes, &number, status);
        case CT_FIELD_WEIGHT:
            if (!ct_parse_f32(text.text, text.bytes, &number) || number < 0)
                return ct_fail(status, CT_INVALID, "field '%s': the weight is no number of at least 0", field->name);
            return CT_OK;
        case CT_FIELD_TIME:
            if (!ct_parse_f64(text.text, text.bytes, &real)) return ct_fail(status, CT_INVALID, "field '%s': no time", field->name);
            return CT_OK;
        case CT_FIELD_ID:
        case CT_FIELD_GROUP:
        case CT_FIELD_UNIT:
            if (field->value_separator || field->id_type == CT_ID_TEXT) return CT_OK; /* several: the server checks those that it keeps */
            return ct_field_key(field, text.text, text.bytes, &key, status);
        case CT_FIELD_VECTOR:
        case CT_FIELD_HISTORY:
        case CT_FIELD_SIMILARITY:
            break;
    }
    return CT_OK;
}

/* Fills s->line with the texts of a good row. */
static ct_code split_row(scoring *s, const ct_line *line, ct_status *status) {
    if (line->too_long) return ct_fail(status, CT_INVALID, "the line is longer than %d bytes", CT_LINE_MAX_BYTES);
    CT_TRY(ct_line_split(&s->schema, line->text, line->bytes, s->begin, s->bytes, status));
    for (size_t f = 0; f < s->schema.field_count; f++) {
        const ct_field *field = &s->fields[f];
        if (field->kind == CT_FIELD_VECTOR || field->derived) continue;
        s->line[f] = (piece){s->begin[field->column], s->bytes[field->column]};
        CT_TRY(check_field(field, s->line[f], status));
    }
    return CT_OK;
}

/* --- one request --- */

/* The values of a many-valued id: not empty, between separators. Calls for each, or only counts where out is NULL. */
static size_t split_values(const ct_field *field, piece text, ProtobufCBinaryData *out) {
    size_t count = 0;
    for (size_t at = 0; at < text.bytes;) {
        const char *end = memchr(text.text + at, field->value_separator, text.bytes - at);
        const size_t length = end ? (size_t)(end - (text.text + at)) : text.bytes - at;
        if (length) {
            if (out) out[count] = (ProtobufCBinaryData){length, (uint8_t *)(uintptr_t)(text.text + at)};
            count++;
        }
        at += length + 1;
    }
    return count;
}

static ct_code number_values(scoring *s, size_t f, size_t rows, Clicktower__V1__Column *out, ct_status *status) {
    out->numbers = ct_arena_alloc(&s->arena, rows * sizeof *out->numbers);
    out->lengths = ct_arena_alloc(&s->arena, rows * sizeof *out->lengths);
    if (!out->numbers || !out->lengths) return ct_fail_memory(status, rows * sizeof *out->numbers, "a request");
    for (size_t r = 0; r < rows; r++) {
        const piece text = s->rows[r * s->schema.field_count + f];
        float value = 0;
        CT_TRY(ct_field_number(&s->fields[f], text.text, text.bytes, &value, status));
        out->lengths[r] = isnan(value) ? 0u : 1u;
        if (out->lengths[r]) out->numbers[out->n_numbers++] = value;
    }
    out->n_lengths = out->n_numbers == rows ? 0 : rows;
    return CT_OK;
}

static ct_code id_values(scoring *s, size_t f, size_t rows, Clicktower__V1__Column *out, ct_status *status) {
    const ct_field *field = &s->fields[f];
    const piece *texts = s->rows + f;
    const size_t stride = s->schema.field_count;
    size_t count = rows;
    if (field->value_separator) {
        count = 0;
        out->lengths = ct_arena_alloc(&s->arena, rows * sizeof *out->lengths);
        if (!out->lengths) return ct_fail_memory(status, rows * sizeof *out->lengths, "a request");
        for (size_t r = 0; r < rows; r++) {
            out->lengths[r] = (uint32_t)split_values(field, texts[r * stride], NULL);
            count += out->lengths[r];
        }
        out->n_lengths = rows;
    }
    out->tokens = ct_arena_alloc(&s->arena, count * sizeof *out->tokens);
    if (!out->tokens) return ct_fail_memory(status, count * sizeof *out->tokens, "a request");
    for (size_t r = 0; r < rows; r++) {
        const piece text = texts[r * stride];
        if (field->value_separator)
            out->n_tokens += split_values(field, text, out->tokens + out->n_tokens);
        else
            out->tokens[out->n_tokens++] = (ProtobufCBinaryData){text.bytes, (uint8_t *)(uintptr_t)text.text};
    }
    return CT_OK;
}

static ct_code build_request(scoring *s, Clicktower__V1__ScoreRequest *out, ct_status *status) {
    const size_t fields = s->schema.field_count;
    Clicktower__V1__Column *columns = ct_arena_alloc(&s->arena, fields * sizeof *columns);
    out->context = ct_arena_alloc(&s->arena, fields * sizeof(Clicktower__V1__Column *));
    out->candidates = ct_arena_alloc(&s->arena, fields * sizeof(Clicktower__V1__Column *));
    if (!columns || !out->context || !out->candidates) return ct_fail_memory(status, fields * sizeof *columns, "a request");
    out->model = ct_text_data(s->options->model ? s->options->model : "");
    out->candidate_count = (uint32_t)s->count;
    if (s->unit >= 0) out->unit = (ProtobufCBinaryData){s->rows[s->unit].bytes, (uint8_t *)(uintptr_t)s->rows[s->unit].text};
    for (size_t f = 0; f < fields; f++) {
        const ct_field *field = &s->fields[f];
        if (!is_sent(field)) continue;
        const bool context = (s->options->context_columns || s->options->context_of_first) && field->side == CT_SIDE_CONTEXT;
        Clicktower__V1__Column *column = &columns[f];
        clicktower__v1__column__init(column);
        column->name = ct_text_data(field->name);
        if (field->kind == CT_FIELD_NUMBER)
            CT_TRY(number_values(s, f, context ? 1 : s->count, column, status));
        else
            CT_TRY(id_values(s, f, context ? 1 : s->count, column, status));
        if (context)
            out->context[out->n_context++] = column;
        else
            out->candidates[out->n_candidates++] = column;
    }
    return CT_OK;
}

/* Hands the rows that were gathered on as a request. */
static ct_code flush_rows(scoring *s, ct_status *status) {
    if (s->count == 0) return CT_OK;
    Clicktower__V1__ScoreRequest request = CLICKTOWER__V1__SCORE_REQUEST__INIT;
    CT_TRY(build_request(s, &request, status));
    if (s->take(s->take_context, &request, &s->arena, status) != CT_OK)
        return ct_fail_within(status, "rows from %s:%lld on", s->first_source, (long long)s->first_line);
    s->total += (int64_t)s->count;
    s->count = 0;
    ct_arena_reset(&s->arena);
    return CT_OK;
}

/* --- lines --- */

static bool context_agrees(const scoring *s) {
    for (size_t f = 0; f < s->schema.field_count; f++) {
        if (!is_sent(&s->fields[f]) || s->fields[f].side != CT_SIDE_CONTEXT) continue;
        const piece a = s->rows[f], b = s->line[f];
        if (a.bytes != b.bytes || memcmp(a.text, b.text, a.bytes) != 0) return false;
    }
    return true;
}

/* Where histories are the server's, a request is of one unit. */
static bool unit_agrees(const scoring *s) {
    if (s->unit < 0) return true;
    const piece a = s->rows[s->unit], b = s->line[s->unit];
    return a.bytes == b.bytes && memcmp(a.text, b.text, a.bytes) == 0;
}

static ct_code add_row(scoring *s, const ct_line *line, size_t rows_per_request, ct_status *status) {
    if (s->count == rows_per_request || (s->count && (!unit_agrees(s) || (s->options->context_columns && !context_agrees(s)))))
        CT_TRY(flush_rows(s, status));
    if (s->count == 0) {
        s->first_line = line->number;
        s->first_source = line->source;
    }
    char *copy = ct_arena_strndup(&s->arena, line->text, line->bytes);
    if (!copy) return ct_fail_memory(status, line->bytes, "a row");
    piece *row = s->rows + s->count * s->schema.field_count;
    for (size_t f = 0; f < s->schema.field_count; f++)
        row[f] = s->line[f].text ? (piece){copy + (s->line[f].text - line->text), s->line[f].bytes} : (piece){"", 0};
    s->count++;
    return CT_OK;
}

static ct_code score_lines(scoring *s, ct_lines *lines, size_t rows_per_request, ct_status *status) {
    const int64_t max_rows = s->options->max_rows;
    ct_code code;
    for (int64_t taken = 0; max_rows < 0 || taken < max_rows;) {
        ct_line line;
        code = ct_lines_next(lines, &line, status);
        if (code == CT_END) break;
        CT_TRY(code);
        const bool first = ct_lines_is_first(lines);
        if (first && ct_block_file_is(line.text, line.bytes))
            return ct_fail(status, CT_INVALID, "%s is a block file: it holds keys, not values; score the text that it was made from",
                           line.source);
        if (line.bytes == 0) continue;
        const bool header = first && s->schema.header;
        code = header ? read_header(s, &line, status) : split_row(s, &line, status);
        if (code != CT_OK) return ct_fail_within(status, "%s:%lld", line.source, (long long)line.number);
        if (header) continue;
        CT_TRY(add_row(s, &line, rows_per_request, status));
        taken++;
    }
    return flush_rows(s, status);
}

ct_code ct_client_requests(const ct_client_rows *rows, ct_client_request_fn take, void *context, int64_t *out_rows, ct_status *status) {
    const size_t fields = rows->schema->field_count;
    const size_t per_request = rows->rows_per_request ? rows->rows_per_request : DEFAULT_ROWS_PER_REQUEST;
    if (per_request > UINT32_MAX) return ct_fail(status, CT_INVALID, "%zu rows for each request: too many", per_request);
    scoring s = {.options = rows, .take = take, .take_context = context, .schema = *rows->schema};
    s.unit = ct_schema_has_histories(rows->schema) ? ct_schema_find_kind(rows->schema, CT_FIELD_UNIT) : -1;
    ct_arena_init(&s.arena, 0);
    ct_lines *lines = NULL;
    ct_code code = CT_OK;
    s.fields = calloc(fields + 1, sizeof *s.fields);
    s.line = calloc(fields + 1, sizeof *s.line);
    s.rows = calloc(per_request, (fields + 1) * sizeof *s.rows);
    if (!s.fields || !s.line || !s.rows) {
        code = ct_fail_memory(status, per_request * fields * sizeof *s.rows, "a request's rows");
        goto done;
    }
    memcpy(s.fields, rows->schema->fields, fields * sizeof *s.fields);
    s.schema.fields = s.fields;
    CT_TRY_GOTO(code, reserve_columns(&s, s.schema.columns ? s.schema.columns : 1, status), done);
    CT_TRY_GOTO(code, ct_lines_open(rows->sources, rows->source_count, &lines, status), done);
    CT_TRY_GOTO(code, score_lines(&s, lines, per_request, status), done);
    *out_rows = s.total;
done:
    ct_lines_close(lines);
    ct_arena_deinit(&s.arena);
    free(s.fields);
    free(s.line);
    free(s.rows);
    free(s.begin);
    free(s.bytes);
    return code;
}

/* --- score --- */

typedef struct sender {
    ct_rpc_channel *channel;
    int64_t timeout_ms;
    ct_client_answer_fn answer;
    void *answer_context;
} sender;

static ct_code send_request(void *context, const Clicktower__V1__ScoreRequest *request, ct_arena *arena, ct_status *status) {
    const sender *to = context;
    uint8_t *memory = ct_rpc_channel_reserve(to->channel, clicktower__v1__score_request__get_packed_size(request));
    (void)clicktower__v1__score_request__pack(request, memory);
    const uint8_t *reply = NULL;
    size_t bytes = 0;
    CT_TRY(ct_rpc_channel_call(to->channel, SCORE, to->timeout_ms, false, &reply, &bytes, status));
    ProtobufCMessage *message = NULL;
    CT_TRY(ct_message_unpack(arena, &clicktower__v1__score_response__descriptor, reply, bytes, "ScoreResponse", &message, status));
    const Clicktower__V1__ScoreResponse *response = (const Clicktower__V1__ScoreResponse *)message;
    const size_t got = response->n_outputs ? response->outputs[0]->n_probabilities : 0;
    if (got != request->candidate_count)
        return ct_fail(status, CT_INTERNAL, "the server answers with %zu probabilities for %u rows", got, request->candidate_count);
    return to->answer(to->answer_context, response->outputs[0]->probabilities, got, status);
}

ct_code ct_client_score(ct_client *client, const ct_client_rows *rows, ct_client_answer_fn answer, void *context, int64_t *out_rows,
                        ct_status *status) {
    sender to = {.channel = client->channel,
                 .timeout_ms = rows->timeout_ms > 0 ? rows->timeout_ms : DEFAULT_TIMEOUT_MS,
                 .answer = answer,
                 .answer_context = context};
    return ct_client_requests(rows, send_request, &to, out_rows, status);
}
