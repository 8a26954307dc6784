/* Reads the table of an experiment: columns by name, units by the hash of their text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "data/source.h"
#include "experiment/counts.h"
#include "experiment/online_internal.h"

enum { STOP_ROWS = 4096 };
typedef enum column { UNIT, TIME, ARM, VALUE, COUNT, COVARIATE, COLUMNS } column;
static const char *const column_names[COLUMNS] = {"unit", "time", "arm", "value", "count", "covariate"};

typedef struct reading {
    online_table *table;
    ct_counts *numbers; /* of a unit's hash: its number from 1 */
    online_header header;
} reading;

void online_table_deinit(online_table *table) {
    for (size_t i = 0; i < table->arm_count; i++) free(table->arms[i]);
    free(table->rows);
    free(table->units);
    *table = (online_table){0};
}

static ct_code take_header(reading *r, const ct_line *line, ct_status *status) {
    CT_TRY(online_header_read(&r->header, column_names, COLUMNS, VALUE + 1, "unit, time, arm and value (and may name count and covariate)",
                              line, status));
    r->table->has_count = online_header_has(&r->header, COUNT);
    r->table->has_covariate = online_header_has(&r->header, COVARIATE);
    return CT_OK;
}

static ct_code arm_at(reading *r, const ct_line *line, const online_part *part, uint32_t *out_arm, ct_status *status) {
    online_table *table = r->table;
    for (size_t i = 0; i < table->arm_count; i++) {
        if (strlen(table->arms[i]) != part->bytes || memcmp(table->arms[i], part->text, part->bytes) != 0) continue;
        *out_arm = (uint32_t)i;
        return CT_OK;
    }
    if (part->bytes == 0) return ct_fail(status, CT_INVALID, "%s:%lld: the arm has no name", line->source, (long long)line->number);
    if (memchr(part->text, 0, part->bytes) != NULL || !ct_utf8_is_valid(part->text, part->bytes))
        return ct_fail(status, CT_INVALID, "%s:%lld: the arm's name is not UTF-8, or holds a NUL byte", line->source,
                       (long long)line->number);
    if (table->arm_count == CT_ONLINE_MAX_ARMS)
        return ct_fail(status, CT_INVALID, "%s:%lld: more than %d arms", line->source, (long long)line->number, CT_ONLINE_MAX_ARMS);
    char *name = strndup(part->text, part->bytes);
    if (name == NULL) return ct_fail_memory(status, part->bytes, "an arm's name");
    *out_arm = (uint32_t)table->arm_count;
    table->arms[table->arm_count++] = name;
    return CT_OK;
}

bool online_grow(void **array, size_t *capacity, size_t needed, size_t bytes_each) {
    if (needed <= *capacity) return true;
    const size_t larger = *capacity + *capacity / 2 + 1024;
    void *grown = realloc(*array, larger * bytes_each);
    if (grown == NULL) return false;
    *array = grown;
    *capacity = larger;
    return true;
}

static ct_code take_row(reading *r, const ct_line *line, ct_status *status) {
    online_table *table = r->table;
    online_part parts[ONLINE_MAX_COLUMNS];
    online_row row = {.count = 1.0};
    double covariate = 0.0;
    CT_TRY(online_header_split(&r->header, line, parts, status));
    CT_TRY(online_header_number(&r->header, line, parts, TIME, &row.time, status));
    CT_TRY(online_header_number(&r->header, line, parts, VALUE, &row.value, status));
    if (table->has_count) CT_TRY(online_header_number(&r->header, line, parts, COUNT, &row.count, status));
    if (row.count < 0.0)
        return ct_fail(status, CT_INVALID, "%s:%lld: column 'count': %g is below 0", line->source, (long long)line->number, row.count);
    if (table->has_covariate && parts[r->header.at[COVARIATE]].bytes > 0)
        CT_TRY(online_header_number(&r->header, line, parts, COVARIATE, &covariate, status));
    CT_TRY(arm_at(r, line, &parts[r->header.at[ARM]], &row.arm, status));
    const uint64_t hash = ct_hash64(parts[r->header.at[UNIT]].text, parts[r->header.at[UNIT]].bytes, 0);
    uint64_t number = ct_counts_get(r->numbers, hash);
    if (number == 0) {
        if (table->unit_count + 1 >= TWO_ARMS ||
            !online_grow((void **)&table->units, &table->unit_capacity, table->unit_count + 1, sizeof *table->units))
            return ct_fail_memory(status, table->unit_count * sizeof *table->units, "the units");
        table->units[table->unit_count++] = (online_unit){.arm = row.arm, .covariate = covariate};
        number = table->unit_count;
        CT_TRY(ct_counts_add(r->numbers, hash, number, status));
    }
    row.unit = (uint32_t)number - 1;
    online_unit *unit = &table->units[row.unit];
    if (unit->arm != row.arm && unit->arm != TWO_ARMS) {
        unit->arm = TWO_ARMS;
        table->in_two_arms++;
    }
    if (!online_grow((void **)&table->rows, &table->row_capacity, table->row_count + 1, sizeof row))
        return ct_fail_memory(status, table->row_count * sizeof row, "the rows");
    table->rows[table->row_count++] = row;
    return CT_OK;
}

static int by_time(const void *left, const void *right) {
    const online_row *a = left, *b = right;
    if (a->time != b->time) return a->time < b->time ? -1 : 1;
    return (a->unit > b->unit) - (a->unit < b->unit);
}

void online_table_sort(online_table *table) { online_sort(table->rows, table->row_count, sizeof *table->rows, by_time); }

/* Arms by name, whatever the order of the rows. */
static void sort_arms(online_table *table) {
    uint32_t place[CT_ONLINE_MAX_ARMS];
    char *sorted[CT_ONLINE_MAX_ARMS];
    for (size_t i = 0; i < table->arm_count; i++) {
        place[i] = 0;
        for (size_t j = 0; j < table->arm_count; j++) place[i] += strcmp(table->arms[j], table->arms[i]) < 0;
        sorted[place[i]] = table->arms[i];
    }
    memcpy(table->arms, sorted, table->arm_count * sizeof *sorted);
    for (size_t i = 0; i < table->row_count; i++) table->rows[i].arm = place[table->rows[i].arm];
    for (size_t i = 0; i < table->unit_count; i++)
        if (table->units[i].arm != TWO_ARMS) table->units[i].arm = place[table->units[i].arm];
}

ct_code online_table_read(const ct_online_options *options, online_table *out_table, ct_status *status) {
    online_table table = {0};
    reading r = {.table = &table};
    ct_lines *lines = NULL;
    ct_line line;
    ct_code code;
    CT_TRY(ct_counts_create(&r.numbers, status));
    CT_TRY_GOTO(code, ct_lines_open(&options->table, 1, &lines, status), done);
    ct_lines_set_stop(lines, options->stop);
    while ((code = ct_lines_next(lines, &line, status)) == CT_OK) {
        if (ct_lines_is_first(lines)) {
            CT_TRY_GOTO(code, take_header(&r, &line, status), done);
        } else if (line.bytes > 0) {
            CT_TRY_GOTO(code, take_row(&r, &line, status), done);
        }
        if (table.row_count % STOP_ROWS == 0 && options->stop != NULL && atomic_load(options->stop)) {
            code = ct_fail(status, CT_CANCELLED, "the report was stopped");
            goto done;
        }
    }
    if (code != CT_END) goto done;
    code = CT_OK;
    if (table.arm_count < 2) {
        code = ct_fail(status, CT_INVALID, "%s: %zu rows with %zu arms; a comparison needs two arms", options->table, table.row_count,
                       table.arm_count);
        goto done;
    }
    sort_arms(&table);
    online_table_sort(&table);
    *out_table = table;
    table = (online_table){0};
done:
    ct_lines_close(lines);
    ct_counts_destroy(r.numbers);
    online_table_deinit(&table);
    return code;
}
