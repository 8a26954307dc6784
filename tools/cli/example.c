/* clicktower example: a filled request for a model. Its values are made up, or are those of the first rows of a log. A model knows its ids
 * as hashes only, so made-up ids are such that look right, and most will be unknown to it; numbers are about what the model saw. */
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/text.h"
#include "model/model.h"
#include "serving/client.h"
#include "serving/decode.h"
#include "tools/cli/cli.h"
#include "tools/cli/example.h"

typedef Clicktower__V1__ScoreRequest request_message;
typedef Clicktower__V1__Column column_message;

enum { MAX_CANDIDATES = 1000, TOKEN_BYTES = 160 };

typedef struct example_context {
    const ct_model *model;
    void (*print)(FILE *out, const ct_example *example);
    const char *to, *model_name;
} example_context;

/* --- made-up values --- */

static char *made_up_token(ct_arena *arena, const ct_schema *schema, const ct_field *field, size_t number) {
    char token[TOKEN_BYTES];
    (void)snprintf(token, sizeof token, "%.120s-%zu", field->name, number + 1);
    if (strcmp(schema->name, "criteo") == 0) /* its ids are 32-bit hashes */
        (void)snprintf(token, sizeof token, "%08x", (unsigned)(ct_hash64(token, strlen(token), 0) >> 32));
    return ct_arena_strndup(arena, token, strlen(token));
}

/* Values of `rows` rows: a many-valued id has two, or as many as it may. */
static ct_code made_up_ids(ct_arena *arena, const ct_schema *schema, const ct_field *field, size_t rows, column_message *out,
                           ct_status *status) {
    const size_t each = field->value_separator && field->max_values > 1 ? 2 : 1, count = rows * each;
    out->tokens = ct_arena_alloc(arena, count * sizeof *out->tokens);
    out->integers = ct_arena_alloc(arena, count * sizeof *out->integers);
    out->lengths = ct_arena_alloc(arena, rows * sizeof *out->lengths);
    if (!out->tokens || !out->integers || !out->lengths) return ct_fail_memory(status, count * sizeof *out->tokens, "an example");
    for (size_t i = 0; i < count; i++) {
        if (field->id_type == CT_ID_INTEGER) {
            out->integers[out->n_integers++] = (int64_t)i + 1;
            continue;
        }
        const char *token = made_up_token(arena, schema, field, i);
        if (!token) return ct_fail_memory(status, TOKEN_BYTES, "an example");
        out->tokens[out->n_tokens++] = ct_text_data(token);
    }
    for (size_t r = 0; r < rows; r++) out->lengths[r] = (uint32_t)each;
    if (field->value_separator) out->n_lengths = rows;
    return CT_OK;
}

/* Around the typical value, with three digits. */
static ct_code made_up_numbers(ct_arena *arena, const ct_model *model, size_t field, size_t rows, column_message *out, ct_status *status) {
    double typical = 1;
    if (!ct_model_typical_number(model, field, &typical) || !isfinite(typical)) typical = 1;
    out->numbers = ct_arena_alloc(arena, rows * sizeof *out->numbers);
    if (!out->numbers) return ct_fail_memory(status, rows * sizeof *out->numbers, "an example");
    for (size_t r = 0; r < rows; r++) {
        const double value = typical * (1 + 0.25 * (double)(r % 5));
        const double unit = value == 0 ? 1 : pow(10, floor(log10(fabs(value))) - 2);
        out->numbers[out->n_numbers++] = (float)(round(value / unit) * unit);
    }
    return CT_OK;
}

static bool is_sent(const ct_model *model, size_t field) {
    const ct_field *f = &ct_model_schema(model)->fields[field];
    return (f->kind == CT_FIELD_ID || f->kind == CT_FIELD_NUMBER) && !f->derived && ct_model_uses_field(model, field);
}

static ct_code make_up(const ct_model *model, ct_arena *arena, size_t candidates, request_message *out, ct_status *status) {
    const ct_schema *schema = ct_model_schema(model);
    column_message *columns = ct_arena_alloc(arena, schema->field_count * sizeof *columns);
    out->context = ct_arena_alloc(arena, schema->field_count * sizeof(column_message *));
    out->candidates = ct_arena_alloc(arena, schema->field_count * sizeof(column_message *));
    if (!columns || !out->context || !out->candidates) return ct_fail_memory(status, schema->field_count * sizeof *columns, "an example");
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if (!is_sent(model, f)) continue;
        const size_t rows = field->side == CT_SIDE_CONTEXT ? 1 : candidates;
        column_message *column = &columns[f];
        clicktower__v1__column__init(column);
        column->name = ct_text_data(field->name);
        if (field->kind == CT_FIELD_NUMBER)
            CT_TRY(made_up_numbers(arena, model, f, rows, column, status));
        else
            CT_TRY(made_up_ids(arena, schema, field, rows, column, status));
        if (field->side == CT_SIDE_CONTEXT)
            out->context[out->n_context++] = column;
        else
            out->candidates[out->n_candidates++] = column;
    }
    out->candidate_count = (uint32_t)candidates;
    return CT_OK;
}

/* --- from a log --- */

/* Only what the model uses. */
static size_t keep_used(const ct_model *model, column_message **columns, size_t count) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        char name[512];
        (void)snprintf(name, sizeof name, "%.*s", (int)columns[i]->name.len, (const char *)columns[i]->name.data);
        const int64_t field = ct_schema_find(ct_model_schema(model), name);
        if (field >= 0 && is_sent(model, (size_t)field)) columns[kept++] = columns[i];
    }
    return kept;
}

/* What is printed is text: JSON, Python and Go have no other tokens than UTF-8. */
static ct_code check_tokens(column_message *const *columns, size_t count, ct_status *status) {
    for (size_t c = 0; c < count; c++)
        for (size_t i = 0; i < columns[c]->n_tokens; i++)
            if (!ct_utf8_is_valid(columns[c]->tokens[i].data, columns[c]->tokens[i].len))
                return ct_fail(status, CT_INVALID,
                               "%.*s: value %zu of these rows is not UTF-8, so no example can say it: begin with other rows",
                               (int)columns[c]->name.len, (const char *)columns[c]->name.data, i + 1);
    return CT_OK;
}

static ct_code print_request(void *context, const request_message *from, ct_arena *arena, ct_status *status) {
    (void)arena;
    const example_context *c = context;
    request_message request = *from;
    request.n_context = keep_used(c->model, request.context, request.n_context);
    request.n_candidates = keep_used(c->model, request.candidates, request.n_candidates);
    CT_TRY(check_tokens(request.context, request.n_context, status));
    CT_TRY(check_tokens(request.candidates, request.n_candidates, status));
    request.model = ct_text_data(c->model_name ? c->model_name : "");
    const ct_example example = {.request = &request, .to = c->to};
    c->print(stdout, &example);
    return CT_OK;
}

static ct_code from_log(example_context *context, const ct_text_list *sources, size_t candidates, ct_status *status) {
    const ct_client_rows rows = {.schema = ct_model_schema(context->model),
                                 .sources = sources->items,
                                 .source_count = sources->count,
                                 .rows_per_request = candidates,
                                 .context_of_first = true,
                                 .max_rows = (int64_t)candidates};
    int64_t count = 0;
    CT_TRY(ct_client_requests(&rows, print_request, context, &count, status));
    return count ? CT_OK : ct_fail(status, CT_INVALID, "%s holds no rows", sources->items[0]);
}

static ct_code from_model(example_context *context, size_t candidates, ct_status *status) {
    ct_arena arena;
    ct_arena_init(&arena, 0);
    request_message request = CLICKTOWER__V1__SCORE_REQUEST__INIT;
    ct_code code = make_up(context->model, &arena, candidates, &request, status);
    if (code == CT_OK) code = print_request(context, &request, &arena, status);
    ct_arena_deinit(&arena);
    return code;
}

ct_code ct_verb_example(int argc, char **argv, ct_status *status) {
    const char *folder = NULL, *as = "json";
    example_context context = {.to = "127.0.0.1:8500"};
    ct_text_list data = {0};
    int64_t candidates = 3;
    const ct_option options[] = {
        {"model", "DIR", CT_OPTION_TEXT, true, &folder, "the model folder", 0, 0, NULL},
        {"as", "FORM", CT_OPTION_CHOICE, false, &as, "json (for POST /v1/score of the admin port), python (for clients/python) or go", 0, 0,
         "json|python|go"},
        {"data", "SOURCE", CT_OPTION_LIST, false, &data, "fill it from the first rows of these logs; without: with made-up values", 0, 0,
         NULL},
        {"candidates", "N", CT_OPTION_INTEGER, false, &candidates, "how many; with --data the context is that of the first row", 1,
         MAX_CANDIDATES, NULL},
        {"to", "HOST:PORT", CT_OPTION_ADDRESS, false, &context.to, "the server's address, for python and go", 1, 0, NULL},
        {"name", "NAME", CT_OPTION_TEXT, false, &context.model_name, "the model's name at the server, where it serves several", 0, 0, NULL},
    };
    const ct_command command = {"example",
                                "Prints a filled request for a model: what it needs, in which form.",
                                "  clicktower example --model model |\n"
                                "      curl --data-binary @- http://127.0.0.1:8501/v1/score\n"
                                "  clicktower example --model model --as python --data log.tsv.gz",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    ct_pool *pool = NULL;
    ct_model *model = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    const ct_text_list *const lists[] = {&data};
    CT_TRY_GOTO(code, ct_check_standard_input(lists, 1, 1, status), done);
    CT_TRY_GOTO(code, ct_pool_create(0, &pool, status), done);
    CT_TRY_GOTO(code, ct_model_open(folder, CT_MODEL_READ, NULL, pool, &model, status), done);
    context.model = model;
    context.print = strcmp(as, "json") == 0     ? ct_example_print_json
                    : strcmp(as, "python") == 0 ? ct_example_print_python
                                                : ct_example_print_go;
    code = data.count ? from_log(&context, &data, (size_t)candidates, status) : from_model(&context, (size_t)candidates, status);
done:
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    ct_text_list_deinit(&data);
    return code;
}
