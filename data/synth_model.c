/* The planted model: which features there are, how often their values come, and what each adds to the logit.
 *
 *     p_k   frequency of value k of a feature, proportional to (k + head)^-slope; an empty value has a share of its own
 *     e_k   effect of value k: normal draws, damped by p_k^2 / (p_k^2 + DAMP^2), then centred and scaled under p
 *     f_k   factor of value k: half e_k, half a draw of its own, damped likewise and orthogonal to e; a pair adds scale * f_a f_b
 *     v_i   vector of item i: normal draws, damped likewise by ITEM_DAMP; a new item's are as large as an old one's in the mean of the rows
 *     a_i   appeal of item i: sqrt(content) <u, v_i> + sqrt(1 - content) own_i, both centred and scaled under p, own damped as v_i and
 *           orthogonal to <u, v>
 *
 * Damping puts the variance on values that come often enough to be learned from a few 100,000 rows: a model that is right comes near the
 * best log loss, and what is missing is the model's fault; what ids cannot know is new items. The user adds nothing. That a factor leans on
 * its effect gives a learner's embeddings a first direction; a product alone starts on a saddle. */
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/random.h"
#include "data/synth_internal.h"

enum place {
    PLACE_ROW = CT_PLACE_SYNTH,
    PLACE_EFFECT,
    PLACE_FACTOR,
    PLACE_SIGN,
    PLACE_TOKEN,
    PLACE_VECTOR,
    PLACE_DIRECTION,
    PLACE_OWN,
    PLACE_BIRTH,
    PLACE_BIAS,
    PLACE_TAIL
};

enum { OTHERS = CT_SYNTH_IDS - 2, SMALLEST_VOCABULARY = 10, BIAS_ROWS_LOG2 = 15 };

static const double DAMP = 0.02, ITEM_DAMP = 0.005;
static const double NUMBERS_SHARE = 0.4;                /* of what ids and numbers have together */
static const double SHELF_SHARE = 0.2;                  /* of new_item_share: rows that show a new arrival */
static const double FIRST_BIRTH = 1000.0;               /* rows; births are log-uniform from here .. */
static const double LAST_BIRTH = 12000000.0;            /* .. to here, so that logs of any length see new items to their end */
static const double GOLDEN_RATIO = 0.61803398874989485; /* its multiples, modulo 1, are spread evenly */

/* Counts: floor(exp(mu + sigma * normal)) + shift. */
static const struct number_rule {
    double mu, sigma, shift, missing;
    bool has_effect;
} NUMBER_RULES[CT_SYNTH_NUMBERS] = {
    {0.8, 1.3, 0, 0.15, true},  {2.2, 1.8, -2, 0.00, true},  {1.5, 1.0, 0, 0.22, false}, {1.4, 0.9, 0, 0.00, true},
    {7.0, 2.0, 0, 0.03, true},  {3.4, 1.5, 0, 0.20, false},  {1.8, 1.4, 0, 0.05, false}, {2.0, 1.1, -1, 0.00, true},
    {4.0, 1.3, 0, 0.06, true},  {-0.6, 0.8, 0, 0.42, false}, {0.7, 1.1, 0, 0.04, false}, {-0.9, 1.2, 0, 0.70, false},
    {1.2, 0.9, 0, 0.18, false},
};

/* The 24 other id features by size, largest vocabulary first. Rule r is column C(3 + (7 r + 3) mod 24): even r candidate, odd r context. */
static const struct id_rule {
    double slope, head, empty;
    bool has_effect;
} ID_RULES[OTHERS] = {
    {1.8, 3, 0.00, false}, {1.9, 3, 0.05, true},  {1.7, 2, 0.10, false}, {2.0, 4, 0.00, false}, {1.9, 3, 0.00, true},
    {1.7, 2, 0.00, false}, {1.8, 2, 0.30, false}, {1.9, 4, 0.00, true},  {1.7, 1, 0.00, false}, {1.6, 1, 0.00, false},
    {1.9, 4, 0.08, true},  {1.6, 1, 0.45, false}, {1.6, 1, 0.00, false}, {1.5, 1, 0.75, false}, {1.5, 1, 0.00, false},
    {1.8, 3, 0.00, true},  {1.4, 1, 0.03, false}, {1.8, 3, 0.00, true},  {1.7, 3, 0.00, true},  {1.5, 3, 0.00, true},
    {1.5, 3, 0.00, true},  {1.0, 1, 0.60, false}, {1.3, 2, 0.04, true},  {1.0, 1, 0.00, false},
};
static const struct pair_rule {
    unsigned left, right; /* rules, context and candidate */
} PAIR_RULES[CT_SYNTH_PAIRS] = {{15, 18}, {17, 20}, {19, 22}};

static const double USER_SLOPE = 1.0, USER_HEAD = 20.0;
static const double ITEM_SLOPE = 2.0, ITEM_HEAD = 20.0;

static size_t feature_of_rule(size_t rule) { return 2 + (7 * rule + 3) % OTHERS; }

/* A standard normal number. */
static double draw_normal(uint64_t seed, enum place place, uint32_t feature, uint64_t number, uint32_t index) {
    const uint64_t bits = ct_random_u64(seed, (uint32_t)place, feature, number, index) >> 11;
    return ct_normal_quantile(((double)bits + 0.5) * 0x1p-53);
}

static double draw_sign(uint64_t seed, uint32_t feature, uint64_t number) {
    return (ct_random_u64(seed, PLACE_SIGN, feature, number, 0) & 1) != 0 ? 1.0 : -1.0;
}

static double square_root(double x) { return x > 0.0 ? ct_exp(0.5 * ct_log(x)) : 0.0; }

/* Mean 0 and variance 1 under `frequency`; all 0 where there is no variance. */
static void standardise(double *values, const double *frequency, size_t count) {
    double mean = 0.0, square = 0.0;
    for (size_t k = 0; k < count; k++) mean += frequency[k] * values[k];
    for (size_t k = 0; k < count; k++) {
        values[k] -= mean;
        square += frequency[k] * values[k] * values[k];
    }
    const double scale = square > 1e-24 ? 1.0 / square_root(square) : 0.0;
    for (size_t k = 0; k < count; k++) values[k] *= scale;
}

/* Takes out of `values` what lies along `direction`, which is standardised, and standardises the rest. */
static void standardise_apart_from(double *values, const double *direction, const double *frequency, size_t count) {
    double common = 0.0;
    for (size_t k = 0; k < count; k++) common += frequency[k] * direction[k] * values[k];
    for (size_t k = 0; k < count; k++) values[k] -= common * direction[k];
    standardise(values, frequency, count);
}

/* A bijection of 32 bits, so that the tokens of one feature are distinct and look like hashes. */
static uint32_t scramble(uint32_t x, uint64_t key) {
    x += (uint32_t)key;
    for (int round = 0; round < 3; round++) {
        x ^= x >> 15;
        x *= (uint32_t)(key >> 32) << 3 | 0x9e3779b5u;
        x ^= x >> 13;
        x += 0x7f4a7c15u;
    }
    return x;
}

uint64_t ct_synth_token(uint32_t value, uint64_t key) {
    const uint32_t token = scramble(value, key);
    char text[8];
    for (int i = 0; i < 8; i++) text[i] = "0123456789abcdef"[token >> (28 - 4 * i) & 15];
    uint64_t packed;
    memcpy(&packed, text, sizeof(packed));
    return packed;
}

/* Vose's construction: columns below the mean are filled up by ones above it. */
static ct_code make_alias(ct_synth_id *id, ct_status *status) {
    const size_t n = id->values;
    double *left = malloc(n * sizeof(*left));
    uint32_t *small = malloc(n * sizeof(*small)), *large = malloc(n * sizeof(*large));
    ct_code code = CT_OK;
    if (left == NULL || small == NULL || large == NULL) {
        code = ct_fail_memory(status, n * 16, "a frequency table");
        goto done;
    }
    size_t small_count = 0, large_count = 0;
    for (size_t k = 0; k < n; k++) {
        left[k] = id->frequency[k] * (double)n;
        if (left[k] < 1.0) {
            small[small_count++] = (uint32_t)k;
        } else {
            large[large_count++] = (uint32_t)k;
        }
        id->alias[k] = (ct_synth_alias){UINT32_MAX, (uint32_t)k};
    }
    while (small_count > 0 && large_count > 0) {
        const uint32_t low = small[--small_count], high = large[large_count - 1];
        id->alias[low] = (ct_synth_alias){(uint32_t)(left[low] * 0x1p32), high};
        left[high] -= 1.0 - left[low];
        if (left[high] < 1.0) {
            large_count--;
            small[small_count++] = high;
        }
    }
done:
    free(left);
    free(small);
    free(large);
    return code;
}

/* Frequencies, alias table and tokens. `empty`: share of rows without a value; it is one value more. */
static ct_code make_id(ct_synth_model *model, size_t feature, uint32_t vocabulary, double slope, double head, double empty,
                       ct_status *status) {
    ct_synth_id *id = &model->ids[feature];
    id->values = vocabulary + (empty > 0.0);
    id->empty = empty > 0.0 ? vocabulary : UINT32_MAX;
    id->frequency = malloc(id->values * sizeof(*id->frequency));
    id->alias = malloc(id->values * sizeof(*id->alias));
    id->tokens = malloc(id->values * sizeof(*id->tokens));
    if (id->frequency == NULL || id->alias == NULL || id->tokens == NULL) return ct_fail_memory(status, id->values * 24, "a vocabulary");

    double sum = 0.0;
    for (uint32_t k = 0; k < vocabulary; k++) {
        id->frequency[k] = ct_exp(-slope * ct_log((double)k + head));
        sum += id->frequency[k];
    }
    for (uint32_t k = 0; k < vocabulary; k++) id->frequency[k] *= (1.0 - empty) / sum;
    if (empty > 0.0) id->frequency[vocabulary] = empty;

    const uint64_t key = ct_random_u64(model->seed, PLACE_TOKEN, 0, feature, 0);
    for (uint32_t k = 0; k < id->values; k++) id->tokens[k] = ct_synth_token(k, key);
    return make_alias(id, status);
}

static double damping(double frequency, double threshold) {
    const double square = frequency * frequency;
    return square / (square + threshold * threshold);
}

/* Damped normal draws, standardised. */
static void draw_effects(const ct_synth_model *model, enum place place, size_t feature, double *values) {
    const ct_synth_id *id = &model->ids[feature];
    for (uint32_t k = 0; k < id->values; k++) {
        values[k] = draw_normal(model->seed, place, (uint32_t)feature, k, 0) * damping(id->frequency[k], DAMP);
    }
    standardise(values, id->frequency, id->values);
}

static ct_code make_effect(ct_synth_model *model, size_t feature, ct_status *status) {
    ct_synth_id *id = &model->ids[feature];
    id->effect = malloc(id->values * sizeof(*id->effect));
    if (id->effect == NULL) return ct_fail_memory(status, id->values * sizeof(*id->effect), "the effects of a feature");
    draw_effects(model, PLACE_EFFECT, feature, id->effect);
    return CT_OK;
}

/* After make_effect, while the effect still has unit variance. */
static ct_code make_factor(ct_synth_model *model, size_t feature, ct_status *status) {
    ct_synth_id *id = &model->ids[feature];
    id->factor = malloc(id->values * sizeof(*id->factor));
    if (id->factor == NULL) return ct_fail_memory(status, id->values * sizeof(*id->factor), "the factors of a feature");
    draw_effects(model, PLACE_FACTOR, feature, id->factor);
    standardise_apart_from(id->factor, id->effect, id->frequency, id->values);
    for (uint32_t k = 0; k < id->values; k++) id->factor[k] += id->effect[k];
    standardise(id->factor, id->frequency, id->values);
    return CT_OK;
}

static void scale(double *values, size_t count, double by) {
    for (size_t k = 0; k < count; k++) values[k] *= by;
}

static ct_code make_others(ct_synth_model *model, const ct_synth_options *options, double ids_variance, double pairs_variance,
                           ct_status *status) {
    const double shrink = ct_log((double)SMALLEST_VOCABULARY / options->vocabulary) / (OTHERS - 1);
    size_t with_effect = 0, tails = 0;
    for (size_t r = 0; r < OTHERS; r++) {
        const size_t feature = feature_of_rule(r);
        const struct id_rule *rule = &ID_RULES[r];
        const bool tail = options->tail > 0 && !rule->has_effect;
        const uint32_t vocabulary = tail ? 1 : (uint32_t)(options->vocabulary * ct_exp(shrink * (double)r) + 0.5);
        CT_TRY(make_id(model, feature, vocabulary, rule->slope, rule->head, rule->empty, status));
        if (rule->has_effect) CT_TRY(make_effect(model, feature, status));
        with_effect += rule->has_effect;
        if (tail) ct_synth_tail_init(options, tails++, ct_random_u64(model->seed, PLACE_TOKEN, 0, feature, 0), &model->ids[feature].tail);
    }
    for (size_t i = 0; i < CT_SYNTH_PAIRS; i++) {
        const size_t left = feature_of_rule(PAIR_RULES[i].left), right = feature_of_rule(PAIR_RULES[i].right);
        model->pairs[i] = (ct_synth_pair){(uint32_t)left, (uint32_t)right};
        CT_TRY(make_factor(model, left, status));
        CT_TRY(make_factor(model, right, status));
        scale(model->ids[left].factor, model->ids[left].values, square_root(pairs_variance / CT_SYNTH_PAIRS));
    }
    const double each = square_root(ids_variance / (double)with_effect);
    for (size_t f = 2; f < CT_SYNTH_IDS; f++) {
        if (model->ids[f].effect != NULL) scale(model->ids[f].effect, model->ids[f].values, each);
    }
    return CT_OK;
}

static double signed_log1p(int32_t x) { return x < 0 ? -ct_log1p(-(double)x) : ct_log1p((double)x); }

static int32_t number_at(const ct_synth_number *number, double position) {
    uint32_t below = (uint32_t)position;
    if (below >= CT_SYNTH_LEVELS) below = CT_SYNTH_LEVELS - 1; /* rounding at the upper end */
    const double low = number->level[below], high = number->level[below + 1];
    return (int32_t)(low + (high - low) * (position - below));
}

static void make_numbers(ct_synth_model *model, double variance) {
    enum { STEPS = 8 }; /* of the sums over a distribution, between two levels */
    size_t with_effect = 0;
    for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) with_effect += NUMBER_RULES[j].has_effect;
    for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) {
        const struct number_rule *rule = &NUMBER_RULES[j];
        ct_synth_number *number = &model->numbers[j];
        number->missing = (uint32_t)(rule->missing * 0x1p32);
        number->scale = CT_SYNTH_LEVELS / (0x1p32 - number->missing);
        for (size_t l = 0; l <= CT_SYNTH_LEVELS; l++) {
            const double quantile = ((double)l + 0.5) / (CT_SYNTH_LEVELS + 1);
            /* The conversion rounds towards zero and the exponential is positive: a floor. */
            number->level[l] = (int32_t)ct_exp(rule->mu + rule->sigma * ct_normal_quantile(quantile)) + (int32_t)rule->shift;
        }
        number->has_effect = rule->has_effect;
        if (!rule->has_effect) continue;
        double sum = 0.0, square = 0.0;
        for (size_t s = 0; s < CT_SYNTH_LEVELS * STEPS; s++) {
            const double x = signed_log1p(number_at(number, ((double)s + 0.5) / STEPS));
            sum += x;
            square += x * x;
        }
        const double mean = sum / (CT_SYNTH_LEVELS * STEPS), spread = square_root(square / (CT_SYNTH_LEVELS * STEPS) - mean * mean);
        /* Present: (x - mean) / spread, unit variance. Missing: half a unit up or down. Together: mean m, variance as below. */
        const double missing = 0.5 * draw_sign(model->seed, 0, j), m = rule->missing * missing;
        const double all = (1.0 - rule->missing) + rule->missing * missing * missing - m * m;
        const double unit = draw_sign(model->seed, 1, j) * square_root(variance / (double)with_effect / all);
        number->slope = unit / spread;
        number->offset = -unit * (mean / spread + m);
        number->missing_effect = unit * (missing - m);
    }
}

static ct_code make_items(ct_synth_model *model, const ct_synth_options *options, double variance, ct_status *status) {
    const uint32_t items = options->items;
    const size_t dim = options->vector_dim;
    CT_TRY(make_id(model, CT_SYNTH_ITEM, items, ITEM_SLOPE, ITEM_HEAD, 0.0, status));
    ct_synth_id *id = &model->ids[CT_SYNTH_ITEM];
    double *direction = malloc(dim * sizeof(*direction)), *content = malloc(items * sizeof(*content));
    model->vectors = malloc(items * dim * sizeof(*model->vectors));
    id->effect = malloc(items * sizeof(*id->effect));
    if (direction == NULL || content == NULL || model->vectors == NULL || id->effect == NULL) {
        free(direction);
        free(content);
        return ct_fail_memory(status, items * dim * sizeof(*model->vectors), "the items' vectors");
    }
    /* Old items shrink with their frequency; new ones are as large as old ones are in the mean of the rows. */
    double weight = 0.0, square = 0.0, norm = 0.0;
    for (uint32_t i = 0; i < items; i++) {
        const double size = damping(id->frequency[i], ITEM_DAMP);
        if (model->birth[i] > 0) continue;
        weight += id->frequency[i];
        square += id->frequency[i] * size * size;
    }
    const double new_size = square_root(square / weight);
    for (size_t d = 0; d < dim; d++) {
        direction[d] = draw_normal(model->seed, PLACE_DIRECTION, 0, 0, (uint32_t)d);
        norm += direction[d] * direction[d];
    }
    scale(direction, dim, 1.0 / square_root(norm));
    for (uint32_t i = 0; i < items; i++) {
        const double size = model->birth[i] > 0 ? new_size : damping(id->frequency[i], ITEM_DAMP);
        float *vector = model->vectors + i * dim;
        content[i] = 0.0;
        for (size_t d = 0; d < dim; d++) {
            vector[d] = (float)(size * draw_normal(model->seed, PLACE_VECTOR, 0, i, (uint32_t)d));
            content[i] += direction[d] * (double)vector[d];
        }
        id->effect[i] = size * draw_normal(model->seed, PLACE_OWN, 0, i, 0);
    }
    standardise(content, id->frequency, items);
    standardise_apart_from(id->effect, content, id->frequency, items);
    const double by_content = square_root(variance * options->content_share),
                 by_own = square_root(variance * (1.0 - options->content_share));
    for (uint32_t i = 0; i < items; i++) id->effect[i] = by_content * content[i] + by_own * id->effect[i];
    free(direction);
    free(content);
    return CT_OK;
}

static int compare_births(const void *a, const void *b, void *context) {
    const int64_t *birth = context;
    const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    if (birth[i] != birth[j]) return birth[i] < birth[j] ? -1 : 1;
    return i < j ? -1 : i > j;
}

/* New items are spread evenly over the ranks, and their births evenly over the logarithm of the row number. */
static ct_code make_births(ct_synth_model *model, double share, ct_status *status) {
    const uint32_t items = model->items;
    model->birth = calloc(items, sizeof(*model->birth));
    model->by_birth = malloc(items * sizeof(*model->by_birth));
    model->sorted_birth = malloc(items * sizeof(*model->sorted_birth));
    if (model->birth == NULL || model->by_birth == NULL || model->sorted_birth == NULL)
        return ct_fail_memory(status, items * 20, "the items' births");
    const double phase = ct_random_unit(model->seed, PLACE_BIRTH, 0, 0, 0), stretch = ct_log(LAST_BIRTH / FIRST_BIRTH);
    double due = ct_random_unit(model->seed, PLACE_BIRTH, 0, 1, 0);
    for (uint32_t i = 0; i < items; i++) model->by_birth[i] = i;
    for (uint32_t i = 1; i < items; i++) { /* item 0 is always there from the start */
        due += share;
        if (due < 1.0) continue;
        due -= 1.0;
        double place = phase + GOLDEN_RATIO * model->new_items++;
        place -= (double)(int64_t)place;
        model->birth[i] = (int64_t)(FIRST_BIRTH * ct_exp(stretch * place));
    }
    qsort_r(model->by_birth, items, sizeof(*model->by_birth), compare_births, model->birth);
    for (uint32_t i = 0; i < items; i++) model->sorted_birth[i] = model->birth[model->by_birth[i]];
    model->shelf_threshold = model->new_items > 0 ? (uint32_t)(SHELF_SHARE * share * 0x1p32) : 0;
    return CT_OK;
}

/* --- one row --- */

static uint32_t below(uint32_t word, uint32_t n) { return (uint32_t)((uint64_t)word * n >> 32); }

static uint32_t draw_value(const ct_synth_id *id, uint32_t word) {
    const uint64_t product = (uint64_t)word * id->values;
    const ct_synth_alias alias = id->alias[product >> 32];
    return (uint32_t)product < alias.threshold ? (uint32_t)(product >> 32) : alias.other;
}

/* Items born at or before `row`: the first so many of by_birth. */
static uint32_t born_by(const ct_synth_model *model, int64_t row) {
    uint32_t low = 0, high = model->items;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (model->sorted_birth[middle] <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* A share of the rows shows one of the new arrivals: the items born in the last fifth of the rows so far. So a later part of a log of any
 * length has rows with items that an earlier part lacks. The other rows draw by frequency until they meet an item that is born. */
static uint32_t draw_item(const ct_synth_model *model, const uint32_t words[8], int64_t row) {
    if (words[0] < model->shelf_threshold) {
        const uint32_t end = born_by(model, row), begin = born_by(model, row - row / 5);
        if (end > begin) return model->by_birth[begin + below(words[1], end - begin)];
    }
    for (size_t i = 1; i < 8; i++) {
        const uint32_t item = draw_value(&model->ids[CT_SYNTH_ITEM], words[i]);
        if (model->birth[item] <= row) return item;
    }
    return model->by_birth[below(words[0] * 0x9e3779b1u, born_by(model, row))]; /* the factor: the coin's words are the high ones */
}

static void make_row(const ct_synth_model *model, const uint32_t words[CT_SYNTH_WORDS], int64_t row, ct_synth_row *out_row) {
    out_row->from_ids = out_row->from_numbers = out_row->from_pairs = 0.0;
    for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) {
        const ct_synth_number *number = &model->numbers[j];
        const uint32_t word = words[2 + j];
        out_row->missing[j] = word < number->missing;
        out_row->number[j] = out_row->missing[j] ? 0 : number_at(number, (word - number->missing) * number->scale);
        if (!number->has_effect) continue;
        out_row->from_numbers +=
            out_row->missing[j] ? number->missing_effect : number->slope * signed_log1p(out_row->number[j]) + number->offset;
    }
    out_row->id[CT_SYNTH_USER] = draw_value(&model->ids[CT_SYNTH_USER], words[15]);
    out_row->id[CT_SYNTH_ITEM] = draw_item(model, words + 16, row);
    out_row->from_item = model->ids[CT_SYNTH_ITEM].effect[out_row->id[CT_SYNTH_ITEM]];
    for (size_t f = 2; f < CT_SYNTH_IDS; f++) {
        const ct_synth_id *id = &model->ids[f];
        out_row->id[f] = draw_value(id, words[22 + f]);
        if (id->effect != NULL) out_row->from_ids += id->effect[out_row->id[f]];
    }
    for (size_t i = 0; i < CT_SYNTH_PAIRS; i++) {
        const ct_synth_pair *pair = &model->pairs[i];
        out_row->from_pairs +=
            model->ids[pair->left].factor[out_row->id[pair->left]] * model->ids[pair->right].factor[out_row->id[pair->right]];
    }
    out_row->logit = model->bias + (out_row->from_ids + out_row->from_numbers) + (out_row->from_pairs + out_row->from_item);
    out_row->probability = ct_sigmoid(out_row->logit);
    const uint64_t coin = (uint64_t)words[0] << 32 | words[1];
    out_row->click = (double)(coin >> 11) * 0x1p-53 < out_row->probability;
}

static void draw_words(uint64_t seed, enum place place, uint64_t number, uint32_t out_words[CT_SYNTH_WORDS]) {
    for (uint32_t i = 0; i < CT_SYNTH_WORDS / 4; i++) {
        const ct_random4 four = ct_random(seed, (uint32_t)place, 0, number, i);
        memcpy(out_words + 4 * i, four.word, sizeof(four.word));
    }
}

void ct_synth_model_row(const ct_synth_model *model, int64_t row, ct_synth_row *out_row) {
    uint32_t words[CT_SYNTH_WORDS];
    draw_words(model->seed, PLACE_ROW, (uint64_t)row, words);
    make_row(model, words, row, out_row);
    for (uint32_t f = 2; f < CT_SYNTH_IDS; f++) {
        const ct_synth_id *id = &model->ids[f];
        if (!id->tail.values) continue;
        if (out_row->id[f] == id->empty)
            out_row->id[f] = UINT32_MAX; /* no value of the tail */
        else
            out_row->id[f] = ct_synth_tail_draw(&id->tail, ct_random_u64(model->seed, PLACE_TAIL, f, (uint64_t)row, 0));
    }
}

/* --- the bias --- */

/* The bias at which a sample of rows has the click rate that is asked for. The sample is a Latin hypercube: the n values of each word fall
 * into n different n-ths of its range, so that the mean over the sample has far less noise than over n rows of a log. */
static ct_code find_bias(ct_synth_model *model, double rate, ct_status *status) {
    const uint32_t n = 1u << BIAS_ROWS_LOG2;
    double *logits = malloc(n * sizeof(*logits));
    if (logits == NULL) return ct_fail_memory(status, n * sizeof(*logits), "the bias");
    uint32_t words[CT_SYNTH_WORDS];
    ct_synth_row row;
    model->bias = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        draw_words(model->seed, PLACE_BIAS, i, words);
        for (uint32_t w = 0; w < CT_SYNTH_WORDS; w++) {
            uint32_t place = i; /* a permutation of 0 .. n-1 for each word: odd factors and shifts, modulo n */
            const uint64_t key = ct_random_u64(model->seed, PLACE_BIAS, 1, w, 0);
            for (int round = 0; round < 3; round++) {
                place = (place + (uint32_t)(key >> 32)) & (n - 1);
                place ^= place >> (BIAS_ROWS_LOG2 / 2);
                place = place * ((uint32_t)key | 1) & (n - 1);
            }
            words[w] = place << (32 - BIAS_ROWS_LOG2) | words[w] >> BIAS_ROWS_LOG2;
        }
        make_row(model, words, INT64_MAX, &row); /* every item is born */
        logits[i] = row.logit;
    }
    /* Newton's method, kept between bounds: the mean rises with the bias. */
    double low = -80.0, high = 80.0, bias = ct_log(rate / (1.0 - rate));
    for (int step = 0; step < 40 && high - low > 1e-9; step++) {
        double sum = 0.0, slope = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            const double p = ct_sigmoid(logits[i] + bias);
            sum += p;
            slope += p * (1.0 - p);
        }
        const double miss = sum - rate * n;
        if (miss < 0.0) {
            low = bias;
        } else {
            high = bias;
        }
        const double next = slope > 0.0 ? bias - miss / slope : low;
        const bool near = next - bias < 1e-9 && bias - next < 1e-9;
        bias = next > low && next < high ? next : 0.5 * (low + high);
        if (near) break;
    }
    model->bias = bias;
    free(logits);
    return CT_OK;
}

/* --- life --- */

ct_code ct_synth_model_create(const ct_synth_options *options, ct_synth_model **out_model, ct_status *status) {
    CT_TRY(ct_synth_options_check(options, status));
    ct_synth_model *model = calloc(1, sizeof(*model));
    if (model == NULL) return ct_fail_memory(status, sizeof(*model), "the planted model");
    model->seed = options->seed;
    model->items = options->items;
    model->vector_dim = options->vector_dim;
    const double variance = options->signal * options->signal, pairs = variance * options->pairs_share,
                 item = variance * options->item_share;
    const double rest = variance - pairs - item > 0.0 ? variance - pairs - item : 0.0;
    ct_code code;
    CT_TRY_GOTO(code, make_id(model, CT_SYNTH_USER, options->users, USER_SLOPE, USER_HEAD, 0.0, status), fail);
    CT_TRY_GOTO(code, make_births(model, options->new_item_share, status), fail);
    CT_TRY_GOTO(code, make_items(model, options, item, status), fail);
    CT_TRY_GOTO(code, make_others(model, options, rest * (1.0 - NUMBERS_SHARE), pairs, status), fail);
    make_numbers(model, rest * NUMBERS_SHARE);
    CT_TRY_GOTO(code, find_bias(model, options->rate, status), fail);
    *out_model = model;
    return CT_OK;
fail:
    ct_synth_model_destroy(model);
    return code;
}

void ct_synth_model_destroy(ct_synth_model *model) {
    if (model == NULL) return;
    for (size_t f = 0; f < CT_SYNTH_IDS; f++) {
        free(model->ids[f].frequency);
        free(model->ids[f].alias);
        free(model->ids[f].tokens);
        free(model->ids[f].effect);
        free(model->ids[f].factor);
    }
    free(model->vectors);
    free(model->birth);
    free(model->by_birth);
    free(model->sorted_birth);
    free(model);
}
