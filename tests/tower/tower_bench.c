/* Rows a second of the dense part of a training step (forward, backward, update), beside the time of its matrix products alone, measured
 * in the same run: tower_bench [fp32|bf16] [batch] [shape] [threads]. The products run in the shapes and chunks that the tower uses, one
 * after the other, on memory of the thread's own. Not a test: it proves nothing but prints. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/bench.h"
#include "tests/tower/tower_fixture.h"
#include "tower/cpu/cpu.h"

enum { RUNS = 9 };

typedef struct work {
    ct_tower *tower;
    ct_cpu *cpu;
    size_t block_rows, outputs;
    float *gradients, *logits;
    ct_cpu_scratch **scratch;
} work;

static void forward_task(void *context, size_t block, size_t worker) {
    const work *w = context;
    (void)worker;
    ct_tower_block_forward(w->tower, block, w->block_rows, w->logits + block * w->block_rows * w->outputs);
}
static void backward_task(void *context, size_t block, size_t worker) {
    const work *w = context;
    (void)worker;
    ct_tower_block_backward(w->tower, block, w->block_rows, w->gradients + block * w->block_rows * w->outputs);
}

/* The products of a block's forward (and, if asked, backward) pass, on scratch memory. */
static void block_products(const work *w, size_t worker, bool back) {
    const ct_cpu *cpu = w->cpu;
    ct_cpu_scratch *s = w->scratch[worker];
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        if (layer->back == NULL) continue;
        for (size_t row = 0; row < w->block_rows; row += CT_CHUNK_ROWS) {
            if (back) {
                ct_product_run(layer->back, s->executor, CT_CHUNK_ROWS, s->dz[0], layer->packed_back, s->sums[0], layer->back_adds);
                continue;
            }
            for (size_t i = 0; i < layer->part_count; ++i) {
                ct_product_run(layer->parts[i].product, s->executor, CT_CHUNK_ROWS, s->dz[0], cpu->weights.parts[l][i], s->sums[0], false);
            }
        }
    }
}
static void forward_products(void *context, size_t block, size_t worker) {
    (void)block;
    block_products(context, worker, false);
}
static void backward_products(void *context, size_t block, size_t worker) {
    (void)block;
    block_products(context, worker, true);
}
static void gradient_products(void *context, size_t task, size_t worker) {
    const work *w = context;
    const ct_cpu *cpu = w->cpu;
    if (cpu->own) {
        const ct_cpu_piece piece = ct_cpu_find_piece(cpu, task);
        for (size_t b = 0; b < cpu->block_count; ++b) ct_cpu_piece_product(cpu, w->scratch[worker], &piece, &cpu->blocks[0], b > 0);
        return;
    }
    const ct_cpu_layer *layer = cpu->layers;
    while (task >= layer->panel_count) task -= (layer++)->panel_count;
    for (size_t b = 0; b < cpu->block_count; ++b) {
        ct_cpu_panel_product(cpu, w->scratch[worker], (size_t)(layer - cpu->layers), task, &cpu->blocks[0], b > 0);
    }
}

static int bench(const char *name, ct_spec_builder *b, ct_precision precision, size_t batch, size_t threads) {
    ct_pool *pool = NULL;
    ct_tower *tower = NULL;
    ct_tower_options options = tower_options(precision, batch);
    const int64_t created = ct_clock_ns();
    if (ct_pool_create(threads, &pool, &status) != CT_OK) goto fail;
    if (ct_tower_create(&b->spec, &options, pool, &tower, &status) != CT_OK) goto fail;
    const double create_ms = (double)(ct_clock_ns() - created) * 1e-6;
    work w = {.tower = tower, .cpu = tower->backend, .block_rows = ct_tower_block_rows(batch), .outputs = 1};
    w.scratch = w.cpu->scratch;
    w.logits = calloc(batch, sizeof *w.logits);
    w.gradients = calloc(batch, sizeof *w.gradients);
    if (w.logits == NULL || w.gradients == NULL) return 1;
    const size_t blocks = batch / w.block_rows;
    double step[4][RUNS], products[4][RUNS];
    for (size_t run = 0; run < RUNS; ++run) {
        for (size_t i = 0; i < 4; ++i) step[i][run] = 0;
        for (size_t i = 0; i < 4; ++i) products[i][run] = 0;
        const int repeats = precision == CT_PRECISION_BF16 ? 6 : 2;
        for (int repeat = 0; repeat < repeats; ++repeat) {
            for (size_t k = 0; k < blocks; ++k) {
                size_t stride;
                float *x = ct_tower_block_x(tower, k, &stride);
                for (size_t r = 0; r < w.block_rows; ++r) {
                    for (size_t c = 0; c < b->spec.width; ++c) x[r * stride + c] = (float)((r * 7 + c * 13) % 64) / 64.0f - 0.5f;
                }
            }
            for (size_t i = 0; i < batch; ++i) w.gradients[i] = i % 3 == 0 ? -0.5f / (float)batch : 0.2f / (float)batch;
            const int64_t t0 = ct_clock_ns();
            ct_pool_run(pool, blocks, forward_task, &w);
            const int64_t t1 = ct_clock_ns();
            ct_pool_run(pool, blocks, backward_task, &w);
            const int64_t t2 = ct_clock_ns();
            if (ct_tower_update(tower, batch, &status) != CT_OK) goto fail;
            const int64_t t3 = ct_clock_ns();
            ct_pool_run(pool, blocks, forward_products, &w);
            const int64_t t4 = ct_clock_ns();
            ct_pool_run(pool, blocks, backward_products, &w);
            const int64_t t5 = ct_clock_ns();
            ct_pool_run(pool, ct_tower_gradient_tasks(tower) - 1, gradient_products, &w);
            const int64_t t6 = ct_clock_ns();
            const double scale = 1e-6 / repeats;
            step[0][run] += (double)(t1 - t0) * scale;
            step[1][run] += (double)(t2 - t1) * scale;
            step[2][run] += (double)(t3 - t2) * scale;
            step[3][run] += (double)(t3 - t0) * scale;
            products[0][run] += (double)(t4 - t3) * scale;
            products[1][run] += (double)(t5 - t4) * scale;
            products[2][run] += (double)(t6 - t5) * scale;
            products[3][run] += (double)(t6 - t3) * scale;
        }
    }
    const ct_product *kernel = NULL;
    for (size_t l = 0; kernel == NULL; ++l) kernel = w.cpu->layers[l].back;
    const double total = median(step[3], RUNS), bound = median(products[3], RUNS);
    printf(
        "%-7s %-4s %zu thread%s: %6.1f k rows/s, products alone %6.1f k rows/s, %3.0f %% | ms forward %.2f of %.2f, backward %.2f of %.2f, "
        "update %.2f of %.2f | created in %.0f ms, %.0f GFLOP/s of products, %s\n",
        name, precision == CT_PRECISION_BF16 ? "bf16" : "fp32", threads, threads == 1 ? " " : "s", (double)batch / total,
        (double)batch / bound, 100 * bound / total, median(products[0], RUNS), median(step[0], RUNS), median(products[1], RUNS),
        median(step[1], RUNS), median(products[2], RUNS), median(step[2], RUNS), create_ms,
        3 * ct_tower_flops_per_row(tower) * (double)batch / bound * 1e-6, ct_product_kernel(kernel));
    free(w.logits);
    free(w.gradients);
    ct_tower_destroy(tower);
    ct_pool_destroy(pool);
    return 0;
fail:
    fprintf(stderr, "%s: %s\n", name, status.message);
    ct_tower_destroy(tower);
    ct_pool_destroy(pool);
    return 1;
}

/* 13-512-256-16 and 512-256-1, 26 ids of 16, as in docs/benchmarks.md. */
static void make_dlrm(ct_spec_builder *b) {
    const size_t bottom[] = {512, 256, 16}, top[] = {512, 256};
    spec_begin(b, 0, 26 * 16 + 13);
    for (size_t i = 0; i < 26; ++i) spec_field(b, i * 16, 16);
    size_t slab = spec_rest(b);
    for (size_t i = 0; i < 3; ++i) slab = spec_dense(b, slab, bottom[i], CT_ACTIVATION_RELU);
    slab = spec_dot(b, slab);
    for (size_t i = 0; i < 2; ++i) slab = spec_dense(b, slab, top[i], CT_ACTIVATION_RELU);
    spec_head(b, 1, 1, slab, 0, 0);
}

int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    const size_t batch = argc > 2 ? (size_t)strtoul(argv[2], NULL, 10) : 2048;
    const size_t least = argc > 4 ? (size_t)strtoul(argv[4], NULL, 10) : 1, most = argc > 4 ? least : 2;
    printf("instruction set %s, batch %zu\n", ct_tower_instruction_set(), batch);
    static ct_spec_builder dcn, split, low, dnn, deepfm, dlrm;
    spec_dcn(&dcn, 0, 429, 3, 500, 3);
    spec_dcn(&split, 221, 429, 3, 500, 3);
    spec_dnn(&dnn, 0, 429, 400, 3);
    spec_deepfm(&deepfm, 26, 16, 13, 400, 3);
    make_dlrm(&dlrm);
    spec_begin(&low, 0, 429);
    spec_head(&low, 1, 1, spec_cross_low(&low, spec_cross_low(&low, spec_cross_low(&low, 0, 64), 64), 64), 0, 0);
    const struct {
        const char *name;
        ct_spec_builder *spec;
    } shapes[] = {{"dcn-v2", &dcn}, {"split", &split}, {"low", &low}, {"dnn", &dnn}, {"deepfm", &deepfm}, {"dlrm", &dlrm}};
    int failed = 0;
    for (int p = 0; p < 2; ++p) {
        const ct_precision precision = p == 0 ? CT_PRECISION_BF16 : CT_PRECISION_FP32;
        if (only[0] != 0 && strcmp(only, p == 0 ? "bf16" : "fp32") != 0) continue;
        for (size_t threads = least; threads <= most; ++threads) {
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
                if (argc > 3 && strcmp(argv[3], shapes[i].name) != 0) continue;
                failed |= bench(shapes[i].name, shapes[i].spec, precision, batch, threads);
            }
        }
    }
    return failed;
}
