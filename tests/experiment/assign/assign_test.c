/* Assignment: against buckets counted from xxHash itself, against the chi-square distribution, and through ramps. */
#include "experiment/assign/assign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "experiment/statistics.h"

enum { UNITS = 100000 };

static ct_experiment *parse(const char *text) {
    ct_status status = CT_STATUS_INIT;
    ct_experiment *experiment = NULL;
    const ct_code code = ct_experiment_parse(text, strlen(text), "experiment.yaml", &experiment, &status);
    if (code != CT_OK) printf("%s\n", status.message);
    assert_int_equal(code, CT_OK);
    return experiment;
}

static ct_assignment assign(const ct_experiment *experiment, size_t unit) {
    char text[32];
    return ct_assign(experiment, text, (size_t)snprintf(text, sizeof text, "user-%zu", unit));
}

static const char whole[] =
    "name: ranker\n"
    "salt: ranker-1\n"
    "control: old\n"
    "holdout: 10\n"
    "ramp: 50\n"
    "arms:\n"
    "  - {name: new, weight: 20, model: model-b}\n"
    "  - {name: old, weight: 60}\n"
    "  - {name: other, weight: 20}\n"
    "forced: [{unit: zoe, arm: other}, {unit: alice, arm: new}, {unit: al, arm: other}]\n";

static void test_buckets(void **state) {
    (void)state;
    ct_experiment *e = parse(whole);
    assert_string_equal(ct_experiment_name(e), "ranker");
    assert_int_equal(ct_experiment_arm_count(e), 3);
    assert_int_equal(ct_experiment_control(e), 1);
    assert_string_equal(ct_experiment_arm_model(e, 0), "model-b");
    assert_string_equal(ct_experiment_arm_model(e, 1), "old");
    assert_true(ct_experiment_arm_weight(e, 1) == 60);
    const uint64_t part_seed = XXH3_64bits("ranker-1", 8), arm_seed = XXH3_64bits_withSeed("ranker-1", 8, 1);
    for (size_t unit = 0; unit < UNITS; unit++) {
        char text[32];
        const size_t bytes = (size_t)snprintf(text, sizeof text, "user-%zu", unit);
        const uint64_t part = XXH3_64bits_withSeed(text, bytes, part_seed) % 10000,
                       arm = XXH3_64bits_withSeed(text, bytes, arm_seed) % 10000;
        const ct_assignment got = ct_assign(e, text, bytes);
        const ct_assign_how how = part >= 9000 ? CT_ASSIGN_HELD_OUT : part >= 4500 ? CT_ASSIGN_WAITING : CT_ASSIGN_DRAWN;
        assert_int_equal(got.how, how);
        assert_int_equal(got.arm, how != CT_ASSIGN_DRAWN ? 1 : arm < 2000 ? 0 : arm < 8000 ? 1 : 2);
    }
    /* Forced units, by their whole text. */
    assert_int_equal(ct_assign(e, "alice", 5).how, CT_ASSIGN_FORCED);
    assert_int_equal(ct_assign(e, "alice", 5).arm, 0);
    assert_int_equal(ct_assign(e, "zoe", 3).arm, 2);
    assert_int_equal(ct_assign(e, "al", 2).arm, 2);
    assert_int_not_equal(ct_assign(e, "alic", 4).how, CT_ASSIGN_FORCED);
    assert_int_not_equal(ct_assign(e, "alice2", 6).how, CT_ASSIGN_FORCED);
    ct_assignment outside;
    assert_true(ct_assign_outside(e, "other", 5, &outside));
    assert_true(outside.arm == 2 && outside.how == CT_ASSIGN_OUTSIDE);
    assert_false(ct_assign_outside(e, "othe", 4, &outside));
    assert_string_equal(ct_assign_how_name(CT_ASSIGN_HELD_OUT), "holdout");
    assert_string_equal(ct_assign_how_name(CT_ASSIGN_NONE), "none");
    ct_experiment_destroy(e);
    ct_experiment_destroy(NULL);
}

/* Shares as the weights say; another salt is independent of the first; taking part is independent of the arm. */
static void test_shares(void **state) {
    (void)state;
    ct_experiment *e = parse("name: a\nramp: 30\narms: [{name: x, weight: 1}, {name: y, weight: 3}]\n");
    ct_experiment *other = parse("name: b\narms: [{name: x}, {name: y}]\n");
    double arms[2] = {0}, parts[2] = {0}, pairs[4] = {0};
    for (size_t unit = 0; unit < UNITS; unit++) {
        const ct_assignment first = assign(e, unit), second = assign(other, unit);
        parts[first.how == CT_ASSIGN_DRAWN]++;
        if (first.how != CT_ASSIGN_DRAWN) continue;
        arms[first.arm]++;
        pairs[2 * first.arm + second.arm]++;
    }
    /* A right split has a p below 0.001 once in 1,000; these units are fixed. */
    assert_true(ct_sample_ratio_p(arms, (const double[]){1, 3}, 2) > CT_MISMATCH_P);
    assert_true(ct_sample_ratio_p(parts, (const double[]){70, 30}, 2) > CT_MISMATCH_P);
    assert_true(ct_sample_ratio_p(pairs, (const double[]){1, 1, 3, 3}, 4) > CT_MISMATCH_P);
    ct_experiment_destroy(e);
    ct_experiment_destroy(other);
}

/* From 1 % to 100 %: who takes part goes on doing so, in the same arm; who is held out never takes part. */
static void test_ramp(void **state) {
    (void)state;
    static const int ramps[] = {0, 1, 5, 20, 50, 100};
    static signed char arm_of[UNITS];
    memset(arm_of, -1, sizeof arm_of);
    size_t before = 0;
    ct_experiment *last = NULL;
    for (size_t r = 0; r < sizeof ramps / sizeof *ramps; r++) {
        ct_status status = CT_STATUS_INIT;
        char text[256];
        (void)snprintf(text, sizeof text, "name: a\nholdout: 5\nramp: %d\narms: [{name: x}, {name: y}, {name: z}]\n", ramps[r]);
        ct_experiment *e = parse(text);
        size_t drawn = 0, held = 0;
        for (size_t unit = 0; unit < UNITS; unit++) {
            const ct_assignment got = assign(e, unit);
            held += got.how == CT_ASSIGN_HELD_OUT;
            if (got.how != CT_ASSIGN_DRAWN) {
                assert_int_equal(arm_of[unit], -1); /* nobody goes back */
                assert_int_equal(got.arm, 0);
                continue;
            }
            drawn++;
            if (arm_of[unit] >= 0) assert_int_equal(arm_of[unit], got.arm);
            arm_of[unit] = (signed char)got.arm;
        }
        assert_true(r == 0 ? drawn == 0 : drawn > before);
        assert_in_range(held, UNITS * 47 / 1000, UNITS * 53 / 1000);
        if (ramps[r] == 100) assert_int_equal(drawn + held, UNITS);
        before = drawn;
        if (last != NULL) assert_int_equal(ct_experiment_check_change(last, e, &status), CT_OK);
        if (last != NULL) assert_int_equal(ct_experiment_check_change(e, last, &status), CT_INVALID); /* shrinking */
        ct_experiment_destroy(last);
        last = e;
    }
    ct_experiment_destroy(last);
}

static void test_changes(void **state) {
    (void)state;
    static const char now[] = "name: a\nholdout: 5\narms: [{name: x}, {name: y}]\n";
    static const char *const changes[][2] = {
        {"name: a\nholdout: 5\narms: [{name: x, weight: 2}, {name: y}]\n", "weight of arm 'x'"},
        {"name: a\nholdout: 5\narms: [{name: y}, {name: x}]\n", "arm 1 was 'x'"},
        {"name: a\nholdout: 5\narms: [{name: x}, {name: y}, {name: z}]\n", "2 arms become 3"},
        {"name: a\nholdout: 6\narms: [{name: x}, {name: y}]\n", "hold-out"},
        {"name: a\nholdout: 5\ncontrol: y\narms: [{name: x}, {name: y}]\n", "the control"},
        {"name: a\nholdout: 5\nramp: 99\narms: [{name: x}, {name: y}]\n", "ramp shrinks from 100 to 99 percent"},
        {"name: a\nholdout: 5\narms: [{name: x, weight: 7}, {name: y, weight: 7, model: m}]\nforced: [{unit: u, arm: x}]\n", NULL},
        {"name: a\nsalt: b\narms: [{name: z}, {name: y}]\n", NULL},
    };
    ct_experiment *first = parse(now);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_experiment *next = parse(changes[i][0]);
        const ct_code code = ct_experiment_check_change(first, next, &status);
        assert_int_equal(code, changes[i][1] == NULL ? CT_OK : CT_INVALID);
        if (changes[i][1] != NULL) assert_non_null(strstr(status.message, changes[i][1]));
        ct_experiment_destroy(next);
    }
    ct_experiment_destroy(first);
}

static void test_refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"arms: [{name: x}, {name: y}]\n", "name"},
        {"name: a\narms: [{name: x}]\n", "arms"},
        {"name: a\narms: [{name: x}, {name: x}]\n", "two arms are named 'x'"},
        {"name: a\narms: [{name: x}, {name: \"y\\n\"}]\n", "control character"},
        {"name: a\narms: [{name: x, weight: -1}, {name: y}]\n", "weight is -1"},
        {"name: a\narms: [{name: x, weight: 0}, {name: y, weight: 0}]\n", "weight 0"},
        {"name: a\narms: [{name: x, weight: 1}, {name: y, weight: 1000000}]\n", "less than one of 10000 buckets"},
        {"name: a\nholdout: 101\narms: [{name: x}, {name: y}]\n", "holdout is 101"},
        {"name: a\nramp: -5\narms: [{name: x}, {name: y}]\n", "ramp is -5"},
        {"name: a\ncontrol: z\narms: [{name: x}, {name: y}]\n", "no arm 'z'"},
        {"name: a\narms: [{name: x}, {name: y}]\nforced: [{unit: u, arm: z}]\n", "unit 'u': there is no arm 'z'"},
        {"name: a\narms: [{name: x}, {name: y}]\nforced: [{unit: u, arm: x}, {unit: u, arm: y}]\n", "'u' stands there twice"},
        {"name: a\nsalty: b\narms: [{name: x}, {name: y}]\n", "salty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_experiment *e = NULL;
        assert_int_equal(ct_experiment_parse(cases[i][0], strlen(cases[i][0]), "experiment.yaml", &e, &status), CT_INVALID);
        printf("%s\n", status.message);
        assert_null(e);
        assert_non_null(strstr(status.message, "experiment.yaml"));
        assert_non_null(strstr(status.message, cases[i][1]));
    }
    ct_status status = CT_STATUS_INIT;
    ct_experiment *e = NULL;
    assert_int_equal(ct_experiment_load("/nowhere.yaml", &e, &status), CT_NOT_FOUND);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_buckets), cmocka_unit_test(test_shares), cmocka_unit_test(test_ramp),
                                       cmocka_unit_test(test_changes), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
