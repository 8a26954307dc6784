/* Memory of the CPU's tower, by lifetime: blocks and scratch memory of training, workspaces. Each is one allocation. */
#include <stdlib.h>
#include <string.h>

#include "tower/cpu/cpu.h"

/* --- rows of a block or a workspace --- */

typedef enum rows_kind { ROWS_WORKSPACE, ROWS_BLOCK, ROWS_PASSING } rows_kind;

/* x: where slab 0 lies, NULL = in `memory`. */
static void place_rows(const ct_cpu *cpu, size_t rows, rows_kind kind, float *x, ct_cpu_rows *to, ct_cpu_pieces *memory) {
    const size_t item = ct_cpu_item(cpu);
    const bool same_x = !cpu->bf16 && cpu->x_part_count == 1; /* x as it is is what products read */
    for (size_t s = 0; s < cpu->slab_count; ++s) {
        const ct_cpu_slab_plan *plan = &cpu->slabs[s];
        ct_cpu_slab *slab = &to->slabs[s];
        const bool here = kind == ROWS_WORKSPACE || (kind == ROWS_PASSING) == plan->passing;
        if (plan->f32 && here) slab->f32 = s == 0 && x != NULL ? x : ct_cpu_take(memory, rows * plan->padded * sizeof(float));
        if (s > 0 && !plan->f32 && here) slab->in = ct_cpu_take(memory, rows * plan->padded * item);
        /* Rounded copies of what is kept in fp32 pass, whatever they are copies of. */
        if (s > 0 && plan->f32 && plan->product && (cpu->bf16 ? kind != ROWS_BLOCK : here)) {
            slab->in = cpu->bf16 ? ct_cpu_take(memory, rows * plan->padded * item) : slab->f32;
        }
    }
    for (size_t i = 0; i < cpu->x_part_count && cpu->slabs[0].product; ++i) {
        if (same_x) {
            to->x_in[i] = to->slabs[0].f32;
        } else if (kind != ROWS_BLOCK) {
            to->x_in[i] = ct_cpu_take(memory, rows * cpu->x_parts[i].padded * item);
        }
    }
    if (kind == ROWS_PASSING) return;
    to->raw = cpu->raw_stride == 0 ? NULL : ct_cpu_take(memory, rows * cpu->raw_stride * sizeof(float));
    if (kind == ROWS_WORKSPACE) return;
    for (size_t s = 0; s < cpu->slab_count; ++s) {
        /* The candidates' part of x ends up to a padding behind x's own. */
        if (cpu->slabs[s].product) to->slabs[s].transposed = ct_cpu_take(memory, (cpu->slabs[s].padded + cpu->padding) * rows * item);
    }
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        if (layer->cross || layer->normalise) to->sum[l] = ct_cpu_take(memory, rows * layer->out_padded * sizeof(float));
        if (layer->normalise) to->inverse[l] = ct_cpu_take(memory, rows * sizeof(float));
        if (layer->dropout > 0) to->kept[l] = ct_cpu_take(memory, rows * layer->out_padded * sizeof(float));
        if (layer->back != NULL) to->dz[l] = ct_cpu_take(memory, ct_cpu_dz_size(cpu, layer) * item);
    }
    to->partial = ct_cpu_take(memory, cpu->partial_floats * sizeof(float));
}

static void *skip(void *from, size_t bytes) { return from == NULL ? NULL : (char *)from + bytes; }

ct_cpu_rows ct_cpu_rows_at_work(const ct_cpu *cpu, size_t block, size_t first, const ct_cpu_scratch *scratch) {
    ct_cpu_rows rows = cpu->blocks[block];
    const size_t item = ct_cpu_item(cpu);
    rows.raw = skip(rows.raw, first * cpu->raw_stride * sizeof(float));
    for (size_t s = 0; s < cpu->slab_count; ++s) {
        const size_t padded = cpu->slabs[s].padded;
        ct_cpu_slab *slab = &rows.slabs[s];
        slab->f32 = skip(slab->f32, first * padded * sizeof(float));
        slab->in = skip(slab->in, first * padded * item);
        slab->transposed = skip(slab->transposed, first * (cpu->own ? padded : 1) * item);
    }
    for (size_t i = 0; i < cpu->x_part_count; ++i) rows.x_in[i] = skip(rows.x_in[i], first * cpu->x_parts[i].padded * sizeof(float));
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const size_t bytes = first * cpu->layers[l].out_padded * sizeof(float);
        rows.sum[l] = skip(rows.sum[l], bytes);
        rows.inverse[l] = skip(rows.inverse[l], first * sizeof(float));
        rows.kept[l] = skip(rows.kept[l], bytes);
    }
    for (size_t s = 1; s < cpu->slab_count; ++s) {
        if (rows.slabs[s].f32 == NULL) rows.slabs[s].f32 = scratch->rows.slabs[s].f32;
        if (rows.slabs[s].in == NULL) rows.slabs[s].in = scratch->rows.slabs[s].in;
    }
    for (size_t i = 0; i < cpu->x_part_count; ++i) {
        if (rows.x_in[i] == NULL) rows.x_in[i] = scratch->rows.x_in[i];
    }
    return rows;
}

ct_vectors_in ct_cpu_second(const ct_cpu *cpu, const ct_cpu_rows *rows, const ct_cpu_layer *layer, size_t row) {
    if (!layer->second) return (ct_vectors_in){0};
    const ct_cpu_slab_plan *plan = &cpu->slabs[layer->input];
    const ct_cpu_slab *slab = &rows->slabs[layer->input];
    const bool f32 = plan->f32 || !cpu->bf16;
    const float *floats = plan->f32 ? slab->f32 : slab->in;
    return (ct_vectors_in){.f32 = f32 ? floats + row * plan->padded : NULL,
                           .bf16 = f32 ? NULL : (const uint16_t *)slab->in + row * plan->padded,
                           .stride = plan->padded};
}

/* --- scratch --- */

static void place_scratch(const ct_cpu *cpu, bool training, ct_cpu_scratch *scratch, ct_cpu_pieces *memory) {
    for (size_t i = 0; i < 3; ++i) scratch->sums[i] = ct_cpu_take(memory, CT_CHUNK_ROWS * cpu->widest * sizeof(float));
    scratch->fields = ct_cpu_take(memory, cpu->field_floats * sizeof(float));
    if (!training) return;
    for (size_t i = 0; i < 2; ++i) scratch->dz[i] = ct_cpu_take(memory, CT_CHUNK_ROWS * cpu->widest * ct_cpu_item(cpu));
    place_rows(cpu, cpu->part_rows, ROWS_PASSING, NULL, &scratch->rows, memory);
    float *own[CT_CPU_MAX_SLABS] = {NULL};
    for (size_t s = 0; s < cpu->slab_count; ++s) {
        const size_t index = cpu->slabs[s].gradient;
        if (index == s) own[s] = ct_cpu_take(memory, cpu->part_rows * cpu->slabs[s].padded * sizeof(float));
    }
    for (size_t s = 0; s < cpu->slab_count; ++s) scratch->gradient[s] = own[cpu->slabs[s].gradient];
}

ct_code ct_cpu_scratch_create(const ct_cpu *cpu, bool training, ct_cpu_scratch **out_scratch, ct_status *status) {
    ct_cpu_scratch *scratch = calloc(1, sizeof *scratch);
    if (scratch == NULL) return ct_fail_memory(status, sizeof *scratch, "scratch memory");
    ct_cpu_pieces memory = {NULL, 0};
    ct_code code;
    place_scratch(cpu, training, scratch, &memory);
    scratch->memory = ct_tower_memory(memory.used);
    if (scratch->memory == NULL) {
        code = ct_fail_memory(status, memory.used, "scratch memory");
        goto fail;
    }
    memory = (ct_cpu_pieces){scratch->memory, 0};
    place_scratch(cpu, training, scratch, &memory);
    CT_TRY_GOTO(code, ct_executor_create(cpu->products, &scratch->executor, status), fail);
    *out_scratch = scratch;
    return CT_OK;
fail:
    ct_cpu_scratch_destroy(scratch);
    return code;
}

void ct_cpu_scratch_destroy(ct_cpu_scratch *scratch) {
    if (scratch == NULL) return;
    ct_executor_destroy(scratch->executor);
    ct_tower_memory_free(scratch->memory);
    free(scratch);
}

ct_cpu_scratch *ct_cpu_scratch_take(ct_cpu *cpu) {
    pthread_mutex_lock(&cpu->lock);
    while (cpu->free == NULL) pthread_cond_wait(&cpu->returned, &cpu->lock);
    ct_cpu_scratch *scratch = cpu->free;
    cpu->free = scratch->next;
    pthread_mutex_unlock(&cpu->lock);
    return scratch;
}

void ct_cpu_scratch_give(ct_cpu *cpu, ct_cpu_scratch *scratch) {
    pthread_mutex_lock(&cpu->lock);
    scratch->next = cpu->free;
    cpu->free = scratch;
    pthread_cond_signal(&cpu->returned);
    pthread_mutex_unlock(&cpu->lock);
}

/* --- training --- */

ct_code ct_cpu_training_create(const ct_tower *tower, ct_cpu *cpu, ct_status *status) {
    cpu->blocks = calloc(cpu->block_count, sizeof *cpu->blocks);
    cpu->scratch = calloc(ct_pool_threads(tower->pool), sizeof *cpu->scratch);
    cpu->sound = calloc(cpu->block_count, sizeof *cpu->sound);
    cpu->done = calloc(cpu->block_count, sizeof *cpu->done);
    size_t floats = 0;
    for (size_t l = 0; l < cpu->layer_count; ++l) floats += cpu->layers[l].panel_count * cpu->layers[l].in_padded * CT_PANEL_COLUMNS;
    cpu->gradients = ct_tower_memory(floats * sizeof(float));
    cpu->small = ct_tower_memory(tower->floats * sizeof(float));
    cpu->partial = ct_tower_memory(cpu->partial_floats * sizeof(float));
    if (cpu->blocks == NULL || cpu->scratch == NULL || cpu->sound == NULL || cpu->done == NULL || cpu->gradients == NULL ||
        cpu->small == NULL || cpu->partial == NULL) {
        return ct_fail_memory(status, (floats + tower->floats) * sizeof(float), "the tower's gradients");
    }
    /* The blocks' x follow each other: the store reads their gradients as one matrix. */
    const size_t x_floats = cpu->block_rows * cpu->slabs[0].padded;
    cpu->x_memory = ct_tower_memory(cpu->block_count * x_floats * sizeof(float));
    if (cpu->x_memory == NULL) return ct_fail_memory(status, cpu->block_count * x_floats * sizeof(float), "a training batch");
    /* One piece of memory for all, which is large enough for huge pages. */
    ct_cpu_pieces memory = {NULL, 0};
    for (size_t b = 0; b < cpu->block_count; ++b) place_rows(cpu, cpu->block_rows, ROWS_BLOCK, cpu->x_memory, &cpu->blocks[b], &memory);
    cpu->block_memory = ct_tower_memory(memory.used);
    if (cpu->block_memory == NULL) return ct_fail_memory(status, memory.used, "a training batch");
    memory = (ct_cpu_pieces){cpu->block_memory, 0};
    for (size_t b = 0; b < cpu->block_count; ++b) {
        place_rows(cpu, cpu->block_rows, ROWS_BLOCK, cpu->x_memory + b * x_floats, &cpu->blocks[b], &memory);
    }
    for (size_t i = 0; i < ct_pool_threads(tower->pool); ++i) {
        CT_TRY(ct_cpu_scratch_create(cpu, true, &cpu->scratch[i], status));
        cpu->scratch[i]->next = cpu->free;
        cpu->free = cpu->scratch[i];
        ++cpu->scratch_count;
    }
    if (pthread_mutex_init(&cpu->lock, NULL) != 0) return ct_fail(status, CT_INTERNAL, "tower: no mutex");
    if (pthread_cond_init(&cpu->returned, NULL) != 0) {
        pthread_mutex_destroy(&cpu->lock);
        return ct_fail(status, CT_INTERNAL, "tower: no condition variable");
    }
    cpu->lock_made = true;
    return CT_OK;
}

void ct_cpu_training_destroy(ct_cpu *cpu) {
    if (cpu->lock_made) {
        pthread_cond_destroy(&cpu->returned);
        pthread_mutex_destroy(&cpu->lock);
    }
    for (size_t i = 0; i < cpu->scratch_count; ++i) ct_cpu_scratch_destroy(cpu->scratch[i]);
    ct_tower_memory_free(cpu->block_memory);
    free(cpu->scratch);
    free(cpu->blocks);
    ct_tower_memory_free(cpu->x_memory);
    free(cpu->sound);
    free(cpu->done);
    ct_tower_memory_free(cpu->gradients);
    ct_tower_memory_free(cpu->small);
    ct_tower_memory_free(cpu->partial);
}

/* --- workspaces --- */

static void place_workspace(const ct_tower *tower, ct_cpu_workspace *workspace, ct_cpu_pieces *memory) {
    const ct_cpu *cpu = workspace->cpu;
    place_rows(cpu, CT_TOWER_MAX_ROWS, ROWS_WORKSPACE, NULL, &workspace->rows, memory);
    workspace->context_x = ct_cpu_take(memory, (tower->spec.context_width + 1) * sizeof(float));
    for (size_t l = 0; l < cpu->layer_count; ++l) {
        const ct_cpu_layer *layer = &cpu->layers[l];
        if (layer->parts[0].context) workspace->context_sum[l] = ct_cpu_take(memory, layer->out_padded * sizeof(float));
    }
}

ct_code ct_cpu_workspace_create(const ct_tower *tower, ct_workspace **out_workspace, ct_status *status) {
    ct_cpu_workspace *workspace = calloc(1, sizeof *workspace);
    if (workspace == NULL) return ct_fail_memory(status, sizeof *workspace, "a workspace");
    workspace->base.ops = tower->ops;
    workspace->cpu = ct_cpu_of(tower);
    ct_cpu_pieces memory = {NULL, 0};
    ct_code code;
    place_workspace(tower, workspace, &memory);
    workspace->memory = ct_tower_memory(memory.used);
    if (workspace->memory == NULL) {
        code = ct_fail_memory(status, memory.used, "a workspace");
        goto fail;
    }
    memory = (ct_cpu_pieces){workspace->memory, 0};
    place_workspace(tower, workspace, &memory);
    CT_TRY_GOTO(code, ct_cpu_scratch_create(workspace->cpu, false, &workspace->scratch, status), fail);
    *out_workspace = &workspace->base;
    return CT_OK;
fail:
    ct_cpu_workspace_destroy(&workspace->base);
    return code;
}

void ct_cpu_workspace_destroy(ct_workspace *base) {
    ct_cpu_workspace *workspace = (ct_cpu_workspace *)base;
    ct_cpu_scratch_destroy(workspace->scratch);
    ct_tower_memory_free(workspace->memory);
    free(workspace);
}
