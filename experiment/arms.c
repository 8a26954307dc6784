#include "experiment/arms.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "base/yaml.h"

enum { FILE_MAX_BYTES = 1 << 20, MAX_SETS = 256, MAX_NAMES = 4096 };

typedef struct arm {
    char *name, *model, *placebo, *again;
    char **set, **features, **exclude;
    unsigned set_count, features_count, exclude_count;
} arm;

typedef struct arms_file {
    char *model, *item;
    char **set, **slices;
    arm *arms;
    unsigned set_count, slices_count, arms_count;
} arms_file;

struct ct_arms {
    arms_file *file;
    char *path;
};

#define OPTIONAL_POINTER (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_value_t text_value = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, 256)};
static const cyaml_schema_field_t arm_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, arm, name, 1, CT_ARM_NAME_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("model", OPTIONAL_POINTER, arm, model, 1, 4096),
    CYAML_FIELD_STRING_PTR("placebo", OPTIONAL_POINTER, arm, placebo, 1, CT_ARM_NAME_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("again", OPTIONAL_POINTER, arm, again, 1, CT_ARM_NAME_MAX_BYTES),
    CYAML_FIELD_SEQUENCE("set", OPTIONAL_POINTER, arm, set, &text_value, 0, MAX_SETS),
    CYAML_FIELD_SEQUENCE("features", OPTIONAL_POINTER, arm, features, &text_value, 1, MAX_NAMES),
    CYAML_FIELD_SEQUENCE("exclude", OPTIONAL_POINTER, arm, exclude, &text_value, 0, MAX_NAMES),
    CYAML_FIELD_END};
static const cyaml_schema_value_t arm_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, arm, arm_fields)};
static const cyaml_schema_field_t file_fields[] = {
    CYAML_FIELD_STRING_PTR("model", OPTIONAL_POINTER, arms_file, model, 1, 4096),
    CYAML_FIELD_STRING_PTR("item", OPTIONAL_POINTER, arms_file, item, 1, 256),
    CYAML_FIELD_SEQUENCE("set", OPTIONAL_POINTER, arms_file, set, &text_value, 0, MAX_SETS),
    CYAML_FIELD_SEQUENCE("slices", OPTIONAL_POINTER, arms_file, slices, &text_value, 0, CT_ARMS_MAX_SLICES),
    CYAML_FIELD_SEQUENCE("arms", CYAML_FLAG_POINTER, arms_file, arms, &arm_value, 2, CT_ARMS_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t file_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, arms_file, file_fields)};

static const char *repeated_name(const arm *arm) { return arm->placebo != NULL ? arm->placebo : arm->again; }

static size_t find_arm(const arms_file *file, const char *name) {
    size_t i = 0;
    while (i < file->arms_count && strcmp(file->arms[i].name, name) != 0) i++;
    return i;
}

/* A placebo or an A/A arm names one arm of its own kind and brings nothing. */
static ct_code check_repeated(const arms_file *file, const arm *arm, const char *path, ct_status *status) {
    const char *word = arm->placebo != NULL ? "placebo" : "again", *name = repeated_name(arm);
    if ((arm->placebo != NULL && arm->again != NULL) || arm->model != NULL || arm->set_count > 0 || arm->features_count > 0 ||
        arm->exclude_count > 0)
        return ct_fail(status, CT_INVALID, "%s: arm '%s' is '%s: %s', so it can have nothing else of its own", path, arm->name, word, name);
    const size_t of = find_arm(file, name);
    if (of == file->arms_count) return ct_fail(status, CT_INVALID, "%s: arm '%s': %s: there is no arm '%s'", path, arm->name, word, name);
    if (repeated_name(&file->arms[of]) != NULL)
        return ct_fail(status, CT_INVALID, "%s: arm '%s': %s: arm '%s' repeats another one itself; name that one", path, arm->name, word,
                       name);
    return CT_OK;
}

static ct_code check(const arms_file *file, const char *path, ct_status *status) {
    for (size_t i = 0; i < file->arms_count; i++) {
        const char *name = file->arms[i].name;
        for (const char *c = name; *c != '\0'; c++) {
            char shown[CT_ARM_NAME_MAX_BYTES * 4 + 1];
            if ((unsigned char)*c < ' ' || *c == 0x7f)
                return ct_fail(status, CT_INVALID, "%s: the name of arm %zu, '%s', holds a control character", path, i + 1,
                               ct_text_show(name, strlen(name), shown, sizeof shown));
        }
        for (size_t j = 0; j < i; j++)
            if (strcmp(name, file->arms[j].name) == 0)
                return ct_fail(status, CT_INVALID, "%s: arms %zu and %zu are both named '%s'; names must differ", path, j + 1, i + 1, name);
        if (repeated_name(&file->arms[i]) != NULL)
            CT_TRY(check_repeated(file, &file->arms[i], path, status));
        else if (file->model == NULL && file->arms[i].model == NULL)
            return ct_fail(status, CT_INVALID, "%s: arm '%s' has no model, and the file names none for all arms (add `model: dcn-v2`)",
                           path, name);
    }
    return CT_OK;
}

ct_code ct_arms_parse(const char *text, size_t bytes, const char *path, ct_arms **out_arms, ct_status *status) {
    void *data = NULL;
    ct_code code = ct_yaml_load(text, bytes, path, &file_value, &data, status);
    if (code != CT_OK) return code;
    ct_arms *arms = calloc(1, sizeof *arms);
    char *path_copy = strdup(path);
    if (arms == NULL || path_copy == NULL) {
        free(arms);
        free(path_copy);
        ct_yaml_free(&file_value, data);
        return ct_fail_memory(status, sizeof *arms, "the arms");
    }
    *arms = (ct_arms){data, path_copy};
    code = check(arms->file, path, status);
    if (code != CT_OK) {
        ct_arms_destroy(arms);
        return code;
    }
    *out_arms = arms;
    return CT_OK;
}

ct_code ct_arms_load(const char *path, ct_arms **out_arms, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0;
    CT_TRY(ct_file_read(path, FILE_MAX_BYTES, &text, &bytes, status));
    const ct_code code = ct_arms_parse(text, bytes, path, out_arms, status);
    free(text);
    return code;
}

void ct_arms_destroy(ct_arms *arms) {
    if (arms == NULL) return;
    ct_yaml_free(&file_value, arms->file);
    free(arms->path);
    free(arms);
}

size_t ct_arms_count(const ct_arms *arms) { return arms->file->arms_count; }
const char *ct_arms_name(const ct_arms *arms, size_t arm) { return arms->file->arms[arm].name; }
ct_arm_kind ct_arms_kind(const ct_arms *arms, size_t arm) {
    return arms->file->arms[arm].placebo != NULL ? CT_ARM_PLACEBO : arms->file->arms[arm].again != NULL ? CT_ARM_AGAIN : CT_ARM_OWN;
}
size_t ct_arms_of(const ct_arms *arms, size_t arm) {
    const char *name = repeated_name(&arms->file->arms[arm]);
    return name != NULL ? find_arm(arms->file, name) : arm;
}
size_t ct_arms_slice_count(const ct_arms *arms) { return arms->file->slices_count; }
const char *ct_arms_slice(const ct_arms *arms, size_t slice) { return arms->file->slices[slice]; }
const char *ct_arms_item(const ct_arms *arms) { return arms->file->item; }

/* The model file beside the arms file, where there is one, else `model` as it stands; malloc'd; NULL when out of memory. */
static char *find_model(const char *path, const char *model) {
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    char *beside = folder == NULL ? NULL : ct_path_join(folder, model);
    free(folder);
    if (beside != NULL && ct_path_exists(beside) && !ct_path_is_folder(beside)) return beside;
    free(beside);
    return strdup(model);
}

ct_code ct_arms_spec(const ct_arms *arms, size_t index, ct_model_spec **out_spec, ct_status *status) {
    const arms_file *file = arms->file;
    const arm *arm = &file->arms[ct_arms_of(arms, index)];
    ct_model_spec *spec = NULL;
    ct_code code = CT_OK;
    const char *model = arm->model != NULL ? arm->model : file->model;
    char *name = ct_model_is_built_in(model) ? strdup(model) : find_model(arms->path, model);
    if (name == NULL) return ct_fail_memory(status, strlen(model), "a model's name");
    code = ct_model_spec_load(name, (const char *const *)file->set, file->set_count, &spec, status);
    for (size_t i = 0; i < arm->set_count && code == CT_OK; i++) code = ct_model_spec_set(spec, arm->set[i], status);
    if (code == CT_OK)
        code = ct_model_spec_choose(spec, (const char *const *)arm->features, arm->features_count, (const char *const *)arm->exclude,
                                    arm->exclude_count, status);
    free(name);
    if (code != CT_OK) {
        ct_model_spec_destroy(spec);
        return ct_fail_within(status, "%s: arm '%s'", arms->path, arm->name);
    }
    *out_spec = spec;
    return CT_OK;
}
