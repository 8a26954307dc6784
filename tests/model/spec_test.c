/* Model files and --set: defaults, order, refusals that name what is wrong, and the text that a folder keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "model/spec.h"

static ct_model_spec *load(const char *name, const char *const *sets, size_t count) {
    ct_model_spec *spec = NULL;
    ct_status status = CT_STATUS_INIT;
    if (ct_model_spec_load(name, sets, count, &spec, &status) != CT_OK) fail_msg("%s", status.message);
    return spec;
}

static ct_model_spec *parse(const char *text) {
    ct_model_spec *spec = NULL;
    ct_status status = CT_STATUS_INIT;
    if (ct_model_spec_parse(text, strlen(text), "m.yaml", &spec, &status) != CT_OK) fail_msg("%s", status.message);
    return spec;
}

static void built_in_models_have_defaults(void **state) {
    (void)state;
    ct_model_spec *lr = load("lr", NULL, 0), *dnn = load("dnn", NULL, 0), *dcn = load("dcn-v2", NULL, 0);
    assert_int_equal(lr->architecture, CT_ARCHITECTURE_LR);
    assert_int_equal(lr->deep_count, 0);
    assert_int_equal(dnn->architecture, CT_ARCHITECTURE_DNN);
    assert_int_equal(dnn->cross_layers, 0);
    assert_true(dnn->deep_count > 0);
    assert_int_equal(dcn->architecture, CT_ARCHITECTURE_DCN_V2);
    assert_true(dcn->cross_layers > 0);
    assert_null(dcn->features);
    ct_model_spec_destroy(lr);
    ct_model_spec_destroy(dnn);
    ct_model_spec_destroy(dcn);
}

/* --- docs/file-formats.md: a block with every key of dcn-v2, and a table of what others have instead --- */

static char *docs_path;

static void assert_is_default(const char *name, ct_model_spec *spec) {
    ct_model_spec *defaults = load(name, NULL, 0);
    char *expected = ct_model_spec_text(defaults), *text = ct_model_spec_text(spec);
    assert_string_equal(text, expected);
    free(expected);
    free(text);
    ct_model_spec_destroy(defaults);
    ct_model_spec_destroy(spec);
}

/* The block's text for another model, without what only dcn-v2 has. */
static char *common_part(const char *block, const char *name) {
    char *out = malloc(strlen(block) + 64), *end = out + sprintf(out, "model: %s\n", name);
    for (const char *line = block, *next; *line != '\0'; line = next) {
        next = strchr(line, '\n') + 1;
        if (strncmp(line, "model:", 6) == 0 || strncmp(line, "cross:", 6) == 0) continue;
        if (strncmp(line, "deep:", 5) == 0 && (strcmp(name, "lr") == 0 || strcmp(name, "fm") == 0)) continue;
        memcpy(end, line, (size_t)(next - line));
        end += next - line;
    }
    *end = '\0';
    return out;
}

/* The values between backquotes of a line. */
static void apply_row(ct_model_spec *spec, const char *row) {
    const char *end = strchr(row, '\n');
    for (const char *open = strchr(row, '`'); open != NULL && open < end;) {
        const char *close = strchr(open + 1, '`');
        char set[128];
        ct_status status = CT_STATUS_INIT;
        assert_in_range(close - open, 2, sizeof set - 1);
        snprintf(set, sizeof set, "%.*s", (int)(close - open - 1), open + 1);
        if (ct_model_spec_set(spec, set, &status) != CT_OK) fail_msg("%s", status.message);
        open = strchr(close + 1, '`');
    }
}

/* Every key that a model's file has stands in the docs, with its default. */
static void the_docs_give_the_defaults(void **state) {
    (void)state;
    char *docs = NULL;
    size_t bytes = 0;
    ct_status status = CT_STATUS_INIT;
    if (ct_file_read(docs_path, 1 << 20, &docs, &bytes, &status) != CT_OK) fail_msg("%s", status.message);
    const char *begin = strstr(docs, "model: dcn-v2\n");
    assert_non_null(begin);
    char *block = strndup(begin, (size_t)(strstr(begin, "```") - begin));
    assert_is_default("dcn-v2", parse(block));
    ct_model_spec *dcn = load("dcn-v2", NULL, 0);
    char *text = ct_model_spec_text(dcn);
    for (const char *colon = strchr(text, ':'); colon != NULL; colon = strchr(colon + 1, ':')) { /* a key stands before each colon */
        char key[64];
        size_t length = 0;
        while (colon - text > (ptrdiff_t)length && strchr("\n{ ", colon[-1 - (ptrdiff_t)length]) == NULL) length++;
        snprintf(key, sizeof key, "%.*s:", (int)length, colon - length);
        if (strstr(block, key) == NULL) fail_msg("%s does not stand in the block of %s", key, docs_path);
    }
    const char *others[] = {"lr", "fm", "dnn", "deepfm", "dlrm"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *common = common_part(block, others[i]), row[32];
        snprintf(row, sizeof row, "| `%s` |", others[i]);
        const char *found = strstr(begin, row);
        if (found == NULL) fail_msg("no row %s in %s", row, docs_path);
        ct_model_spec *spec = parse(common);
        apply_row(spec, found + strlen(row));
        assert_is_default(others[i], spec);
        free(common);
    }
    free(text);
    ct_model_spec_destroy(dcn);
    free(block);
    free(docs);
}

static void sets_are_applied_in_order(void **state) {
    (void)state;
    const char *sets[] = {"embedding.dim=8", "embedding.dim=24", "deep=[500,500,500]", "cross.layers=2", "optimizer.learning_rate=0.01",
                          "precision=fp32"};
    ct_model_spec *spec = load("dcn-v2", sets, sizeof sets / sizeof *sets);
    assert_int_equal(spec->embedding_dim, 24);
    assert_int_equal(spec->deep_count, 3);
    assert_int_equal(spec->deep[2], 500);
    assert_int_equal(spec->cross_layers, 2);
    assert_true(spec->learning_rate == 0.01f);
    assert_int_equal(spec->precision, CT_PRECISION_FP32);
    ct_model_spec_destroy(spec);
}

static void booleans_are_true_or_false(void **state) {
    (void)state;
    for (int buckets = 0; buckets < 2; buckets++)
        for (int flag = 0; flag < 2; flag++) {
            const char *sets[] = {buckets ? "numbers.buckets=true" : "numbers.buckets=false",
                                  flag ? "numbers.missing_flag=true" : "numbers.missing_flag=false"};
            ct_model_spec *spec = load("lr", sets, 2);
            char *text = ct_model_spec_text(spec);
            ct_model_spec *again = parse(text);
            assert_int_equal(spec->number_buckets, buckets);
            assert_int_equal(spec->number_flags, flag);
            assert_int_equal(again->number_buckets, buckets);
            assert_int_equal(again->number_flags, flag);
            free(text);
            ct_model_spec_destroy(spec);
            ct_model_spec_destroy(again);
        }
}

static void a_file_changes_only_what_it_names(void **state) {
    (void)state;
    ct_model_spec *defaults = load("dnn", NULL, 0);
    ct_model_spec *spec = parse("model: dnn\nembedding:\n  min_count: 7\nfeatures: [a, b]\nexclude: [b]\n");
    assert_int_equal(spec->min_count, 7);
    assert_int_equal(spec->embedding_dim, defaults->embedding_dim);
    assert_int_equal(spec->deep_count, defaults->deep_count);
    assert_int_equal(spec->feature_count, 2);
    assert_string_equal(spec->features[1], "b");
    assert_int_equal(spec->exclude_count, 1);
    ct_model_spec_destroy(spec);
    ct_model_spec_destroy(defaults);
}

static void the_text_gives_the_spec_back(void **state) {
    (void)state;
    const char *models[] = {"lr", "fm", "dnn", "deepfm", "dcn-v2", "dlrm"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        const char *sets[] = {"embedding.learning_rate=0.0123", "optimizer.epsilon=1e-7", "embedding.id_drop=0.1", "vector.adapter=3",
                              "embedding.optimizer=adam",       "embedding.l2=1e-4",      "optimizer.l2=3e-4",     "average.power=2.5",
                              "schedule.rows=123456789",        "dropout=0.125",          "layer_norm=true"};
        ct_model_spec *spec = load(models[i], sets, sizeof sets / sizeof *sets);
        ct_status status = CT_STATUS_INIT;
        const char *names[] = {"x \"quoted\" \\ name", "y"};
        assert_int_equal(ct_model_spec_choose(spec, names, 2, names, 1, &status), CT_OK);
        char *text = ct_model_spec_text(spec);
        assert_non_null(text);
        ct_model_spec *again = parse(text);
        char *text_again = ct_model_spec_text(again);
        assert_string_equal(text, text_again);
        assert_string_equal(again->features[0], names[0]);
        assert_true(again->embedding_learning_rate == 0.0123f);
        assert_true(again->id_drop == 0.1);
        assert_int_equal(again->row_optimiser, CT_ROW_ADAM);
        assert_true(again->row_l2 == 1e-4f && again->l2 == 3e-4f && again->average_power == 2.5f && again->dropout == 0.125f);
        assert_true(again->schedule_rows == 123456789 && again->layer_norm);
        free(text);
        free(text_again);
        ct_model_spec_destroy(spec);
        ct_model_spec_destroy(again);
    }
}

static void an_adapter_has_one_layer_or_two(void **state) {
    (void)state;
    const char *sets[] = {"vector.adapter=[64,12]"};
    ct_model_spec *two = load("dnn", sets, 1), *one = parse("model: dnn\nvector: {adapter: [5]}\n"),
                  *plain = parse("vector:\n  adapter: 7\n");
    assert_int_equal(two->vector_hidden, 64);
    assert_int_equal(two->vector_adapter, 12);
    assert_int_equal(one->vector_hidden, 0);
    assert_int_equal(one->vector_adapter, 5);
    assert_int_equal(plain->vector_hidden, 0);
    assert_int_equal(plain->vector_adapter, 7);
    char *text = ct_model_spec_text(two);
    ct_model_spec *again = parse(text);
    assert_int_equal(again->vector_hidden, 64);
    assert_int_equal(again->vector_adapter, 12);
    ct_status status = CT_STATUS_INIT;
    assert_int_equal(ct_model_spec_set(two, "vector.adapter=9", &status), CT_OK); /* one layer again */
    assert_int_equal(two->vector_hidden, 0);
    free(text);
    ct_model_spec_destroy(again);
    ct_model_spec_destroy(two);
    ct_model_spec_destroy(one);
    ct_model_spec_destroy(plain);
}

/* Whatever characters they have: a folder's model.yaml is read again. */
static void names_come_back_from_the_text(void **state) {
    (void)state;
    static const char *const names[] = {"\"quoted\" \\ '",
                                        " blanks  ",
                                        "Gr\xc3\xb6\xc3\x9f"
                                        "e",
                                        "tab\t line\n end\r bell\a",
                                        "next line \xc2\x85",
                                        "control \xc2\x9b",
                                        "\xe2\x80\xa8 and \xe2\x80\xa9",
                                        "\xef\xbb\xbf first",
                                        "\xef\xbf\xbe\xef\xbf\xbf",
                                        "delete \x7f",
                                        "\xf0\x9f\x98\x80",
                                        "- a: &b #c"};
    enum { NAMES = sizeof names / sizeof *names };
    ct_status status = CT_STATUS_INIT;
    ct_model_spec *spec = NULL, *again = NULL;
    assert_int_equal(ct_model_spec_load("dnn", NULL, 0, &spec, &status), CT_OK);
    assert_int_equal(ct_model_spec_choose(spec, names, NAMES, NULL, 0, &status), CT_OK);
    char *text = ct_model_spec_text(spec);
    if (ct_model_spec_parse(text, strlen(text), "m.yaml", &again, &status) != CT_OK) fail_msg("%s\n%s", status.message, text);
    assert_int_equal(again->feature_count, NAMES);
    for (size_t i = 0; i < NAMES; i++) assert_string_equal(again->features[i], names[i]);
    assert_non_null(strstr(text,
                           "\"Gr\xc3\xb6\xc3\x9f"
                           "e\"")); /* as people write it */
    free(text);
    ct_model_spec_destroy(spec);
    ct_model_spec_destroy(again);
}

typedef struct refusal {
    const char *model, *text, *set; /* a file's text, or a built-in and a --set */
    const char *words[3];           /* the message holds each */
} refusal;

static void wrong_input_is_refused_by_name(void **state) {
    (void)state;
    static const refusal refusals[] = {
        {NULL, "model: dcn-v2\ncross:\n  layers: many\n", NULL, {"m.yaml:3", "layers", "many"}},
        {NULL, "model: dcn-v3\n", NULL, {"m.yaml", "dcn-v3", "dcn-v2"}},
        {NULL, "model: lr\nwidth: 3\n", NULL, {"m.yaml", "width", NULL}},
        {NULL, "", NULL, {"m.yaml", "empty", NULL}},
        {NULL, "deep: [10, 0]\n", NULL, {"m.yaml", "deep", "0"}},
        {NULL, "model: dnn\ndeep: []\n", NULL, {"m.yaml", "deep", NULL}},
        {NULL, "model: [lr\n", NULL, {"m.yaml:", NULL, NULL}},
        {NULL, "model: lr\nmodel: dnn\n", NULL, {"m.yaml:", "model", NULL}},
        {"lr", NULL, "deep=[4]", {"--set deep=[4]", "lr", NULL}},
        {"dnn", NULL, "cross.layers=2", {"--set cross.layers=2", "dcn-v2", NULL}},
        {"fm", NULL, "deep=[4]", {"--set deep=[4]", "fm", NULL}},
        {"deepfm", NULL, "bottom=[4]", {"--set bottom=[4]", "dlrm", NULL}},
        {"dnn", NULL, "cross.rank=2", {"cross.rank", "2", NULL}},
        {"dnn", NULL, "dropout=1", {"dropout", "1", NULL}},
        {"dnn", NULL, "average.power=-1", {"average.power", "-1", NULL}},
        {"dnn", NULL, "schedule.rows=-1", {"schedule.rows", "-1", NULL}},
        {"dnn", NULL, "embedding.optimizer=ftrl", {"embedding.optimizer", "ftrl", "adagrad_rowwise"}},
        {"dcn-v2", NULL, "cross.layers=0", {"--set cross.layers=0", "dcn-v2", NULL}},
        {"dnn", NULL, "embedding.dim=0", {"embedding.dim", "0", "1024"}},
        {"fm", NULL, "embedding.dim=1", {"--set embedding.dim=1", "fm", "2 or more"}},
        {"dnn", NULL, "embedding.dim=-1", {"embedding.dim=-1", "dim", NULL}},
        {"dnn", NULL, "embedding.id_drop=1", {"id_drop", "1", NULL}},
        {"dnn", NULL, "embedding.initial_accumulator=0", {"initial_accumulator", "0", NULL}},
        {"dnn", NULL, "optimizer.learning_rate=nan", {"learning_rate", NULL, NULL}},
        {"dnn", NULL, "embedding.dim", {"PATH=VALUE", NULL, NULL}},
        {"dnn", NULL, "=3", {"PATH=VALUE", NULL, NULL}},
        {"dnn", NULL, "embedding.size=3", {"size", NULL, NULL}},
        {"dnn", NULL, "embedding.dim=16x", {"--set embedding.dim=16x: field", "dim", "16x"}},
        {"dnn", NULL, "embedding.dim=1_000", {"dim", "1_000", NULL}},
        {"dnn", NULL, "embedding.min_count=2.5", {"min_count", "2.5", NULL}},
        {"dnn", NULL, "embedding.min_count=4294967297", {"min_count", "4294967297", NULL}},
        {"dnn", NULL, "deep=[4e2]", {"deep", "4e2", NULL}},
        {"dnn", NULL, "optimizer.learning_rate=0.01.5", {"learning_rate", "0.01.5", NULL}},
        {"dnn", NULL, "optimizer.learning_rate=1e-3,", {"learning_rate", NULL, NULL}},
        {"dnn", NULL, "embedding.id_drop=5%", {"id_drop", "5%", NULL}},
        {"dnn", NULL, "numbers.buckets=flase", {"--set numbers.buckets=flase", "buckets", "flase"}},
        {"dnn", NULL, "numbers.missing_flag=off", {"--set numbers.missing_flag=off", "missing_flag", "off"}},
        {"dnn", NULL, "vector.adapter=[1,2,3]", {"--set vector.adapter=[1,2,3]", "adapter", NULL}},
        {"dnn", NULL, "vector.adapter=[]", {"adapter", NULL, NULL}},
        {"dnn", NULL, "vector.adapter=[0,16]", {"vector.adapter", "0", "1024"}},
        {"dnn", NULL, "vector.adapter=[16,x]", {"adapter", "x", NULL}},
        {NULL, "vector:\n  adapter: [4, 0]\n", NULL, {"m.yaml", "vector.adapter", "0"}},
        {"dnn", NULL, "optimizer.epsilon=1e-60", {"optimizer.epsilon", "1e-60", "above 0"}}, /* 0 as a float */
        {"dnn", NULL, "embedding.beta2=0.999999999999", {"embedding.beta2", "less than 1", "float"}},
        {NULL, "features: [\"a\\0b\"]\n", NULL, {"m.yaml:1", "a\\x00b", "NUL"}},
        {"no-such-model", NULL, NULL, {"no-such-model", "dcn-v2", NULL}},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const refusal *r = &refusals[i];
        ct_model_spec *spec = NULL;
        ct_status status = CT_STATUS_INIT;
        const ct_code code = r->text != NULL ? ct_model_spec_parse(r->text, strlen(r->text), "m.yaml", &spec, &status)
                                             : ct_model_spec_load(r->model, &r->set, r->set != NULL, &spec, &status);
        if (code == CT_OK) fail_msg("case %zu was accepted", i);
        assert_null(spec);
        for (size_t w = 0; w < 3 && r->words[w] != NULL; w++)
            if (strstr(status.message, r->words[w]) == NULL) fail_msg("case %zu: '%s' is not in '%s'", i, r->words[w], status.message);
    }
}

int main(int argc, char **argv) {
    docs_path = argc > 1 ? argv[1] : "docs/file-formats.md";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_models_have_defaults),     cmocka_unit_test(the_docs_give_the_defaults),
        cmocka_unit_test(sets_are_applied_in_order),         cmocka_unit_test(booleans_are_true_or_false),
        cmocka_unit_test(a_file_changes_only_what_it_names), cmocka_unit_test(the_text_gives_the_spec_back),
        cmocka_unit_test(an_adapter_has_one_layer_or_two),   cmocka_unit_test(wrong_input_is_refused_by_name),
        cmocka_unit_test(names_come_back_from_the_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
