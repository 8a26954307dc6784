/* Towers for tests, in a few words. Weights and inputs are a pure function of a seed. */
#ifndef TESTS_TOWER_TOWER_FIXTURE_H
#define TESTS_TOWER_TOWER_FIXTURE_H

#include "tower/tower.h"

typedef struct ct_spec_builder {
    ct_tower_spec spec;
    ct_layer_spec layers[CT_TOWER_MAX_LAYERS];
    ct_adapter_spec adapters[8];
    ct_unit_range units[8];
    size_t fields[64];
} ct_spec_builder;

void spec_begin(ct_spec_builder *b, size_t context_width, size_t width);
/* Each returns the slab of the new layer's output. */
size_t spec_dense(ct_spec_builder *b, size_t input, size_t out, ct_activation activation);
size_t spec_cross(ct_spec_builder *b, size_t input);
/* y = x * (U (V' carry) + b) + carry */
size_t spec_cross_low(ct_spec_builder *b, size_t carry, size_t rank);
void spec_field(ct_spec_builder *b, size_t column, size_t dim); /* rising columns, one dim */
size_t spec_fm(ct_spec_builder *b);
size_t spec_dot(ct_spec_builder *b, size_t second); /* 0 = none */
size_t spec_rest(ct_spec_builder *b);
void spec_head(ct_spec_builder *b, size_t outputs, size_t input_count, size_t a, size_t c, size_t d);
void spec_adapter(ct_spec_builder *b, size_t raw_column, size_t in, size_t column, size_t out);
/* Of two layers: the first one's outputs stand in `hidden` columns behind what there is of the raw input. */
void spec_two_adapters(ct_spec_builder *b, size_t raw_column, size_t in, size_t hidden, size_t column, size_t out);
void spec_unit(ct_spec_builder *b, size_t column, size_t count);

void spec_lr(ct_spec_builder *b, size_t numbers, size_t ids);
void spec_dnn(ct_spec_builder *b, size_t context_width, size_t width, size_t hidden, size_t depth);
void spec_dcn(ct_spec_builder *b, size_t context_width, size_t width, size_t cross, size_t hidden, size_t depth);
/* Everything at once: adapters on both sides, unit ranges, two outputs, an inner CROSS that a DENSE reads, a DENSE without activation. */
void spec_zoo(ct_spec_builder *b);

/* `fields` embeddings and `numbers` numbers, half of both on the context's side. */
void spec_deepfm(ct_spec_builder *b, size_t fields, size_t dim, size_t numbers, size_t hidden, size_t depth);
void spec_dlrm(ct_spec_builder *b, size_t fields, size_t dim, size_t numbers, size_t bottom, size_t top);
/* FM, DOT, REST, low-rank CROSS, normalised layers, fields on both sides with gaps between them, adapters of two layers on both sides. */
void spec_field_zoo(ct_spec_builder *b);

ct_tower_options tower_options(ct_precision precision, size_t batch_rows);
float test_value(uint64_t seed, uint64_t i); /* [-1, 1) */
/* Row `row` of a data set: x and raw of one row. */
void fill_row(uint64_t seed, size_t row, float *x, size_t width, float *raw, size_t raw_width);
float row_label(uint64_t seed, size_t row, size_t output);
/* d loss / d logit of the mean over `rows` rows. */
float logit_gradient(float logit, float label, size_t rows);
/* One step's forward and backward of a batch of rows [first, first + rows), blocks on the pool; logits (rows, outputs) may be NULL. */
void run_batch(ct_tower *tower, ct_pool *pool, const ct_tower_spec *spec, size_t batch_rows, uint64_t seed, size_t first, size_t rows,
               float *out_logits);
/* The same with the weights' gradients in the same run of the pool. */
void run_pass(ct_tower *tower, ct_pool *pool, const ct_tower_spec *spec, size_t batch_rows, uint64_t seed, size_t first, size_t rows);
uint64_t tower_hash(ct_tower *tower); /* of every tensor */

#endif
