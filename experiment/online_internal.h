/* What the files of the online report share. Nobody else includes it. */
#ifndef EXPERIMENT_ONLINE_INTERNAL_H
#define EXPERIMENT_ONLINE_INTERNAL_H

#include <stdlib.h>

#include "data/source.h"
#include "experiment/online.h"

/* --- online_columns.c: tables with a header --- */

enum { ONLINE_MAX_COLUMNS = 64, ONLINE_MAX_NAMES = 8 };
typedef struct online_part {
    const char *text;
    size_t bytes;
} online_part;
typedef struct online_header {
    const char *const *names; /* of the columns that are read */
    char separator;
    size_t columns;
    size_t at[ONLINE_MAX_NAMES]; /* by name; ONLINE_MAX_COLUMNS = absent */
} online_header;
/* The first `needed` of the `count` names must be there; `grammar` says so in messages. */
CT_MUST_CHECK ct_code online_header_read(online_header *header, const char *const *names, size_t count, size_t needed, const char *grammar,
                                         const ct_line *line, ct_status *status);
bool online_header_has(const online_header *header, size_t column);
CT_MUST_CHECK ct_code online_header_split(const online_header *header, const ct_line *line, online_part parts[ONLINE_MAX_COLUMNS],
                                          ct_status *status);
/* A number within CT_MOST_SUMMED. */
CT_MUST_CHECK ct_code online_header_number(const online_header *header, const ct_line *line, const online_part *parts, size_t column,
                                           double *out, ct_status *status);

/* --- online_table.c --- */

typedef struct online_row {
    double time, value, count;
    uint32_t unit, arm;
} online_row;

enum { TWO_ARMS = UINT32_MAX };
typedef struct online_unit {
    uint32_t arm; /* TWO_ARMS: left out */
    double covariate;
    double value, count; /* so far, while the rows are gone through */
    bool seen;
} online_unit;

typedef struct online_table {
    char *arms[CT_ONLINE_MAX_ARMS]; /* by name */
    size_t arm_count;
    online_row *rows; /* (row_count), by time */
    size_t row_count, row_capacity;
    online_unit *units; /* (unit_count) */
    size_t unit_count, unit_capacity;
    size_t in_two_arms;
    bool has_count, has_covariate;
} online_table;

CT_MUST_CHECK ct_code online_table_read(const ct_online_options *options, online_table *out_table, ct_status *status);
void online_table_deinit(online_table *table);
/* By time, then unit. */
void online_table_sort(online_table *table);

/* What was meant before the experiment began. */
typedef struct online_design {
    size_t control;
    double weights[CT_ONLINE_MAX_ARMS]; /* of the arms; 0 = no unit is meant to be there */
    double plan, alpha;
    bool unknown_split; /* the units that are seen tell nothing about the split: it is not checked */
} online_design;

/* online.c: the arms of a table whose rows are sorted, of which there is at least one: the members of ct_online_report's report from "rows"
 * to "differences". Warnings go to the array `warnings`. */
CT_MUST_CHECK ct_code online_compare(const online_design *design, online_table *table, json_t *warnings, json_t **out_comparison,
                                     ct_status *status);
/* CT_INVALID where plan or alpha can't be. */
CT_MUST_CHECK ct_code online_check(double plan, double alpha, ct_status *status);
json_t *online_range_json(double low, double high);
enum { ONLINE_FEW_UNITS = 50 }; /* fewer in an arm: no sequence */

/* qsort, which takes no NULL, of an array that may be empty. */
static inline void online_sort(void *array, size_t count, size_t bytes_each, int (*order)(const void *, const void *)) {
    if (count > 0) qsort(array, count, bytes_each, order);
}

/* Room for `needed` elements, of which *capacity are there; false when out of memory. */
bool online_grow(void **array, size_t *capacity, size_t needed, size_t bytes_each);

#endif
