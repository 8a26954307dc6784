/* Scoring for people with curl. The JSON becomes the very bytes that a gRPC client would send, so everything behind is the same: checks,
 * batch, forward. The scorer is made for the request: nothing is kept for a way that is rarely used. */
#include <string.h>

#include "serving/admin_internal.h"
#include "serving/message_json.h"
#include "serving/server_internal.h"

static ct_code unpack_json(ct_arena *arena, const char *body, size_t bytes, Clicktower__V1__ScoreRequest **out_request, ct_status *status) {
    json_t *json = NULL;
    if (ct_json_parse(body, bytes, "the body", &json, status) != CT_OK) return status->code = CT_INVALID;
    ProtobufCMessage *message = NULL;
    ct_code code = ct_message_from_json(arena, &clicktower__v1__score_request__descriptor, json, &message, status);
    if (code == CT_OK) {
        const size_t packed_bytes = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = ct_arena_alloc(arena, packed_bytes + 1);
        if (packed) {
            (void)protobuf_c_message_pack(message, packed);
            code = ct_request_unpack(arena, packed, packed_bytes, out_request, status);
        } else {
            code = ct_fail_memory(status, packed_bytes, "a request");
        }
    }
    json_decref(json);
    return code;
}

static ct_code answer_json(ct_arena *arena, const ct_served_model *model, const Clicktower__V1__ScoreRequest *request, size_t rows,
                           const float *logits, json_t **out_answer, ct_status *status) {
    const size_t outputs = model->outputs;
    Clicktower__V1__ScoreResponse response = CLICKTOWER__V1__SCORE_RESPONSE__INIT;
    Clicktower__V1__Output *list = ct_arena_alloc(arena, outputs * sizeof *list);
    Clicktower__V1__Output **pointers = ct_arena_alloc(arena, outputs * sizeof(Clicktower__V1__Output *));
    float *values = ct_arena_alloc(arena, 2 * rows * outputs * sizeof *values);
    if (!list || !pointers || !values) return ct_fail_memory(status, 2 * rows * outputs * sizeof *values, "an answer");
    for (size_t o = 0; o < outputs; o++) {
        float *own = values + 2 * o * rows, *probabilities = own + rows;
        for (size_t r = 0; r < rows; r++) own[r] = logits[r * outputs + o];
        ct_probabilities(own, probabilities, rows);
        clicktower__v1__output__init(&list[o]);
        list[o].name = ct_text_data(ct_model_output_name(model->model, o));
        list[o].probabilities = probabilities;
        list[o].n_probabilities = rows;
        list[o].logits = own;
        list[o].n_logits = request->logits ? rows : 0;
        pointers[o] = &list[o];
    }
    response.outputs = pointers;
    response.n_outputs = outputs;
    response.request_id = request->request_id;
    response.model = ct_text_data(model->name);
    response.model_version = ct_text_data(model->version);
    *out_answer = ct_message_to_json(&response.base);
    return *out_answer ? CT_OK : ct_fail_memory(status, rows * sizeof(float), "an answer");
}

static ct_code score(const ct_model_set *set, ct_arena *arena, const Clicktower__V1__ScoreRequest *request, json_t **out_answer,
                     ct_status *status) {
    const ct_served_model *model = NULL;
    ct_batch batch;
    CT_TRY(ct_model_set_find(set, request, &model, status));
    CT_TRY(ct_request_batch(model->decoder, arena, request, &batch, status));
    const size_t bytes = batch.rows * model->outputs * sizeof(float);
    float *logits = ct_arena_alloc(arena, bytes);
    if (!logits) return ct_fail_memory(status, bytes, "a request's logits");
    ct_scorer *scorer = NULL;
    CT_TRY(ct_scorer_create(model->model, &scorer, status));
    const ct_code code = ct_scorer_run(scorer, &batch, 0, batch.rows, logits, status);
    ct_scorer_destroy(scorer);
    CT_TRY(code);
    return answer_json(arena, model, request, batch.rows, logits, out_answer, status);
}

ct_code ct_admin_score(ct_server *server, const char *body, size_t bytes, json_t **out_answer, ct_status *status) {
    if (ct_server_is_draining(server)) return ct_fail(status, CT_UNAVAILABLE, "the server is going down");
    ct_arena arena;
    ct_arena_init(&arena, 0);
    Clicktower__V1__ScoreRequest *request = NULL;
    ct_code code = unpack_json(&arena, body, bytes, &request, status);
    if (code == CT_OK) {
        ct_model_set *set = ct_server_take_set(server);
        code = score(set, &arena, request, out_answer, status);
        ct_server_give_set(server, set);
    }
    ct_arena_deinit(&arena);
    return code;
}
