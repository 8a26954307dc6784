/* Tables that users bring before there is a schema: the first byte chooses what reads the text behind it. The log for which
 * `clicktower schema` guesses one: refused by name, or a schema that its own lines can be read by. The table of an experiment
 * (`report --table`): refused by name, or a report that counts its rows and can be shown. */
#include "data/guess.h"
#include "data/reader.h"
#include "experiment/online.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "table_fuzz";

enum { LOG, EXPERIMENT, KINDS };

static void check_refusal(ct_code code, const ct_status *status, const char *path) {
    FUZZ_MUST(code == CT_INVALID || code == CT_CORRUPT || code == CT_UNSUPPORTED);
    FUZZ_MUST(strncmp(status->message, path, strlen(path)) == 0);
}

/* A guess from few lines may be wrong of some. Of all it is not: the line that it was made of is a row. */
static void read_by_guess(const char *path, const char *yaml) {
    ct_status status = CT_STATUS_INIT;
    ct_schema *schema = NULL;
    ct_reader *reader = NULL;
    ct_batch *batch = NULL;
    ct_reader_options options = CT_READER_OPTIONS_INIT;
    ct_code code;
    options.sources = &path;
    options.source_count = 1;
    options.batch_rows = 64;
    options.max_bad_rows = -1;
    FUZZ_MUST(ct_schema_parse(yaml, strlen(yaml), "guess.yaml", &schema, &status) == CT_OK);
    code = ct_reader_open(schema, &options, &reader, &status);
    while (code == CT_OK && (code = ct_reader_next(reader, &batch, &status)) == CT_OK) ct_reader_release(reader, batch);
    if (code != CT_END) check_refusal(code, &status, path);
    ct_reader_close(reader);
    ct_schema_destroy(schema);
}

static void guess(const char *path) {
    ct_status status = CT_STATUS_INIT;
    char *yaml = NULL;
    const ct_guess_options options = {.source = path, .name = "fuzz \"log\"", .max_rows = 50};
    const ct_code code = ct_schema_guess(&options, &yaml, &status);
    if (code != CT_OK) {
        check_refusal(code, &status, path);
        return;
    }
    read_by_guess(path, yaml);
    free(yaml);
}

static void report(const char *path) {
    ct_status status = CT_STATUS_INIT;
    json_t *json = NULL;
    const ct_online_options options = {.table = path, .plan = 100, .alpha = 0.05};
    const ct_code code = ct_online_report(&options, &json, &status);
    if (code != CT_OK) {
        check_refusal(code, &status, path);
        return;
    }
    char *text = ct_online_table(json), *page = NULL;
    FUZZ_MUST(text != NULL && ct_online_html(json, &page, &status) == CT_OK);
    json_t *arm;
    size_t i;
    FUZZ_MUST(json_array_size(json_object_get(json, "arms")) == json_array_size(json_object_get(json, "differences")) + 1);
    double rows = 0.0;
    json_array_foreach(json_object_get(json, "arms"), i, arm) rows += json_number_value(json_object_get(arm, "rows"));
    if (json_integer_value(json_object_get(json_object_get(json, "units"), "in_two_arms")) == 0)
        FUZZ_MUST(rows == (double)json_integer_value(json_object_get(json, "rows")));
    json_t *difference;
    json_array_foreach(json_object_get(json, "differences"), i, difference)
        FUZZ_MUST(json_array_size(json_object_get(difference, "looks")) >= 1);
    free(text);
    free(page);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static void (*const readers[KINDS])(const char *) = {guess, report};
    if (bytes == 0) return 0;
    fuzz_file file = fuzz_file_open(data + 1, bytes - 1);
    readers[data[0] % KINDS](file.path);
    fuzz_file_close(&file);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const fuzz_text seeds[] = {
        {LOG, "user_id,item_id,price,tags,timestamp,click\nu1,7,1.5,a|b,1600000000,0\nu2,8,2.5,b|c,1600000060,1\nu1,9,,c|a,1600000120,0\n"},
        {LOG, "1\t2\tx,y\t0a1b2c3d\n0\t\ty,z\t0a1b2c3e\n1\t5\tz,x\t0a1b2c3f\n"},
        {LOG, "\"na me\";rating;when\nq;5;1600000000000\nw;3;1600000000001\n\xc3\xa9;1;1600000000002\n"},
        {LOG, "session query | y\n1 2 | 0\n3 4 | 1\n"},
        {EXPERIMENT,
         "unit\ttime\tarm\tvalue\tcount\tcovariate\nu\t1\told\t0\t2\t0.5\nv\t2\tnew\t1\t3\t\nu\t3\told\t1\t2\t9\nw\t4\tnew\t0\t1\t1e3\n"},
        {EXPERIMENT, "time,value,arm,unit\n1.5,-2,a,\xc3\xa9\n2.5,3e2,b,x\n\n0,1,control,x\n-1e9,1e-9,b,y\n"},
        {EXPERIMENT, "unit,time,arm,value\nu,1,a,1e300\nv,2,b,-1e300\nw,-1e308,a,1e300\nx,1e308,b,1\n"},
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_put_text(&seeds[index], out) : 0;
}
