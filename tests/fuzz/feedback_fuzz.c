/* A FeedbackRequest off the wire: whatever the bytes are, they are events that may be written, each a line of JSON that reads back, or a
 * refusal with a message. */
#include <jansson.h>
#include <math.h>
#include <stdbool.h>

#include "serving/decode.h"
#include "serving/feedback.h"
#include "serving/line_text.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "feedback_fuzz";

enum { MAX_CANDIDATES = 300 };
static const int64_t NOW_MS = INT64_C(1700000000000);

static void check_text(const ProtobufCBinaryData *text, size_t most) {
    ct_line_text line = {0};
    FUZZ_MUST(text->len <= most);
    ct_line_text_put(&line, "[");
    ct_line_text_string(&line, text->data, text->len);
    ct_line_text_put(&line, "]");
    json_t *json = json_loadb(line.data, line.bytes, 0, NULL);
    const json_t *back = json_array_get(json, 0);
    FUZZ_MUST(json_is_string(back) && json_string_length(back) == text->len);
    FUZZ_MUST(text->len == 0 || memcmp(json_string_value(back), text->data, text->len) == 0);
    json_decref(json);
    ct_line_text_deinit(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    Clicktower__V1__FeedbackRequest *request = NULL;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    const ct_code code = ct_feedback_unpack(&arena, data, bytes, MAX_CANDIDATES, NOW_MS, &request, &status);
    if (code == CT_OK) {
        FUZZ_MUST(request->n_events >= 1 && request->n_events <= CT_FEEDBACK_MAX_EVENTS);
        for (size_t i = 0; i < request->n_events; i++) {
            const Clicktower__V1__FeedbackEvent *event = request->events[i];
            FUZZ_MUST(event->request_id.len > 0 && event->event.len > 0 && event->candidate < MAX_CANDIDATES && isfinite(event->value));
            FUZZ_MUST(event->time_ms > NOW_MS / 2 && event->time_ms <= NOW_MS + 86400000);
            check_text(&event->request_id, CT_REQUEST_ID_MAX_BYTES);
            check_text(&event->event, CT_FEEDBACK_EVENT_BYTES);
            check_text(&event->event_id, CT_FEEDBACK_EVENT_ID_BYTES);
        }
    } else {
        FUZZ_MUST((code == CT_INVALID || code == CT_EXHAUSTED) && status.message[0]);
    }
    ct_arena_deinit(&arena);
    return 0;
}

/* Seed `index`: how many events, and which fields they have. */
size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    if (index >= 8) return 0;
    Clicktower__V1__FeedbackEvent events[3], *pointers[3];
    Clicktower__V1__FeedbackRequest request = CLICKTOWER__V1__FEEDBACK_REQUEST__INIT;
    for (size_t i = 0; i < 3; i++) {
        clicktower__v1__feedback_event__init(&events[i]);
        events[i].request_id = ct_text_data("r-\xc3\xa9");
        events[i].event = ct_text_data(i ? "click" : "shown");
        events[i].candidate = (uint32_t)i;
        if (index & 1) {
            events[i].worth_case = CLICKTOWER__V1__FEEDBACK_EVENT__WORTH_VALUE;
            events[i].value = 2.5;
        }
        if (index & 2) events[i].time_ms = NOW_MS - 5;
        if (index & 4) events[i].event_id = ct_text_data("e1");
        pointers[i] = &events[i];
    }
    request.events = pointers;
    request.n_events = 1 + index % 3;
    return clicktower__v1__feedback_request__pack(&request, out);
}
