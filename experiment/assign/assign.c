#include "experiment/assign/assign.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/text.h"
#include "base/yaml.h"

enum { FILE_MAX_BYTES = 1 << 20, FORCED_MAX = 10000, UNIT_MAX_BYTES = 1024 };

typedef struct arm {
    char *name, *model;
    double *weight;
} arm;

typedef struct forced {
    char *unit, *arm;
} forced;

typedef struct experiment_file {
    char *name, *salt, *control;
    double *holdout, *ramp;
    arm *arms;
    forced *forced;
    unsigned arms_count, forced_count;
} experiment_file;

typedef struct forced_unit {
    const char *unit;
    size_t bytes, arm;
} forced_unit;

struct ct_experiment {
    experiment_file *file;
    size_t control;
    uint64_t part_seed, arm_seed;
    uint32_t part_end, held_from;         /* first buckets: [0, part_end) take part, [held_from, 10,000) are held out */
    uint32_t arm_end[CT_ASSIGN_MAX_ARMS]; /* second buckets: an arm's end */
    forced_unit *forced;                  /* (forced_count), by unit */
};

#define OPTIONAL_POINTER (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_field_t arm_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, arm, name, 1, CT_ASSIGN_NAME_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("model", OPTIONAL_POINTER, arm, model, 1, 4096), CYAML_FIELD_FLOAT_PTR("weight", OPTIONAL_POINTER, arm, weight),
    CYAML_FIELD_END};
static const cyaml_schema_value_t arm_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, arm, arm_fields)};
static const cyaml_schema_field_t forced_fields[] = {
    CYAML_FIELD_STRING_PTR("unit", CYAML_FLAG_POINTER, forced, unit, 1, UNIT_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("arm", CYAML_FLAG_POINTER, forced, arm, 1, CT_ASSIGN_NAME_MAX_BYTES), CYAML_FIELD_END};
static const cyaml_schema_value_t forced_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, forced, forced_fields)};
static const cyaml_schema_field_t file_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, experiment_file, name, 1, CT_ASSIGN_NAME_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("salt", OPTIONAL_POINTER, experiment_file, salt, 1, 256),
    CYAML_FIELD_STRING_PTR("control", OPTIONAL_POINTER, experiment_file, control, 1, CT_ASSIGN_NAME_MAX_BYTES),
    CYAML_FIELD_FLOAT_PTR("holdout", OPTIONAL_POINTER, experiment_file, holdout),
    CYAML_FIELD_FLOAT_PTR("ramp", OPTIONAL_POINTER, experiment_file, ramp),
    CYAML_FIELD_SEQUENCE("arms", CYAML_FLAG_POINTER, experiment_file, arms, &arm_value, 2, CT_ASSIGN_MAX_ARMS),
    CYAML_FIELD_SEQUENCE("forced", OPTIONAL_POINTER, experiment_file, forced, &forced_value, 0, FORCED_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t file_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, experiment_file, file_fields)};

static double weight_of(const arm *arm) { return arm->weight != NULL ? *arm->weight : 1.0; }
static const char *salt_of(const ct_experiment *e) { return e->file->salt != NULL ? e->file->salt : e->file->name; }

const char *ct_assign_how_name(ct_assign_how how) {
    static const char *const names[CT_ASSIGN_HOWS] = {"bucket", "ramp", "holdout", "forced", "outside", "fallback", "none"};
    return names[how];
}

size_t ct_experiment_find_arm(const ct_experiment *experiment, const char *name, size_t bytes) {
    const experiment_file *file = experiment->file;
    size_t i = 0;
    while (i < file->arms_count && (strlen(file->arms[i].name) != bytes || memcmp(file->arms[i].name, name, bytes) != 0)) i++;
    return i;
}

/* --- reading --- */

static ct_code percent(const double *value, double absent, const char *path, const char *field, double *out, ct_status *status) {
    *out = value != NULL ? *value : absent;
    if (*out >= 0.0 && *out <= 100.0) return CT_OK;
    return ct_fail(status, CT_INVALID, "%s: %s is %g; give percent, 0 to 100", path, field, *out);
}

static uint32_t buckets(double share) { return (uint32_t)(share * CT_ASSIGN_BUCKETS + 0.5); }

static ct_code check_arms(ct_experiment *e, const char *path, ct_status *status) {
    const experiment_file *file = e->file;
    double all = 0.0, sum = 0.0;
    for (size_t i = 0; i < file->arms_count; i++) {
        const char *name = file->arms[i].name;
        const double weight = weight_of(&file->arms[i]);
        for (const char *c = name; *c != '\0'; c++)
            if ((unsigned char)*c < ' ' || *c == 0x7f) {
                char shown[CT_ASSIGN_NAME_MAX_BYTES * 4 + 1];
                return ct_fail(status, CT_INVALID, "%s: the name of arm %zu, '%s', holds a control character", path, i + 1,
                               ct_text_show(name, strlen(name), shown, sizeof shown));
            }
        if (ct_experiment_find_arm(e, name, strlen(name)) != i)
            return ct_fail(status, CT_INVALID, "%s: two arms are named '%s'; names must differ", path, name);
        if (!(weight >= 0.0 && weight <= 1e9))
            return ct_fail(status, CT_INVALID, "%s: arm '%s': weight is %g; give a number from 0 to 1e9", path, name, weight);
        all += weight;
    }
    if (!(all > 0.0)) return ct_fail(status, CT_INVALID, "%s: all arms have the weight 0", path);
    for (size_t i = 0; i < file->arms_count; i++) {
        sum += weight_of(&file->arms[i]);
        e->arm_end[i] = i + 1 == file->arms_count ? CT_ASSIGN_BUCKETS : buckets(sum / all);
        if (weight_of(&file->arms[i]) > 0.0 && e->arm_end[i] == (i == 0 ? 0 : e->arm_end[i - 1]))
            return ct_fail(status, CT_INVALID, "%s: arm '%s': a weight of %g of %g is less than one of %d buckets", path,
                           file->arms[i].name, weight_of(&file->arms[i]), all, CT_ASSIGN_BUCKETS);
    }
    return CT_OK;
}

static int by_unit(const void *left, const void *right) {
    const forced_unit *a = left, *b = right;
    const int order = memcmp(a->unit, b->unit, a->bytes < b->bytes ? a->bytes : b->bytes);
    return order != 0 ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static ct_code check_forced(ct_experiment *e, const char *path, ct_status *status) {
    const experiment_file *file = e->file;
    e->forced = calloc(file->forced_count + 1, sizeof *e->forced);
    if (e->forced == NULL) return ct_fail_memory(status, file->forced_count * sizeof *e->forced, "the forced units");
    for (size_t i = 0; i < file->forced_count; i++) {
        const forced *one = &file->forced[i];
        e->forced[i] = (forced_unit){one->unit, strlen(one->unit), ct_experiment_find_arm(e, one->arm, strlen(one->arm))};
        if (e->forced[i].arm == file->arms_count)
            return ct_fail(status, CT_INVALID, "%s: forced: unit '%s': there is no arm '%s'", path, one->unit, one->arm);
    }
    qsort(e->forced, file->forced_count, sizeof *e->forced, by_unit);
    for (size_t i = 1; i < file->forced_count; i++)
        if (by_unit(&e->forced[i - 1], &e->forced[i]) == 0)
            return ct_fail(status, CT_INVALID, "%s: forced: unit '%s' stands there twice", path, e->forced[i].unit);
    return CT_OK;
}

static ct_code check(ct_experiment *e, const char *path, ct_status *status) {
    const experiment_file *file = e->file;
    double holdout = 0.0, ramp = 0.0;
    CT_TRY(percent(file->holdout, 0.0, path, "holdout", &holdout, status));
    CT_TRY(percent(file->ramp, 100.0, path, "ramp", &ramp, status));
    CT_TRY(check_arms(e, path, status));
    e->control = file->control == NULL ? 0 : ct_experiment_find_arm(e, file->control, strlen(file->control));
    if (e->control == file->arms_count) return ct_fail(status, CT_INVALID, "%s: control: there is no arm '%s'", path, file->control);
    e->held_from = CT_ASSIGN_BUCKETS - buckets(holdout / 100.0);
    e->part_end = (uint32_t)((double)e->held_from * ramp / 100.0 + 0.5);
    const char *salt = salt_of(e);
    e->part_seed = ct_hash64(salt, strlen(salt), 0);
    e->arm_seed = ct_hash64(salt, strlen(salt), 1);
    return check_forced(e, path, status);
}

ct_code ct_experiment_parse(const char *text, size_t bytes, const char *path, ct_experiment **out_experiment, ct_status *status) {
    void *data = NULL;
    CT_TRY(ct_yaml_load(text, bytes, path, &file_value, &data, status));
    ct_experiment *experiment = calloc(1, sizeof *experiment);
    if (experiment == NULL) {
        ct_yaml_free(&file_value, data);
        return ct_fail_memory(status, sizeof *experiment, "an experiment");
    }
    experiment->file = data;
    const ct_code code = check(experiment, path, status);
    if (code != CT_OK) {
        ct_experiment_destroy(experiment);
        return code;
    }
    *out_experiment = experiment;
    return CT_OK;
}

ct_code ct_experiment_load(const char *path, ct_experiment **out_experiment, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0;
    CT_TRY(ct_file_read(path, FILE_MAX_BYTES, &text, &bytes, status));
    const ct_code code = ct_experiment_parse(text, bytes, path, out_experiment, status);
    free(text);
    return code;
}

void ct_experiment_destroy(ct_experiment *experiment) {
    if (experiment == NULL) return;
    ct_yaml_free(&file_value, experiment->file);
    free(experiment->forced);
    free(experiment);
}

/* --- what it holds --- */

const char *ct_experiment_name(const ct_experiment *experiment) { return experiment->file->name; }
size_t ct_experiment_arm_count(const ct_experiment *experiment) { return experiment->file->arms_count; }
const char *ct_experiment_arm_name(const ct_experiment *experiment, size_t arm) { return experiment->file->arms[arm].name; }
const char *ct_experiment_arm_model(const ct_experiment *experiment, size_t arm) {
    const struct arm *of = &experiment->file->arms[arm];
    return of->model != NULL ? of->model : of->name;
}
double ct_experiment_arm_weight(const ct_experiment *experiment, size_t arm) { return weight_of(&experiment->file->arms[arm]); }
size_t ct_experiment_control(const ct_experiment *experiment) { return experiment->control; }
double ct_experiment_holdout(const ct_experiment *experiment) { return experiment->file->holdout ? *experiment->file->holdout : 0.0; }
double ct_experiment_ramp(const ct_experiment *experiment) { return experiment->file->ramp ? *experiment->file->ramp : 100.0; }

/* --- assigning --- */

ct_assignment ct_assign(const ct_experiment *e, const char *unit, size_t bytes) {
    const forced_unit wanted = {unit, bytes, 0};
    const forced_unit *forced =
        e->file->forced_count > 0 ? bsearch(&wanted, e->forced, e->file->forced_count, sizeof wanted, by_unit) : NULL;
    if (forced != NULL) return (ct_assignment){forced->arm, CT_ASSIGN_FORCED};
    const uint32_t part = (uint32_t)(ct_hash64(unit, bytes, e->part_seed) % CT_ASSIGN_BUCKETS);
    if (part >= e->held_from) return (ct_assignment){e->control, CT_ASSIGN_HELD_OUT};
    if (part >= e->part_end) return (ct_assignment){e->control, CT_ASSIGN_WAITING};
    const uint32_t bucket = (uint32_t)(ct_hash64(unit, bytes, e->arm_seed) % CT_ASSIGN_BUCKETS);
    size_t arm = 0;
    while (bucket >= e->arm_end[arm]) arm++;
    return (ct_assignment){arm, CT_ASSIGN_DRAWN};
}

bool ct_assign_outside(const ct_experiment *experiment, const char *arm, size_t bytes, ct_assignment *out_assignment) {
    const size_t found = ct_experiment_find_arm(experiment, arm, bytes);
    if (found == experiment->file->arms_count) return false;
    *out_assignment = (ct_assignment){found, CT_ASSIGN_OUTSIDE};
    return true;
}

ct_code ct_experiment_check_change(const ct_experiment *now, const ct_experiment *next, ct_status *status) {
    const char *salt = salt_of(now);
    if (strcmp(salt, salt_of(next)) != 0) return CT_OK; /* all units are dealt anew, as asked for */
    static const char advice[] = "units would move between arms; give the experiment another salt";
    const size_t arms = now->file->arms_count;
    if (arms != next->file->arms_count)
        return ct_fail(status, CT_INVALID, "salt '%s': %zu arms become %u; %s", salt, arms, next->file->arms_count, advice);
    for (size_t i = 0; i < arms; i++) {
        if (strcmp(now->file->arms[i].name, next->file->arms[i].name) != 0)
            return ct_fail(status, CT_INVALID, "salt '%s': arm %zu was '%s' and becomes '%s'; %s", salt, i + 1, now->file->arms[i].name,
                           next->file->arms[i].name, advice);
        if (now->arm_end[i] != next->arm_end[i])
            return ct_fail(status, CT_INVALID, "salt '%s': the weight of arm '%s' changes; %s, or change the ramp instead", salt,
                           now->file->arms[i].name, advice);
    }
    if (now->control != next->control) return ct_fail(status, CT_INVALID, "salt '%s': another arm becomes the control; %s", salt, advice);
    if (now->held_from != next->held_from) return ct_fail(status, CT_INVALID, "salt '%s': the hold-out changes; %s", salt, advice);
    if (next->part_end < now->part_end)
        return ct_fail(status, CT_INVALID,
                       "salt '%s': the ramp shrinks from %g to %g percent; units that took part would go back to the control; leave it, or "
                       "give the experiment another salt",
                       salt, ct_experiment_ramp(now), ct_experiment_ramp(next));
    return CT_OK;
}
