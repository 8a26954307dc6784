/* What was shown and clicked by the score it had, against plain loops over all that was said; what falls out of a small table, and what
 * does not; feedback that is here before its exposure. */
#include "serving/calibration.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

enum { REQUESTS = 400, MOST = 9, MODELS = 2, ARMS = 2, EVENTS = 6000 };

static ct_calibration *create(size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_calibration *c = NULL;
    if (ct_calibration_create(bytes, &c, &status) != CT_OK) fail_msg("%s", status.message);
    return c;
}

static uint32_t draw(uint64_t number, uint32_t what) { return ct_random(9, CT_PLACE_TEST, what, number, 0).word[0]; }

static const char *id_of(size_t request) {
    static char id[32];
    (void)snprintf(id, sizeof id, "request-%zu", request);
    return id;
}

static size_t candidates_of(size_t request) { return 1 + draw(request, 0) % MOST; }
static float score_of(size_t request, size_t candidate) { return ct_unit_float(draw(request * MOST + candidate, 1)); }

static void expose(ct_calibration *c, size_t request) {
    static const char *const models[] = {"id", "text"}, *const arms[] = {"", "new"};
    float scores[MOST];
    for (size_t i = 0; i < candidates_of(request); i++) scores[i] = score_of(request, i);
    ct_calibration_expose(c, id_of(request), models[request % MODELS], arms[request / MODELS % ARMS], scores, candidates_of(request));
}

static void say(ct_calibration *c, size_t request, uint32_t candidate, ct_feedback_kind kind) {
    const char *id = id_of(request);
    ct_calibration_feedback(c, id, strlen(id), candidate, kind);
}

static void every_candidate_counts_once(void **state) {
    (void)state;
    static const double bounds[] = CT_SCORE_BOUNDS;
    static bool said[REQUESTS][MOST][2];
    ct_calibration *c = create(1 << 20);
    ct_calibration_stats stats;
    uint64_t repeated = 0, counted = 0, no_candidate = 0;
    for (size_t request = 0; request < REQUESTS; request++) {
        if (request % 4 == 0) { /* feedback first */
            say(c, request, 0, CT_FEEDBACK_CLICK);
            said[request][0][CT_FEEDBACK_CLICK] = true;
            counted++;
        }
        expose(c, request);
    }
    for (uint64_t e = 0; e < EVENTS; e++) {
        const size_t request = draw(e, 2) % REQUESTS;
        const uint32_t candidate = draw(e, 3) % (MOST + 1);
        const ct_feedback_kind kind = draw(e, 4) % 3 ? CT_FEEDBACK_SHOWN : CT_FEEDBACK_CLICK;
        say(c, request, candidate, kind);
        if (candidate >= candidates_of(request)) {
            no_candidate++;
            continue;
        }
        bool *before = &said[request][candidate][kind];
        (*(*before ? &repeated : &counted))++;
        *before = true;
    }
    ct_calibration_stats_get(c, &stats);
    assert_int_equal(stats.counted, counted);
    assert_int_equal(stats.repeated, repeated);
    assert_int_equal(stats.unknown, no_candidate);
    assert_int_equal(stats.exposures, REQUESTS);
    assert_int_equal(stats.fallen + stats.waiting, 0);
    assert_int_equal(stats.series_count, MODELS * ARMS);
    uint64_t clicks = 0;
    for (size_t s = 0; s < stats.series_count; s++) {
        ct_calibration_series got;
        ct_calibration_series_get(c, s, &got);
        assert_string_equal(got.model, s % MODELS ? "text" : "id");
        assert_string_equal(got.arm, s / MODELS ? "new" : "");
        for (size_t b = 0; b < CT_SCORE_BUCKETS; b++) {
            uint64_t shown = 0, clicked = 0;
            double predicted = 0;
            for (size_t request = s; request < REQUESTS; request += MODELS * ARMS)
                for (size_t i = 0; i < candidates_of(request); i++) {
                    const double score = (double)score_of(request, i);
                    if ((b > 0 && score <= bounds[b - 1]) || (b + 1 < CT_SCORE_BUCKETS && score > bounds[b])) continue;
                    shown += said[request][i][CT_FEEDBACK_SHOWN];
                    clicked += said[request][i][CT_FEEDBACK_SHOWN] && said[request][i][CT_FEEDBACK_CLICK];
                    if (said[request][i][CT_FEEDBACK_SHOWN]) predicted += score;
                }
            assert_int_equal(got.shown[b], shown);
            assert_int_equal(got.clicks[b], clicked);
            assert_true(got.predicted[b] > predicted - 1e-9 && got.predicted[b] < predicted + 1e-9);
            clicks += clicked;
        }
    }
    assert_in_range(clicks, 300, counted);
    ct_calibration_destroy(c);
}

static uint64_t unknown_of(ct_calibration *c) {
    ct_calibration_stats stats;
    ct_calibration_stats_get(c, &stats);
    return stats.unknown + stats.waiting;
}

/* The oldest go, and only those: of 4 KiB at least half is taken by the newest. */
static void what_is_old_falls_out(void **state) {
    (void)state;
    enum { BYTES = 4096 };
    ct_calibration *c = create(BYTES);
    ct_calibration_stats stats;
    size_t bytes = 0, known = 0;
    float large[BYTES / 2] = {0};
    for (size_t request = 0; request < REQUESTS; request++) {
        expose(c, request);
        const uint64_t before = unknown_of(c);
        say(c, request, 0, CT_FEEDBACK_SHOWN); /* the newest is always there */
        assert_int_equal(unknown_of(c), before);
    }
    ct_calibration_stats_get(c, &stats);
    assert_int_equal(stats.exposures + stats.fallen, REQUESTS);
    bool there = true;
    for (size_t request = REQUESTS; request-- > 0;) { /* newest first: known ones, then none */
        const uint64_t before = unknown_of(c);
        say(c, request, 0, CT_FEEDBACK_CLICK);
        const bool is = unknown_of(c) == before;
        assert_true(there || !is);
        there = is;
        if (!is) continue;
        known++;
        bytes += (24 + 5 * candidates_of(request) + 7) / 8 * 8;
    }
    assert_int_equal(known, stats.exposures);
    assert_in_range(bytes, BYTES - 2 * 72, BYTES);
    ct_calibration_expose(c, "large", "id", "", large, BYTES / 2); /* fits nowhere, and drives nobody out */
    ct_calibration_stats_get(c, &stats);
    assert_int_equal(stats.exposures, known);
    ct_calibration_destroy(c);
}

/* An id that comes again means the newer request; events of requests that never come are forgotten in the end. */
static void ids_and_strangers(void **state) {
    (void)state;
    ct_calibration *c = create(1 << 16);
    ct_calibration_stats stats;
    ct_calibration_series series;
    ct_calibration_expose(c, "twice", "id", "", (const float[]){0.25f}, 1);
    ct_calibration_expose(c, "twice", "id", "", (const float[]){0.75f, 0.5f}, 2);
    ct_calibration_feedback(c, "twice", 5, 0, CT_FEEDBACK_SHOWN);
    ct_calibration_series_get(c, 0, &series);
    double predicted = 0;
    for (size_t b = 0; b < CT_SCORE_BUCKETS; b++) predicted += series.predicted[b];
    assert_true(predicted == 0.75);
    for (size_t i = 0; i < CT_CALIBRATION_EARLY + 100; i++) say(c, i, 0, CT_FEEDBACK_SHOWN);
    ct_calibration_stats_get(c, &stats);
    assert_int_equal(stats.waiting, CT_CALIBRATION_EARLY);
    assert_int_equal(stats.unknown, 100);
    expose(c, 99); /* forgotten */
    expose(c, 100);
    ct_calibration_stats_get(c, &stats);
    assert_int_equal(stats.waiting, CT_CALIBRATION_EARLY - 1);
    assert_int_equal(stats.counted, 2);
    char model[16];
    for (size_t i = 0; i < CT_CALIBRATION_SERIES + 5; i++) { /* names without end */
        (void)snprintf(model, sizeof model, "model-%zu", i);
        ct_calibration_expose(c, model, model, "", (const float[]){0.5f}, 1);
    }
    ct_calibration_stats_get(c, &stats);
    assert_int_equal(stats.series_count, CT_CALIBRATION_SERIES);
    ct_calibration_destroy(c);
    ct_calibration_expose(NULL, "a", "b", "", NULL, 1); /* nobody asked for it */
    ct_calibration_feedback(NULL, "a", 1, 0, CT_FEEDBACK_CLICK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_candidate_counts_once), cmocka_unit_test(what_is_old_falls_out),
                                       cmocka_unit_test(ids_and_strangers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
