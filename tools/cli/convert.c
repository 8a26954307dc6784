/* clicktower convert: logs to one block file. */
#include <inttypes.h>
#include <stdio.h>

#include "base/progress.h"
#include "data/block_file.h"
#include "tools/cli/cli.h"

/* Columns that a source has as they were served are left out: whoever reads the new file derives them from the rows. */
static void tell_derived(const ct_schema *schema, const ct_batch *batch) {
    for (size_t f = 0; f < schema->field_count; f++)
        if (schema->fields[f].derived && batch->columns[f].present)
            ct_warn("convert", "'%s' as it was served is left out: whoever reads the file derives it from the rows before",
                    schema->fields[f].name);
}

static ct_code copy_rows(const ct_schema *schema, ct_reader *reader, ct_block_writer *writer, ct_status *status) {
    ct_progress progress;
    ct_progress_init(&progress);
    int64_t rows = 0;
    ct_code code;
    for (;;) {
        ct_batch *batch = NULL;
        code = ct_reader_next(reader, &batch, status);
        if (code != CT_OK) break;
        if (rows == 0) tell_derived(schema, batch);
        rows += (int64_t)batch->rows;
        code = ct_block_writer_write(writer, batch, status);
        ct_reader_release(reader, batch);
        if (code != CT_OK) break;
        ct_progress_update(&progress, "convert: %" PRId64 " rows", rows);
    }
    ct_progress_finish(&progress);
    return code == CT_END ? CT_OK : code;
}

ct_code ct_verb_convert(int argc, char **argv, ct_status *status) {
    const char *schema_name = NULL, *out = NULL;
    ct_text_list in = {0};
    ct_bad_row_limit bad_rows = CT_BAD_ROW_LIMIT_INIT;
    const ct_option options[] = {
        {"schema", "criteo|FILE.yaml", CT_OPTION_TEXT, true, &schema_name, "what the columns of the log mean", 0, 0, NULL},
        {"in", "SOURCE", CT_OPTION_LIST, true, &in, "logs, in order", 0, 0, NULL},
        {"out", "FILE.ctb", CT_OPTION_TEXT, true, &out, "the block file to write", 0, 0, NULL},
        {"max-bad-rows", "N|P%", CT_OPTION_BAD_ROWS, false, &bad_rows, "more bad rows than this are a failure", 0, 0, NULL},
    };
    const ct_command command = {
        "convert",
        "Writes logs as one block file: typed columns with ids hashed, which reads faster than text and trains to the "
        "same model.",
        "  clicktower convert --schema criteo --in day_0.gz --out day_0.ctb",
        NULL,
        NULL,
        options,
        sizeof options / sizeof *options};
    ct_schema *schema = NULL;
    ct_reader *reader = NULL;
    ct_block_writer *writer = NULL;
    ct_code code;
    CT_TRY_GOTO(code, ct_command_parse(&command, argc, argv, status), done);
    CT_TRY_GOTO(code, ct_check_standard_input((const ct_text_list *const[]){&in}, 1, 1, status), done);
    CT_TRY_GOTO(code, ct_check_output("out", out, in.items, in.count, status), done);
    ct_reader_options reading = CT_READER_OPTIONS_INIT;
    reading.sources = in.items;
    reading.source_count = in.count;
    reading.batch_rows = CT_BLOCK_FILE_ROWS;
    reading.max_bad_rows = bad_rows.rows;
    reading.max_bad_share = bad_rows.share;
    reading.stop = ct_stop_on_signals();
    CT_TRY_GOTO(code, ct_schema_load(schema_name, &schema, status), done);
    CT_TRY_GOTO(code, ct_reader_open(schema, &reading, &reader, status), done);
    CT_TRY_GOTO(code, ct_block_writer_open(out, schema, &writer, status), done);
    if (copy_rows(schema, reader, writer, status) != CT_OK) {
        code = ct_stop_explain("no file was written", status);
        goto done;
    }
    ct_read_report report;
    ct_reader_report(reader, &report);
    ct_warn_report("convert", "input", &report);
    if (report.rows == 0 && report.bad_total > 0) { /* an empty log is an empty file; this is another log than the schema says */
        code = ct_fail(status, CT_INVALID, "%s: no good row to convert (%" PRId64 " bad ones); the first: %s; is it a log of this schema?",
                       in.items[0], report.bad_total, report.first_bad[0]);
        goto done;
    }
    ct_block_writer *finished = writer;
    writer = NULL;
    CT_TRY_GOTO(code, ct_block_writer_commit(finished, status), done);
    (void)printf("rows %" PRId64 "\nbad_rows %" PRId64 "\nfile %s\n", report.rows, report.bad_total, out);
done:
    ct_block_writer_abort(writer);
    ct_reader_close(reader);
    ct_schema_destroy(schema);
    ct_text_list_deinit(&in);
    return code;
}
