/* Synth's planted truth, checked from outside: by libm, by counting, by least squares. */
#include <math.h>

#include "data/synth.h"
#include "data/vectors.h"
#include "tests/data/synth_fixture.h"

static void numbers_are_skewed_like_counts(void **state) {
    (void)state;
    const ct_synth_options options = options_for(1);
    ct_synth_model *model = model_of(&options);
    double sum[CT_SYNTH_NUMBERS] = {0}, cube[CT_SYNTH_NUMBERS] = {0}, square[CT_SYNTH_NUMBERS] = {0}, count[CT_SYNTH_NUMBERS] = {0};
    for (int64_t r = 0; r < 20000; r++) {
        ct_synth_row row;
        ct_synth_model_row(model, r, &row);
        for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) {
            if (row.missing[j]) continue;
            const double x = row.number[j];
            count[j]++;
            sum[j] += x;
            square[j] += x * x;
            cube[j] += x * x * x;
        }
    }
    for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) {
        const double mean = sum[j] / count[j], variance = square[j] / count[j] - mean * mean;
        const double third = cube[j] / count[j] - 3.0 * mean * square[j] / count[j] + 2.0 * mean * mean * mean;
        assert_true(variance > 0.0);
        assert_true(third / pow(variance, 1.5) > 1.0);
    }
    ct_synth_model_destroy(model);
}

/* Chi-squared test of every id feature's values against its frequencies, and of these against a power law's shape. */
static void ids_follow_a_power_law(void **state) {
    (void)state;
    enum { ROWS = 100000 };
    ct_synth_options options = options_for(1);
    options.new_item_share = 0.0;
    ct_synth_model *model = model_of(&options);
    uint32_t *counts[CT_SYNTH_IDS];
    for (size_t f = 0; f < CT_SYNTH_IDS; f++) counts[f] = calloc(model->ids[f].values, sizeof(uint32_t));
    for (int64_t r = 0; r < ROWS; r++) {
        ct_synth_row row;
        ct_synth_model_row(model, r, &row);
        for (size_t f = 0; f < CT_SYNTH_IDS; f++) counts[f][row.id[f]]++;
    }
    uint32_t largest = 0, smallest = UINT32_MAX;
    for (size_t f = 0; f < CT_SYNTH_IDS; f++) {
        const ct_synth_id *id = &model->ids[f];
        const uint32_t named = id->values - (id->empty != UINT32_MAX);
        double statistic = 0.0, rest = 0.0, sum = 0.0;
        int64_t rest_count = 0, freedom = 0;
        for (uint32_t k = 0; k < id->values; k++) {
            sum += id->frequency[k];
            const double expected = id->frequency[k] * ROWS;
            if (expected < 20.0) {
                rest += expected;
                rest_count += counts[f][k];
                continue;
            }
            statistic += (counts[f][k] - expected) * (counts[f][k] - expected) / expected;
            freedom++;
        }
        if (rest >= 20.0) statistic += ((double)rest_count - rest) * ((double)rest_count - rest) / rest;
        assert_true(fabs(sum - 1.0) < 1e-9);
        if (!(statistic < (double)freedom + 5.0 * sqrt(2.0 * (double)freedom)))
            print_error("C%zu: %g, %lld\n", f + 1, statistic, (long long)freedom);
        assert_true(statistic < (double)freedom + 5.0 * sqrt(2.0 * (double)freedom));
        for (uint32_t k = 1; k < named; k++) assert_true(id->frequency[k] < id->frequency[k - 1]);
        /* On the tail, twice the rank costs a constant factor. */
        if (named >= 1000) {
            const double once = id->frequency[named / 4 - 1] / id->frequency[named / 2 - 1];
            const double again = id->frequency[named / 2 - 1] / id->frequency[named - 1];
            assert_true(once > 1.8 && fabs(once - again) < 0.1 * again);
        }
        if (f >= 2 && named > largest) largest = named;
        if (f >= 2 && named < smallest) smallest = named;
        free(counts[f]);
    }
    assert_int_equal(largest, options.vocabulary);
    assert_int_equal(smallest, 10);
    assert_int_equal(model->ids[CT_SYNTH_ITEM].values, options.items);
    assert_int_equal(model->ids[CT_SYNTH_USER].values, options.users);
    ct_synth_model_destroy(model);
}

/* --- the truth --- */

static double loss_of(double p, bool click) { return click ? -log(p) : -log1p(-p); }

/* By comparing each click with each other row. */
static double slow_auc(const double *p, const char *clicks, size_t n) {
    double wins = 0.0, pairs = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (!clicks[i]) continue;
        for (size_t j = 0; j < n; j++) {
            if (clicks[j]) continue;
            wins += p[i] > p[j] ? 1.0 : p[i] == p[j] ? 0.5 : 0.0;
            pairs += 1.0;
        }
    }
    return wins / pairs;
}

/* Probabilities from the public function, labels from the file. */
static void read_labels(const char *data, char *clicks, size_t rows) {
    for (size_t r = 0; r < rows; r++) {
        clicks[r] = *data == '1';
        data = strchr(data, '\n') + 1;
    }
}

static void truth_is_what_it_says(void **state) {
    (void)state;
    enum { ROWS = 3001, TAIL = 600, HEAD = ROWS - TAIL };
    ct_synth_options options = options_for(ROWS);
    char *path = temp_path(folder, "log.tsv");
    options.path = path;
    const ct_synth_truth truth = write_log(&options);
    size_t bytes;
    char *data = read_file(path, &bytes), clicks[ROWS];
    read_labels(data, clicks, ROWS);
    static double p[ROWS];
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_synth_probabilities(&options, 0, ROWS, p, NULL, &status), &status);
    double loss = 0.0, tail_loss = 0.0, head_clicks = 0.0, tail_clicks = 0.0;
    for (size_t r = 0; r < ROWS; r++) {
        loss += loss_of(p[r], clicks[r]);
        if (r >= HEAD) tail_loss += loss_of(p[r], clicks[r]);
        *(r < HEAD ? &head_clicks : &tail_clicks) += clicks[r];
    }
    const double rate = (head_clicks + tail_clicks) / ROWS, head_rate = head_clicks / HEAD;
    assert_int_equal(truth.clicks, (int64_t)(head_clicks + tail_clicks));
    assert_true(fabs(truth.best_log_loss - loss / ROWS) < 1e-12);
    assert_true(fabs(truth.tail_best_log_loss - tail_loss / TAIL) < 1e-12);
    assert_true(fabs(truth.constant_log_loss - (rate * loss_of(rate, true) + (1.0 - rate) * loss_of(rate, false))) < 1e-12);
    const double tail_constant = (tail_clicks * loss_of(head_rate, true) + (TAIL - tail_clicks) * loss_of(head_rate, false)) / TAIL;
    assert_true(fabs(truth.tail_constant_log_loss - tail_constant) < 1e-12);
    assert_true(fabs(truth.best_auc - slow_auc(p, clicks, ROWS)) < 1e-6); /* a float has fewer digits: rare new ties */
    assert_true(fabs(truth.tail_best_auc - slow_auc(p + HEAD, clicks + HEAD, TAIL)) < 1e-6);
    assert_true(truth.best_auc > 0.7 && truth.best_log_loss < truth.constant_log_loss - 0.05);
    double one;
    int64_t birth;
    assert_ok(ct_synth_probabilities(&options, 1234, 1, &one, &birth, &status), &status);
    assert_true(one == p[1234]);
    assert_true(birth >= 0 && birth <= 1234);
    free(data);
    free(path);
}

static void score_of_few_and_tied_rows(void **state) {
    (void)state;
    static const struct {
        size_t rows;
        double p[6];
        bool click[6];
        double auc;
    } CASES[] = {
        {4, {0.5, 0.5, 0.5, 0.5}, {true, false, true, false}, 0.5},
        {4, {0.9, 0.1, 0.9, 0.1}, {true, false, false, false}, 2.5 / 3.0}, /* one tie with three */
        {6, {0.2, 0.3, 0.4, 0.1, 0.6, 0.7}, {false, false, true, false, true, true}, 1.0},
        {3, {0.2, 0.3, 0.4}, {false, false, false}, NAN},
        {1, {0.2}, {true}, NAN},
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        ct_synth_score *score;
        ct_synth_truth truth;
        ct_status status = CT_STATUS_INIT;
        assert_ok(ct_synth_score_create((int64_t)CASES[i].rows, &score, &status), &status);
        double loss = 0.0;
        for (size_t r = 0; r < CASES[i].rows; r++) {
            const double p = CASES[i].p[r];
            ct_synth_score_add(score, log(p / (1.0 - p)), p, CASES[i].click[r]);
            loss += loss_of(p, CASES[i].click[r]);
        }
        assert_ok(ct_synth_score_finish(score, &truth, &status), &status);
        ct_synth_score_destroy(score);
        assert_true(isnan(CASES[i].auc) ? isnan(truth.best_auc) : fabs(truth.best_auc - CASES[i].auc) < 1e-12);
        assert_true(isnan(truth.tail_best_auc));
        assert_true(fabs(truth.best_log_loss - loss / (double)CASES[i].rows) < 1e-12);
        if (isnan(CASES[i].auc)) assert_true(truth.constant_log_loss == 0.0);
    }
}

/* Clicks against probabilities, by tenths of the rows in the order of their probability; and the rate that was asked for. */
static void probabilities_are_calibrated(void **state) {
    (void)state;
    enum { ROWS = 100000 };
    static const double RATES[] = {0.02, 0.25, 0.7};
    static double p[ROWS];
    static char clicks[ROWS];
    for (size_t i = 0; i < sizeof(RATES) / sizeof(RATES[0]); i++) {
        ct_synth_options options = options_for(ROWS);
        options.rate = RATES[i];
        options.new_item_share = 0.0;
        size_t bytes;
        char *data = log_of(options, &bytes);
        read_labels(data, clicks, ROWS);
        free(data);
        ct_status status = CT_STATUS_INIT;
        assert_ok(ct_synth_probabilities(&options, 0, ROWS, p, NULL, &status), &status);
        enum { BINS = 1000 }; /* of the probability: enough to cut tenths */
        static double expected[BINS], variance[BINS];
        static int64_t count[BINS], clicked[BINS];
        memset(expected, 0, sizeof(expected));
        memset(variance, 0, sizeof(variance));
        memset(count, 0, sizeof(count));
        memset(clicked, 0, sizeof(clicked));
        double mean = 0.0;
        for (size_t r = 0; r < ROWS; r++) {
            const size_t b = (size_t)(p[r] * BINS);
            expected[b] += p[r];
            variance[b] += p[r] * (1.0 - p[r]);
            count[b]++;
            clicked[b] += clicks[r];
            mean += p[r] / ROWS;
        }
        double tenth_expected = 0.0, tenth_variance = 0.0, tenth_clicked = 0.0;
        int64_t tenth_count = 0;
        for (size_t b = 0; b < BINS; b++) {
            tenth_expected += expected[b];
            tenth_variance += variance[b];
            tenth_clicked += (double)clicked[b];
            tenth_count += count[b];
            if (tenth_count < ROWS / 10 && b + 1 < BINS) continue;
            assert_true(fabs(tenth_clicked - tenth_expected) <= 4.0 * sqrt(tenth_variance));
            tenth_expected = tenth_variance = tenth_clicked = 0.0;
            tenth_count = 0;
        }
        if (!(fabs(mean - RATES[i]) < 0.03 * RATES[i])) print_error("rate %g: mean %g\n", RATES[i], mean);
        assert_true(fabs(mean - RATES[i]) < 0.03 * RATES[i]);
    }
}

static void shares_are_as_asked(void **state) {
    (void)state;
    enum { ROWS = 100000, PARTS = 4 };
    static const double CASES[][3] = {{0.3, 0.3, 1.5}, {0.0, 0.0, 1.5}, {1.0, 0.0, 1.0}, {0.0, 1.0, 2.0}, {0.5, 0.2, 0.0}};
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        ct_synth_options options = options_for(1);
        options.pairs_share = CASES[i][0];
        options.item_share = CASES[i][1];
        options.signal = CASES[i][2];
        options.new_item_share = 0.0;
        const double all = options.signal * options.signal, rest = 1.0 - options.pairs_share - options.item_share;
        const double expected[PARTS] = {0.6 * rest * all, 0.4 * rest * all, options.pairs_share * all, options.item_share * all};
        ct_synth_model *model = model_of(&options);
        double sum[PARTS] = {0}, product[PARTS][PARTS] = {{0}};
        for (int64_t r = 0; r < ROWS; r++) {
            ct_synth_row row;
            ct_synth_model_row(model, r, &row);
            const double part[PARTS] = {row.from_ids, row.from_numbers, row.from_pairs, row.from_item};
            for (size_t a = 0; a < PARTS; a++) {
                sum[a] += part[a];
                for (size_t b = 0; b < PARTS; b++) product[a][b] += part[a] * part[b];
            }
            const double logit = model->bias + part[0] + part[1] + part[2] + part[3];
            assert_true(fabs(row.logit - logit) < 1e-12 && fabs(row.probability - 1.0 / (1.0 + exp(-logit))) < 1e-12);
        }
        for (size_t a = 0; a < PARTS; a++) {
            assert_true(fabs(sum[a] / ROWS) < 5.0 * sqrt(expected[a] / ROWS) + 1e-9);
            for (size_t b = 0; b < PARTS; b++) {
                const double moment = product[a][b] / ROWS, want = a == b ? expected[a] : 0.0;
                const double scale = sqrt(expected[a] * expected[b]) + 1e-12;
                if (!(fabs(moment - want) < 0.05 * scale))
                    print_error("case %zu, parts %zu and %zu: %g instead of %g\n", i, a, b, moment, want);
                assert_true(fabs(moment - want) < 0.05 * scale);
            }
        }
        ct_synth_model_destroy(model);
    }
}

/* What makes the truth learnable: effects differ on frequent values only, and a factor leans on its effect. */
static void rare_values_add_next_to_nothing(void **state) {
    (void)state;
    ct_synth_options options = options_for(1);
    options.new_item_share = 0.0;
    ct_synth_model *model = model_of(&options);
    size_t effects = 0, factors = 0;
    for (size_t f = 0; f < CT_SYNTH_IDS; f++) {
        const ct_synth_id *id = &model->ids[f];
        if (id->effect == NULL) continue;
        effects++;
        uint32_t rarest = 0;
        for (uint32_t k = 0; k < id->values; k++) rarest = id->frequency[k] < id->frequency[rarest] ? k : rarest;
        const double few = f == CT_SYNTH_ITEM ? 0.002 : 0.005; /* 640 and 1,600 of 320,000 rows */
        double all = 0.0, rare = 0.0, both = 0.0, factor = 0.0;
        for (uint32_t k = 0; k < id->values; k++) {
            const double apart = id->effect[k] - id->effect[rarest];
            all += id->frequency[k] * id->effect[k] * id->effect[k];
            if (id->frequency[k] < few) rare += id->frequency[k] * apart * apart;
            if (id->factor == NULL) continue;
            both += id->frequency[k] * id->effect[k] * id->factor[k];
            factor += id->frequency[k] * id->factor[k] * id->factor[k];
        }
        if (!(rare < 0.02 * all)) print_error("C%zu: %g of the variance is on rare values\n", f + 1, rare / all);
        assert_true(all > 0.0 && rare < 0.02 * all);
        if (id->factor == NULL) continue;
        factors++;
        assert_true(fabs(both / sqrt(all * factor) - sqrt(0.5)) < 1e-9);
    }
    assert_null(model->ids[CT_SYNTH_USER].effect);
    assert_true(effects >= 8 && factors == (size_t)2 * CT_SYNTH_PAIRS);
    ct_synth_model_destroy(model);
}

/* --- least squares --- */

/* Share of the weighted variance of y (n) that a linear form of x (n, dim) and a constant explains; normal equations, Gauss with pivots. */
static double explained(const double *x, const double *y, const double *weight, size_t n, size_t dim) {
    const size_t size = dim + 1, stride = size + 1;
    double *m = calloc(size * stride, sizeof(*m)), *row = malloc(size * sizeof(*row)), total = 0.0, mean = 0.0, square = 0.0, residue = 0.0;
    assert_non_null(m);
    assert_non_null(row);
    for (size_t i = 0; i < n; i++) {
        memcpy(row, x + i * dim, dim * sizeof(*row));
        row[dim] = 1.0;
        for (size_t a = 0; a < size; a++) {
            for (size_t b = 0; b < size; b++) m[a * stride + b] += weight[i] * row[a] * row[b];
            m[a * stride + size] += weight[i] * row[a] * y[i];
        }
        total += weight[i];
        mean += weight[i] * y[i];
    }
    mean /= total;
    for (size_t a = 0; a < size; a++) {
        size_t best = a;
        for (size_t b = a + 1; b < size; b++) best = fabs(m[b * stride + a]) > fabs(m[best * stride + a]) ? b : best;
        for (size_t c = 0; c < stride; c++) {
            const double swap = m[a * stride + c];
            m[a * stride + c] = m[best * stride + c];
            m[best * stride + c] = swap;
        }
        if (fabs(m[a * stride + a]) < 1e-12 * total) continue; /* a column of zeros */
        for (size_t b = 0; b < size; b++) {
            const double times = b == a ? 0.0 : m[b * stride + a] / m[a * stride + a];
            for (size_t c = 0; c < stride; c++) m[b * stride + c] -= times * m[a * stride + c];
        }
    }
    for (size_t i = 0; i < n; i++) {
        double fit = 0.0;
        for (size_t a = 0; a < size; a++) {
            const double pivot = m[a * stride + a];
            if (fabs(pivot) >= 1e-12 * total) fit += m[a * stride + size] / pivot * (a < dim ? x[i * dim + a] : 1.0);
        }
        square += weight[i] * (y[i] - mean) * (y[i] - mean);
        residue += weight[i] * (y[i] - fit) * (y[i] - fit);
    }
    free(m);
    free(row);
    return 1.0 - residue / square;
}

/* The numbers' part is linear in sign(x) log(1 + |x|) and an indicator of missing. */
static void numbers_are_linear_in_their_logarithm(void **state) {
    (void)state;
    enum { ROWS = 5000, DIM = 2 * CT_SYNTH_NUMBERS };
    const ct_synth_options options = options_for(1);
    ct_synth_model *model = model_of(&options);
    double *x = calloc(ROWS * DIM, sizeof(*x)), *y = malloc(ROWS * sizeof(*y)), *weight = malloc(ROWS * sizeof(*weight));
    for (size_t r = 0; r < ROWS; r++) {
        ct_synth_row row;
        ct_synth_model_row(model, (int64_t)r, &row);
        for (size_t j = 0; j < CT_SYNTH_NUMBERS; j++) {
            x[r * DIM + 2 * j] = copysign(log1p(fabs((double)row.number[j])), row.number[j]);
            x[r * DIM + 2 * j + 1] = row.missing[j];
        }
        y[r] = row.from_numbers;
        weight[r] = 1.0;
    }
    assert_true(explained(x, y, weight, ROWS, DIM) > 1.0 - 1e-9);
    free(x);
    free(y);
    free(weight);
    ct_synth_model_destroy(model);
}

/* The vectors of the file, item by item of its ids, explain the share of the appeal's variance over the rows that was asked for. */
static void vectors_explain_their_share(void **state) {
    (void)state;
    static const struct {
        double content;
        uint32_t dim;
    } CASES[] = {{0.8, 2}, {0.3, 2}, {0.0, 2}, {1.0, 16}, {1.0, 1}};
    char *path = temp_path(folder, "log.tsv"), *vectors_path = temp_path(folder, "v.npy"), *ids_path = temp_path(folder, "v.txt");
    for (size_t c = 0; c < sizeof(CASES) / sizeof(CASES[0]); c++) {
        ct_synth_options options = options_for(10);
        options.path = path;
        options.vectors_path = vectors_path;
        options.content_share = CASES[c].content;
        options.vector_dim = CASES[c].dim;
        options.new_item_share = 0.5;
        (void)write_log(&options);
        ct_vectors *vectors;
        ct_status status = CT_STATUS_INIT;
        assert_ok(ct_vectors_load(vectors_path, ids_path, NULL, &vectors, &status), &status);
        assert_int_equal(vectors->count, options.items);
        assert_int_equal(vectors->dim, options.vector_dim);
        ct_synth_model *model = model_of(&options);
        const ct_synth_id *item = &model->ids[CT_SYNTH_ITEM];
        double *x = malloc(vectors->count * vectors->dim * sizeof(*x));
        for (size_t i = 0; i < vectors->count * vectors->dim; i++) x[i] = (double)vectors->values[i];
        for (size_t i = 0; i < vectors->count; i++) assert_int_equal(vectors->keys[i], ct_hash64(&item->tokens[i], 8, 0));
        const double share = explained(x, item->effect, item->frequency, vectors->count, vectors->dim);
        /* At least what was planted; the other directions fit some of the own part by chance. */
        if (!(share > CASES[c].content - 1e-6 && share < CASES[c].content + 0.2 * (1.0 - CASES[c].content) + 1e-9))
            print_error("content %g, dimension %u: %g\n", CASES[c].content, CASES[c].dim, share);
        assert_true(share > CASES[c].content - 1e-6 && share < CASES[c].content + 0.2 * (1.0 - CASES[c].content) + 1e-9);
        free(x);
        ct_vectors_destroy(vectors);
        ct_synth_model_destroy(model);
    }
    free(path);
    free(vectors_path);
    free(ids_path);
}

/* --- new items --- */

static void logs_of_any_length_end_with_new_items(void **state) {
    (void)state;
    enum { MANY = 20000 };
    static double p[MANY];
    static int64_t birth[MANY];
    static const int64_t LENGTHS[] = {20000, 100000, 1000000, 10000000};
    const ct_synth_options options = options_for(1);
    for (size_t i = 0; i < sizeof(LENGTHS) / sizeof(LENGTHS[0]); i++) {
        const int64_t tail_begin = LENGTHS[i] / 5 * 4, step = LENGTHS[i] / 5 / 4;
        int64_t seen = 0, unseen = 0;
        for (int64_t part = 0; part < 4; part++) { /* four samples of the last fifth */
            const int64_t first = tail_begin + part * step;
            const size_t rows = (size_t)(step < MANY / 4 ? step : MANY / 4);
            ct_status status = CT_STATUS_INIT;
            assert_ok(ct_synth_probabilities(&options, first, rows, p, birth, &status), &status);
            for (size_t r = 0; r < rows; r++) {
                assert_true(birth[r] >= 0 && birth[r] <= first + (int64_t)r);
                seen++;
                unseen += birth[r] >= tail_begin;
            }
        }
        const double share = (double)unseen / (double)seen;
        if (!(share > 0.01 && share < 0.1)) print_error("%lld rows: %g\n", (long long)LENGTHS[i], share);
        assert_true(share > 0.01 && share < 0.1);
    }
}

/* From the file alone: tokens of C2 in the last fifth that the first four fifths lack. Without new items these are a few rare ones. */
static double unseen_share(ct_synth_options options) {
    size_t bytes;
    char *data = log_of(options, &bytes), *rest = data, *line;
    const int64_t rows = options.rows, tail_begin = rows - rows / 5;
    unsigned char *seen = calloc(1 << 26, 1); /* a bit for each 29-bit prefix of the token: 2,000 tokens hardly ever meet */
    assert_non_null(seen);
    int64_t row = 0, unseen = 0;
    while ((line = strsep(&rest, "\n")) != NULL && rest != NULL) {
        for (int c = 0; c < 15; c++) line = strchr(line, '\t') + 1;
        const unsigned long token = strtoul(line, NULL, 16) >> 3;
        if (row < tail_begin) {
            seen[token >> 3] |= (unsigned char)(1u << (token & 7));
        } else {
            unseen += (seen[token >> 3] >> (token & 7) & 1) == 0;
        }
        row++;
    }
    free(seen);
    free(data);
    return (double)unseen / (double)(rows / 5);
}

static void the_file_shows_new_items(void **state) {
    (void)state;
    ct_synth_options options = options_for(50000);
    const double some = unseen_share(options);
    options.new_item_share = 1.0;
    const double many = unseen_share(options);
    options.new_item_share = 0.0;
    const double none = unseen_share(options);
    ct_synth_model *model = model_of(&options);
    const ct_synth_id *item = &model->ids[CT_SYNTH_ITEM];
    double expected = 0.0;
    for (uint32_t k = 0; k < item->values; k++) expected += item->frequency[k] * pow(1.0 - item->frequency[k], 40000.0);
    ct_synth_model_destroy(model);
    const bool fine = fabs(none - expected) < 6.0 * sqrt(expected / 10000.0) && some > none + 0.015 && many > some + 0.015;
    if (!fine) print_error("unseen: %g (expected %g), %g, %g\n", none, expected, some, many);
    assert_true(fine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_are_skewed_like_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ids_follow_a_power_law, set_up, tear_down),
        cmocka_unit_test_setup_teardown(truth_is_what_it_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(score_of_few_and_tied_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(probabilities_are_calibrated, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shares_are_as_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rare_values_add_next_to_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers_are_linear_in_their_logarithm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(vectors_explain_their_share, set_up, tear_down),
        cmocka_unit_test_setup_teardown(logs_of_any_length_end_with_new_items, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_file_shows_new_items, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
