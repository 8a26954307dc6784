/* What the files of the online report share. Nobody else includes it. */
#ifndef EXPERIMENT_ONLINE_INTERNAL_H
#define EXPERIMENT_ONLINE_INTERNAL_H

#include "experiment/online.h"

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

#endif
