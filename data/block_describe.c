/* What a block file holds, for people and for comparing: the digest covers names, rules and values, not how the rows were cut into blocks,
 * so that two files of the same rows have the same digest. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "data/block_file.h"
#include "data/block_format.h"
#include "data/internal.h"

typedef struct describe {
    ct_digest **values, **counts; /* (columns); counts: NULL where dense */
    size_t columns;
} describe;

static void describe_deinit(describe *d) {
    for (size_t i = 0; i < d->columns; i++) {
        if (d->values && d->values[i]) ct_digest_destroy(d->values[i]);
        if (d->counts && d->counts[i]) ct_digest_destroy(d->counts[i]);
    }
    free(d->values);
    free(d->counts);
}

static ct_code describe_init(describe *d, const ct_block_scan *scan, ct_status *status) {
    d->columns = scan->column_count;
    d->values = calloc(d->columns, sizeof(ct_digest *));
    d->counts = calloc(d->columns, sizeof(ct_digest *));
    if (!d->values || !d->counts) return ct_fail_memory(status, d->columns * sizeof(ct_digest *), "digests");
    for (size_t i = 0; i < d->columns; i++) {
        CT_TRY(ct_digest_create(&d->values[i], status));
        if (scan->columns[i].csr) CT_TRY(ct_digest_create(&d->counts[i], status));
    }
    return CT_OK;
}

static void take_block(describe *d, const ct_block_scan *scan, size_t rows) {
    for (size_t i = 0; i < d->columns; i++) {
        const ct_block_span *span = &scan->spans[i];
        ct_digest_update(d->values[i], span->values, span->value_count * ct_column_type_bytes(scan->columns[i].type));
        for (size_t r = 0; span->offsets && r < rows; r++) {
            unsigned char count[4];
            ct_put_le32(count, ct_get_le32(span->offsets + 4 * (r + 1)) - ct_get_le32(span->offsets + 4 * r));
            ct_digest_update(d->counts[i], count, 4);
        }
    }
}

static ct_code describe_finish(const describe *d, const ct_block_scan *scan, json_t **out_json, ct_status *status) {
    char hex[CT_DIGEST_HEX_BYTES];
    ct_digest *whole = NULL;
    json_t *columns = json_array(), *json = NULL;
    ct_code code = CT_OK;
    if (!columns) goto fail;
    CT_TRY_GOTO(code, ct_digest_create(&whole, status), fail);
    ct_digest_update_u64(whole, scan->rows);
    for (size_t i = 0; i < d->columns; i++) {
        const ct_block_column *column = &scan->columns[i];
        ct_digest_update_text(whole, column->name);
        ct_digest_update_text(whole, column->rule);
        ct_digest_hex(d->values[i], hex);
        ct_digest_update_text(whole, hex);
        if (d->counts[i]) {
            ct_digest_hex(d->counts[i], hex);
            ct_digest_update_text(whole, hex);
        }
        json_t *item = json_pack("{s:s,s:s,s:s,s:s,s:s}", "name", column->name, "kind", column->kind, "type",
                                 ct_column_type_name(column->type), "layout", column->csr ? "csr" : "dense", "rule", column->rule);
        if (!item || json_array_append_new(columns, item) != 0) goto fail;
    }
    ct_digest_hex(whole, hex);
    json = json_pack("{s:I,s:I,s:O,s:s}", "rows", (json_int_t)scan->rows, "blocks", (json_int_t)scan->blocks, "columns", columns, "digest",
                     hex);
    if (json) *out_json = json;
fail:
    if (code == CT_OK && !json) code = ct_fail_memory(status, scan->column_count * 64, "a description");
    json_decref(columns);
    if (whole) ct_digest_destroy(whole);
    return code;
}

ct_code ct_block_file_describe(const char *path, json_t **out_json, ct_status *status) {
    ct_source *source = NULL;
    ct_block_scan scan = {0};
    describe d = {0};
    size_t rows;
    ct_code code;
    CT_TRY(ct_source_open(path, &source, status));
    CT_TRY_GOTO(code, ct_block_scan_open(source, &scan, status), done);
    CT_TRY_GOTO(code, describe_init(&d, &scan, status), done);
    while ((code = ct_block_scan_next(&scan, &rows, status)) == CT_OK) take_block(&d, &scan, rows);
    if (code == CT_END) code = describe_finish(&d, &scan, out_json, status);
done:
    describe_deinit(&d);
    ct_block_scan_deinit(&scan);
    ct_source_close(source);
    return code;
}
