/* Synth: a click log with a planted truth, in the layout of the built-in `criteo` schema (label, 13 numbers, 26 hex tokens, tab-separated),
 * so that every command can be tried and tested without anybody's data. C1 is the user (the unit), C2 the item; the rest are context and
 * candidate features with power-law frequencies.
 *
 * Truth: click ~ Bernoulli(sigmoid(z)), z = bias + effects of ids + effects of numbers + pairs (products of latent factors of two id
 * features) + appeal of the item. The item's appeal is sqrt(content) * <u, vector> + sqrt(1 - content) * own, both of unit variance, so
 * `content_share` of its variance is explained by the vector. Effects of rare values are near zero, so that the best log loss is in reach
 * of a model that saw a few 100,000 rows. Items have a birth row: `new_item_share` of them appear over time (log-uniform between row 1,000
 * and 12 million), and a fifth of `new_item_share` of the rows shows an item born in the last fifth of the rows so far; so a later part
 * holds items that an earlier part lacks, however long the log is. Everything is a pure function of (seed, row), with no libm: the same
 * bytes on any machine, and the first N rows of a longer log are the shorter log. */
#ifndef DATA_SYNTH_H
#define DATA_SYNTH_H

#include <stdatomic.h>

#include "base/status.h"

typedef struct ct_synth_options {
    int64_t rows;             /* default 100,000 */
    uint64_t seed;            /* default 1 */
    const char *path;         /* .gz = compressed; "-" = standard output */
    const char *vectors_path; /* NULL = none; else PATH (.npy) and its ids beside it (PATH with .txt for .npy) */
    const char *schema_path;  /* NULL = none; else a schema with sides, unit, item and its vector (file names relative to it) */
    uint32_t items;           /* item vocabulary; default 2,000 */
    uint32_t users;           /* default 5,000 */
    uint32_t vocabulary;      /* largest of the other 24 features; they go down from it geometrically; default 10,000 */
    uint32_t vector_dim;      /* default 16 */
    int64_t tail;             /* 0 (the default), or: the 14 id features without effect draw by a power law from so many values (the largest
                                 of them; synth_tail.c), at most 4 billion. All other columns stay the same. */
    double tail_slope;        /* of that law; default 1.05, as in Criteo's logs; 0 = uniform, and all 14 equally large */
    double rate;              /* click rate aimed at; default 0.25 */
    double pairs_share;       /* 0..1: share of the variance of z that comes from pairs; default 0.3 */
    double item_share;        /* share of the variance of z that is the item's appeal; default 0.3 */
    double content_share;     /* 0..1: of the item's appeal, explained by its vector; default 0.8 */
    double new_item_share;    /* 0..1: items born after the first row; default 0.3 */
    double signal;            /* standard deviation of z; default 1.5 */
    const atomic_bool *stop;  /* may be NULL */
} ct_synth_options;
void ct_synth_options_init(ct_synth_options *options);

/* What the best possible model (it knows the true probability of each row) reaches on these very rows. */
typedef struct ct_synth_truth {
    int64_t rows, clicks;
    double best_auc, best_log_loss;                                   /* of the true probabilities against the drawn labels */
    double constant_log_loss;                                         /* of the log's own click rate */
    double tail_best_auc, tail_best_log_loss, tail_constant_log_loss; /* of the last fifth of the rows: what an evaluation sees; the
                                                                         constant is the click rate of the first four fifths */
} ct_synth_truth;

CT_MUST_CHECK ct_code ct_synth_write(const ct_synth_options *options, ct_synth_truth *out_truth, ct_status *status);

/* True probabilities of consecutive rows, for tests and for reports by slice; pure. `out_probability`, `out_item_birth` (may be NULL):
 * (rows); an item's birth is the row at which it appeared. Each call builds the planted model (some 40 ms). CT_INVALID where an option is
 * wrong. */
CT_MUST_CHECK ct_code ct_synth_probabilities(const ct_synth_options *options, int64_t first_row, size_t rows, double *out_probability,
                                             int64_t *out_item_birth, ct_status *status);

#endif
