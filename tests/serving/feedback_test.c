/* Feedback: what is checked and how it is refused; that an answer comes only once the lines are in the file; that what is too much is
 * refused at once. */
#include "serving/feedback.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after them */
#include <cmocka.h>

#include "base/clock.h"
#include "serving/decode.h"
#include "tests/serving/lines.h"

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

typedef Clicktower__V1__FeedbackEvent event;
static const int64_t NOW_MS = INT64_C(1700000000000);

static event good_event(void) {
    event e = CLICKTOWER__V1__FEEDBACK_EVENT__INIT;
    e.request_id = ct_text_data("r1");
    e.event = ct_text_data("shown");
    return e;
}

/* malloc'd */
static uint8_t *pack(event **events, size_t count, size_t *out_bytes) {
    Clicktower__V1__FeedbackRequest request = CLICKTOWER__V1__FEEDBACK_REQUEST__INIT;
    request.events = events;
    request.n_events = count;
    *out_bytes = clicktower__v1__feedback_request__get_packed_size(&request);
    uint8_t *bytes = malloc(*out_bytes + 1);
    (void)clicktower__v1__feedback_request__pack(&request, bytes);
    return bytes;
}

/* --- checking --- */

/* Of two events, the second one given. */
static ct_code unpack_two(const event *second, ct_arena *arena, const Clicktower__V1__FeedbackRequest **out, ct_status *status) {
    event first = good_event(), copy = *second, *events[] = {&first, &copy};
    size_t bytes = 0;
    uint8_t *packed = pack(events, 2, &bytes);
    Clicktower__V1__FeedbackRequest *request = NULL;
    const ct_code code = ct_feedback_unpack(arena, packed, bytes, 100, NOW_MS, &request, status);
    free(packed);
    if (code == CT_OK && out) *out = request;
    return code;
}

static void refused(const event *second, const char *field, const char *word) {
    ct_status status = CT_STATUS_INIT;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    assert_int_equal(unpack_two(second, &arena, NULL, &status), CT_INVALID);
    char wanted[64];
    (void)snprintf(wanted, sizeof wanted, "events[1].%s", field);
    if (!strstr(status.message, wanted) || !strstr(status.message, word)) fail_msg("no %s and %s in: %s", wanted, word, status.message);
    ct_arena_deinit(&arena);
}

static void refusals_name_event_and_field(void **state) {
    (void)state;
    char long_text[200];
    memset(long_text, 'x', sizeof long_text);
    event e = good_event();
    e.request_id.len = 0;
    refused(&e, "request_id", "missing");
    e.request_id = (ProtobufCBinaryData){129, (uint8_t *)long_text};
    refused(&e, "request_id", "129");
    e = good_event();
    e.event.len = 0;
    refused(&e, "event", "missing");
    e.event = (ProtobufCBinaryData){65, (uint8_t *)long_text};
    refused(&e, "event", "65");
    e.event = ct_text_data("\xc3(");
    refused(&e, "event", "UTF-8");
    e.event = ct_text_data("a\nb");
    refused(&e, "event", "control");
    e = good_event();
    e.event_id = (ProtobufCBinaryData){129, (uint8_t *)long_text};
    refused(&e, "event_id", "129");
    e = good_event();
    e.candidate = 100;
    refused(&e, "candidate", "99");
    e = good_event();
    e.worth_case = CLICKTOWER__V1__FEEDBACK_EVENT__WORTH_VALUE;
    e.value = (double)NAN;
    refused(&e, "value", "finite");
    e.value = -(double)INFINITY;
    refused(&e, "value", "finite");
    e.value = -1e101;
    refused(&e, "value", "1e+100");
    e = good_event();
    e.time_ms = 1700000000; /* seconds */
    refused(&e, "time_ms", "milliseconds");
    e.time_ms = -1;
    refused(&e, "time_ms", "milliseconds");
    e.time_ms = NOW_MS + 86400001;
    refused(&e, "time_ms", "ahead");
}

static void what_is_left_out_is_filled_in(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    event e = good_event();
    e.candidate = 99;
    e.worth_case = CLICKTOWER__V1__FEEDBACK_EVENT__WORTH_VALUE; /* a zero that is meant */
    e.time_ms = NOW_MS + 86400000;
    const Clicktower__V1__FeedbackRequest *request = NULL;
    MUST(unpack_two(&e, &arena, &request, &status), status);
    assert_int_equal(request->n_events, 2);
    assert_true(request->events[0]->value == 1.0 && request->events[0]->time_ms == NOW_MS);
    assert_true(request->events[1]->value == 0.0 && request->events[1]->time_ms == NOW_MS + 86400000);
    /* No event at all, too many, and bytes that are no message. */
    Clicktower__V1__FeedbackRequest *none = NULL;
    assert_int_equal(ct_feedback_unpack(&arena, (const uint8_t *)"", 0, 100, NOW_MS, &none, &status), CT_INVALID);
    assert_int_equal(ct_feedback_unpack(&arena, (const uint8_t *)"\xff\xff", 2, 100, NOW_MS, &none, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "FeedbackRequest"));
    const size_t count = CT_FEEDBACK_MAX_EVENTS + 1;
    event **events = calloc(count, sizeof(event *));
    for (size_t i = 0; i < count; i++) events[i] = &e;
    e = good_event();
    size_t bytes = 0;
    uint8_t *packed = pack(events, count, &bytes);
    assert_int_equal(ct_feedback_unpack(&arena, packed, bytes, 100, NOW_MS, &none, &status), CT_EXHAUSTED);
    free(packed);
    packed = pack(events, count - 1, &bytes);
    MUST(ct_feedback_unpack(&arena, packed, bytes, 100, NOW_MS, &none, &status), status);
    free(packed);
    free(events);
    ct_arena_deinit(&arena);
}

/* --- writing --- */

typedef struct call {
    pthread_mutex_t lock;
    pthread_cond_t change;
    bool held, done;
    const char *folder;
    size_t lines_then; /* in the folder when it was answered */
    ct_status status;
    uint32_t accepted;
} call;

static void call_init(call *c, const char *folder, bool held) {
    memset(c, 0, sizeof *c);
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->change, NULL);
    c->folder = folder;
    c->held = held;
}

static void call_done(void *context, const ct_status *status, uint32_t accepted) {
    call *c = context;
    size_t lines_then = 0;
    if (ct_path_exists(c->folder)) {
        json_t *lines = lines_of(c->folder, NULL, NULL);
        lines_then = json_array_size(lines);
        json_decref(lines);
    }
    (void)pthread_mutex_lock(&c->lock);
    c->lines_then = lines_then;
    c->status = *status;
    c->accepted = accepted;
    c->done = true;
    (void)pthread_cond_broadcast(&c->change);
    while (c->held) (void)pthread_cond_wait(&c->change, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);
}

static void call_wait(call *c) {
    (void)pthread_mutex_lock(&c->lock);
    while (!c->done) (void)pthread_cond_wait(&c->change, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);
}

static void call_let_go(call *c) {
    (void)pthread_mutex_lock(&c->lock);
    c->held = false;
    (void)pthread_cond_broadcast(&c->change);
    (void)pthread_mutex_unlock(&c->lock);
}

static ct_feedback *open_feedback(const char *folder, size_t queue_calls, size_t queue_bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_feedback *feedback = NULL;
    const ct_feedback_options options = {
        .folder = folder, .rotate_bytes = 1 << 20, .rotate_ms = 1000000000, .queue_calls = queue_calls, .queue_bytes = queue_bytes};
    MUST(ct_feedback_open(&options, &feedback, &status), status);
    return feedback;
}

static void answered_once_it_is_in_the_file(void **state) {
    ct_status status = CT_STATUS_INIT;
    ct_feedback *feedback = open_feedback(*state, 0, 0);
    event shown = good_event(), click = good_event(), other = good_event(), *events[] = {&shown, &click, &other};
    shown.position = 3;
    click.event = ct_text_data("click");
    click.event_id = ct_text_data("e\"1");
    click.candidate = 9999;
    click.time_ms = NOW_MS;
    other.event = ct_text_data("bought");
    other.worth_case = CLICKTOWER__V1__FEEDBACK_EVENT__WORTH_VALUE;
    other.value = 0.1;
    size_t bytes = 0, bad_bytes = 0;
    uint8_t *packed = pack(events, 3, &bytes);
    const int64_t before = ct_clock_unix_ms();
    call first, second, bad;
    call_init(&first, *state, false);
    call_init(&second, *state, false);
    call_init(&bad, *state, false);
    MUST(ct_feedback_submit(feedback, packed, bytes, call_done, &first, &status), status);
    call_wait(&first);
    assert_int_equal(first.status.code, CT_OK);
    assert_int_equal(first.accepted, 3);
    assert_int_equal(first.lines_then, 3);
    MUST(ct_feedback_submit(feedback, packed, bytes, call_done, &second, &status), status); /* again: that is fine */
    call_wait(&second);
    assert_int_equal(second.lines_then, 6);
    shown.request_id.len = 0;
    uint8_t *bad_packed = pack(events, 3, &bad_bytes);
    MUST(ct_feedback_submit(feedback, bad_packed, bad_bytes, call_done, &bad, &status), status);
    call_wait(&bad);
    assert_int_equal(bad.status.code, CT_INVALID);
    assert_int_equal(bad.accepted, 0);
    ct_feedback_stats stats;
    ct_feedback_stats_get(feedback, &stats);
    assert_true(stats.shown == 2 && stats.clicks == 2 && stats.others == 2);
    assert_true(stats.invalid == 1 && stats.busy == 0 && stats.unwritable == 0 && stats.failures == 0);
    MUST(ct_feedback_close(feedback, &status), status);
    const int64_t after = ct_clock_unix_ms();

    size_t files = 0, parts = 0;
    json_t *lines = lines_of(*state, &files, &parts);
    assert_int_equal(json_array_size(lines), 6); /* nothing of the bad one */
    assert_true(files == 1 && parts == 0);
    const json_t *line = json_array_get(lines, 0);
    assert_in_range(integer_of(line, "received_ms"), before, after);
    assert_int_equal(integer_of(line, "time_ms"), integer_of(line, "received_ms"));
    assert_string_equal(text_of(line, "event"), "shown");
    assert_string_equal(text_of(line, "request_id"), "r1");
    assert_string_equal(text_of(line, "event_id"), "");
    assert_int_equal(integer_of(line, "candidate"), 0);
    assert_int_equal(integer_of(line, "position"), 3);
    assert_true(json_number_value(json_object_get(line, "value")) == 1.0);
    line = json_array_get(lines, 1);
    assert_string_equal(text_of(line, "event_id"), "e\"1");
    assert_int_equal(integer_of(line, "candidate"), 9999);
    assert_int_equal(integer_of(line, "time_ms"), NOW_MS);
    line = json_array_get(lines, 2);
    assert_string_equal(text_of(line, "event"), "bought");
    assert_true(json_number_value(json_object_get(line, "value")) == 0.1);
    json_decref(lines);
    free(packed);
    free(bad_packed);
}

/* While the thread that writes is held up, so many may wait; what waited is all written in the end. */
static void what_is_too_much_is_refused_at_once(void **state) {
    ct_status status = CT_STATUS_INIT;
    event e = good_event(), *events[] = {&e};
    size_t bytes = 0;
    uint8_t *packed = pack(events, 1, &bytes);
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        char *folder = temp_path(*state, by_bytes ? "bytes" : "calls");
        ct_feedback *feedback = open_feedback(folder, by_bytes ? 100 : 3, by_bytes ? 3 * bytes : 1 << 20);
        call first, waiting[3], more;
        call_init(&first, folder, true);
        MUST(ct_feedback_submit(feedback, packed, bytes, call_done, &first, &status), status);
        call_wait(&first);
        for (int i = 0; i < 3; i++) {
            call_init(&waiting[i], folder, false);
            MUST(ct_feedback_submit(feedback, packed, bytes, call_done, &waiting[i], &status), status);
        }
        call_init(&more, folder, false);
        assert_int_equal(ct_feedback_submit(feedback, packed, bytes, call_done, &more, &status), CT_EXHAUSTED);
        call_let_go(&first);
        for (int i = 0; i < 3; i++) call_wait(&waiting[i]);
        assert_int_equal(waiting[0].lines_then, 4); /* they were written together */
        ct_feedback_stats stats;
        ct_feedback_stats_get(feedback, &stats);
        assert_true(stats.busy == 1 && stats.shown == 4);
        MUST(ct_feedback_close(feedback, &status), status);
        assert_false(more.done);
        free(folder);
    }
    free(packed);
}

static void what_cannot_be_written_is_not_acknowledged(void **state) {
    ct_status status = CT_STATUS_INIT;
    char *folder = temp_path(*state, "folder");
    ct_feedback *feedback = open_feedback(folder, 0, 0);
    event e = good_event(), *events[] = {&e};
    size_t bytes = 0;
    uint8_t *packed = pack(events, 1, &bytes);
    MUST(ct_folder_remove(folder, &status), status);
    call lost, kept;
    call_init(&lost, folder, false);
    call_init(&kept, folder, false);
    MUST(ct_feedback_submit(feedback, packed, bytes, call_done, &lost, &status), status);
    call_wait(&lost);
    assert_int_equal(lost.status.code, CT_UNAVAILABLE);
    assert_non_null(strstr(lost.status.message, folder));
    assert_non_null(strstr(lost.status.message, "send it again"));
    MUST(ct_folder_create(folder, &status), status);
    MUST(ct_feedback_submit(feedback, packed, bytes, call_done, &kept, &status), status);
    call_wait(&kept);
    assert_int_equal(kept.status.code, CT_OK);
    assert_int_equal(kept.lines_then, 1);
    ct_feedback_stats stats;
    ct_feedback_stats_get(feedback, &stats);
    assert_true(stats.unwritable == 1 && stats.failures == 1 && stats.shown == 1);
    MUST(ct_feedback_close(feedback, &status), status);
    free(packed);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_name_event_and_field),
        cmocka_unit_test(what_is_left_out_is_filled_in),
        cmocka_unit_test_setup_teardown(answered_once_it_is_in_the_file, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(what_is_too_much_is_refused_at_once, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_is_not_acknowledged, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
