#include "tower/cpu/products.h"

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "tower/cpu/loops.h"
#include "tower/tower_internal.h"

/* libgomp's, which Debian's oneDNN runs on; its header needs a compiler flag. */
extern void omp_set_num_threads(int threads);
extern int omp_get_max_threads(void);

typedef struct variant {
    size_t rows;
    dnnl_primitive_t primitive, sum_primitive; /* sum_primitive may be NULL */
    dnnl_memory_desc_t a, b, c, scratch, sum_scratch;
    size_t index; /* into an executor's bindings */
} variant;

struct ct_product {
    ct_product *next;
    ct_product_shape shape;
    ct_panels panels;
    char kernel[64];
    variant variants[CT_PRODUCT_MAX_COUNTS]; /* the largest count first */
    size_t variant_count;
    bool sums_exactly;
    bool own; /* no variants */
};

struct ct_products {
    dnnl_engine_t engine;
    ct_product *first;
    size_t variant_count; /* in all */
    size_t scratch_bytes, add_floats;
};

typedef struct binding {
    dnnl_memory_t a, b, c, scratch, sum_scratch;
    const void *a_at, *b_at, *c_at; /* what the handles are set to: setting one costs as much as a small product */
} binding;

struct ct_executor {
    dnnl_stream_t stream;
    binding *bindings;
    size_t binding_count;
    void *scratch;
    float *add; /* a finished product that is yet to be added */
};

/* The calling thread's OpenMP limit is 1 between these two. */
static int enter_one_thread(void) {
    const int before = omp_get_max_threads();
    if (before != 1) omp_set_num_threads(1);
    return before;
}
static void leave_one_thread(int before) {
    if (before != 1) omp_set_num_threads(before);
}

const char *ct_cpu_instruction_set(void) {
    switch ((int)dnnl_get_effective_cpu_isa()) {
        case dnnl_cpu_isa_sse41:
            return "sse41";
        case dnnl_cpu_isa_avx:
            return "avx";
        case dnnl_cpu_isa_avx2:
            return "avx2";
        case dnnl_cpu_isa_avx2_vnni:
            return "avx2_vnni";
        case dnnl_cpu_isa_avx512_mic:
            return "avx512_mic";
        case dnnl_cpu_isa_avx512_mic_4ops:
            return "avx512_mic_4ops";
        case dnnl_cpu_isa_avx512_core:
            return "avx512_core";
        case dnnl_cpu_isa_avx512_core_vnni:
            return "avx512_core_vnni";
        case dnnl_cpu_isa_avx512_core_bf16:
            return "avx512_core_bf16";
        case dnnl_cpu_isa_avx512_core_amx:
            return "avx512_core_amx";
        default:
            return "generic";
    }
}

/* An instruction set is a set of bits in which the sets that it includes are contained. */
static bool offers(dnnl_cpu_isa_t isa) { return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)isa) == (unsigned)isa; }
bool ct_products_bf16_native(void) { return offers(dnnl_cpu_isa_avx512_core_bf16); }
bool ct_products_tiles(void) { return offers(dnnl_cpu_isa_avx512_core_amx); }
bool ct_products_own(void) { return ct_tiles_possible() && ct_products_bf16_native() && !ct_products_tiles(); }
bool ct_products_bf16_possible(void) { return offers(dnnl_cpu_isa_avx512_core); }

static ct_code from_dnnl(dnnl_status_t result, const ct_product_shape *shape, size_t rows, const char *what, ct_status *status) {
    const char *precision = shape->bf16 ? "bf16" : "fp32";
    if (result == dnnl_success) return CT_OK;
    if (result == dnnl_unimplemented) {
        return ct_fail(status, CT_UNSUPPORTED, "precision %s: oneDNN has no product of %zu x %zu x %zu on instruction set %s; use fp32",
                       precision, rows, shape->n, shape->k, ct_cpu_instruction_set());
    }
    const ct_code code = result == dnnl_out_of_memory ? CT_EXHAUSTED : CT_INTERNAL;
    return ct_fail(status, code, "oneDNN: %s of a %s product of %zu x %zu x %zu failed with status %d", what, precision, rows, shape->n,
                   shape->k, (int)result);
}

ct_code ct_products_create(ct_products **out_products, ct_status *status) {
    ct_products *products = calloc(1, sizeof *products);
    if (products == NULL) return ct_fail_memory(status, sizeof *products, "products");
    const dnnl_status_t result = dnnl_engine_create(&products->engine, dnnl_cpu, 0);
    if (result != dnnl_success) {
        free(products);
        return ct_fail(status, CT_INTERNAL, "oneDNN: no CPU engine (status %d)", (int)result);
    }
    *out_products = products;
    return CT_OK;
}

static void variant_deinit(variant *v) {
    if (v->primitive != NULL) dnnl_primitive_destroy(v->primitive);
    if (v->sum_primitive != NULL) dnnl_primitive_destroy(v->sum_primitive);
    v->primitive = v->sum_primitive = NULL;
}

static void product_destroy(ct_product *product) {
    for (size_t i = 0; i < product->variant_count; ++i) variant_deinit(&product->variants[i]);
    free(product);
}

void ct_products_destroy(ct_products *products) {
    if (products == NULL) return;
    while (products->first != NULL) {
        ct_product *next = products->first->next;
        product_destroy(products->first);
        products->first = next;
    }
    dnnl_engine_destroy(products->engine);
    free(products);
}

const ct_panels *ct_product_panels(const ct_product *product) { return &product->panels; }
const char *ct_product_kernel(const ct_product *product) { return product->kernel; }

/* Reads oneDNN's layout of B; false where it is not panels as above. */
static bool read_panels(const dnnl_memory_desc_t *b, ct_panels *out_panels) {
    if (b->format_kind != dnnl_blocked || b->ndims != 2 || b->extra.flags != 0 || b->offset0 != 0) return false;
    const dnnl_blocking_desc_t *blocking = &b->format_desc.blocking;
    const size_t k = (size_t)b->padded_dims[0], n = (size_t)b->padded_dims[1];
    ct_panels panels = {.k = (size_t)b->dims[0], .n = (size_t)b->dims[1], .elements = k * n};
    if (blocking->inner_nblks == 0) {
        if (blocking->strides[1] != 1 || (size_t)blocking->strides[0] != n) return false;
        panels.width = n;
        panels.pair = panels.count = 1;
        panels.panel_stride = k * n;
        *out_panels = panels;
        return true;
    }
    const bool three = blocking->inner_nblks == 3;
    if (!three && blocking->inner_nblks != 2) return false;
    if (blocking->inner_idxs[0] != 0 || blocking->inner_idxs[1] != 1 || (three && blocking->inner_idxs[2] != 0)) return false;
    panels.width = (size_t)blocking->inner_blks[1];
    panels.pair = three ? (size_t)blocking->inner_blks[2] : 1;
    const size_t block = (size_t)blocking->inner_blks[0] * panels.pair; /* rows of a block */
    if (panels.pair > 2 || n % panels.width != 0 || k % block != 0) return false;
    panels.count = n / panels.width;
    panels.panel_stride = k * panels.width;
    if ((size_t)blocking->strides[0] != block * panels.width || (size_t)blocking->strides[1] != panels.panel_stride) return false;
    *out_panels = panels;
    return true;
}

static dnnl_status_t make_primitive(dnnl_engine_t engine, variant *v, bool sum, dnnl_primitive_t *out_primitive,
                                    dnnl_memory_desc_t *out_scratch, char kernel[64]) {
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_status_t result = dnnl_matmul_desc_init(&matmul, &v->a, &v->b, NULL, &v->c);
    if (result == dnnl_success) result = dnnl_primitive_attr_create(&attributes);
    if (result == dnnl_success) result = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (result == dnnl_success && sum) {
        result = dnnl_post_ops_create(&post_ops);
        if (result == dnnl_success) result = dnnl_post_ops_append_sum(post_ops, 1.0f);
        if (result == dnnl_success) result = dnnl_primitive_attr_set_post_ops(attributes, post_ops);
    }
    if (result == dnnl_success) result = dnnl_primitive_desc_create(&description, &matmul, attributes, engine, NULL);
    if (result == dnnl_success) {
        const char *name = "";
        (void)dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name);
        if (kernel != NULL) strncpy(kernel, name, 63);
        v->b = *dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        *out_scratch = *dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
        result = dnnl_primitive_create(out_primitive, description);
    }
    if (description != NULL) dnnl_primitive_desc_destroy(description);
    if (post_ops != NULL) dnnl_post_ops_destroy(post_ops);
    if (attributes != NULL) dnnl_primitive_attr_destroy(attributes);
    return result;
}

/* b: the layout of the first variant, or NULL: then oneDNN chooses, and the row-major one is taken where we can't read its choice. */
static ct_code variant_init(dnnl_engine_t engine, const ct_product_shape *shape, size_t rows, const dnnl_memory_desc_t *b,
                            ct_product *product, variant *v, ct_status *status) {
    const dnnl_data_type_t type = shape->bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t a_dims = {(dnnl_dim_t)rows, (dnnl_dim_t)shape->k}, c_dims = {(dnnl_dim_t)rows, (dnnl_dim_t)shape->n};
    const dnnl_dims_t b_dims = {(dnnl_dim_t)shape->k, (dnnl_dim_t)shape->n};
    memset(v, 0, sizeof *v);
    v->rows = rows;
    dnnl_status_t result = dnnl_memory_desc_init_by_tag(&v->a, 2, a_dims, type, dnnl_ab);
    if (result == dnnl_success) result = dnnl_memory_desc_init_by_tag(&v->c, 2, c_dims, dnnl_f32, dnnl_ab);
    if (result == dnnl_success && b == NULL) result = dnnl_memory_desc_init_by_tag(&v->b, 2, b_dims, type, dnnl_format_tag_any);
    if (b != NULL) v->b = *b;
    char *kernel = b == NULL ? product->kernel : NULL;
    if (result == dnnl_success) result = make_primitive(engine, v, false, &v->primitive, &v->scratch, kernel);
    if (result == dnnl_success && b == NULL && !read_panels(&v->b, &product->panels)) {
        dnnl_primitive_destroy(v->primitive);
        v->primitive = NULL;
        result = dnnl_memory_desc_init_by_tag(&v->b, 2, b_dims, type, dnnl_ab);
        if (result == dnnl_success) result = make_primitive(engine, v, false, &v->primitive, &v->scratch, kernel);
        if (result == dnnl_success && !read_panels(&v->b, &product->panels)) result = dnnl_unimplemented;
    }
    if (result == dnnl_success && shape->accumulate) {
        result = make_primitive(engine, v, true, &v->sum_primitive, &v->sum_scratch, NULL);
    }
    if (result == dnnl_success) return CT_OK;
    variant_deinit(v);
    return from_dnnl(result, shape, rows, "creation", status);
}

static void binding_deinit(binding *b) {
    dnnl_memory_t all[] = {b->a, b->b, b->c, b->scratch, b->sum_scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) {
        if (all[i] != NULL) dnnl_memory_destroy(all[i]);
    }
}

/* Handles for a variant. oneDNN zeroes the padding of a memory whenever its handle is set; B's padding is zero already and B is shared by
 * threads, so its memory is described as if the padding were part of it. */
static dnnl_status_t binding_init(dnnl_engine_t engine, const variant *v, void *scratch, binding *b) {
    dnnl_memory_desc_t whole = v->b;
    memcpy(whole.dims, whole.padded_dims, sizeof whole.dims);
    memset(b, 0, sizeof *b);
    dnnl_status_t result = dnnl_memory_create(&b->a, &v->a, engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success) result = dnnl_memory_create(&b->b, &whole, engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success) result = dnnl_memory_create(&b->c, &v->c, engine, DNNL_MEMORY_NONE);
    if (result == dnnl_success) result = dnnl_memory_create(&b->scratch, &v->scratch, engine, scratch);
    if (result == dnnl_success && v->sum_primitive != NULL) {
        result = dnnl_memory_create(&b->sum_scratch, &v->sum_scratch, engine, scratch);
    }
    return result;
}

void ct_executor_destroy(ct_executor *executor) {
    if (executor == NULL) return;
    for (size_t i = 0; i < executor->binding_count; ++i) binding_deinit(&executor->bindings[i]);
    if (executor->stream != NULL) dnnl_stream_destroy(executor->stream);
    ct_tower_memory_free(executor->scratch);
    ct_tower_memory_free(executor->add);
    free(executor->bindings);
    free(executor);
}

/* An executor for all products of the list that begins at `first`. */
static ct_code make_executor(dnnl_engine_t engine, const ct_product *first, size_t variants, size_t scratch_bytes, size_t add_floats,
                             ct_executor **out_executor, ct_status *status) {
    ct_executor *executor = calloc(1, sizeof *executor);
    if (executor == NULL) return ct_fail_memory(status, sizeof *executor, "an executor");
    executor->bindings = calloc(variants + 1, sizeof *executor->bindings);
    executor->scratch = ct_tower_memory(scratch_bytes);
    executor->add = ct_tower_memory(add_floats * sizeof(float));
    dnnl_status_t result =
        executor->bindings == NULL || executor->scratch == NULL || executor->add == NULL ? dnnl_out_of_memory : dnnl_success;
    if (result == dnnl_success) result = dnnl_stream_create(&executor->stream, engine, dnnl_stream_default_flags);
    for (const ct_product *p = first; p != NULL && result == dnnl_success; p = p->next) {
        for (size_t i = 0; i < p->variant_count && result == dnnl_success; ++i) {
            binding *b = &executor->bindings[p->variants[i].index];
            result = binding_init(engine, &p->variants[i], executor->scratch, b);
            if (p->variants[i].index >= executor->binding_count) executor->binding_count = p->variants[i].index + 1;
        }
    }
    if (result != dnnl_success) {
        ct_executor_destroy(executor);
        return ct_fail(status, CT_EXHAUSTED, "oneDNN: no memory for an executor's handles (status %d)", (int)result);
    }
    *out_executor = executor;
    return CT_OK;
}

ct_code ct_executor_create(const ct_products *products, ct_executor **out_executor, ct_status *status) {
    return make_executor(products->engine, products->first, products->variant_count, products->scratch_bytes, products->add_floats,
                         out_executor, status);
}

static dnnl_status_t set_handle(dnnl_memory_t memory, const void **at, const void *to) {
    if (*at == to) return dnnl_success;
    union {
        const void *in;
        void *out;
    } handle = {to}; /* oneDNN takes no const */
    const dnnl_status_t result = dnnl_memory_set_data_handle(memory, handle.out);
    *at = result == dnnl_success ? to : NULL;
    return result;
}

static dnnl_status_t run_variant(const variant *v, ct_executor *executor, const void *a, const void *b, float *c, bool sum) {
    binding *handles = &executor->bindings[v->index];
    const int before = enter_one_thread();
    dnnl_status_t result = set_handle(handles->a, &handles->a_at, a);
    if (result == dnnl_success) result = set_handle(handles->b, &handles->b_at, b);
    if (result == dnnl_success) result = set_handle(handles->c, &handles->c_at, c);
    if (result == dnnl_success) {
        const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, handles->a},
                                             {DNNL_ARG_WEIGHTS, handles->b},
                                             {DNNL_ARG_DST, handles->c},
                                             {DNNL_ARG_SCRATCHPAD, sum ? handles->sum_scratch : handles->scratch}};
        result = dnnl_primitive_execute(sum ? v->sum_primitive : v->primitive, executor->stream, 4, arguments);
    }
    leave_one_thread(before);
    return result;
}

/* Which product for the next of `rows` rows: the largest that they fill, or the one above where that would compute few rows for nothing. */
static const variant *variant_for(const ct_product *product, size_t rows) {
    const variant *v = &product->variants[0];
    for (size_t i = 1; i < product->variant_count; ++i) {
        const variant *smaller = &product->variants[i];
        if (v->rows <= rows || v->rows - rows <= smaller->rows / 4) break;
        v = smaller;
    }
    return v;
}

static dnnl_status_t run_piece(const ct_product *product, const variant *v, ct_executor *executor, const void *a, const void *b, float *c,
                               bool accumulate) {
    if (!accumulate || product->sums_exactly) return run_variant(v, executor, a, b, c, accumulate);
    const dnnl_status_t result = run_variant(v, executor, a, b, executor->add, false);
    if (result == dnnl_success) ct_loop_add(executor->add, v->rows * product->shape.n, c);
    return result;
}

void ct_product_run(const ct_product *product, ct_executor *executor, size_t rows, const void *a, const void *b, float *c,
                    bool accumulate) {
    if (product->own) {
        const ct_tile_product own = {.a = a, .b = b, .k = product->shape.k, .n = product->shape.n, .c = c, .add = accumulate};
        ct_tiles_multiply(&own, rows);
        return;
    }
    const size_t row_bytes = product->shape.k * (product->shape.bf16 ? 2 : 4), n = product->shape.n;
    for (size_t done = 0; done < rows;) { /* pieces of counts that were checked: the bits are those of one product of all rows */
        const variant *v = variant_for(product, rows - done);
        float *to = c + done * n;
        if (run_piece(product, v, executor, (const char *)a + done * row_bytes, b, to, accumulate) != dnnl_success) {
            for (size_t i = 0; i < v->rows * n; ++i) to[i] = NAN;
        }
        done += v->rows;
    }
}

void ct_product_run_finished(const ct_product *product, size_t rows, const void *a, const void *b, float *sums, ct_tile_finish finish,
                             const void *context) {
    const ct_tile_product own = {
        .a = a, .b = b, .k = product->shape.k, .n = product->shape.n, .c = sums, .finish = finish, .context = context};
    ct_tiles_multiply(&own, rows);
}

/* --- the check at creation --- */

typedef struct check_data {
    void *a, *a_turned, *b;
    float *c, *d;
} check_data;

static float check_value(uint64_t i) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (float)((z ^ (z >> 31)) >> 40) * 0x1p-23f - 1.0f;
}

static void fill_check(void *to, bool bf16, size_t count, uint64_t from) {
    for (size_t i = 0; i < count; ++i) {
        const float value = check_value(from + i);
        if (bf16) {
            ((uint16_t *)to)[i] = ct_bf16_from_f32(value);
        } else {
            ((float *)to)[i] = value;
        }
    }
}

/* A turned by `shift` rows: does every row of C turn with it? */
static bool turns(const ct_product *product, const variant *v, ct_executor *executor, const check_data *data, size_t shift) {
    const size_t n = product->shape.n, row_bytes = product->shape.k * (product->shape.bf16 ? 2 : 4);
    memcpy(data->a_turned, (const char *)data->a + shift * row_bytes, (v->rows - shift) * row_bytes);
    memcpy((char *)data->a_turned + (v->rows - shift) * row_bytes, data->a, shift * row_bytes);
    if (run_variant(v, executor, data->a_turned, data->b, data->d, false) != dnnl_success) return false;
    return memcmp(data->d, data->c + shift * n, (v->rows - shift) * n * sizeof(float)) == 0 &&
           memcmp(data->d + (v->rows - shift) * n, data->c, shift * n * sizeof(float)) == 0;
}

static bool position_matters(const ct_product *product, const variant *v, ct_executor *executor, const check_data *data) {
    const size_t shifts[] = {1, 5, v->rows / 2};
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; ++i) {
        if (shifts[i] > 0 && shifts[i] < v->rows && !turns(product, v, executor, data, shifts[i])) return true;
    }
    return false;
}

static void drop_variant(ct_product *product, size_t i) {
    variant_deinit(&product->variants[i]);
    memmove(&product->variants[i], &product->variants[i + 1], (product->variant_count - i - 1) * sizeof product->variants[0]);
    --product->variant_count;
}

static dnnl_status_t check_counts(ct_product *product, ct_executor *executor, const check_data *data) {
    const size_t n = product->shape.n;
    dnnl_status_t result;
    for (;;) {
        result = run_variant(&product->variants[0], executor, data->a, data->b, data->c, false);
        if (result != dnnl_success) return result;
        if (product->variant_count == 1 || !position_matters(product, &product->variants[0], executor, data)) break;
        drop_variant(product, 0);
    }
    for (size_t i = product->variant_count - 1; i > 0; --i) {
        const variant *v = &product->variants[i];
        result = run_variant(v, executor, data->a, data->b, data->d, false);
        if (result != dnnl_success) return result;
        const bool same = memcmp(data->c, data->d, v->rows * n * sizeof(float)) == 0;
        if (!same || position_matters(product, v, executor, data)) {
            drop_variant(product, i);
        }
    }
    return dnnl_success;
}

static dnnl_status_t check_sum(ct_product *product, ct_executor *executor, const check_data *data) {
    product->sums_exactly = true;
    for (size_t i = 0; i < product->variant_count; ++i) {
        const variant *v = &product->variants[i];
        const size_t floats = v->rows * product->shape.n;
        dnnl_status_t result = run_variant(v, executor, data->a, data->b, data->c, false);
        for (size_t k = 0; k < floats; ++k) data->d[k] = check_value(k);
        if (result == dnnl_success) result = run_variant(v, executor, data->a, data->b, data->d, true);
        if (result != dnnl_success) return result;
        for (size_t k = 0; k < floats; ++k) {
            if (data->d[k] != check_value(k) + data->c[k]) product->sums_exactly = false;
        }
    }
    return dnnl_success;
}

static ct_code check_product(const ct_products *products, ct_product *product, size_t scratch_bytes, ct_status *status) {
    const ct_product_shape *shape = &product->shape;
    const size_t size = shape->bf16 ? 2 : 4, rows = product->variants[0].rows, index = product->variants[0].index;
    const size_t a_bytes = rows * shape->k * size, c_bytes = rows * shape->n * sizeof(float);
    check_data data = {ct_tower_memory(a_bytes), ct_tower_memory(a_bytes), ct_tower_memory(product->panels.elements * size),
                       ct_tower_memory(c_bytes), ct_tower_memory(c_bytes)};
    ct_executor *executor = NULL;
    ct_code code;
    if (data.a == NULL || data.a_turned == NULL || data.b == NULL || data.c == NULL || data.d == NULL) {
        code = ct_fail_memory(status, 2 * (a_bytes + c_bytes), "the check of a product");
        goto done;
    }
    CT_TRY_GOTO(code, make_executor(products->engine, product, index + product->variant_count, scratch_bytes, 0, &executor, status), done);
    fill_check(data.a, shape->bf16, rows * shape->k, 0);
    fill_check(data.b, shape->bf16, product->panels.elements, (uint64_t)1 << 40);
    dnnl_status_t result = dnnl_success;
    if (product->variant_count > 1) result = check_counts(product, executor, &data);
    if (result == dnnl_success && shape->accumulate) result = check_sum(product, executor, &data);
    code = from_dnnl(result, shape, rows, "a trial run", status);
done:
    ct_executor_destroy(executor);
    ct_tower_memory_free(data.a);
    ct_tower_memory_free(data.a_turned);
    ct_tower_memory_free(data.b);
    ct_tower_memory_free(data.c);
    ct_tower_memory_free(data.d);
    return code;
}

static bool same_shape(const ct_product_shape *a, const ct_product_shape *b) {
    if (a->k != b->k || a->n != b->n || a->bf16 != b->bf16 || a->accumulate != b->accumulate || a->count_count != b->count_count) {
        return false;
    }
    return memcmp(a->counts, b->counts, a->count_count * sizeof a->counts[0]) == 0;
}

static ct_code make_product(ct_products *products, const ct_product_shape *shape, ct_product **out_product, ct_status *status) {
    ct_product *product = calloc(1, sizeof *product);
    if (product == NULL) return ct_fail_memory(status, sizeof *product, "a product");
    product->shape = *shape;
    if (shape->bf16 && ct_products_own()) {
        product->own = true;
        product->panels = (ct_panels){.k = shape->k,
                                      .n = shape->n,
                                      .width = CT_TILE_COLUMNS,
                                      .pair = 2,
                                      .count = shape->n / CT_TILE_COLUMNS,
                                      .panel_stride = shape->k * CT_TILE_COLUMNS,
                                      .elements = shape->k * shape->n};
        strcpy(product->kernel, "own:avx512_core_bf16");
        *out_product = product;
        return CT_OK;
    }
    size_t scratch_bytes = 64;
    ct_code code;
    for (size_t i = 0; i < shape->count_count; ++i) {
        variant *v = &product->variants[product->variant_count];
        ct_status failure = CT_STATUS_INIT;
        code = variant_init(products->engine, shape, shape->counts[i], i == 0 ? NULL : &product->variants[0].b, product, v, &failure);
        if (code == CT_UNSUPPORTED && i > 0) continue; /* this count can't read the base's layout */
        if (code != CT_OK) {
            *status = failure;
            goto fail;
        }
        v->index = products->variant_count + product->variant_count;
        ++product->variant_count;
        const size_t bytes = dnnl_memory_desc_get_size(&v->scratch),
                     sum_bytes = shape->accumulate ? dnnl_memory_desc_get_size(&v->sum_scratch) : 0;
        if (bytes > scratch_bytes) scratch_bytes = bytes;
        if (sum_bytes > scratch_bytes) scratch_bytes = sum_bytes;
    }
    CT_TRY_GOTO(code, check_product(products, product, scratch_bytes, status), fail);
    for (size_t i = 0; i < product->variant_count; ++i) product->variants[i].index = products->variant_count + i;
    products->variant_count += product->variant_count;
    if (scratch_bytes > products->scratch_bytes) products->scratch_bytes = scratch_bytes;
    const size_t floats = shape->accumulate && !product->sums_exactly ? shape->counts[0] * shape->n : 0;
    if (floats > products->add_floats) products->add_floats = floats;
    *out_product = product;
    return CT_OK;
fail:
    product_destroy(product);
    return code;
}

ct_code ct_products_get(ct_products *products, const ct_product_shape *shape, const ct_product **out_product, ct_status *status) {
    for (const ct_product *p = products->first; p != NULL; p = p->next) {
        if (same_shape(&p->shape, shape)) {
            *out_product = p;
            return CT_OK;
        }
    }
    if (shape->bf16 && !ct_products_bf16_possible()) {
        return ct_fail(status, CT_UNSUPPORTED, "precision bf16 needs the instruction set avx512_core; here is %s; use fp32 or auto",
                       ct_cpu_instruction_set());
    }
    ct_product *product = NULL;
    const int before = enter_one_thread();
    const ct_code code = make_product(products, shape, &product, status);
    leave_one_thread(before);
    if (code != CT_OK) return code;
    product->next = products->first;
    products->first = product;
    *out_product = product;
    return CT_OK;
}
