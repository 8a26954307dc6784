/* Assignment: which arm of a live experiment a unit (a user) sees. A pure function of the experiment file and the unit's text: no state,
 * the same on every server.
 *
 *     name: ranker
 *     salt: ranker-1               # default: the name; another salt deals all units anew
 *     control: old                 # default: the first arm
 *     holdout: 5                   # percent of the units that stay out for good and see the control; default 0
 *     ramp: 20                     # percent of the others that take part now; the rest sees the control; default 100
 *     arms:                        # 2 to 16
 *       - {name: old, weight: 50, model: old}      # weight: default 1; model: default the arm's name
 *       - {name: new, weight: 50, model: new}
 *     forced:                      # testers; they count nowhere
 *       - {unit: "alice", arm: new}
 *
 * A unit has two buckets of 0 .. 9,999: XXH3 of its text, seeded by XXH3 of the salt with seed 0 and with seed 1, modulo 10,000. The first
 * says whether it takes part: the last holdout * 100 buckets are held out, and the first (100 - holdout) * ramp buckets take part. The
 * second says its arm, by the weights in the order of the arms. So a larger ramp only adds units, and moves none from one arm to another.
 */
#ifndef EXPERIMENT_ASSIGN_ASSIGN_H
#define EXPERIMENT_ASSIGN_ASSIGN_H

#include "base/status.h"

enum { CT_ASSIGN_BUCKETS = 10000, CT_ASSIGN_MAX_ARMS = 16, CT_ASSIGN_NAME_MAX_BYTES = 64 };

typedef enum ct_assign_how {
    CT_ASSIGN_DRAWN,    /* "bucket": takes part: the only one that a report compares */
    CT_ASSIGN_WAITING,  /* "ramp": beyond the ramp: sees the control */
    CT_ASSIGN_HELD_OUT, /* "holdout": sees the control */
    CT_ASSIGN_FORCED,   /* "forced": a tester */
    CT_ASSIGN_OUTSIDE,  /* "outside": another system chose the arm */
    /* a server's, never of the functions below */
    CT_ASSIGN_FALLBACK, /* "fallback": the model of the arm is not there: sees the control */
    CT_ASSIGN_NONE,     /* "none": no unit, or no experiment: sees the control */
    CT_ASSIGN_HOWS
} ct_assign_how;
const char *ct_assign_how_name(ct_assign_how how); /* as above: what answers and exposures say */

typedef struct ct_assignment {
    size_t arm;
    ct_assign_how how;
} ct_assignment;

/* Immutable once loaded: many threads may use it. */
typedef struct ct_experiment ct_experiment;
/* CT_INVALID names file, line and field at fault. */
CT_MUST_CHECK ct_code ct_experiment_load(const char *path, ct_experiment **out_experiment, ct_status *status);
/* From text; `path` is for messages. */
CT_MUST_CHECK ct_code ct_experiment_parse(const char *text, size_t bytes, const char *path, ct_experiment **out_experiment,
                                          ct_status *status);
void ct_experiment_destroy(ct_experiment *experiment); /* NULL is fine */

const char *ct_experiment_name(const ct_experiment *experiment);
size_t ct_experiment_arm_count(const ct_experiment *experiment);
const char *ct_experiment_arm_name(const ct_experiment *experiment, size_t arm);
const char *ct_experiment_arm_model(const ct_experiment *experiment, size_t arm);
double ct_experiment_arm_weight(const ct_experiment *experiment, size_t arm); /* as in the file */
size_t ct_experiment_control(const ct_experiment *experiment);
double ct_experiment_holdout(const ct_experiment *experiment); /* percent */
double ct_experiment_ramp(const ct_experiment *experiment);    /* percent */
/* The arm of that name, or the number of arms. */
size_t ct_experiment_find_arm(const ct_experiment *experiment, const char *name, size_t bytes);

/* No allocation. `unit` may be any bytes; an empty one is a unit like others, so callers refuse it where it means "unknown". */
ct_assignment ct_assign(const ct_experiment *experiment, const char *unit, size_t bytes);
/* The arm that a request brings; false where there is no such arm. */
bool ct_assign_outside(const ct_experiment *experiment, const char *arm, size_t bytes, ct_assignment *out_assignment);

/* May `next` take the place of `now` without moving a unit from one arm to another? With equal salts: the arms' names, order and weights,
 * the control and the hold-out must be the same, and the ramp must not shrink. CT_INVALID says what would move units. */
CT_MUST_CHECK ct_code ct_experiment_check_change(const ct_experiment *now, const ct_experiment *next, ct_status *status);

#endif
