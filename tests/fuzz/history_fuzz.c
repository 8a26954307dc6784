/* Histories: the chain of files of a model folder, and the words of a delta. Input: flags, u16 words of the first part, that part, the
 * second part. Flag 1 asks for heads and hashes of fields that fit, as far as the lengths lead, so that units and entries are reached;
 * flag 2 for one part, as a file of earlier programs; flag 4 for a schema without time.
 *
 * Parts are read as files, applied as words, and made into a version: all three refuse them, or all hold the same. What is not refused is
 * in order, takes rows, and comes back from files and words of our own as it was. */
#include <stdbool.h>

#include "base/bytes.h"
#include "data/history_internal.h"
#include "tests/base/temp.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "history_fuzz";

enum { REPAIRED = 1, ONCE = 2, TIMELESS = 4, INPUT_HEAD = 3, HISTORIES = 2, PARTS = 2, ROWS = 8, MAX_WORDS = FUZZ_MAX_BYTES / 8 };

typedef struct part {
    uint64_t words[MAX_WORDS];
    size_t count;
} part;

static ct_schema *schemas[2]; /* with time, without */
static char *folder;

static void make(void) {
    static const char text[] =
        "name: h\nformat: {columns: 4}\nfields:\n"
        "  - {name: click, kind: label, column: 1}\n"
        "  - {name: user, kind: unit, column: 2}\n"
        "  - {name: item, kind: id, column: 3}\n"
        "  - {name: liked, kind: history, of: item, clicked: true, max: 2}\n"
        "  - {name: seen, kind: history, of: item, max: 3}\n"
        "  - {name: when, kind: time, column: 4}\n";
    const size_t timeless = (size_t)(strstr(text, "  - {name: when") - text);
    ct_status status = CT_STATUS_INIT;
    if (folder) return;
    folder = fuzz_folder();
    char *chain = temp_path(folder, "chain");
    FUZZ_MUST(ct_folder_create(chain, &status) == CT_OK);
    free(chain);
    FUZZ_MUST(ct_schema_parse(text, sizeof text - 1, "fuzz.yaml", &schemas[0], &status) == CT_OK);
    FUZZ_MUST(ct_schema_parse(text, timeless, "fuzz.yaml", &schemas[1], &status) == CT_OK);
}

__attribute__((destructor)) static void end(void) {
    if (folder) temp_remove(folder);
    ct_schema_destroy(schemas[0]);
    ct_schema_destroy(schemas[1]);
}

static ct_histories *create(const ct_schema *schema) {
    ct_histories *histories = NULL;
    ct_status status = CT_STATUS_INIT;
    FUZZ_MUST(ct_histories_create(schema, &histories, &status) == CT_OK);
    return histories;
}

/* Four users see and click items; `from`: of the first row. */
static void enter(ct_histories *histories, const ct_schema *schema, size_t from) {
    ct_batch *batch = NULL;
    ct_status status = CT_STATUS_INIT;
    FUZZ_MUST(ct_batch_create(schema, ROWS, &batch, &status) == CT_OK);
    batch->rows = ROWS;
    for (size_t f = 0; f < schema->field_count; f++) batch->columns[f].present = !schema->fields[f].derived;
    for (size_t r = 0; r < ROWS; r++) {
        const size_t n = from + r;
        ((float *)batch->columns[0].values)[r] = (float)(n % 3 != 0);
        ((uint64_t *)batch->columns[1].values)[r] = UINT64_C(0x4000000000000000) * (n / 2 % 4);
        ((uint64_t *)batch->columns[2].values)[r] = n + 100;
        if (histories->time >= 0) ((int64_t *)batch->columns[histories->time].values)[r] = (int64_t)n * 1000 / 3;
    }
    FUZZ_MUST(ct_histories_live(histories, batch, &status) == CT_OK);
    for (size_t h = 0; h < HISTORIES; h++) {
        const ct_column *column = &batch->columns[histories->list[h].field];
        for (size_t r = 0; r < ROWS; r++)
            FUZZ_MUST(column->offsets[r + 1] - column->offsets[r] <= histories->list[h].max_values); /* unsigned: nor less than 0 */
    }
    ct_batch_destroy(batch);
}

static void digest_of(ct_histories *histories, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_digest *digest = NULL;
    ct_status status = CT_STATUS_INIT;
    FUZZ_MUST(ct_digest_create(&digest, &status) == CT_OK);
    ct_histories_digest_anew(histories);
    FUZZ_MUST(ct_histories_digest(histories, digest, &status) == CT_OK);
    ct_digest_hex(digest, out_hex);
    ct_digest_destroy(digest);
}

static void must_be_same(ct_histories *a, ct_histories *b) {
    char one[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
    digest_of(a, one);
    digest_of(b, other);
    FUZZ_MUST(strcmp(one, other) == 0);
}

static void must_be_in_order(const ct_histories *histories) {
    FUZZ_MUST(histories->rows >= 0);
    for (size_t h = 0; h < histories->count; h++) {
        const ct_history *history = &histories->list[h];
        for (size_t u = 0; u < history->unit_count; u++) {
            const ct_history_unit *unit = &history->units[u];
            uint64_t keys[16];
            FUZZ_MUST(unit->begin < unit->end && unit->end <= unit->capacity);
            for (uint32_t e = unit->begin + 1; e < unit->end; e++) FUZZ_MUST(unit->entries[e].when >= unit->entries[e - 1].when);
            const uint32_t all = unit->end - unit->begin, most = history->max_values;
            FUZZ_MUST(ct_histories_read(histories, history->field, unit->key, keys) == (all < most ? all : most));
            FUZZ_MUST(keys[0] == unit->entries[unit->end - (all < most ? all : most)].key);
        }
    }
}

/* --- parts --- */

/* A head, and hashes of fields, that fit. */
static void repair(part *part, const ct_schema *schema, bool once, bool first) {
    size_t at = once ? 3 : 4;
    if (part->count < at) return;
    memcpy(part->words, once ? CT_HISTORY_MAGIC_ONCE : CT_HISTORY_MAGIC, sizeof part->words[0]);
    part->words[2] = HISTORIES;
    if (!once) part->words[3] = first;
    for (size_t f = 0; f < schema->field_count; f++) {
        if (schema->fields[f].kind != CT_FIELD_HISTORY) continue;
        if (part->count - at < 3) return;
        part->words[at] = schema->fields[f].hash;
        const uint64_t units = part->words[at + 1], entries = part->words[at + 2];
        at += 3;
        if (units > (part->count - at) / 2 || entries > (part->count - at - 2 * units) / 3) return;
        at += 2 * units + 3 * entries;
    }
}

static void write_part(const char *path, const part *part) {
    FILE *file = fopen(path, "wb");
    FUZZ_MUST(file && fwrite(part->words, 8, part->count, file) == part->count && fclose(file) == 0);
}

static bool read_files(const ct_schema *schema, const part *parts, bool once, ct_histories **out_histories) {
    char *path = temp_path(folder, once ? "file" : "chain");
    ct_status status = CT_STATUS_INIT;
    if (once) {
        write_part(path, &parts[0]);
    } else {
        for (size_t i = 0; i < PARTS; i++) {
            char name[CT_HISTORIES_NAME_BYTES];
            ct_histories_file_name(i, name);
            char *file = temp_path(path, name);
            write_part(file, &parts[i]);
            free(file);
        }
    }
    const ct_code code = ct_histories_open(schema, path, once ? 0 : PARTS, out_histories, &status);
    FUZZ_MUST(code == CT_OK || (code == CT_CORRUPT && strstr(status.message, path)));
    free(path);
    return code == CT_OK;
}

/* The first part applied, the second one made into a version; NULL where one of them is refused. */
static ct_histories *apply(const ct_schema *schema, const part *parts) {
    ct_histories *first = create(schema), *next = NULL;
    ct_status status = CT_STATUS_INIT;
    ct_code code = ct_histories_apply(first, parts[0].words, parts[0].count, "first", &status);
    if (code == CT_OK) {
        code = ct_histories_next(first, parts[1].words, parts[1].count, "second", &next, &status);
        must_be_in_order(first);
    }
    FUZZ_MUST(code == CT_OK || (code == CT_CORRUPT && (strstr(status.message, "first") || strstr(status.message, "second"))));
    if (code == CT_OK)
        ct_histories_retire(first, next);
    else
        ct_histories_destroy(first);
    return next;
}

/* --- what was read goes on --- */

static void must_come_back(ct_histories *histories) {
    char *path = temp_path(folder, "saved");
    ct_histories_saving *saving = NULL;
    ct_histories *back = NULL;
    ct_digest *digest = NULL;
    ct_status status = CT_STATUS_INIT;
    FUZZ_MUST(ct_folder_remove(path, &status) == CT_OK && ct_digest_create(&digest, &status) == CT_OK);
    FUZZ_MUST(ct_histories_saving_begin(histories, &saving, &status) == CT_OK);
    FUZZ_MUST(ct_histories_saving_write(saving, path, digest, &status) == CT_OK);
    ct_histories_saving_end(saving);
    ct_digest_destroy(digest);
    FUZZ_MUST(ct_histories_open(histories->schema, path, 1, &back, &status) == CT_OK);
    must_be_same(histories, back);
    ct_histories_destroy(back);
    free(path);
}

/* Rows enter both, and what they change in one takes the other, as it was before, to the same. */
static void must_go_on(ct_histories *histories) {
    ct_histories *copy = NULL;
    ct_status status = CT_STATUS_INIT;
    uint64_t *words = NULL;
    size_t count = 0;
    FUZZ_MUST(ct_histories_copy(histories, &copy, &status) == CT_OK);
    must_be_same(histories, copy);
    ct_histories_forget_changes(histories);
    enter(histories, histories->schema, 1000);
    must_be_in_order(histories);
    FUZZ_MUST(ct_histories_changes(histories, &words, &count, &status) == CT_OK);
    FUZZ_MUST(ct_histories_apply(copy, words, count, "changes", &status) == CT_OK);
    must_be_same(histories, copy);
    free(words);
    ct_histories_destroy(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static part parts[PARTS];
    if (bytes < INPUT_HEAD || bytes > FUZZ_MAX_BYTES) return 0;
    make();
    const bool once = data[0] & ONCE;
    const ct_schema *schema = schemas[(data[0] & TIMELESS) != 0];
    const size_t words = (bytes - INPUT_HEAD) / 8, asked = (size_t)(data[1] | data[2] << 8);
    parts[0].count = once || asked > words ? words : asked;
    parts[1].count = words - parts[0].count;
    for (size_t i = 0; i < PARTS; i++) {
        const uint8_t *from = data + INPUT_HEAD + (i ? 8 * parts[0].count : 0);
        if (parts[i].count > 0) memcpy(parts[i].words, from, 8 * parts[i].count);
        if (data[0] & REPAIRED) repair(&parts[i], schema, once, i == 0);
    }
    ct_histories *histories = NULL, *applied = NULL;
    const bool good = read_files(schema, parts, once, &histories);
    if (!once) {
        applied = apply(schema, parts);
        FUZZ_MUST(applied || !good); /* words may say either that all before is gone or not; files of a chain must say it of the first */
    }
    if (good) {
        must_be_in_order(histories);
        if (applied) must_be_same(histories, applied);
        must_come_back(histories);
        must_go_on(histories);
    }
    if (applied) must_go_on(applied);
    ct_histories_destroy(histories);
    ct_histories_destroy(applied);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const uint8_t flags[] = {0, REPAIRED, REPAIRED | TIMELESS, ONCE, REPAIRED | ONCE};
    if (index >= sizeof flags) return 0;
    make();
    const bool once = flags[index] & ONCE;
    const ct_schema *schema = schemas[(flags[index] & TIMELESS) != 0];
    ct_histories *histories = create(schema);
    ct_status status = CT_STATUS_INIT;
    size_t used = INPUT_HEAD;
    for (size_t i = 0; i < (once ? 1 : PARTS); i++) {
        uint64_t *words = NULL;
        size_t count = 0;
        for (size_t rows = 0; rows < (i == 0 ? 3 : 1); rows++) enter(histories, schema, (i * 3 + rows) * ROWS);
        FUZZ_MUST(ct_histories_changes(histories, &words, &count, &status) == CT_OK);
        ct_histories_forget_changes(histories);
        words[3] = i == 0;
        if (once) {
            memcpy(words, CT_HISTORY_MAGIC_ONCE, sizeof *words);
            memmove(words + 3, words + 4, (--count - 3) * sizeof *words);
        }
        FUZZ_MUST(used + 8 * count <= FUZZ_MAX_BYTES);
        memcpy(out + used, words, 8 * count);
        used += 8 * count;
        if (i == 0) {
            out[0] = flags[index];
            out[1] = (uint8_t)count;
            out[2] = (uint8_t)(count >> 8);
        }
        free(words);
    }
    ct_histories_destroy(histories);
    return used;
}
