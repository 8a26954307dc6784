/* The experiment of `clicktower serve --experiment FILE`: read when the server starts and again on SIGHUP, with its lines in the log. */
#ifndef TOOLS_CLI_EXPERIMENT_FILE_H
#define TOOLS_CLI_EXPERIMENT_FILE_H

#include "experiment/assign/assign.h"
#include "serving/server.h"

typedef struct ct_experiment_file {
    const char *path;   /* NULL = there is none */
    ct_experiment *now; /* NULL without a path */
} ct_experiment_file;
CT_MUST_CHECK ct_code ct_experiment_file_open(const char *path, ct_experiment_file *out_file, ct_status *status);
void ct_experiment_file_close(ct_experiment_file *file); /* zeroed is fine */

/* May the server run without that model? It may where only arms other than the control need it: they fall to the control. */
bool ct_experiment_file_can_spare(const ct_experiment_file *file, const char *model);
/* What the file holds now, if it may take the place of what runs (no unit moves between arms, and the control's model is among those
 * served); else NULL, and the log says why. */
ct_experiment *ct_experiment_file_again(const ct_experiment_file *file, const ct_server_model *models, size_t model_count);
void ct_experiment_file_take(ct_experiment_file *file, ct_experiment *next); /* the one before is freed: nobody uses it any more */
/* A line for the experiment and one for each arm; a warning for one that falls to the control. */
void ct_experiment_file_log(const ct_experiment_file *file, const ct_server_model *models, size_t model_count);

#endif
