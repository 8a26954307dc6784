/* clicktower.v1.Scorer/Models: what is loaded. Models do not change while the server runs, so the answer is packed once. */
#include <string.h>

#include "serving/server_internal.h"

typedef Clicktower__V1__Model model_message;
typedef Clicktower__V1__Feature feature_message;

/* `count` messages of one type and the pointers that protobuf-c wants. */
static void **message_list(ct_arena *arena, size_t count, size_t bytes) {
    void **pointers = ct_arena_alloc(arena, count * sizeof *pointers);
    char *messages = ct_arena_alloc(arena, count * bytes);
    if (!pointers || !messages) return NULL;
    for (size_t i = 0; i < count; i++) pointers[i] = messages + i * bytes;
    return pointers;
}

static ct_code fill_model(ct_arena *arena, const ct_served_model *served, model_message *out, ct_status *status) {
    const ct_model *model = served->model;
    const ct_schema *schema = ct_model_schema(model);
    clicktower__v1__model__init(out);
    out->name = ct_text_data(served->name);
    out->version = ct_text_data(served->version);
    out->schema = ct_text_data(schema->name);
    out->architecture = ct_text_data(ct_architecture_name(ct_model_spec_of(model)->architecture));
    out->rows = ct_model_rows(model);
    out->step = ct_model_step(model);
    out->created_unix_ms = ct_model_created_ms(model);
    out->trained_instruction_set = ct_text_data(ct_model_instruction_set(model));
    out->instruction_set = ct_text_data(ct_tower_instruction_set());
    out->precision = ct_text_data(ct_model_precision(model) == CT_PRECISION_BF16 ? "bf16" : "fp32");

    out->features = (feature_message **)message_list(arena, schema->field_count, sizeof(feature_message));
    out->outputs = ct_arena_alloc(arena, served->outputs * sizeof *out->outputs);
    if (!out->features || !out->outputs) return ct_fail_memory(status, schema->field_count * sizeof(feature_message), "the list of models");
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if ((field->kind != CT_FIELD_ID && field->kind != CT_FIELD_NUMBER) || !ct_model_uses_field(model, f)) continue;
        feature_message *feature = out->features[out->n_features++];
        clicktower__v1__feature__init(feature);
        feature->name = ct_text_data(field->name);
        feature->kind = ct_text_data(field->kind == CT_FIELD_ID ? "id" : "number");
        feature->side = ct_text_data(field->side == CT_SIDE_CONTEXT ? "context" : "candidate");
        if (field->kind == CT_FIELD_ID) {
            feature->type = ct_text_data(field->id_type == CT_ID_INTEGER ? "integer" : "text");
            feature->max_values = field->max_values;
        } else {
            feature->max_values = 1;
        }
    }
    for (size_t o = 0; o < served->outputs; o++) out->outputs[o] = ct_text_data(ct_model_output_name(model, o));
    out->n_outputs = served->outputs;
    return CT_OK;
}

ct_code ct_models_answer_create(ct_server *server, ct_status *status) {
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ct_code code = CT_OK;
    Clicktower__V1__ModelsResponse response = CLICKTOWER__V1__MODELS_RESPONSE__INIT;
    response.models = (model_message **)message_list(&arena, server->model_count, sizeof(model_message));
    if (!response.models) {
        code = ct_fail_memory(status, server->model_count * sizeof(model_message), "the list of models");
        goto fail;
    }
    response.n_models = server->model_count;
    for (size_t i = 0; i < server->model_count; i++)
        CT_TRY_GOTO(code, fill_model(&arena, &server->models[i], response.models[i], status), fail);
    server->models_answer_bytes = clicktower__v1__models_response__get_packed_size(&response);
    server->models_answer = malloc(server->models_answer_bytes + 1);
    if (!server->models_answer) {
        code = ct_fail_memory(status, server->models_answer_bytes, "the list of models");
        goto fail;
    }
    (void)clicktower__v1__models_response__pack(&response, server->models_answer);
fail:
    ct_arena_deinit(&arena);
    return code;
}

void ct_serve_models(void *context, void *worker, ct_rpc_call *call) {
    const ct_server *server = context;
    (void)worker;
    memcpy(ct_rpc_call_reserve(call, server->models_answer_bytes), server->models_answer, server->models_answer_bytes);
    ct_rpc_call_reply(call);
}
