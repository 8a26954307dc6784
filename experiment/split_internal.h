/* What the files of split share. Nobody else includes it. */
#ifndef EXPERIMENT_SPLIT_INTERNAL_H
#define EXPERIMENT_SPLIT_INTERNAL_H

#include "experiment/split.h"

enum { LEFT_OUT = CT_SPLIT_PARTS }; /* in no part */

/* The good rows, in the log's order. */
typedef struct split_rows {
    size_t count, capacity;
    int64_t *time;
    uint64_t *unit, *item, *hash; /* keys, and that of the whole line; unit, item: only where there is such a field */
    uint32_t *bytes;              /* of the line with its newline */
    uint8_t *click, *part;
    bool has_unit, has_item;
} split_rows;

typedef struct split_run {
    const ct_split_options *options;
    int64_t label, time, unit, item; /* fields, -1 = none */
    split_rows rows;
    size_t *order; /* (count): rows by time */
    size_t unseen_items, unseen_rows;
    ct_read_report report;
    json_t *warnings;
} split_run;

/* The name of a part: "train", ... */
extern const char *const split_names[CT_SPLIT_PARTS];
/* File name of a part, "train.tsv". */
void split_file_name(const ct_schema *schema, size_t part, char out_name[16]);
/* Reads the sources again and writes the parts into `folder`. */
CT_MUST_CHECK ct_code split_write(const split_run *run, const char *folder, ct_status *status);
/* The report; adds warnings. */
CT_MUST_CHECK ct_code split_report(split_run *run, json_t **out_report, ct_status *status);

#endif
