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
/* texts: "[NAME=]DIR". follows: the same, publish folders: of the model of that name, or of one more that begins with the newest base
 * there. memory_bytes: of the rows of each model; 0 = no limit. scratch: a folder for what deltas change beyond it; NULL = none.
 * experiment: a file's name, NULL = none. Opens every model. CT_USAGE where two have one name; where a folder of versions holds none that
 * can be served, the status says why. A model that only arms of the experiment need, not its control, may be missing, unless it follows:
 * the log says so, and it is looked for again as the others are. The pool must outlive it. */
CT_MUST_CHECK ct_code ct_served_open(const ct_text_list *texts, const ct_text_list *follows, uint64_t memory_bytes, const char *scratch,
                                     const char *experiment, ct_pool *pool, ct_served **out_served, ct_status *status);
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
void ct_served_block_signals(void);

/* Whether every file that a model folder's manifest lists is there in its whole length; *out_newest: when the last one of them changed, in
 * nanoseconds since 1970. CT_NOT_FOUND says what is missing. */
ct_code ct_served_check_complete(const char *folder, int64_t *out_newest, ct_status *status);

#endif
