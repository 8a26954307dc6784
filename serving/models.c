/* The set of models that is served, and clicktower.v1.Scorer/Models, which says what is loaded. A set never changes, so that answer is
 * packed once. */
#include <string.h>

#include "base/clock.h"
#include "serving/server_internal.h"

typedef Clicktower__V1__Model model_message;
typedef Clicktower__V1__Feature feature_message;
typedef Clicktower__V1__Arm arm_message;
typedef Clicktower__V1__Experiment experiment_message;

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
    out->loading = ct_model_is_early(model);
    out->precision = ct_text_data(ct_model_precision(model) == CT_PRECISION_BF16 ? "bf16" : "fp32");

    out->features = (feature_message **)message_list(arena, schema->field_count, sizeof(feature_message));
    out->outputs = ct_arena_alloc(arena, served->outputs * sizeof *out->outputs);
    if (!out->features || !out->outputs) return ct_fail_memory(status, schema->field_count * sizeof(feature_message), "the list of models");
    for (size_t f = 0; f < schema->field_count; f++) {
        const ct_field *field = &schema->fields[f];
        if ((field->kind != CT_FIELD_ID && field->kind != CT_FIELD_NUMBER) || field->derived || !ct_model_uses_field(model, f)) continue;
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

/* NULL when out of memory. */
static experiment_message *fill_experiment(ct_arena *arena, const ct_model_set *set) {
    const ct_experiment *experiment = set->experiment;
    const size_t arms = ct_experiment_arm_count(experiment);
    experiment_message *out = ct_arena_alloc(arena, sizeof *out);
    if (!out) return NULL;
    clicktower__v1__experiment__init(out);
    out->name = ct_text_data(ct_experiment_name(experiment));
    out->arms = (arm_message **)message_list(arena, arms, sizeof(arm_message));
    if (!out->arms) return NULL;
    for (out->n_arms = 0; out->n_arms < arms; out->n_arms++) {
        arm_message *arm = out->arms[out->n_arms];
        clicktower__v1__arm__init(arm);
        arm->name = ct_text_data(ct_experiment_arm_name(experiment, out->n_arms));
        arm->model = ct_text_data(ct_experiment_arm_model(experiment, out->n_arms));
        arm->weight = ct_experiment_arm_weight(experiment, out->n_arms);
        arm->control = out->n_arms == ct_experiment_control(experiment);
        arm->served = set->arm_models[out->n_arms] != NULL;
    }
    return out;
}

static ct_code pack_answer(ct_model_set *set, ct_status *status) {
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ct_code code = CT_OK;
    Clicktower__V1__ModelsResponse response = CLICKTOWER__V1__MODELS_RESPONSE__INIT;
    response.models = (model_message **)message_list(&arena, set->model_count, sizeof(model_message));
    if (!response.models) {
        code = ct_fail_memory(status, set->model_count * sizeof(model_message), "the list of models");
        goto fail;
    }
    response.n_models = set->model_count;
    for (size_t i = 0; i < set->model_count; i++) CT_TRY_GOTO(code, fill_model(&arena, &set->models[i], response.models[i], status), fail);
    if (set->experiment) {
        response.experiment = fill_experiment(&arena, set);
        if (!response.experiment) {
            code = ct_fail_memory(status, CT_ASSIGN_MAX_ARMS * sizeof(arm_message), "the list of arms");
            goto fail;
        }
    }
    set->models_answer_bytes = clicktower__v1__models_response__get_packed_size(&response);
    set->models_answer = malloc(set->models_answer_bytes + 1);
    if (!set->models_answer) {
        code = ct_fail_memory(status, set->models_answer_bytes, "the list of models");
        goto fail;
    }
    (void)clicktower__v1__models_response__pack(&response, set->models_answer);
fail:
    ct_arena_deinit(&arena);
    return code;
}

static ct_code name_derived(ct_served_model *model, ct_status *status) {
    model->derived = calloc(model->derived_count + 1, sizeof *model->derived);
    if (!model->derived) return ct_fail_memory(status, model->derived_count * sizeof *model->derived, "a server's model");
    for (size_t d = 0; d < model->derived_count; d++) {
        char name[512];
        ct_model_derived_name(model->model, d, name, sizeof name);
        model->derived[d].name = strdup(name);
        model->derived[d].field = ct_model_derived_field(model->model, d);
        if (!model->derived[d].name) return ct_fail_memory(status, sizeof name, "a server's model");
    }
    return CT_OK;
}

static ct_code model_init(const ct_server_model *from, uint32_t max_candidates, ct_served_model *out, ct_status *status) {
    const ct_schema *schema = ct_model_schema(from->model);
    out->name = strdup(from->name);
    bool *used = calloc(schema->field_count + 1, sizeof *used);
    if (!used || !out->name) {
        free(used);
        return ct_fail_memory(status, schema->field_count, "a server's model");
    }
    for (size_t f = 0; f < schema->field_count; f++) used[f] = ct_model_uses_field(from->model, f);
    out->model = from->model;
    out->outputs = ct_model_output_count(from->model);
    const size_t derived = ct_model_derived_count(from->model);
    out->derived_count = derived < CT_EXPOSURE_DERIVED ? derived : CT_EXPOSURE_DERIVED;
    ct_code code = ct_decoder_create(schema, used, max_candidates, &out->decoder, status);
    free(used);
    if (code == CT_OK) ct_decoder_set_histories(out->decoder, ct_model_histories(from->model));
    if (code == CT_OK) code = name_derived(out, status);
    if (code == CT_OK) code = ct_model_digest(from->model, out->version, status);
    return code;
}

static ct_code check_models(const ct_server_model *models, size_t model_count, ct_status *status) {
    if (model_count == 0) return ct_fail(status, CT_INVALID, "a server needs a model");
    for (size_t i = 0; i < model_count; i++) {
        const char *name = models[i].name;
        if (name[0] == '\0' || !ct_utf8_is_valid(name, strlen(name)))
            return ct_fail(status, CT_INVALID, "model %zu: its name must be UTF-8 and not empty", i + 1);
        for (size_t j = 0; j < i; j++)
            if (strcmp(name, models[j].name) == 0) return ct_fail(status, CT_INVALID, "two models are named \"%s\"", name);
    }
    return CT_OK;
}

ct_code ct_model_set_create(const ct_server_model *models, size_t model_count, const ct_experiment *experiment, uint32_t max_candidates,
                            size_t thread_count, ct_model_set **out_set, ct_status *status) {
    CT_TRY(check_models(models, model_count, status));
    ct_code code = CT_OK;
    ct_model_set *set = calloc(1, sizeof *set);
    if (!set) return ct_fail_memory(status, sizeof *set, "the models");
    set->model_count = model_count;
    set->models = calloc(model_count, sizeof *set->models);
    set->scorers = calloc(thread_count * model_count, sizeof(ct_scorer *));
    if (!set->models || !set->scorers) {
        code = ct_fail_memory(status, thread_count * model_count * sizeof(ct_scorer *), "the models");
        goto fail;
    }
    for (size_t m = 0; m < model_count; m++) CT_TRY_GOTO(code, model_init(&models[m], max_candidates, &set->models[m], status), fail);
    for (; set->scorer_count < thread_count * model_count; set->scorer_count++)
        CT_TRY_GOTO(code, ct_scorer_create(models[set->scorer_count % model_count].model, &set->scorers[set->scorer_count], status), fail);
    CT_TRY_GOTO(code, ct_model_set_run(set, experiment, status), fail);
    CT_TRY_GOTO(code, pack_answer(set, status), fail);
    set->since_unix_ms = ct_clock_unix_ms();
    *out_set = set;
    return CT_OK;
fail:
    ct_model_set_destroy(set);
    return code;
}

ct_code ct_model_set_find(const ct_model_set *set, const Clicktower__V1__ScoreRequest *request, const ct_served_model **out_model,
                          ct_status *status) {
    const ProtobufCBinaryData wanted = request->model;
    if (wanted.len == 0) {
        *out_model = &set->models[0];
        return CT_OK;
    }
    const ct_served_model *model = ct_model_set_named(set, (const char *)wanted.data, wanted.len);
    if (model) {
        *out_model = model;
        return CT_OK;
    }
    char shown[80];
    return ct_fail(status, CT_NOT_FOUND, "no model \"%s\" here; the first one here is \"%s\"",
                   ct_text_show((const char *)wanted.data, wanted.len, shown, sizeof shown), set->models[0].name);
}

void ct_model_set_destroy(ct_model_set *set) {
    if (!set) return;
    for (size_t i = 0; i < set->scorer_count; i++) ct_scorer_destroy(set->scorers[i]);
    for (size_t m = 0; set->models && m < set->model_count; m++) {
        ct_decoder_destroy(set->models[m].decoder);
        for (size_t d = 0; set->models[m].derived && d < set->models[m].derived_count; d++) free(set->models[m].derived[d].name);
        free(set->models[m].derived);
        free(set->models[m].name);
    }
    free(set->scorers);
    free(set->models);
    free(set->models_answer);
    free(set);
}

void ct_serve_models(void *context, void *worker, ct_rpc_call *call) {
    ct_server *server = context;
    (void)worker;
    ct_model_set *set = ct_server_take_set(server);
    memcpy(ct_rpc_call_reserve(call, set->models_answer_bytes), set->models_answer, set->models_answer_bytes);
    ct_server_give_set(server, set);
    ct_rpc_call_reply(call);
}
