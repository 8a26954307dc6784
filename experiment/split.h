/* Split: one log into training, validation and test rows, honestly. Rows go as they stand, line by line, in order of time; equal times keep
 * the log's order.
 *
 *   by time       the first rows of all train, the last ones test
 *   by user-time  the same within each unit: row i of a unit's n (from 0) trains where 100 i < parts[0] n, and so on
 *
 * unseen_share > 0: items drawn by the hash of their id and the seed lose their training rows, so that validation and test hold items that
 * no model saw. A share of 0.2 is each item's chance, not an exact fifth.
 *
 * The folder holds train, valid and test as text (.csv where the separator is a comma, else .tsv) and split.json, the report. It is made
 * beside its name and renamed.
 *
 * Sources are read twice: text, in any order of time. Memory: about 50 bytes a row, whatever its length. */
#ifndef EXPERIMENT_SPLIT_H
#define EXPERIMENT_SPLIT_H

#include <jansson.h>

#include "data/reader.h"

typedef enum ct_split_by { CT_SPLIT_BY_TIME, CT_SPLIT_BY_UNIT_TIME } ct_split_by;
enum { CT_SPLIT_TRAIN, CT_SPLIT_VALID, CT_SPLIT_TEST, CT_SPLIT_PARTS };

typedef struct ct_split_options {
    const ct_schema *schema;
    const char *const *sources; /* not standard input */
    size_t source_count;
    ct_split_by by;
    int64_t parts[CT_SPLIT_PARTS]; /* percent, together 100; that of valid may be 0, then it has no file */
    double unseen_share;           /* [0, 1) of the items */
    const char *item;              /* id field; NULL = that of the schema's first vector */
    uint64_t seed;                 /* draws the unseen items */
    const char *folder;
    int64_t max_bad_rows;    /* -1 = no limit */
    double max_bad_share;    /* 0..1 of all rows; 1 = no limit */
    const atomic_bool *stop; /* may be NULL */
    bool progress;
} ct_split_options;

/* out_report (the caller's):
 *     format_version, schema, by ("time" or "user-time"), percent [3], rows, clicks (null without a label), unsorted_rows, bad_rows
 *     item            field, or null; unit: field, or null
 *     unseen          {share, seed, items, rows_left_out}, or null
 *     parts           [{name, file, rows, clicks, first_time, last_time (milliseconds), units, new_units, new_unit_rows, items, new_items,
 *                     new_item_rows, repeated_rows}]: new = not in training; repeated = the same line is in training
 *     warnings        [text]: what a reader of results should know
 * out_rows: bad rows and unsorted times. CT_INVALID where the schema lacks the time or the unit, or a part would have no row; CT_EXISTS
 * where the folder is there and is no split. */
CT_MUST_CHECK ct_code ct_split(const ct_split_options *options, json_t **out_report, ct_read_report *out_rows, ct_status *status);

#endif
