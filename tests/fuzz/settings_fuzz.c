/* What people write in YAML beside schemas: the first byte chooses a model file, a --set, an arms file or an experiment file; the text
 * follows. It is refused with a message that names it, or read into what keeps its promises: a model file comes out as the same text again,
 * the arms and a live experiment's shares are in range. */
#include <jansson.h>
#include <math.h>

#include "experiment/arms.h"
#include "experiment/assign/assign.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "settings_fuzz";

enum { MODEL, SET, ARMS, EXPERIMENT, KINDS };
static const char path[] = "fuzz.yaml";

/* One line of UTF-8 for people, which begins with where the fault is. */
static void check_refusal(ct_code code, const ct_status *status, const char *where) {
    FUZZ_MUST(code == CT_INVALID || code == CT_USAGE || code == CT_NOT_FOUND);
    FUZZ_MUST(strncmp(status->message, where, strlen(where)) == 0);
    json_t *text = json_string(status->message);
    FUZZ_MUST(text != NULL);
    json_decref(text);
    for (const char *c = status->message; *c != '\0'; c++) FUZZ_MUST((unsigned char)*c >= ' ' && *c != 0x7f);
}

/* What stands in a model folder is what was meant. */
static void check_spec(const ct_model_spec *spec) {
    ct_status status = CT_STATUS_INIT;
    ct_model_spec *again = NULL;
    FUZZ_MUST(spec->embedding_dim >= 1 && spec->min_count >= 1 && spec->deep_count <= CT_SPEC_MAX_DEEP);
    FUZZ_MUST(isfinite(spec->learning_rate) && isfinite(spec->initial_accumulator) && isfinite(spec->schedule_rows));
    char *text = ct_model_spec_text(spec);
    FUZZ_MUST(text != NULL);
    const ct_code code = ct_model_spec_parse(text, strlen(text), path, &again, &status);
    if (code != CT_OK) (void)fprintf(stderr, "%s\n%s\n", text, status.message);
    FUZZ_MUST(code == CT_OK);
    char *text_again = ct_model_spec_text(again);
    FUZZ_MUST(text_again != NULL && strcmp(text, text_again) == 0 && again->feature_count == spec->feature_count);
    for (size_t i = 0; i < spec->feature_count; i++) FUZZ_MUST(strcmp(spec->features[i], again->features[i]) == 0);
    free(text);
    free(text_again);
    ct_model_spec_destroy(again);
}

static void read_model(const char *text, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_model_spec *spec = NULL;
    const ct_code code = ct_model_spec_parse(text, bytes, path, &spec, &status);
    if (code != CT_OK) {
        check_refusal(code, &status, path);
        return;
    }
    check_spec(spec);
    ct_model_spec_destroy(spec);
}

static void read_set(const char *text, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_model_spec *spec = NULL;
    char *assignment = strndup(text, bytes);
    FUZZ_MUST(assignment != NULL && ct_model_spec_load("dcn-v2", NULL, 0, &spec, &status) == CT_OK);
    const ct_code code = ct_model_spec_set(spec, assignment, &status);
    if (code == CT_OK)
        check_spec(spec);
    else
        check_refusal(code, &status, "--set ");
    ct_model_spec_destroy(spec);
    free(assignment);
}

static void read_arms(const char *text, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_arms *arms = NULL;
    ct_code code = ct_arms_parse(text, bytes, path, &arms, &status);
    if (code != CT_OK) {
        check_refusal(code, &status, path);
        return;
    }
    const size_t count = ct_arms_count(arms);
    FUZZ_MUST(count >= 2 && count <= CT_ARMS_MAX && ct_arms_slice_count(arms) <= CT_ARMS_MAX_SLICES);
    for (size_t i = 0; i < ct_arms_slice_count(arms); i++) FUZZ_MUST(ct_arms_slice(arms, i)[0] != '\0');
    for (size_t i = 0; i < count; i++) {
        ct_model_spec *spec = NULL;
        FUZZ_MUST(ct_arms_of(arms, i) < count && strlen(ct_arms_name(arms, i)) <= CT_ARM_NAME_MAX_BYTES);
        FUZZ_MUST((ct_arms_kind(arms, i) == CT_ARM_OWN) == (ct_arms_of(arms, i) == i));
        code = ct_arms_spec(arms, i, &spec, &status);
        if (code == CT_OK)
            check_spec(spec);
        else
            check_refusal(code, &status, path);
        ct_model_spec_destroy(spec);
    }
    ct_arms_destroy(arms);
}

static void read_experiment(const char *text, size_t bytes) {
    enum { UNITS = 200 };
    ct_status status = CT_STATUS_INIT;
    ct_experiment *experiment = NULL;
    const ct_code code = ct_experiment_parse(text, bytes, path, &experiment, &status);
    if (code != CT_OK) {
        check_refusal(code, &status, path);
        return;
    }
    const size_t count = ct_experiment_arm_count(experiment);
    double all = 0.0;
    FUZZ_MUST(count >= 2 && count <= CT_ASSIGN_MAX_ARMS && ct_experiment_control(experiment) < count);
    for (size_t i = 0; i < count; i++) {
        const char *name = ct_experiment_arm_name(experiment, i);
        FUZZ_MUST(ct_experiment_find_arm(experiment, name, strlen(name)) == i && ct_experiment_arm_model(experiment, i)[0] != '\0');
        all += ct_experiment_arm_weight(experiment, i);
    }
    FUZZ_MUST(all > 0.0 && isfinite(all));
    const double holdout = ct_experiment_holdout(experiment), ramp = ct_experiment_ramp(experiment);
    FUZZ_MUST(holdout >= 0.0 && holdout <= 100.0 && ramp >= 0.0 && ramp <= 100.0);
    for (uint32_t unit = 0; unit < UNITS; unit++) {
        const ct_assignment a = ct_assign(experiment, (const char *)&unit, sizeof unit);
        FUZZ_MUST(a.arm < count && (a.how == CT_ASSIGN_FORCED || a.how == CT_ASSIGN_DRAWN || a.arm == ct_experiment_control(experiment)));
        FUZZ_MUST(a.how != CT_ASSIGN_DRAWN || ct_experiment_arm_weight(experiment, a.arm) > 0.0);
    }
    FUZZ_MUST(ct_experiment_check_change(experiment, experiment, &status) == CT_OK);
    ct_experiment_destroy(experiment);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static void (*const readers[KINDS])(const char *, size_t) = {read_model, read_set, read_arms, read_experiment};
    if (bytes > 0) readers[data[0] % KINDS]((const char *)data + 1, bytes - 1);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const char *const models[] = {"lr", "fm", "dnn", "deepfm", "dcn-v2", "dlrm"}; /* each as we write it into a folder */
    static const fuzz_text seeds[] = {
        {MODEL, "features: [a, \"b \\\"c\\\\\", 'd''e', &f f]\nexclude: [*f]\nvector: {adapter: [64, 16]}\n"},
        {MODEL, "features: [\"tab\\tnewline\\nbell\\a\\0\\x9b\\u2028end\", \" blanks  \"]\n"},
        {MODEL,
         "model: deepfm\nembedding:\n  dim: 8\n  optimizer: adam\n  precision: fp16\n  admission: filter\n  expire_days: 3\nprecision: "
         "bf16\n"},
        {SET, "cross.layers=2"},
        {SET, "deep=[500,500]"},
        {SET, "embedding.learning_rate=1e-3"},
        {SET, "embedding={dim: 4, target_stats: true}"},
        {ARMS,
         "model: dcn-v2\nset: [\"deep=[64,32]\"]\nitem: C2\nslices: [C5, I1]\narms:\n  - {name: id, exclude: [item_vector]}\n"
         "  - {name: id+vector, model: lr, set: [\"vector.adapter=16\"], features: [a, b]}\n  - {name: shuffled, placebo: id+vector}\n"
         "  - {name: id again, again: id}\n"},
        {ARMS, "arms: [{name: a, model: dnn}, {name: b, model: other.yaml}]\n"},
        {EXPERIMENT,
         "name: ranker\nsalt: ranker-1\ncontrol: old\nholdout: 5\nramp: 20.5\narms:\n  - {name: old, weight: 50, model: old}\n"
         "  - {name: new, weight: 1e2, model: new}\nforced:\n  - {unit: \"alice\", arm: new}\n  - {unit: bob, arm: old}\n"},
        {EXPERIMENT, "name: e\narms: [&a {name: a}, {name: b, weight: 0}, {name: c, weight: 1e-3}]\n"},
    };
    enum { MODELS = sizeof models / sizeof *models, COUNT = sizeof seeds / sizeof *seeds };
    if (index >= MODELS + COUNT) return 0;
    if (index >= MODELS) return fuzz_put_text(&seeds[index - MODELS], out);
    ct_status status = CT_STATUS_INIT;
    ct_model_spec *spec = NULL;
    FUZZ_MUST(ct_model_spec_load(models[index], NULL, 0, &spec, &status) == CT_OK);
    char *text = ct_model_spec_text(spec);
    FUZZ_MUST(text != NULL);
    const size_t bytes = fuzz_put_text(&(const fuzz_text){MODEL, text}, out);
    free(text);
    ct_model_spec_destroy(spec);
    return bytes;
}
