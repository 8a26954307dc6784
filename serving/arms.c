/* Which arm of the running experiment a request sees, and so which model scores it. */
#include <string.h>

#include "serving/server_internal.h"

const ct_served_model *ct_model_set_named(const ct_model_set *set, const char *name, size_t bytes) {
    for (size_t i = 0; i < set->model_count; i++) {
        const ct_served_model *model = &set->models[i];
        if (strlen(model->name) == bytes && memcmp(model->name, name, bytes) == 0) return model;
    }
    return NULL;
}

ct_code ct_model_set_run(ct_model_set *set, const ct_experiment *experiment, ct_status *status) {
    if (!experiment) return CT_OK;
    for (size_t a = 0; a < ct_experiment_arm_count(experiment); a++) {
        const char *model = ct_experiment_arm_model(experiment, a);
        set->arm_models[a] = ct_model_set_named(set, model, strlen(model));
    }
    const size_t control = ct_experiment_control(experiment);
    if (!set->arm_models[control])
        return ct_fail(status, CT_INVALID, "experiment '%s': its control '%s' needs the model '%s', which is not served",
                       ct_experiment_name(experiment), ct_experiment_arm_name(experiment, control),
                       ct_experiment_arm_model(experiment, control));
    set->experiment = experiment;
    /* A client does not know which arm its request will see, so it brings what any of them needs. */
    for (size_t a = 0; a < ct_experiment_arm_count(experiment); a++)
        for (size_t b = 0; b < ct_experiment_arm_count(experiment); b++)
            if (a != b && set->arm_models[a] && set->arm_models[b])
                ct_decoder_also_knows(set->arm_models[a]->decoder, set->arm_models[b]->decoder);
    return CT_OK;
}

/* The request names an arm. */
static ct_code choose_named(const ct_model_set *set, const Clicktower__V1__ScoreRequest *request, ct_assignment *out, ct_status *status) {
    char shown[80];
    const char *arm = (const char *)request->arm.data;
    if (request->model.len)
        return ct_fail(status, CT_INVALID, "arm \"%s\" beside a model: a request names one of them",
                       ct_text_show(arm, request->arm.len, shown, sizeof shown));
    if (!set->experiment)
        return ct_fail(status, CT_INVALID, "arm \"%s\": no experiment runs here", ct_text_show(arm, request->arm.len, shown, sizeof shown));
    if (!ct_assign_outside(set->experiment, arm, request->arm.len, out))
        return ct_fail(status, CT_INVALID, "arm \"%s\": experiment '%s' has no such arm; its control is '%s'",
                       ct_text_show(arm, request->arm.len, shown, sizeof shown), ct_experiment_name(set->experiment),
                       ct_experiment_arm_name(set->experiment, ct_experiment_control(set->experiment)));
    return CT_OK;
}

ct_code ct_model_set_choose(const ct_model_set *set, const Clicktower__V1__ScoreRequest *request, ct_arm_choice *out_choice,
                            ct_status *status) {
    const ct_experiment *experiment = set->experiment;
    ct_arm_choice choice = {.how = CT_ASSIGN_NONE};
    if (request->arm.len == 0 && (!experiment || request->model.len)) {
        CT_TRY(ct_model_set_find(set, request, &choice.model, status));
        *out_choice = choice;
        return CT_OK;
    }
    ct_assignment assigned = {experiment ? ct_experiment_control(experiment) : 0, CT_ASSIGN_NONE};
    if (request->arm.len)
        CT_TRY(choose_named(set, request, &assigned, status));
    else if (request->unit.len)
        assigned = ct_assign(experiment, (const char *)request->unit.data, request->unit.len);
    choice.in_experiment = true;
    choice.meant = choice.arm = assigned.arm;
    choice.how = assigned.how;
    if (!set->arm_models[choice.arm]) {
        choice.arm = ct_experiment_control(experiment);
        choice.how = CT_ASSIGN_FALLBACK;
    }
    choice.model = set->arm_models[choice.arm];
    *out_choice = choice;
    return CT_OK;
}

void ct_model_set_count(ct_model_set *set, const ct_arm_choice *choice, bool failed) {
    if (!choice->in_experiment) return;
    set->arm_counts[choice->arm].requests[choice->how]++;
    set->arm_counts[choice->arm].failures += failed;
}

static bool same_arms(const ct_experiment *a, const ct_experiment *b) {
    if (!a || !b || strcmp(ct_experiment_name(a), ct_experiment_name(b)) != 0) return false;
    const size_t arms = ct_experiment_arm_count(a);
    if (arms != ct_experiment_arm_count(b)) return false;
    for (size_t i = 0; i < arms; i++)
        if (strcmp(ct_experiment_arm_name(a, i), ct_experiment_arm_name(b, i)) != 0) return false;
    return true;
}

void ct_model_set_move_counts(ct_model_set *set, ct_model_set *from) {
    if (!same_arms(set->experiment, from->experiment)) return;
    for (size_t a = 0; a < CT_ASSIGN_MAX_ARMS; a++) {
        for (size_t h = 0; h < CT_ASSIGN_HOWS; h++) set->arm_counts[a].requests[h] += from->arm_counts[a].requests[h];
        set->arm_counts[a].failures += from->arm_counts[a].failures;
        from->arm_counts[a] = (ct_arm_counts){0};
    }
}
