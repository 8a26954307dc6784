/* The CPU's table of functions. */
#include "tower/cpu/cpu.h"

#include <stdlib.h>

#include "base/pause.h"

enum { PIECE_ROWS = 64 }; /* of a weight, that are packed at a time */

static ct_code create(ct_tower *tower, ct_status *status) {
    const ct_precision asked = tower->options.precision;
    if (asked == CT_PRECISION_BF16 && !ct_products_bf16_possible()) {
        return ct_fail(
            status, CT_UNSUPPORTED,
            "precision bf16 needs the instruction set avx512_core or better; this machine offers %s; "
            "use fp32 or auto in a new training (--init takes the weights of another one), and go on with one in bf16 on such a machine",
            ct_cpu_instruction_set());
    }
    const bool bf16 = asked == CT_PRECISION_BF16 || (asked == CT_PRECISION_AUTO && ct_products_bf16_native());
    tower->precision = bf16 ? CT_PRECISION_BF16 : CT_PRECISION_FP32;
    ct_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return ct_fail_memory(status, sizeof *cpu, "a tower");
    tower->backend = cpu;
    cpu->bf16 = bf16;
    if (pthread_mutex_init(&cpu->pack_lock, NULL) != 0) return ct_fail(status, CT_INTERNAL, "tower: no mutex");
    cpu->pack_lock_made = true;
    CT_TRY(ct_cpu_plan(tower, cpu, status));
    return cpu->block_rows == 0 ? CT_OK : ct_cpu_training_create(tower, cpu, status);
}

static void destroy(ct_tower *tower) {
    ct_cpu *cpu = ct_cpu_of(tower);
    if (cpu == NULL) return;
    ct_cpu_training_destroy(cpu);
    ct_products_destroy(cpu->products);
    ct_tower_memory_free(cpu->packed_memory);
    if (cpu->pack_lock_made) pthread_mutex_destroy(&cpu->pack_lock);
    free(cpu);
    tower->backend = NULL;
}

static void pack_layer(const ct_cpu *cpu, const ct_cpu_weights *weights, size_t l) {
    const ct_cpu_layer *layer = &cpu->layers[l];
    for (size_t i = 0; i < layer->part_count; ++i) {
        const size_t k = layer->parts[i].k;
        for (size_t row = 0; row < k; row += PIECE_ROWS) {
            ct_cpu_pack_part(cpu, weights, l, i, row, k - row < PIECE_ROWS ? k : row + PIECE_ROWS);
            ct_pause_point();
        }
    }
}

static void pack_set(const ct_tower *tower, const ct_cpu_weights *weights) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    for (size_t l = 0; l < cpu->layer_count; ++l) pack_layer(cpu, weights, l);
    ct_cpu_pack_small(tower, weights);
}

static void weights_changed(ct_tower *tower) {
    ct_cpu *cpu = ct_cpu_of(tower);
    pack_set(tower, &cpu->weights);
    for (size_t l = 0; l < cpu->layer_count; ++l) ct_cpu_pack_back(cpu, l, 0, cpu->layers[l].in);
    atomic_store(&cpu->stale, cpu->two_sets);
}

const ct_cpu_weights *ct_cpu_for_inference(const ct_tower *tower) {
    ct_cpu *cpu = ct_cpu_of(tower);
    if (!atomic_load(&cpu->stale)) return &cpu->average;
    pthread_mutex_lock(&cpu->pack_lock);
    if (atomic_load(&cpu->stale)) pack_set(tower, &cpu->average);
    atomic_store(&cpu->stale, false);
    pthread_mutex_unlock(&cpu->pack_lock);
    return &cpu->average;
}

static float *workspace_x(ct_workspace *base, size_t *out_stride) {
    const ct_cpu_workspace *workspace = (const ct_cpu_workspace *)base;
    *out_stride = workspace->cpu->slabs[0].padded;
    return workspace->rows.slabs[0].f32;
}

static float *workspace_raw(ct_workspace *base, size_t *out_stride) {
    const ct_cpu_workspace *workspace = (const ct_cpu_workspace *)base;
    *out_stride = workspace->cpu->raw_stride;
    return workspace->rows.raw;
}

static float *block_x(ct_tower *tower, size_t block, size_t *out_stride) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    *out_stride = cpu->slabs[0].padded;
    return cpu->blocks[block].slabs[0].f32;
}

static float *block_raw(ct_tower *tower, size_t block, size_t *out_stride) {
    const ct_cpu *cpu = ct_cpu_of(tower);
    *out_stride = cpu->raw_stride;
    return cpu->blocks[block].raw;
}

const ct_tower_ops *ct_tower_cpu_ops(void) {
    static const ct_tower_ops ops = {.kind = "cpu",
                                     .create = create,
                                     .destroy = destroy,
                                     .weights_changed = weights_changed,
                                     .workspace_create = ct_cpu_workspace_create,
                                     .workspace_destroy = ct_cpu_workspace_destroy,
                                     .workspace_x = workspace_x,
                                     .workspace_raw = workspace_raw,
                                     .context = ct_cpu_context,
                                     .forward = ct_cpu_forward,
                                     .block_x = block_x,
                                     .block_raw = block_raw,
                                     .block_forward = ct_cpu_block_forward,
                                     .block_backward = ct_cpu_block_backward,
                                     .gradients_begin = ct_cpu_gradients_begin,
                                     .block_done = ct_cpu_block_done,
                                     .gradient_tasks = ct_cpu_gradient_tasks,
                                     .gradient_task = ct_cpu_gradient_task,
                                     .update = ct_cpu_update,
                                     .weight_gradient = ct_cpu_weight_gradient};
    return &ops;
}
