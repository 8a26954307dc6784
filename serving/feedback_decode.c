/* The bytes of a FeedbackRequest to events that may be written. Any bytes at all give events or a status. */
#include <math.h>

#include "base/math.h"
#include "base/text.h"
#include "serving/decode.h"
#include "serving/feedback.h"

typedef Clicktower__V1__FeedbackEvent event;

enum {
    SHOWN_BYTES = 80,
    DAY_MS = 86400000,
};
/* Of September 2001. Smaller numbers are seconds, not milliseconds. */
static const int64_t least_time_ms = INT64_C(1000000000000);

static ct_code check_text(size_t at, const char *field, const ProtobufCBinaryData *text, size_t max_bytes, bool needed, ct_status *status) {
    char shown[SHOWN_BYTES];
    if (needed && text->len == 0) return ct_fail(status, CT_INVALID, "events[%zu].%s is missing", at, field);
    if (text->len > max_bytes)
        return ct_fail(status, CT_INVALID, "events[%zu].%s has %zu bytes: at most %zu", at, field, text->len, max_bytes);
    if (!ct_utf8_is_valid(text->data, text->len))
        return ct_fail(status, CT_INVALID, "events[%zu].%s \"%s\" is not UTF-8", at, field,
                       ct_text_show((const char *)text->data, text->len, shown, sizeof shown));
    for (size_t i = 0; i < text->len; i++)
        if (text->data[i] < 0x20 || text->data[i] == 0x7f)
            return ct_fail(status, CT_INVALID, "events[%zu].%s \"%s\" holds a control character", at, field,
                           ct_text_show((const char *)text->data, text->len, shown, sizeof shown));
    return CT_OK;
}

static ct_code check_event(event *e, size_t at, uint32_t max_candidates, int64_t now_ms, ct_status *status) {
    CT_TRY(check_text(at, "request_id", &e->request_id, CT_REQUEST_ID_MAX_BYTES, true, status));
    CT_TRY(check_text(at, "event", &e->event, CT_FEEDBACK_EVENT_BYTES, true, status));
    CT_TRY(check_text(at, "event_id", &e->event_id, CT_FEEDBACK_EVENT_ID_BYTES, false, status));
    if (e->candidate >= max_candidates)
        return ct_fail(status, CT_INVALID, "events[%zu].candidate is %u: from 0 to %u is allowed", at, e->candidate, max_candidates - 1);
    if (e->worth_case != CLICKTOWER__V1__FEEDBACK_EVENT__WORTH_VALUE) e->value = 1.0;
    if (!isfinite(e->value)) return ct_fail(status, CT_INVALID, "events[%zu].value is not finite", at);
    if (fabs(e->value) > CT_MOST_SUMMED)
        return ct_fail(status, CT_INVALID, "events[%zu].value is %g: at most %g, with either sign, is allowed", at, e->value,
                       CT_MOST_SUMMED);
    if (e->time_ms == 0) e->time_ms = now_ms;
    if (e->time_ms < least_time_ms)
        return ct_fail(status, CT_INVALID, "events[%zu].time_ms is %lld: milliseconds since 1970 are wanted", at, (long long)e->time_ms);
    if (e->time_ms > now_ms + DAY_MS)
        return ct_fail(status, CT_INVALID, "events[%zu].time_ms is %lld: more than a day ahead of the server's clock, %lld", at,
                       (long long)e->time_ms, (long long)now_ms);
    return CT_OK;
}

ct_code ct_feedback_unpack(ct_arena *arena, const uint8_t *data, size_t bytes, uint32_t max_candidates, int64_t now_ms,
                           Clicktower__V1__FeedbackRequest **out_request, ct_status *status) {
    ProtobufCMessage *message = NULL;
    CT_TRY(ct_message_unpack(arena, &clicktower__v1__feedback_request__descriptor, data, bytes, "FeedbackRequest", &message, status));
    Clicktower__V1__FeedbackRequest *request = (Clicktower__V1__FeedbackRequest *)message;
    if (request->n_events == 0) return ct_fail(status, CT_INVALID, "no events");
    if (request->n_events > CT_FEEDBACK_MAX_EVENTS)
        return ct_fail(status, CT_EXHAUSTED, "%zu events: at most %d in a request", request->n_events, CT_FEEDBACK_MAX_EVENTS);
    for (size_t i = 0; i < request->n_events; i++) CT_TRY(check_event(request->events[i], i, max_candidates, now_ms, status));
    *out_request = request;
    return CT_OK;
}
