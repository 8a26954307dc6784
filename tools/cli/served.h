/* The model folders of `clicktower serve`, and what becomes of them while it runs. A DIR is a model folder, or a folder of versions:
 * numbered model folders, of which the highest one that is complete is served. A thread of its own looks at folders of versions again and
 * again, reads every folder (the tokens and the certificate, too) again on SIGHUP, and logs what the server refused. */
#ifndef TOOLS_CLI_SERVED_H
#define TOOLS_CLI_SERVED_H

#include "base/pool.h"
#include "serving/admin.h"
#include "tools/cli/access.h"
#include "tools/cli/options.h"

typedef struct ct_served ct_served;
/* A folder in which something was written less long ago may still be in the making: what does not fit in it is "not yet", not "broken". */
enum { CT_SETTLED_SECONDS = 3 };
typedef struct ct_served_sources {
    const ct_text_list *models;  /* "[NAME=]DIR" */
    const ct_text_list *follows; /* the same, publish folders: of the model of that name, or of one more that begins with the newest base */
    uint64_t memory_bytes;       /* of the rows of each model; 0 = no limit */
    const char *scratch;         /* a folder for what deltas change beyond it; NULL = none */
    const char *experiment;      /* a file's name; NULL = none */
    /* Models are opened by ct_model_open_early; once started, the thread opens each as it would have been opened here, and has the server
     * answer with that. Not with follows. */
    bool early;
} ct_served_sources;
/* Opens every model. CT_USAGE where two have one name; where a folder of versions holds none that can be served, the status says why. A
 * model that only arms of the experiment need, not its control, may be missing, unless it follows: the log says so, and it is looked for
 * again as the others are. Texts are the caller's and must live on; the pool must outlive it. */
CT_MUST_CHECK ct_code ct_served_open(const ct_served_sources *sources, ct_pool *pool, ct_served **out_served, ct_status *status);
void ct_served_close(ct_served *served); /* after the server; NULL is fine */
/* Those that are there. */
const ct_server_model *ct_served_models(const ct_served *served, size_t *out_count);
const ct_experiment *ct_served_experiment(const ct_served *served); /* NULL = none */
/* Logs a line for each model, and for the experiment and its arms: version, rows, and a warning where its scores may differ from those of
 * training. */
void ct_served_log(const ct_served *served);

typedef struct ct_served_options {
    ct_server *server;
    ct_admin *admin;         /* NULL = none; must outlive ct_served_stop */
    double look_seconds;     /* at folders of versions */
    ct_access_files files;   /* read again on SIGHUP */
    ct_exposures *exposures; /* NULL = none; and so the next */
    ct_feedback *feedback;
} ct_served_options;
/* SIGHUP must be blocked in all threads (ct_served_block_signals, before any is made). */
CT_MUST_CHECK ct_code ct_served_start(ct_served *served, const ct_served_options *options, ct_status *status);
void ct_served_stop(ct_served *served); /* before the server stops; not started is fine */
/* After it: why the thread has asked for the program's end (ct_stop_ask); CT_OK = it has not. */
CT_MUST_CHECK ct_code ct_served_failure(const ct_served *served, ct_status *status);
void ct_served_block_signals(void);

#endif
