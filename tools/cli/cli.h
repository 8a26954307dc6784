/* What the verbs share: how they end, what they say and where. Results go to standard output, everything else to standard error. */
#ifndef TOOLS_CLI_CLI_H
#define TOOLS_CLI_CLI_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/json.h"
#include "data/reader.h"
#include "tools/cli/options.h"
#include "trainer/metrics.h"

#define CT_VERSION "0.1.0"

/* A verb: argv[0] is its name. Its status becomes the exit code (CT_OK and CT_END 0, CT_USAGE 2, else 1) and the last line. */
typedef ct_code (*ct_verb_fn)(int argc, char **argv, ct_status *status);
ct_code ct_verb_train(int argc, char **argv, ct_status *status);
ct_code ct_verb_eval(int argc, char **argv, ct_status *status);
ct_code ct_verb_compare(int argc, char **argv, ct_status *status);
ct_code ct_verb_split(int argc, char **argv, ct_status *status);
ct_code ct_verb_quantize(int argc, char **argv, ct_status *status);
ct_code ct_verb_report(int argc, char **argv, ct_status *status);
ct_code ct_verb_join(int argc, char **argv, ct_status *status);
ct_code ct_verb_power(int argc, char **argv, ct_status *status);
ct_code ct_verb_convert(int argc, char **argv, ct_status *status);
ct_code ct_verb_synth(int argc, char **argv, ct_status *status);
ct_code ct_verb_serve(int argc, char **argv, ct_status *status);
ct_code ct_verb_score(int argc, char **argv, ct_status *status);
ct_code ct_verb_load(int argc, char **argv, ct_status *status);
ct_code ct_verb_example(int argc, char **argv, ct_status *status);
ct_code ct_verb_inspect(int argc, char **argv, ct_status *status);
ct_code ct_verb_schema(int argc, char **argv, ct_status *status);
ct_code ct_verb_devices(int argc, char **argv, ct_status *status);
ct_code ct_verb_verify(int argc, char **argv, ct_status *status);

/* --- stop.c --- */
/* From now on the first SIGINT or SIGTERM sets the flag that is returned and a second one ends the process at once with 130. To be called
 * before any other thread is made: they must not take the signals. */
const atomic_bool *ct_stop_on_signals(void);
/* Waits for that signal and returns its name; or for ct_stop_ask, and returns "none". */
const char *ct_stop_wait(void);
void ct_stop_ask(void);
/* Puts the words of somebody who was interrupted in the place of a CT_CANCELLED status; `what` says what became of the output. */
ct_code ct_stop_explain(const char *what, ct_status *status);

/* --- output.c --- */
/* "clicktower VERB: warning: ..." on standard error. */
void ct_warn(const char *verb, const char *format, ...) CT_PRINTF(2, 3);
/* Says what was wrong with the rows that were read: the first bad ones, how many by kind, unsorted times. `what`: "training", ... */
void ct_warn_report(const char *verb, const char *what, const ct_read_report *report);
/* Of the file `path` that option --`option` will write: CT_USAGE where it is one of those that are read, as it would be replaced; a failure
 * where its folder is not there or can't be written, which is told before the work. NULL and "-" are fine. */
CT_MUST_CHECK ct_code ct_check_output(const char *option, const char *path, const char *const *read, size_t read_count, ct_status *status);
/* Writes what standard output still holds; CT_IO where that fails (a full disk must not look like success). */
CT_MUST_CHECK ct_code ct_flush_results(ct_status *status);
/* JSON to a file, or to standard output for "-". */
CT_MUST_CHECK ct_code ct_json_output(const char *path, const json_t *json, ct_status *status);
/* A JSON object on standard output as lines "key value" and tables (json_text.c). */
void ct_print_object(const json_t *object);
/* "KEY VALUE" lines; the groups' lines only where there are groups. */
void ct_print_metrics(FILE *file, const ct_metrics *metrics, bool with_groups);
/* "auc 0.74 log_loss 0.45 ..." on one line, without a newline; metrics that don't exist are left out. */
void ct_print_metrics_line(FILE *file, const ct_metrics *metrics);

/* One probability a line, with enough digits to give the float back, to a file (whole or not at all) or to standard output for "-". */
typedef struct ct_predictions_file ct_predictions_file;
CT_MUST_CHECK ct_code ct_predictions_open(const char *path, ct_predictions_file **out_file, ct_status *status);
/* values: (rows, columns); columns of a row are separated by tabs. */
CT_MUST_CHECK ct_code ct_predictions_write(ct_predictions_file *file, const float *values, size_t rows, size_t columns, ct_status *status);
CT_MUST_CHECK ct_code ct_predictions_commit(ct_predictions_file *file, ct_status *status); /* frees the file in any case */
void ct_predictions_abort(ct_predictions_file *file);                                      /* NULL is fine */

#endif
