/* What both ways of asking for scores share, gRPC and HTTP: from a packed request to a batch, from logits to an answer, and the line about
 * it in the exposures. */
#include <string.h>

#include "base/clock.h"
#include "serving/server_internal.h"
#include "serving/top_k.h"

ct_code ct_score_prepare(ct_server *server, ct_score_work *work, const uint8_t *data, size_t bytes, ct_status *status) {
    Clicktower__V1__ScoreRequest *r = NULL;
    work->packed = data;
    work->packed_bytes = bytes;
    CT_TRY(ct_request_unpack(&work->arena, data, bytes, &r, status));
    work->request = r;
    work->request_id = r->request_id;
    if (server->exposures) {
        if (r->request_id.len == 0) {
            const size_t length = ct_exposures_make_id(server->exposures, work->made_id);
            work->request_id = (ProtobufCBinaryData){length, (uint8_t *)work->made_id};
        }
        work->exposed = ct_exposures_sampled(server->exposures, work->request_id.data, work->request_id.len);
    }
    CT_TRY(ct_model_set_choose(work->set, r, &work->choice, status));
    work->model = work->choice.model;
    CT_TRY(ct_request_batch(work->model->decoder, &work->arena, r, &work->batch, status));
    const size_t floats = work->batch.rows * work->model->outputs, derived = work->batch.rows * work->model->derived_count;
    work->logits = ct_arena_alloc(&work->arena, floats * sizeof(float));
    if (!work->logits) return ct_fail_memory(status, floats * sizeof(float), "a request's logits");
    if (!work->exposed || derived == 0) return CT_OK;
    work->derived = ct_arena_alloc(&work->arena, derived * sizeof(float));
    work->derived_stride = work->batch.rows;
    return work->derived ? CT_OK : ct_fail_memory(status, derived * sizeof(float), "a request's derived columns");
}

/* The best candidates by the first output, where the request asks for no more. *out_count: of the values of an output. */
static ct_code choose_top(ct_score_work *work, Clicktower__V1__ScoreResponse *response, size_t *out_count, ct_status *status) {
    const size_t rows = work->batch.rows, top = work->request->top_k < rows ? work->request->top_k : rows;
    *out_count = rows;
    if (top == 0) return CT_OK;
    ct_ranked *best = ct_arena_alloc(&work->arena, top * sizeof *best);
    response->candidates = ct_arena_alloc(&work->arena, top * sizeof *response->candidates);
    if (!best || !response->candidates) return ct_fail_memory(status, top * sizeof *best, "an answer");
    ct_top_k(work->logits, work->model->outputs, rows, top, best);
    for (size_t i = 0; i < top; i++) response->candidates[i] = best[i].candidate;
    response->n_candidates = *out_count = top;
    return CT_OK;
}

ct_code ct_score_response(ct_score_work *work, Clicktower__V1__ScoreResponse *response, ct_status *status) {
    const ct_served_model *model = work->model;
    const size_t rows = work->batch.rows, outputs = model->outputs;
    size_t count = 0;
    clicktower__v1__score_response__init(response);
    CT_TRY(choose_top(work, response, &count, status));
    Clicktower__V1__Output *list = ct_arena_alloc(&work->arena, outputs * sizeof *list);
    Clicktower__V1__Output **pointers = ct_arena_alloc(&work->arena, outputs * sizeof(Clicktower__V1__Output *));
    float *values = ct_arena_alloc(&work->arena, 2 * rows * outputs * sizeof *values);
    if (!list || !pointers || !values) return ct_fail_memory(status, 2 * rows * outputs * sizeof *values, "an answer");
    work->probabilities = values + rows * outputs;
    for (size_t o = 0; o < outputs; o++) {
        float *logits = values + o * rows, *probabilities = work->probabilities + o * rows;
        for (size_t r = 0; r < rows; r++) logits[r] = work->logits[r * outputs + o];
        ct_probabilities(logits, probabilities, rows);
        clicktower__v1__output__init(&list[o]);
        list[o].name = ct_text_data(ct_model_output_name(model->model, o));
        list[o].probabilities = probabilities;
        list[o].n_probabilities = count;
        list[o].logits = logits;
        list[o].n_logits = work->request->logits ? count : 0;
        pointers[o] = &list[o];
        if (response->n_candidates == 0) continue;
        list[o].probabilities = ct_arena_alloc(&work->arena, 2 * count * sizeof(float)); /* exposures have all of them */
        if (!list[o].probabilities) return ct_fail_memory(status, 2 * count * sizeof(float), "an answer");
        list[o].logits = list[o].probabilities + count;
        for (size_t i = 0; i < count; i++) {
            list[o].probabilities[i] = probabilities[response->candidates[i]];
            list[o].logits[i] = logits[response->candidates[i]];
        }
    }
    response->outputs = pointers;
    response->n_outputs = outputs;
    response->request_id = work->request_id;
    response->model = ct_text_data(model->name);
    response->model_version = ct_text_data(model->version);
    if (work->choice.in_experiment) {
        response->experiment = ct_text_data(ct_experiment_name(work->set->experiment));
        response->arm = ct_text_data(ct_experiment_arm_name(work->set->experiment, work->choice.arm));
        response->assigned = ct_text_data(ct_assign_how_name(work->choice.how));
    }
    return CT_OK;
}

/* Columns that the decoder took from the unit's history, as they stood. What the request brought is in its own columns. */
static void expose_histories(const ct_score_work *work, ct_exposure *e) {
    const ct_model *model = work->choice.model->model;
    if (ct_model_histories(model) == NULL) return;
    const ct_schema *schema = ct_model_schema(model);
    for (size_t f = 0; f < schema->field_count && e->history_count < CT_EXPOSURE_HISTORIES; f++) {
        const ct_field *field = &schema->fields[f];
        const ct_column *column = &work->batch.columns[f];
        if (!field->derived || field->kind == CT_FIELD_NUMBER || !column->present) continue;
        if (ct_request_brings(work->request, field->kind == CT_FIELD_HISTORY ? field->name : schema->fields[field->of].name)) continue;
        e->histories[e->history_count].name = field->name;
        e->histories[e->history_count].rule = ct_schema_column_hash(schema, f);
        e->histories[e->history_count].keys = ct_column_u64(column);
        e->histories[e->history_count++].count = column->offsets[1];
    }
}

void ct_score_expose(ct_server *server, const ct_score_work *work, ct_code code) {
    const ct_arm_choice *choice = &work->choice;
    if (!work->exposed || (code != CT_OK && !choice->in_experiment)) return;
    const ct_experiment *experiment = work->set->experiment;
    ct_exposure e = {.code = code,
                     .latency_ns = ct_clock_ns() - work->arrived_ns,
                     .request_id = work->request_id.data,
                     .request_id_bytes = work->request_id.len,
                     .experiment = choice->in_experiment ? ct_experiment_name(experiment) : "",
                     .arm = choice->in_experiment ? ct_experiment_arm_name(experiment, choice->arm) : "",
                     .fallback_arm = choice->how == CT_ASSIGN_FALLBACK ? ct_experiment_arm_name(experiment, choice->meant) : "",
                     .how = choice->how,
                     .model = choice->model->name,
                     .version = choice->model->version,
                     .request = work->packed,
                     .request_bytes = work->packed_bytes};
    if (code == CT_OK) {
        e.rows = work->batch.rows;
        for (size_t o = 0; o < choice->model->outputs && o < CT_EXPOSURE_OUTPUTS; o++, e.output_count++) {
            e.outputs[o].name = ct_model_output_name(choice->model->model, o);
            e.outputs[o].probabilities = work->probabilities + o * e.rows;
        }
        for (size_t d = 0; work->derived && d < choice->model->derived_count; d++, e.derived_count++) {
            const ct_served_derived *derived = &choice->model->derived[d];
            e.derived[d].name = derived->name;
            e.derived[d].values = work->derived + d * work->derived_stride;
            e.derived[d].count = work->batch.columns[derived->field].shared ? 1 : e.rows;
        }
        expose_histories(work, &e);
    }
    ct_exposures_put(server->exposures, &e);
}
