/* Scoring for people with curl. The JSON becomes the very bytes that a gRPC client would send, so everything behind is the same: checks,
 * batch, forward. The scorer is made for the request: nothing is kept for a way that is rarely used. */
#include "base/clock.h"
#include "serving/admin_internal.h"
#include "serving/message_json.h"
#include "serving/server_internal.h"

static ct_code score(ct_server *server, ct_score_work *work, const uint8_t *packed, size_t bytes, json_t **out_answer, ct_status *status) {
    CT_TRY(ct_score_prepare(server, work, packed, bytes, status));
    ct_scorer *scorer = NULL;
    CT_TRY(ct_scorer_create(work->model->model, &scorer, status));
    const ct_code code =
        ct_scorer_run_derived(scorer, &work->batch, 0, work->batch.rows, work->logits, work->derived, work->derived_stride, status);
    ct_scorer_destroy(scorer);
    CT_TRY(code);
    Clicktower__V1__ScoreResponse response;
    CT_TRY(ct_score_response(work, &response, status));
    *out_answer = ct_message_to_json(&response.base);
    if (!*out_answer) return ct_fail_memory(status, work->batch.rows * sizeof(float), "an answer");
    ct_score_expose(server, work, CT_OK, &response);
    return CT_OK;
}

ct_code ct_admin_score(ct_server *server, const char *body, size_t bytes, json_t **out_answer, ct_status *status) {
    if (ct_server_is_draining(server)) return ct_fail(status, CT_UNAVAILABLE, "the server is going down");
    ct_score_work *work = NULL;
    const int64_t arrived_ns = ct_clock_ns();
    CT_TRY(ct_score_work_create(&work, status));
    work->arrived_ns = arrived_ns;
    uint8_t *packed = NULL;
    size_t packed_bytes = 0;
    ct_code code =
        ct_admin_pack_json(&work->arena, &clicktower__v1__score_request__descriptor, body, bytes, &packed, &packed_bytes, status);
    if (code == CT_OK) {
        work->set = ct_server_take_set(server);
        code = score(server, work, packed, packed_bytes, out_answer, status);
        if (code != CT_OK) ct_score_expose(server, work, code, NULL);
        (void)pthread_mutex_lock(&server->lock);
        ct_model_set_count(work->set, &work->choice, code != CT_OK);
        (void)pthread_mutex_unlock(&server->lock);
        ct_server_give_set(server, work->set);
    }
    ct_score_work_destroy(work);
    return code;
}
