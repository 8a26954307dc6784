#include "embedding_store/filter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/file.h"

enum { PART_BYTES = CT_FILTER_PART_CELLS / 2, CELL_BITS = 4, CELL_MASK = 15, CHOICE_BITS = 5, HEAD_BYTES = 24 };
static const char magic[8] = {'C', 'T', 'F', 'I', 'L', 'T', '1', '\n'};

_Static_assert(CELL_MASK == (int)CT_FILTER_MOST_COUNT, "a cell holds the largest count");
_Static_assert(1 << CHOICE_BITS == (int)CT_FILTER_PART_CELLS, "so many bits choose a cell");
_Static_assert(CT_FILTER_PARTS *(int)PART_BYTES == CT_FILTER_LINE_BYTES, "parts fill a line");

static ct_code create(ct_device *device, uint32_t generations, size_t shard_lines, ct_filter **out_filter, ct_status *status) {
    void *lines;
    ct_filter *filter = calloc(1, sizeof *filter);
    if (!filter) return ct_fail_memory(status, sizeof *filter, "a filter");
    filter->device = device;
    filter->generations = generations;
    filter->shard_lines = shard_lines;
    const ct_code code =
        device->ops->memory_alloc(device, CT_MEMORY_DEVICE, ct_filter_line_count(filter) * CT_FILTER_LINE_BYTES, &lines, status);
    if (code != CT_OK) {
        free(filter);
        return code;
    }
    filter->lines = lines;
    *out_filter = filter;
    return CT_OK;
}

static uint32_t generations_of(const ct_table_spec *spec) { return spec->expire_days ? 2 : 1; }

ct_code ct_filter_create(const ct_table_spec *spec, ct_device *device, ct_filter **out_filter, ct_status *status) {
    const uint32_t generations = generations_of(spec);
    return create(device, generations, (size_t)spec->filter_mib * CT_FILTER_LINES_A_MIB / generations, out_filter, status);
}

ct_code ct_filter_copy(const ct_filter *filter, ct_filter **out_copy, ct_status *status) {
    CT_TRY(create(filter->device, filter->generations, filter->shard_lines, out_copy, status));
    memcpy((*out_copy)->lines, filter->lines, ct_filter_line_count(filter) * CT_FILTER_LINE_BYTES);
    (*out_copy)->period = filter->period;
    return CT_OK;
}

void ct_filter_destroy(ct_filter *filter) {
    if (!filter) return;
    filter->device->ops->memory_free(filter->device, CT_MEMORY_DEVICE, filter->lines, ct_filter_line_count(filter) * CT_FILTER_LINE_BYTES);
    free(filter->changed);
    free(filter);
}

uint64_t ct_filter_bytes(const ct_filter *filter) {
    return (uint64_t)ct_filter_line_count(filter) * (CT_FILTER_LINE_BYTES + (size_t)(filter->changed != NULL));
}

/* Where a generation begins, in lines. */
static size_t generation_of(const ct_filter *filter, uint32_t period) {
    return (size_t)(period % filter->generations) * CT_VIRTUAL_SHARDS * filter->shard_lines;
}

void ct_filter_set_period(ct_filter *filter, uint32_t period) {
    if (period == filter->period) return;
    const size_t lines = CT_VIRTUAL_SHARDS * filter->shard_lines;
    for (uint32_t i = 0; i < filter->generations; i++) { /* the newest ones stay that are still of the last two periods */
        const uint32_t begins = period - i;
        if (i > 0 && begins == filter->period) break;
        memset(filter->lines + generation_of(filter, begins) * CT_FILTER_LINE_BYTES, 0, lines * CT_FILTER_LINE_BYTES);
        if (filter->changed) memset(filter->changed + generation_of(filter, begins), 0, lines);
    }
    filter->period = period;
}

/* --- keys --- */

/* Where a key's cells are: its line in a generation, and by part the cell. */
typedef struct place {
    size_t line;
    uint32_t choice; /* CHOICE_BITS for each part */
} place;

static place place_of(const ct_filter *filter, uint64_t key) {
    const uint64_t hash = ct_hash64(&key, sizeof key, 0x66696c746572 /* "filter" */);
    const size_t line = (size_t)((hash >> 32) * filter->shard_lines >> 32);
    return (place){(size_t)(key >> 54) * filter->shard_lines + line, (uint32_t)hash};
}

static uint8_t *byte_of(uint8_t *line, uint32_t part, uint32_t choice, uint32_t *out_shift) {
    const uint32_t cell = choice >> (part * CHOICE_BITS) & (CT_FILTER_PART_CELLS - 1);
    *out_shift = cell % 2 * CELL_BITS;
    return &line[part * PART_BYTES + cell / 2];
}

static uint32_t least_cell(uint8_t *line, uint32_t choice) {
    uint32_t least = CELL_MASK, shift;
    for (uint32_t part = 0; part < CT_FILTER_PARTS; part++) {
        const uint8_t *byte = byte_of(line, part, choice, &shift);
        const uint32_t cell = *byte >> shift & CELL_MASK;
        if (cell < least) least = cell;
    }
    return least;
}

void ct_filter_prefetch(const ct_filter *filter, uint64_t key) {
    const place place = place_of(filter, key);
    for (uint32_t i = 0; i < filter->generations; i++)
        ct_prefetch(filter->lines + (generation_of(filter, i) + place.line) * CT_FILTER_LINE_BYTES);
}

uint32_t ct_filter_count(const ct_filter *filter, uint64_t key) {
    const place place = place_of(filter, key);
    uint32_t count = 0;
    for (uint32_t i = 0; i < filter->generations; i++) {
        const uint32_t here = least_cell(filter->lines + (generation_of(filter, i) + place.line) * CT_FILTER_LINE_BYTES, place.choice);
        if (here > count) count = here;
    }
    return count;
}

void ct_filter_raise(ct_filter *filter, uint64_t key, uint32_t count) {
    const place place = place_of(filter, key);
    const size_t number = generation_of(filter, filter->period) + place.line;
    uint8_t *line = filter->lines + number * CT_FILTER_LINE_BYTES;
    const uint32_t to = count < CELL_MASK ? count : CELL_MASK;
    for (uint32_t part = 0; part < CT_FILTER_PARTS; part++) {
        uint32_t shift;
        uint8_t *byte = byte_of(line, part, place.choice, &shift);
        if ((*byte >> shift & CELL_MASK) < to) *byte = (uint8_t)((*byte & ~((uint32_t)CELL_MASK << shift)) | to << shift);
    }
    if (filter->changed) filter->changed[number] = 1;
}

/* --- what it holds --- */

ct_code ct_filter_track(ct_filter *filter, ct_status *status) {
    uint8_t *changed = calloc(ct_filter_line_count(filter), 1);
    if (!changed) return ct_fail_memory(status, ct_filter_line_count(filter), "a filter's changes");
    free(filter->changed);
    filter->changed = changed;
    return CT_OK;
}

void ct_filter_forget_changes(ct_filter *filter) {
    if (filter->changed) memset(filter->changed, 0, ct_filter_line_count(filter));
}

typedef struct sum_work {
    const ct_filter *filter;
    ct_sum sums[CT_VIRTUAL_SHARDS];
} sum_work;

/* Of one shard, in all generations. */
static void sum_task(void *context, size_t shard, size_t worker) {
    (void)worker;
    sum_work *work = context;
    const ct_filter *filter = work->filter;
    const size_t bytes = filter->shard_lines * CT_FILTER_LINE_BYTES;
    work->sums[shard] = (ct_sum){{0, 0}};
    for (uint32_t i = 0; i < filter->generations; i++)
        ct_sum_add(&work->sums[shard], (uint64_t)i << 32 | shard,
                   (const char *)filter->lines + (generation_of(filter, i) + shard * filter->shard_lines) * CT_FILTER_LINE_BYTES, bytes);
}

ct_sum ct_filter_sum(const ct_filter *filter, ct_pool *pool) {
    sum_work work = {.filter = filter};
    ct_sum sum = {{0, 0}};
    ct_run(pool, CT_VIRTUAL_SHARDS, sum_task, &work);
    for (size_t i = 0; i < CT_VIRTUAL_SHARDS; i++)
        for (size_t n = 0; n < 2; n++) sum.word[n] += work.sums[i].word[n];
    return sum;
}

/* How many of the 16 cells in 8 bytes are not 0. */
static uint64_t used_cells(const uint8_t *bytes) {
    uint64_t word = ct_get_le64(bytes);
    word |= word >> 1;
    word |= word >> 2;
    return (uint64_t)__builtin_popcountll(word & 0x1111111111111111u);
}

ct_filter_load ct_filter_measure(const ct_filter *filter) {
    const size_t lines = CT_VIRTUAL_SHARDS * filter->shard_lines;
    double none = 1;
    ct_filter_load load = {0, 0};
    for (uint32_t i = 0; i < filter->generations; i++) {
        const uint8_t *line = filter->lines + generation_of(filter, i) * CT_FILTER_LINE_BYTES;
        uint64_t cells = 0, choices = 0;
        for (size_t n = 0; n < lines; n++, line += CT_FILTER_LINE_BYTES) {
            uint64_t product = 1;
            for (size_t part = 0; part < CT_FILTER_PARTS; part++) {
                const uint64_t used = used_cells(line + part * PART_BYTES) + used_cells(line + part * PART_BYTES + 8);
                cells += used;
                product *= used;
            }
            choices += product;
        }
        const double fill = (double)cells / (double)lines / (CT_FILTER_PARTS * CT_FILTER_PART_CELLS);
        if (fill > load.fill) load.fill = fill;
        none *= 1 - (double)choices / (double)lines / ((double)(1 << CHOICE_BITS * CT_FILTER_PARTS));
    }
    load.error = 1 - none;
    return load;
}

/* --- its file --- */

static char *path_of(const char *folder, size_t table) {
    char name[32];
    (void)snprintf(name, sizeof name, "table-%zu.filter", table);
    return ct_path_join(folder, name);
}

static void put_head(const ct_filter *filter, char head[HEAD_BYTES]) {
    memcpy(head, magic, sizeof magic);
    ct_put_le64(head + 8, filter->generations);
    ct_put_le64(head + 16, filter->shard_lines);
}

/* The hash of the file's head seeds that of its lines. */
static uint64_t file_hash(const char head[HEAD_BYTES], const void *lines, size_t bytes) {
    return ct_hash64(lines, bytes, ct_hash64(head, HEAD_BYTES, 0));
}

ct_code ct_filter_write(const ct_filter *filter, const char *folder, size_t table, ct_status *status) {
    const size_t bytes = ct_filter_line_count(filter) * CT_FILTER_LINE_BYTES;
    char head[HEAD_BYTES], hash[8];
    ct_file_writer *writer = NULL;
    char *path = path_of(folder, table);
    if (!path) return ct_fail_memory(status, strlen(folder), "a path");
    put_head(filter, head);
    ct_put_le64(hash, file_hash(head, filter->lines, bytes));
    ct_code code = ct_file_writer_open(path, &writer, status);
    if (code == CT_OK) code = ct_file_writer_write(writer, head, sizeof head, status);
    if (code == CT_OK) code = ct_file_writer_write(writer, filter->lines, bytes, status);
    if (code == CT_OK) code = ct_file_writer_write(writer, hash, sizeof hash, status);
    if (code == CT_OK)
        code = ct_file_writer_commit(writer, status);
    else
        ct_file_writer_abort(writer);
    free(path);
    return code;
}

ct_code ct_filter_check_file(const ct_table_spec *spec, const char *folder, size_t table, ct_status *status) {
    const uint64_t lines =
                       (uint64_t)spec->filter_mib * CT_FILTER_LINES_A_MIB / generations_of(spec) * generations_of(spec) * CT_VIRTUAL_SHARDS,
                   bytes = HEAD_BYTES + lines * CT_FILTER_LINE_BYTES + 8;
    struct stat info;
    char *path = path_of(folder, table);
    if (!path) return ct_fail_memory(status, strlen(folder), "a path");
    ct_code code = CT_OK;
    if (stat(path, &info) != 0)
        code = ct_fail_errno(status, "%s: cannot look at it", path);
    else if ((uint64_t)info.st_size != bytes)
        code = ct_fail(status, CT_CORRUPT, "%s: %lld bytes, and a filter of %u MiB, as store.json says, has %llu", path,
                       (long long)info.st_size, spec->filter_mib, (unsigned long long)bytes);
    free(path);
    return code;
}

static ct_code read_all(FILE *file, const char *path, void *to, size_t bytes, ct_status *status) {
    if (fread(to, 1, bytes, file) == bytes) return CT_OK;
    return ferror(file) ? ct_fail_errno(status, "%s: cannot read", path)
                        : ct_fail(status, CT_CORRUPT, "%s: the file is cut; copy the folder again", path);
}

ct_code ct_filter_read(ct_filter *filter, const char *folder, size_t table, ct_status *status) {
    const size_t bytes = ct_filter_line_count(filter) * CT_FILTER_LINE_BYTES;
    char head[HEAD_BYTES], expected[HEAD_BYTES], hash[8];
    char *path = path_of(folder, table);
    if (!path) return ct_fail_memory(status, strlen(folder), "a path");
    FILE *file = fopen(path, "rbe");
    ct_code code = file ? CT_OK : ct_fail_errno(status, "%s: cannot open", path);
    put_head(filter, expected);
    if (code == CT_OK) code = read_all(file, path, head, sizeof head, status);
    if (code == CT_OK && memcmp(head, expected, sizeof head) != 0)
        code = ct_fail(status, CT_CORRUPT, "%s: is no filter of %zu lines a shard, as store.json says", path, filter->shard_lines);
    if (code == CT_OK) code = read_all(file, path, filter->lines, bytes, status);
    if (code == CT_OK) code = read_all(file, path, hash, sizeof hash, status);
    if (code == CT_OK && (ct_get_le64(hash) != file_hash(head, filter->lines, bytes) || fgetc(file) != EOF))
        code = ct_fail(status, CT_CORRUPT, "%s: the file is not what was written; copy the folder again", path);
    if (file) (void)fclose(file);
    free(path);
    return code;
}
