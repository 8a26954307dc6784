#include "tests/embedding_store/random_lookup.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"

uint64_t random_key(uint64_t number) {
    if (number == 1) return 0;
    if (number == 2) return UINT64_MAX;
    if (number && number % 5 == 0) return number;
    return ct_random_u64(0, CT_PLACE_TEST, 0, number, 0);
}

typedef struct draws {
    uint64_t seed, number;
    uint32_t index;
} draws;

static uint64_t draw(draws *draws, uint64_t below) {
    return ct_random_u64(draws->seed, CT_PLACE_TEST, 1, draws->number, draws->index++) % below;
}

static float draw_float(draws *draws) { return (float)draw(draws, 2001) / 1000.0f - 1.0f; } /* -1 .. 1 */

void random_lookup_init(random_lookup *random, const random_lookup_options *options, uint64_t number) {
    draws draws = {options->seed, number, 0};
    ct_key_column *columns = calloc(options->columns + 1, sizeof *columns);
    uint32_t at = 3; /* a gap before, between and behind */
    for (size_t c = 0; c < options->columns; c++) {
        ct_key_column *column = &columns[c];
        const bool many = !options->plain && c % 3 == 1, weighted = !options->plain && (c % 4 == 1 || c % 4 == 2);
        size_t values = options->rows;
        column->pooling = draw(&draws, 2) ? CT_POOL_MEAN : CT_POOL_SUM;
        column->output_column = at;
        column->drop_index = (uint32_t)(c / 2 * 7);
        if (options->rare) column->rare_key = ct_rare_key(c == 2 ? 0 : c); /* the third shares the first one's */
        if (many) {
            uint32_t *offsets = calloc(options->rows + 1, sizeof *offsets);
            offsets[0] = (uint32_t)draw(&draws, 4); /* as in a part of a larger batch: what stands before is another part's */
            for (size_t r = 0; r < options->rows; r++) offsets[r + 1] = offsets[r] + (uint32_t)draw(&draws, 5);
            values = offsets[options->rows];
            column->offsets = offsets;
        }
        uint64_t *keys = calloc(values + 1, sizeof *keys);
        float *weights = weighted ? calloc(values + 1, sizeof *weights) : NULL;
        for (size_t j = 0; j < values; j++) {
            const uint64_t range = draw(&draws, 3) ? options->keys : options->keys / 16 + 1;
            keys[j] = random_key((c % 4) * 3 + draw(&draws, range));
            if (weighted) weights[j] = draw(&draws, 7) ? draw_float(&draws) : 0.0f;
        }
        column->keys = keys;
        column->weights = weights;
        at += options->dim + (uint32_t)(c % 3);
    }
    random->columns = columns;
    random->stride = at + 5;
    random->gradients = calloc(options->rows * random->stride + 1, sizeof(float));
    for (size_t i = 0; i < options->rows * random->stride; i++) random->gradients[i] = draw_float(&draws) * 0.1f;
    random->lookup = (ct_lookup){.mode = CT_LOOKUP_TRAIN,
                                 .rows = options->rows,
                                 .block_rows = options->block_rows,
                                 .columns = columns,
                                 .column_count = options->columns,
                                 .drop_rate = options->drop_rate,
                                 .drop_seed = 77,
                                 .epoch = 3,
                                 .first_row = (int64_t)(number * options->rows)};
}

void random_lookup_deinit(random_lookup *random) {
    for (size_t c = 0; c < random->lookup.column_count; c++) {
        free((void *)(uintptr_t)random->columns[c].keys);
        free((void *)(uintptr_t)random->columns[c].offsets);
        free((void *)(uintptr_t)random->columns[c].weights);
    }
    free(random->columns);
    free(random->gradients);
}
