/* clicktower score: rows of a log to a server, probabilities back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "serving/client.h"
#include "tools/cli/access.h"
#include "tools/cli/cli.h"

typedef struct answer_sink {
    ct_predictions_file *lines; /* NULL: one JSON object, written as the answers come */
    bool first;
} answer_sink;

static ct_code on_answer(void *context, const float *probabilities, size_t count, ct_status *status) {
    answer_sink *sink = context;
    if (sink->lines) return ct_predictions_write(sink->lines, probabilities, count, 1, status);
    for (size_t i = 0; i < count; i++) {
        (void)printf("%s%.9g", sink->first ? "" : ", ", (double)probabilities[i]);
        sink->first = false;
    }
    return ferror(stdout) ? ct_fail_errno(status, "standard output") : CT_OK;
}

/* The schema of the server's model, where it is one that every program knows. */
static ct_code schema_of_server(ct_client *client, const char *model, int64_t timeout_ms, ct_schema **out_schema, ct_status *status) {
    json_t *models = NULL;
    CT_TRY(ct_client_models(client, timeout_ms, &models, status));
    const json_t *list = json_is_array(models) ? models : json_object_get(models, "models");
    const char *name = NULL, *known = NULL;
    for (size_t i = 0; i < json_array_size(list) && !name; i++) {
        const json_t *entry = json_array_get(list, i);
        known = json_string_value(json_object_get(entry, "name"));
        if (!model || (known && strcmp(known, model) == 0)) name = json_string_value(json_object_get(entry, "schema"));
    }
    ct_code code = CT_OK;
    if (!name && model)
        code = ct_fail(status, CT_NOT_FOUND, "the server has no model '%s': leave --model out or name one of its models", model);
    else if (!name)
        code = ct_fail(status, CT_NOT_FOUND, "the server does not say which schema its model has: give --schema FILE.yaml");
    else if (strcmp(name, "criteo") != 0)
        code = ct_fail(status, CT_USAGE, "the server's model has the schema '%s', which is not built in: give --schema FILE.yaml", name);
    else
        code = ct_schema_load(name, out_schema, status);
    json_decref(models);
    return code;
}

ct_code ct_verb_score(int argc, char **argv, ct_status *status) {
    const char *to = NULL, *schema_name = NULL, *model = NULL;
    ct_text_list data = {0};
    ct_access_options files = {.tls_ca = NULL};
    int64_t rows_per_request = 256, max_rows = -1;
    double timeout = 10;
    bool context = false, no_context = false, json = false;
    const ct_option options[] = {
        {"to", "HOST:PORT", CT_OPTION_ADDRESS, true, &to, "the server", 1, 0, NULL},
        {"data", "SOURCE", CT_OPTION_LIST, true, &data, "logs as text (a block file holds keys, which can't be sent)", 0, 0, NULL},
        {"schema", "criteo|FILE.yaml", CT_OPTION_TEXT, false, &schema_name, "what the columns mean; without it, the server's, if built in",
         0, 0, NULL},
        {"model", "NAME", CT_OPTION_TEXT, false, &model, "which of the server's models; without it, its first", 0, 0, NULL},
        {"rows-per-request", "N", CT_OPTION_INTEGER, false, &rows_per_request, "rows of a request", 1, 10000, NULL},
        {"max-rows", "N", CT_OPTION_INTEGER, false, &max_rows, "stop after so many rows; -1 = all", -1, 1e15, NULL},
        {"context", NULL, CT_OPTION_FLAG, false, &context, "send consecutive rows of equal context as one request with that context", 0, 0,
         NULL},
        {"no-context", NULL, CT_OPTION_FLAG, false, &no_context, "send every feature as a candidate's (the default)", 0, 0, NULL},
        {"timeout", "SECONDS", CT_OPTION_NUMBER, false, &timeout, "for each request", 0.001, 86400, NULL},
        {"json", NULL, CT_OPTION_FLAG, false, &json, "print one JSON object", 0, 0, NULL},
        CT_ACCESS_OPTIONS(files),
    };
    const ct_command command = {
        "score",
        "Sends rows of a log to a server and prints what `eval --predictions` prints: one probability a line, in the "
        "order of the rows. A bad row, which `eval` leaves out, ends it.",
        "  clicktower score --to 127.0.0.1:8500 --data day_1.gz\n"
        "  clicktower score --to 127.0.0.1:8500 --data - --schema shop.yaml --context",
        NULL,
        NULL,
        options,
        sizeof options / sizeof *options};
    ct_client *client = NULL;
    ct_schema *schema = NULL;
    ct_access access = {.token_count = 0};
    answer_sink sink = {.first = true};
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&data}, 1, 1, status), done);
    if (context && no_context) {
        code = ct_fail(status, CT_USAGE, "--context and --no-context exclude each other: give one of them");
        goto done;
    }
    const int64_t timeout_ms = (int64_t)(timeout * 1000);
    if (schema_name) CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    CT_TRY_GOTO(code, ct_access_read(&files, &access, status), done);
    CT_TRY_GOTO(code, ct_client_create(to, &access.rpc, &client, status), done);
    if (!schema) CT_TRY_GOTO(code, schema_of_server(client, model, timeout_ms, &schema, status), done);
    const ct_client_rows rows = {.model = model,
                                 .schema = schema,
                                 .sources = data.items,
                                 .source_count = data.count,
                                 .rows_per_request = (size_t)rows_per_request,
                                 .context_columns = context,
                                 .timeout_ms = timeout_ms,
                                 .max_rows = max_rows};
    int64_t scored = 0;
    if (json)
        (void)printf("{\"probabilities\": [");
    else
        CT_TRY_GOTO(code, ct_predictions_open("-", &sink.lines, status), done);
    CT_TRY_GOTO(code, ct_client_score(client, &rows, on_answer, &sink, &scored, status), done);
    if (json) (void)printf("], \"rows\": %" PRId64 "}\n", scored);
done:
    ct_predictions_abort(sink.lines);
    ct_schema_destroy(schema);
    ct_client_destroy(client);
    ct_access_deinit(&access);
    ct_text_list_deinit(&data);
    return code;
}
