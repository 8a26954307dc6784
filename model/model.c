/* The model object: made from a schema and a spec, or from a folder (folder.c). */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "data/vectors.h"
#include "model/model_internal.h"

void model_refresh_scales(ct_model *model) {
    for (size_t i = 0; i < model->layout.number_count; i++) model->scales[i] = moments_scale(&model->moments[i]);
}

static ct_code make_centres(ct_model *model, ct_status *status) {
    const size_t count = model->layout.similarity_count;
    model->centres = calloc(count + 1, sizeof(float *));
    bool made = model->centres != NULL;
    for (size_t i = 0; i < count && made; i++) {
        model->centres[i] = calloc(model->layout.similarities[i].dim + 1, sizeof(float));
        made = model->centres[i] != NULL;
    }
    return made ? CT_OK : ct_fail_memory(status, count * sizeof(float *), "the similarities' centres");
}

ct_code model_finish(ct_model *model, size_t elsewhere_floats, ct_status *status) {
    const ct_model_spec *spec = model->spec;
    const size_t numbers = model->layout.number_count;
    model->moments = calloc(numbers + 1, sizeof *model->moments);
    model->scales = calloc(numbers + 1, sizeof *model->scales);
    if (model->moments == NULL || model->scales == NULL)
        return ct_fail_memory(status, numbers * sizeof *model->moments, "number transforms");
    model_refresh_scales(model);
    if (model->centres == NULL) CT_TRY(make_centres(model, status));
    ct_tower_options options = {.precision = model->precision,
                                .seed = model->seed,
                                .optimiser = CT_DENSE_ADAM,
                                .learning_rate = spec->learning_rate,
                                .beta1 = spec->beta1,
                                .beta2 = spec->beta2,
                                .epsilon = spec->epsilon,
                                .l2 = spec->l2,
                                .average_power = spec->average_power,
                                .batch_rows = model->mode != CT_MODEL_READ ? model->batch_rows : 0,
                                .elsewhere_floats = elsewhere_floats};
    CT_TRY(ct_tower_create(&model->layout.tower, &options, model->pool, &model->tower, status));
    return model->mode == CT_MODEL_TRAIN ? training_init(model, status) : CT_OK;
}

void ct_model_destroy(ct_model *model) {
    if (model == NULL) return;
    training_deinit(model);
    ct_tower_destroy(model->tower);
    ct_store_destroy(model->store);
    free(model->moments);
    free(model->scales);
    file_prints_deinit(&model->prints);
    for (size_t i = 0; model->centres != NULL && i < model->layout.similarity_count; i++) free(model->centres[i]);
    free(model->centres);
    ct_histories_destroy(model->histories);
    model_layout_deinit(&model->layout);
    ct_model_spec_destroy(model->spec);
    ct_schema_destroy(model->schema);
    free(model);
}

/* --- vector files --- */

typedef struct vector_files { /* by schema field */
    ct_vectors **loaded;      /* NULL where another model has them */
    ct_model **owners;        /* that model */
    uint32_t *dims;
    char (*tables)[CT_TABLE_NAME_BYTES];
    ct_mapped *scratch; /* of their values, with a limit on memory; else NULL */
} vector_files;

static void vector_files_deinit(vector_files *files, size_t fields) {
    if (files->loaded != NULL)
        for (size_t f = 0; f < fields; f++) ct_vectors_destroy(files->loaded[f]);
    ct_mapped_destroy(files->scratch);
    free(files->loaded);
    free(files->owners);
    free(files->dims);
    free(files->tables);
}

/* Number of the model's similarity by that vector; -1 = none. */
static int64_t find_similarity(const ct_model *model, size_t vector_field) {
    for (size_t i = 0; i < model->layout.similarity_count; i++)
        if (model->layout.similarities[i].vector_field == vector_field) return (int64_t)i;
    return -1;
}

/* Does one of the other models have the vectors of field `f`, and their centre, where that is needed? */
static bool find_owner(vector_files *files, const ct_schema *schema, const ct_model_options *options, size_t f, bool centre) {
    for (size_t m = 0; m < options->vectors_of_count; m++) {
        ct_model *other = options->vectors_of[m];
        if (!other->vectors_known || other->shuffle_vectors != options->shuffle_vectors || other->schema->hash != schema->hash) continue;
        const int64_t similarity = find_similarity(other, f);
        if (centre && similarity < 0) continue;
        const char *name = NULL;
        if (similarity >= 0) {
            name = other->layout.similarities[similarity].table_name;
            files->dims[f] = other->layout.similarities[similarity].dim;
        }
        for (size_t i = 0; i < other->layout.vector_count && name == NULL; i++) {
            if (other->layout.vectors[i].field != f) continue;
            name = other->layout.vectors[i].table_name;
            files->dims[f] = other->layout.vectors[i].dim;
        }
        if (name == NULL) continue;
        files->owners[f] = other;
        memcpy(files->tables[f], name, sizeof files->tables[f]);
        return true;
    }
    return false;
}

static ct_code vector_files_init(vector_files *files, const ct_schema *schema, const ct_model_spec *spec, const ct_model_options *options,
                                 ct_status *status) {
    const uint64_t shuffle = options->shuffle_vectors;
    const size_t fields = schema->field_count;
    bool *used = calloc(2 * fields + 1, sizeof *used), *centred = used + fields; /* centred: a similarity needs their mean */
    files->loaded = calloc(fields + 1, sizeof *files->loaded);
    files->owners = calloc(fields + 1, sizeof *files->owners);
    files->dims = calloc(fields + 1, sizeof *files->dims);
    files->tables = calloc(fields + 1, sizeof *files->tables);
    if (used == NULL || files->loaded == NULL || files->owners == NULL || files->dims == NULL || files->tables == NULL) {
        free(used);
        return ct_fail_memory(status, fields * CT_TABLE_NAME_BYTES, "vector files");
    }
    ct_code code = model_choose_fields(schema, spec, used, status);
    for (size_t f = 0; f < fields && code == CT_OK; f++)
        if (used[f] && schema->fields[f].kind == CT_FIELD_SIMILARITY)
            used[schema->fields[f].vector] = centred[schema->fields[f].vector] = true;
    for (size_t f = 0; f < fields && code == CT_OK; f++) {
        const ct_field *field = &schema->fields[f];
        if (!used[f] || field->kind != CT_FIELD_VECTOR || find_owner(files, schema, options, f, centred[f])) continue;
        if (options->memory_bytes > 0 && files->scratch == NULL) code = ct_mapped_create(options->live_folder, &files->scratch, status);
        if (code == CT_OK) code = ct_vectors_load(field->vector_path, field->vector_ids_path, files->scratch, &files->loaded[f], status);
        if (code == CT_OK && shuffle != 0) code = ct_vectors_shuffle(files->loaded[f], shuffle, status);
        if (code != CT_OK) {
            code = ct_fail_within(status, "field '%s'", field->name);
            break;
        }
        files->dims[f] = (uint32_t)files->loaded[f]->dim;
        snprintf(files->tables[f], sizeof files->tables[f], "vectors.%.16s", files->loaded[f]->content_hash);
    }
    free(used);
    return code;
}

static const char *content_hash_of(const vector_files *files, size_t field) {
    const ct_model *owner = files->owners[field];
    if (owner == NULL) return files->loaded[field]->content_hash;
    return ct_store_table(owner->store, (size_t)ct_store_find_table(owner->store, files->tables[field]))->content_hash;
}

/* Table 0 holds the ids' rows; each vector file of its own content has one frozen table, shared by the fields that use it. */
static ct_code create_store(ct_model *model, const vector_files *files, const ct_model_options *options, ct_status *status) {
    ct_table_spec tables[CT_STORE_MAX_TABLES];
    size_t count = 1;
    const ct_model_spec *spec = model->spec;
    memset(tables, 0, sizeof tables);
    tables[ID_TABLE] = (ct_table_spec){.name = "ids",
                                       .kind = CT_TABLE_TRAINED,
                                       .dim = model->layout.embedding_dim,
                                       .optimiser = spec->row_optimiser,
                                       .precision = spec->row_precision,
                                       .learning_rate = spec->embedding_learning_rate,
                                       .initial_accumulator = spec->initial_accumulator,
                                       .beta1 = spec->row_beta1,
                                       .beta2 = spec->row_beta2,
                                       .epsilon = spec->row_epsilon,
                                       .l2 = spec->row_l2,
                                       .first_value_scale = spec->first_value_scale,
                                       .seed = model->seed,
                                       .min_count = spec->min_count,
                                       .target_stats = spec->target_stats,
                                       .expire_days = spec->expire_days,
                                       .filter_mib = spec->admission_filter ? spec->filter_mib : 0};
    size_t owner[CT_STORE_MAX_TABLES] = {0}; /* field whose file fills the table */
    const model_layout *layout = &model->layout;
    for (size_t i = 0; i < layout->vector_count + layout->similarity_count; i++) {
        layout_similarity *similarity = i < layout->vector_count ? NULL : &layout->similarities[i - layout->vector_count];
        const size_t field = similarity == NULL ? layout->vectors[i].field : similarity->vector_field;
        size_t table = 1;
        while (table < count && strcmp(tables[table].name, files->tables[field]) != 0) table++;
        *(similarity == NULL ? &layout->vectors[i].table : &similarity->table) = table;
        if (table < count) continue;
        if (count == CT_STORE_MAX_TABLES) return ct_fail(status, CT_INVALID, "more than %d vector files", CT_STORE_MAX_TABLES - 1);
        tables[count] = (ct_table_spec){.kind = CT_TABLE_FROZEN, .dim = files->dims[field]};
        memcpy(tables[count].name, files->tables[field], sizeof tables[count].name);
        memcpy(tables[count].content_hash, content_hash_of(files, field), CT_DIGEST_HEX_BYTES);
        owner[count++] = field;
    }
    const ct_store_limit limit = {.memory_bytes = model->memory_bytes, .live_folder = options->live_folder};
    CT_TRY(ct_store_create_within(tables, count, &limit, model->device, model->pool, &model->store, status));
    for (size_t table = 1; table < count; table++) {
        const ct_vectors *vectors = files->loaded[owner[table]];
        if (vectors != NULL) CT_TRY(ct_store_fill(model->store, table, vectors->keys, vectors->values, vectors->count, status));
    }
    for (size_t m = 0; m < options->vectors_of_count; m++)
        CT_TRY(ct_store_share_frozen(model->store, options->vectors_of[m]->store, status));
    return CT_OK;
}

static ct_code check_admission(const ct_model_spec *spec, ct_status *status) {
    if (!spec->admission_filter && spec->filter_mib != CT_SPEC_FILTER_MIB)
        return ct_fail(status, CT_INVALID, "embedding.filter_mib is %u, but embedding.admission is exact; set it to filter",
                       spec->filter_mib);
    if (!spec->admission_filter) return CT_OK;
    if (spec->min_count < 2 || spec->min_count > CT_FILTER_MOST_COUNT)
        return ct_fail(status, CT_INVALID, "embedding.min_count is %u, but with embedding.admission=filter it must be between 2 and %d",
                       spec->min_count, CT_FILTER_MOST_COUNT);
    if (spec->target_stats)
        return ct_fail(status, CT_INVALID,
                       "embedding.target_stats is true, and keeps clicks of every value, but embedding.admission=filter keeps nothing of "
                       "values without a row but an approximate count; leave one of the two out");
    return CT_OK;
}

ct_code ct_model_create(const ct_schema *schema, const ct_model_spec *spec, const ct_model_options *options, ct_model **out_model,
                        ct_status *status) {
    if (options->batch_rows == 0 || options->batch_rows > CT_MODEL_MAX_BATCH_ROWS)
        return ct_fail(status, CT_INVALID, "a batch of %zu rows; it must be between 1 and %d", options->batch_rows,
                       CT_MODEL_MAX_BATCH_ROWS);
    if (spec->expire_days > 0 && ct_schema_find_kind(schema, CT_FIELD_TIME) < 0)
        return ct_fail(status, CT_INVALID, "embedding.expire_days is %u, but schema %s has no time: it takes a field of kind time",
                       spec->expire_days, schema->name);
    CT_TRY(check_admission(spec, status));
    vector_files files = {0};
    ct_code code = CT_OK;
    ct_model *model = calloc(1, sizeof *model);
    if (model == NULL) return ct_fail_memory(status, sizeof *model, "a model");
    model->mode = CT_MODEL_TRAIN;
    model->device = options->device != NULL ? options->device : ct_device_cpu();
    model->pool = options->pool;
    model->seed = options->seed;
    model->batch_rows = options->batch_rows;
    model->memory_bytes = options->memory_bytes;
    model->precision = spec->precision;
    snprintf(model->instruction_set, sizeof model->instruction_set, "%s", ct_tower_instruction_set());
    CT_TRY_GOTO(code, ct_schema_parse(schema->text, schema->text_bytes, schema->name, &model->schema, status), done);
    CT_TRY_GOTO(code, ct_model_spec_copy(spec, &model->spec, status), done);
    model->vectors_known = true;
    model->shuffle_vectors = options->shuffle_vectors;
    CT_TRY_GOTO(code, vector_files_init(&files, schema, spec, options, status), done);
    CT_TRY_GOTO(
        code, model_layout_init(&model->layout, model->schema, spec, files.dims, (const char(*)[CT_TABLE_NAME_BYTES])files.tables, status),
        done);
    CT_TRY_GOTO(code, create_store(model, &files, options, status), done);
    CT_TRY_GOTO(code, model_finish(model, 0, status), done);
    for (size_t i = 0; i < model->layout.similarity_count; i++) {
        const size_t field = model->layout.similarities[i].vector_field;
        const ct_vectors *vectors = files.loaded[field];
        if (vectors == NULL) { /* of the same vectors */
            const ct_model *owner = files.owners[field];
            memcpy(model->centres[i], owner->centres[find_similarity(owner, field)], files.dims[field] * sizeof(float));
            continue;
        }
        similarity_centre(vectors->values, vectors->count, vectors->dim, model->centres[i]);
    }
    if (model->layout.histories && !options->no_histories)
        CT_TRY_GOTO(code, ct_histories_create(model->schema, &model->histories, status), done);
    if (model->memory_bytes > 0) CT_TRY_GOTO(code, model_save_histories_beside(model, options->live_folder, NULL, status), done);
    *out_model = model;
done:
    vector_files_deinit(&files, schema->field_count);
    if (code != CT_OK) ct_model_destroy(model);
    return code;
}

/* --- what it is --- */

const ct_schema *ct_model_schema(const ct_model *model) { return model->schema; }
const ct_model_spec *ct_model_spec_of(const ct_model *model) { return model->spec; }
int64_t ct_model_rows(const ct_model *model) { return model->rows; }
int64_t ct_model_step(const ct_model *model) { return model->step; }
uint64_t ct_model_seed(const ct_model *model) { return model->seed; }
size_t ct_model_batch_rows(const ct_model *model) { return model->batch_rows; }
int64_t ct_model_created_ms(const ct_model *model) { return model->created_ms; }
const char *ct_model_instruction_set(const ct_model *model) { return model->instruction_set; }
ct_precision ct_model_precision(const ct_model *model) { return ct_tower_precision(model->tower); }
size_t ct_model_output_count(const ct_model *model) {
    (void)model;
    return 1;
}
const char *ct_model_output_name(const ct_model *model, size_t output) {
    (void)model;
    return output == 0 ? "click" : NULL;
}
uint64_t ct_model_least_memory(const ct_model *model) { return ct_store_least_memory(model->store); }

ct_code ct_model_share_vectors(ct_model *model, ct_model *with, ct_status *status) {
    return ct_store_share_frozen(model->store, with->store, status);
}

/* The first line in which two specs differ: where the user looks. */
static ct_code check_same_spec(const ct_model *model, const ct_model_spec *spec, ct_status *status) {
    char *have = ct_model_spec_text(model->spec), *want = ct_model_spec_text(spec);
    ct_code code = have == NULL || want == NULL ? ct_fail_memory(status, 4096, "the spec's text") : CT_OK;
    if (code == CT_OK && strcmp(have, want) != 0) {
        size_t at = 0;
        while (have[at] == want[at]) at++;
        while (at > 0 && have[at - 1] != '\n') at--;
        code = ct_fail(status, CT_INVALID, "the model was made with '%.*s', but this run asks for '%.*s'", (int)strcspn(have + at, "\n"),
                       have + at, (int)strcspn(want + at, "\n"), want + at);
    }
    free(have);
    free(want);
    return code;
}

ct_code ct_model_check_same(const ct_model *model, const ct_schema *schema, const ct_model_spec *spec, uint64_t seed, size_t batch_rows,
                            ct_status *status) {
    if (model->schema->hash != schema->hash)
        return ct_fail(status, CT_INVALID, "the model was made with schema %s (hash %016llx), but this run asks for %s (hash %016llx)",
                       model->schema->name, (unsigned long long)model->schema->hash, schema->name, (unsigned long long)schema->hash);
    if (model->seed != seed)
        return ct_fail(status, CT_INVALID, "the model was made with seed %llu, but this run asks for %llu", (unsigned long long)model->seed,
                       (unsigned long long)seed);
    if (model->batch_rows != batch_rows)
        return ct_fail(status, CT_INVALID, "the model was made with batches of %zu rows, but this run asks for %zu", model->batch_rows,
                       batch_rows);
    return check_same_spec(model, spec, status);
}

bool ct_model_uses_field(const ct_model *model, size_t field) {
    const model_layout *layout = &model->layout;
    for (size_t i = 0; i < layout->id_count; i++)
        if (layout->ids[i].field == field) return true;
    for (size_t i = 0; i < layout->number_count; i++)
        if (layout->numbers[i].field == field) return true;
    for (size_t i = 0; i < layout->vector_count; i++)
        if (layout->vectors[i].field == field || model->schema->fields[layout->vectors[i].field].of == field) return true;
    for (size_t i = 0; i < layout->similarity_count; i++) {
        const size_t vector = layout->similarities[i].vector_field;
        if (layout->similarities[i].field == field || vector == field || model->schema->fields[vector].of == field) return true;
    }
    return false;
}

ct_histories *ct_model_histories(const ct_model *model) { return model->histories; }

bool ct_model_typical_number(const ct_model *model, size_t field, double *out_value) {
    for (size_t i = 0; i < model->layout.number_count; i++) {
        const number_moments *moments = &model->moments[i];
        if (model->layout.numbers[i].field != field || moments->count == 0) continue;
        const double value = ct_exp(fabs(moments->mean)) - 1; /* of sign(v) log(1 + |v|) */
        *out_value = moments->mean < 0 ? -value : value;
        return true;
    }
    return false;
}

bool ct_model_found_no_vector(const ct_model *model, size_t field) {
    const model_layout *layout = &model->layout;
    size_t table = ID_TABLE;
    for (size_t i = 0; i < layout->vector_count; i++)
        if (layout->vectors[i].field == field) table = layout->vectors[i].table;
    for (size_t i = 0; i < layout->similarity_count; i++)
        if (layout->similarities[i].vector_field == field) table = layout->similarities[i].table;
    if (table == ID_TABLE) return false;
    ct_table_info info;
    ct_store_table_info(model->store, table, &info);
    return info.lookups == 0 && info.unknown > 0;
}

size_t ct_model_table_count(const ct_model *model) { return ct_store_table_count(model->store); }

void ct_model_table_get(const ct_model *model, size_t table, ct_model_table *out_table) {
    ct_table_info info;
    ct_store_table_info(model->store, table, &info);
    *out_table = (ct_model_table){.name = ct_store_table(model->store, table)->name,
                                  .rows = info.rows,
                                  .stubs = info.stubs,
                                  .waiting = info.waiting,
                                  .expired = info.expired,
                                  .bytes = info.bytes,
                                  .missed = info.missed,
                                  .found = info.lookups,
                                  .unknown = info.unknown};
}

void ct_model_filter(const ct_model *model, ct_filter_info *out_info) { ct_store_filter_info(model->store, ID_TABLE, out_info); }
void ct_model_disk(const ct_model *model, ct_store_disk *out_disk) { ct_store_disk_get(model->store, out_disk); }

json_t *ct_model_describe(const ct_model *model) {
    json_t *tables = json_array();
    for (size_t t = 0; t < ct_store_table_count(model->store); t++) {
        const ct_table_spec *spec = ct_store_table(model->store, t);
        ct_table_info info;
        ct_store_table_info(model->store, t, &info);
        json_array_append_new(tables, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "name", spec->name, "kind",
                                                spec->kind == CT_TABLE_TRAINED ? "trained" : "frozen", "dim", (json_int_t)spec->dim, "rows",
                                                (json_int_t)info.rows, "stubs", (json_int_t)info.stubs, "expired", (json_int_t)info.expired,
                                                "bytes", (json_int_t)info.bytes));
    }
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:o}", "model", ct_architecture_name(model->spec->architecture),
                  "schema", model->schema->name, "precision", ct_model_precision(model) == CT_PRECISION_BF16 ? "bf16" : "fp32",
                  "instruction_set", model->instruction_set, "rows", (json_int_t)model->rows, "step", (json_int_t)model->step,
                  "tower_parameters", (json_int_t)ct_tower_parameters(model->tower), "flops_per_row", ct_tower_flops_per_row(model->tower),
                  "ids", (json_int_t)model->layout.id_count, "numbers", (json_int_t)model->layout.number_count, "vectors",
                  (json_int_t)model->layout.vector_count, "tables", tables);
    if (json != NULL && model->histories != NULL)
        json_object_set_new(json, "histories",
                            json_pack("{s:I, s:I}", "units", (json_int_t)ct_histories_units(model->histories), "bytes",
                                      (json_int_t)ct_histories_bytes(model->histories)));
    return json;
}
