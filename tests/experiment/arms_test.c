#include "experiment/arms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

static void test_whole_file(void **state) {
    (void)state;
    static const char text[] =
        "model: dnn\n"
        "set: [\"deep=[64,32]\", \"embedding.dim=8\"]\n"
        "item: C2\n"
        "slices: [C5, I1]\n"
        "arms:\n"
        "  - {name: id, exclude: [item_vector]}\n"
        "  - {name: id+vector, model: dcn-v2, set: [\"embedding.dim=4\", \"vector.adapter=3\"], features: [C1, item_vector]}\n"
        "  - {name: \"b\\u00e4rbel\"}\n"
        "  - {name: shuffled, placebo: id+vector}\n"
        "  - {name: id again, again: id}\n";
    ct_status status = CT_STATUS_INIT;
    ct_arms *arms = NULL;
    ct_model_spec *spec = NULL;
    assert_int_equal(ct_arms_parse(text, strlen(text), "arms.yaml", &arms, &status), CT_OK);
    assert_int_equal(ct_arms_count(arms), 5);
    assert_string_equal(ct_arms_item(arms), "C2");
    assert_string_equal(ct_arms_name(arms, 0), "id");
    assert_string_equal(ct_arms_name(arms, 1), "id+vector");
    assert_string_equal(ct_arms_name(arms, 2), "b\xc3\xa4rbel");

    assert_int_equal(ct_arms_spec(arms, 0, &spec, &status), CT_OK);
    assert_int_equal(spec->architecture, CT_ARCHITECTURE_DNN);
    assert_int_equal(spec->deep_count, 2);
    assert_int_equal(spec->deep[1], 32);
    assert_int_equal(spec->embedding_dim, 8);
    assert_null(spec->features);
    assert_int_equal(spec->exclude_count, 1);
    assert_string_equal(spec->exclude[0], "item_vector");
    ct_model_spec_destroy(spec);

    /* An arm's own settings come after the file's. */
    assert_int_equal(ct_arms_spec(arms, 1, &spec, &status), CT_OK);
    assert_int_equal(spec->architecture, CT_ARCHITECTURE_DCN_V2);
    assert_int_equal(spec->deep[0], 64);
    assert_int_equal(spec->embedding_dim, 4);
    assert_int_equal(spec->vector_adapter, 3);
    assert_int_equal(spec->feature_count, 2);
    assert_string_equal(spec->features[1], "item_vector");
    assert_int_equal(spec->exclude_count, 0);
    ct_model_spec_destroy(spec);

    /* Arms that repeat another one have its settings. */
    assert_int_equal(ct_arms_kind(arms, 1), CT_ARM_OWN);
    assert_int_equal(ct_arms_of(arms, 1), 1);
    assert_int_equal(ct_arms_kind(arms, 3), CT_ARM_PLACEBO);
    assert_int_equal(ct_arms_of(arms, 3), 1);
    assert_int_equal(ct_arms_kind(arms, 4), CT_ARM_AGAIN);
    assert_int_equal(ct_arms_of(arms, 4), 0);
    assert_int_equal(ct_arms_spec(arms, 3, &spec, &status), CT_OK);
    assert_int_equal(spec->vector_adapter, 3);
    ct_model_spec_destroy(spec);
    assert_int_equal(ct_arms_slice_count(arms), 2);
    assert_string_equal(ct_arms_slice(arms, 1), "I1");
    ct_arms_destroy(arms);
    ct_arms_destroy(NULL);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *words[3];
    } cases[] = {
        {"", {"arms.yaml"}},
        {"model: [\n", {"arms.yaml"}},
        {"model: dnn\n", {"arms.yaml", "arms"}},
        {"model: dnn\narms: [{name: a}]\n", {"arms.yaml", "arms"}},                                /* one arm */
        {"model: dnn\narms: [{name: a}, {name: a}]\n", {"arms.yaml", "'a'", "differ"}},            /* the same name */
        {"model: dnn\narms: [{name: a}, {model: lr}]\n", {"arms.yaml", "name"}},                   /* no name */
        {"model: dnn\narms: [{name: a}, {name: \"\"}]\n", {"arms.yaml", "name"}},                  /* an empty one */
        {"model: dnn\narms: [{name: a}, {name: \"b\\nc\"}]\n", {"arms.yaml", "control"}},          /* a newline in it */
        {"model: dnn\narms:\n  - {name: a}\n  - {name: b, sett: [x]}\n", {"arms.yaml:4", "sett"}}, /* unknown key, with its line */
        {"model: dnn\narms: [{name: a}, {name: b, features: []}]\n", {"arms.yaml", "features"}},
        {"model: lr\narms: [{name: a}, {name: b, placebo: c}]\n", {"'b'", "placebo", "no arm 'c'"}},
        {"model: lr\narms: [{name: a}, {name: b, again: a, set: [x]}]\n", {"'b'", "again: a", "nothing else"}},
        {"model: lr\narms: [{name: a}, {name: b, again: a, placebo: a}]\n", {"'b'", "nothing else"}},
        {"model: lr\narms: [{name: a}, {name: b, again: a}, {name: c, again: b}]\n", {"'c'", "'b' repeats another one"}},
        {"model: lr\narms: [{name: a}, {name: b, again: b}]\n", {"'b'", "repeats another one"}},
        {"arms: [{name: a, model: lr}, {name: b}]\n", {"arms.yaml", "'b'", "model"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_status status = CT_STATUS_INIT;
        ct_arms *arms = NULL;
        const ct_code code = ct_arms_parse(cases[i].text, strlen(cases[i].text), "arms.yaml", &arms, &status);
        printf("%zu: %s\n", i, status.message);
        assert_int_equal(code, CT_INVALID);
        assert_null(arms);
        for (size_t w = 0; w < 3 && cases[i].words[w] != NULL; w++) assert_non_null(strstr(status.message, cases[i].words[w]));
    }
    ct_status status = CT_STATUS_INIT;
    ct_arms *arms = NULL;
    assert_int_equal(ct_arms_load("/nowhere/arms.yaml", &arms, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, "/nowhere/arms.yaml"));
}

static void test_faults_of_one_arm(void **state) {
    (void)state;
    static const char text[] =
        "model: dnn\n"
        "arms:\n"
        "  - {name: fine}\n"
        "  - {name: wrong set, set: [\"deeep=[3]\"]}\n"
        "  - {name: no file, model: absent.yaml}\n";
    ct_status status = CT_STATUS_INIT;
    ct_arms *arms = NULL;
    ct_model_spec *spec = NULL;
    assert_int_equal(ct_arms_parse(text, strlen(text), "folder/arms.yaml", &arms, &status), CT_OK);
    assert_int_equal(ct_arms_spec(arms, 0, &spec, &status), CT_OK);
    ct_model_spec_destroy(spec);
    spec = NULL;
    assert_int_equal(ct_arms_spec(arms, 1, &spec, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "folder/arms.yaml: arm 'wrong set'"));
    assert_non_null(strstr(status.message, "deeep"));
    assert_int_equal(ct_arms_spec(arms, 2, &spec, &status), CT_NOT_FOUND);
    assert_non_null(strstr(status.message, "arm 'no file'"));
    assert_null(spec);
    ct_arms_destroy(arms);
}

static void test_model_file_beside(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    const char *temporary = getenv("TEST_TMPDIR");
    char folder[512], path[600], model[600], built_in[600];
    snprintf(folder, sizeof folder, "%s/arms_test_XXXXXX", temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/arms.yaml", folder);
    snprintf(model, sizeof model, "%s/small.yaml", folder);
    snprintf(built_in, sizeof built_in, "%s/fm", folder); /* of no consequence */
    assert_int_equal(ct_file_write(built_in, "model: lr\n", 10, &status), CT_OK);
    static const char small[] = "model: dcn-v2\ncross: {layers: 2}\n",
                      text[] = "arms: [{name: a, model: small.yaml}, {name: b, model: fm}]\n";
    assert_int_equal(ct_file_write(model, small, strlen(small), &status), CT_OK);
    assert_int_equal(ct_file_write(path, text, strlen(text), &status), CT_OK);
    ct_arms *arms = NULL;
    ct_model_spec *spec = NULL;
    assert_int_equal(ct_arms_load(path, &arms, &status), CT_OK);
    assert_null(ct_arms_item(arms));
    assert_int_equal(ct_arms_spec(arms, 0, &spec, &status), CT_OK);
    assert_int_equal(spec->cross_layers, 2);
    ct_model_spec_destroy(spec);
    assert_int_equal(ct_arms_spec(arms, 1, &spec, &status), CT_OK);
    assert_int_equal(spec->architecture, CT_ARCHITECTURE_FM);
    ct_model_spec_destroy(spec);
    ct_arms_destroy(arms);
    assert_int_equal(ct_folder_remove(folder, &status), CT_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_file),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_faults_of_one_arm),
        cmocka_unit_test(test_model_file_beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
