/* Inside of synth, for data/ and its tests: the planted model as tables, and one row of it.
 *
 * Features: 13 numbers, then 26 ids (0 = C1 = user, 1 = C2 = item, 2.. = C3..C26). "Value" is a rank in a feature's vocabulary, 0 = the
 * most frequent. Odd columns (I1, I3, ..; C1, C3, ..) are context, even ones candidate. All four parts of a row's logit have mean 0 and
 * the variances that the options ask for, under the frequencies of a log in which every item is born and none is new. */
#ifndef DATA_SYNTH_INTERNAL_H
#define DATA_SYNTH_INTERNAL_H

#include "data/synth.h"

enum {
    CT_SYNTH_NUMBERS = 13,
    CT_SYNTH_IDS = 26,
    CT_SYNTH_USER = 0,
    CT_SYNTH_ITEM = 1,
    CT_SYNTH_PAIRS = 3,
    CT_SYNTH_TAILS = 14, /* id features without effect */
    CT_SYNTH_LEVELS = 512,        /* quantiles that describe a number's distribution */
    CT_SYNTH_WORDS = 48,          /* random words of a row: label 2, numbers 13, user 1, item 8, other ids 24 */
    CT_SYNTH_COLUMNS = 40,        /* of a line: label, numbers, ids */
    CT_SYNTH_LINE_MAX_BYTES = 512 /* of a line with its newline */
};

/* One column of an alias table (Walker's method: constant time for any distribution). */
typedef struct ct_synth_alias {
    uint32_t threshold; /* below: this value, else `other` */
    uint32_t other;
} ct_synth_alias;

/* synth_tail.c: a power law over values 0 .. values - 1. */
typedef struct ct_synth_tail {
    uint32_t values; /* 0 = there is none */
    uint64_t key;    /* of its tokens */
    double low, span, inverse;
} ct_synth_tail;

typedef struct ct_synth_id {
    uint32_t values;       /* with the empty one */
    uint32_t empty;        /* the value that is written as an empty text; UINT32_MAX = none */
    double *frequency;     /* (values), sums to 1 */
    ct_synth_alias *alias; /* (values) */
    uint64_t *tokens;      /* (values): 8 hex digits, first one in the lowest byte */
    double *effect;        /* (values): part of the logit; NULL = none */
    double *factor;        /* (values): its part of a pair's product; NULL = in no pair */
    ct_synth_tail tail;    /* takes the place of what has no effect: the values above are then the first one and the empty one */
} ct_synth_id;

typedef struct ct_synth_number {
    uint32_t missing; /* words below are missing */
    int32_t level[CT_SYNTH_LEVELS + 1];
    double scale; /* (word - missing) * scale: position in `level` */
    bool has_effect;
    double slope, offset; /* effect = slope * sign(x) log(1 + |x|) + offset */
    double missing_effect;
} ct_synth_number;

typedef struct ct_synth_pair {
    uint32_t left, right; /* id features, context and candidate */
} ct_synth_pair;

typedef struct ct_synth_model {
    uint64_t seed;
    double bias;
    ct_synth_number numbers[CT_SYNTH_NUMBERS];
    ct_synth_id ids[CT_SYNTH_IDS];
    ct_synth_pair pairs[CT_SYNTH_PAIRS];
    uint32_t items, new_items;
    size_t vector_dim;
    float *vectors;           /* (items, vector_dim) */
    int64_t *birth;           /* (items): row from which on the item is shown; 0 = from the start */
    uint32_t *by_birth;       /* (items): oldest first */
    int64_t *sorted_birth;    /* (items): birth[by_birth[i]] */
    uint32_t shelf_threshold; /* a word below: the row shows one of the new arrivals */
} ct_synth_model;

/* number: 0 .. CT_SYNTH_TAILS - 1, largest vocabulary first. */
void ct_synth_tail_init(const ct_synth_options *options, size_t number, uint64_t key, ct_synth_tail *out_tail);
/* word: random. */
uint32_t ct_synth_tail_draw(const ct_synth_tail *tail, uint64_t word);
/* 8 hex digits, the first one in the lowest byte; another one for each value. */
uint64_t ct_synth_token(uint32_t value, uint64_t key);

/* Checks the options' numbers (not the paths). */
CT_MUST_CHECK ct_code ct_synth_options_check(const ct_synth_options *options, ct_status *status);
/* Some 40 ms; checks the options first. */
CT_MUST_CHECK ct_code ct_synth_model_create(const ct_synth_options *options, ct_synth_model **out_model, ct_status *status);
void ct_synth_model_destroy(ct_synth_model *model); /* NULL is fine */

typedef struct ct_synth_row {
    uint32_t id[CT_SYNTH_IDS]; /* values */
    bool missing[CT_SYNTH_NUMBERS];
    int32_t number[CT_SYNTH_NUMBERS];                     /* 0 where missing */
    double from_ids, from_numbers, from_pairs, from_item; /* parts of the logit */
    double logit, probability;
    bool click;
} ct_synth_row;
void ct_synth_model_row(const ct_synth_model *model, int64_t row, ct_synth_row *out_row);

/* Adds up what the best model reaches; rows in the log's order. */
typedef struct ct_synth_score ct_synth_score;
CT_MUST_CHECK ct_code ct_synth_score_create(int64_t rows, ct_synth_score **out_score, ct_status *status);
void ct_synth_score_destroy(ct_synth_score *score); /* NULL is fine */
void ct_synth_score_add(ct_synth_score *score, double logit, double probability, bool click);
/* After the last row. */
CT_MUST_CHECK ct_code ct_synth_score_finish(ct_synth_score *score, ct_synth_truth *out_truth, ct_status *status);

#endif
