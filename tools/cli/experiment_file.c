#include "tools/cli/experiment_file.h"

#include <string.h>

#include "base/log.h"

ct_code ct_experiment_file_open(const char *path, ct_experiment_file *out_file, ct_status *status) {
    ct_experiment_file file = {.path = path};
    if (path) CT_TRY(ct_experiment_load(path, &file.now, status));
    *out_file = file;
    return CT_OK;
}

void ct_experiment_file_close(ct_experiment_file *file) {
    ct_experiment_destroy(file->now);
    *file = (ct_experiment_file){0};
}

bool ct_experiment_file_can_spare(const ct_experiment_file *file, const char *model) {
    const ct_experiment *e = file->now;
    if (!e || strcmp(ct_experiment_arm_model(e, ct_experiment_control(e)), model) == 0) return false;
    for (size_t a = 0; a < ct_experiment_arm_count(e); a++)
        if (strcmp(ct_experiment_arm_model(e, a), model) == 0) return true;
    return false;
}

static bool is_served(const ct_server_model *models, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (models[i].model && strcmp(models[i].name, name) == 0) return true;
    return false;
}

static ct_code load_next(const ct_experiment_file *file, const ct_server_model *models, size_t count, ct_experiment **out_next,
                         ct_status *status) {
    ct_experiment *next = NULL;
    CT_TRY(ct_experiment_load(file->path, &next, status));
    ct_code code = ct_experiment_check_change(file->now, next, status);
    if (code != CT_OK) (void)ct_fail_within(status, "%s", file->path);
    const char *control = ct_experiment_arm_model(next, ct_experiment_control(next));
    if (code == CT_OK && !is_served(models, count, control))
        code = ct_fail(status, CT_INVALID, "%s: the control's model '%s' is not served", file->path, control);
    if (code == CT_OK)
        *out_next = next;
    else
        ct_experiment_destroy(next);
    return code;
}

ct_experiment *ct_experiment_file_again(const ct_experiment_file *file, const ct_server_model *models, size_t model_count) {
    if (!file->path) return NULL;
    ct_status status = CT_STATUS_INIT;
    ct_experiment *next = NULL;
    if (load_next(file, models, model_count, &next, &status) == CT_OK) return next;
    char quoted[2 * CT_STATUS_MESSAGE_BYTES];
    ct_log_line(CT_LOG_ERROR, "serve.experiment", "result=refused reason=%s", ct_log_quote(status.message, quoted, sizeof quoted));
    return NULL;
}

void ct_experiment_file_take(ct_experiment_file *file, ct_experiment *next) {
    ct_experiment_destroy(file->now);
    file->now = next;
}

void ct_experiment_file_log(const ct_experiment_file *file, const ct_server_model *models, size_t model_count) {
    const ct_experiment *e = file->now;
    if (!e) return;
    char name[256], arm[256], model[256];
    const size_t arms = ct_experiment_arm_count(e), control = ct_experiment_control(e);
    ct_log_line(CT_LOG_INFO, "serve.experiment", "result=running experiment=%s arms=%zu control=%s holdout=%g ramp=%g",
                ct_log_quote(ct_experiment_name(e), name, sizeof name), arms,
                ct_log_quote(ct_experiment_arm_name(e, control), arm, sizeof arm), ct_experiment_holdout(e), ct_experiment_ramp(e));
    for (size_t a = 0; a < arms; a++) {
        const bool served = is_served(models, model_count, ct_experiment_arm_model(e, a));
        ct_log_line(served ? CT_LOG_INFO : CT_LOG_WARNING, "serve.arm", "experiment=%s arm=%s model=%s weight=%g%s", name,
                    ct_log_quote(ct_experiment_arm_name(e, a), arm, sizeof arm),
                    ct_log_quote(ct_experiment_arm_model(e, a), model, sizeof model), ct_experiment_arm_weight(e, a),
                    served ? "" : " note=\"its model is not served: the control stands in\"");
    }
}
