/* Exposures and feedback: the input is lines of both, which `join` and `report` get as files of one folder; a line goes to the exposures
 * where it has "scores" or "error", else to the feedback. They are refused with a message that names one of the files, or read; and what
 * `join` and `report` count is the same. */
#include <stdbool.h>

#include "data/block_file.h"
#include "experiment/join.h"
#include "experiment/live_report.h"
#include "experiment/online.h"
#include "tests/base/temp.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "live_fuzz";

static char *folder, *exposures, *feedback, *experiment, *blocks;
static ct_schema *schema, *with_history;

static void prepare(void) {
    static const char schema_text[] =
        "name: s\nformat: {columns: 9}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: at, kind: time, column: 2}\n"
        "  - {name: who, kind: unit, column: 3}\n  - {name: u, kind: id, column: 4, side: context}\n"
        "  - {name: i, kind: id, column: 5, type: integer}\n  - {name: x, kind: number, column: 6}\n"
        "  - {name: l, kind: id, column: 7, separator: \",\", max: 2}\n  - {name: w, kind: weight, column: 8}\n"
        "  - {name: g, kind: group, column: 9}\n";
    static const char history_text[] =
        "name: h\nformat: {columns: 4}\nfields:\n  - {name: y, kind: label, column: 1}\n  - {name: at, kind: time, column: 2}\n"
        "  - {name: who, kind: unit, column: 3}\n  - {name: i, kind: id, column: 4, type: integer}\n"
        "  - {name: h, kind: history, of: i, max: 2}\n  - {name: n, kind: number, of: h}\n";
    static const char experiment_text[] = "name: e\narms: [{name: a}, {name: b}]\n";
    ct_status status = CT_STATUS_INIT;
    if (folder != NULL) return;
    folder = fuzz_folder();
    exposures = temp_path(folder, "exposures-1.jsonl");
    feedback = temp_path(folder, "feedback-1.jsonl.part");
    experiment = temp_path(folder, "e.yaml");
    FUZZ_MUST(ct_file_write(experiment, experiment_text, strlen(experiment_text), &status) == CT_OK);
    blocks = temp_path(folder, "rows.ctb");
    FUZZ_MUST(ct_schema_parse(schema_text, strlen(schema_text), "fuzz.yaml", &schema, &status) == CT_OK);
    FUZZ_MUST(ct_schema_parse(history_text, strlen(history_text), "fuzz.yaml", &with_history, &status) == CT_OK);
}

__attribute__((destructor)) static void clean_up(void) {
    if (folder == NULL) return;
    ct_schema_destroy(schema);
    ct_schema_destroy(with_history);
    free(blocks);
    free(exposures);
    free(feedback);
    free(experiment);
    temp_remove(folder);
}

static void write_lines(const uint8_t *data, size_t bytes) {
    FILE *to[2] = {fopen(exposures, "w"), fopen(feedback, "w")};
    FUZZ_MUST(to[0] != NULL && to[1] != NULL);
    for (size_t at = 0; at < bytes;) {
        const uint8_t *end = memchr(data + at, '\n', bytes - at);
        const size_t length = end != NULL ? (size_t)(end - data) - at + 1 : bytes - at;
        const bool event = memmem(data + at, length, "\"scores\"", 8) == NULL && memmem(data + at, length, "\"error\"", 7) == NULL;
        FUZZ_MUST(fwrite(data + at, 1, length, to[event]) == length);
        at += length;
    }
    FUZZ_MUST(fclose(to[0]) == 0 && fclose(to[1]) == 0);
}

static void check_refusal(ct_code code, const ct_status *status) {
    FUZZ_MUST(code == CT_INVALID);
    FUZZ_MUST(strncmp(status->message, folder, strlen(folder)) == 0);
}

/* Rows with what follows from a history, as it was served: a block file that reads back whole, or a refusal. */
static void join_served(void) {
    ct_status status = CT_STATUS_INIT;
    json_t *summary = NULL, *described = NULL;
    const ct_join_options join = {.exposures = folder,
                                  .feedback = folder,
                                  .schema = with_history,
                                  .out = blocks,
                                  .positive = "click",
                                  .wait_ms = 0,
                                  .until_ms = INT64_MIN};
    const ct_code joined = ct_join(&join, &summary, &status);
    if (joined != CT_OK) {
        check_refusal(joined, &status);
        return;
    }
    ct_source *source = NULL;
    ct_block_reader *reader = NULL;
    ct_batch *batch = NULL;
    FUZZ_MUST(ct_block_file_describe(blocks, &described, &status) == CT_OK);
    FUZZ_MUST(json_equal(json_object_get(described, "rows"), json_object_get(summary, "rows")));
    FUZZ_MUST(ct_source_open(blocks, &source, &status) == CT_OK && ct_batch_create(with_history, 0, &batch, &status) == CT_OK);
    FUZZ_MUST(ct_block_reader_open(source, with_history, &reader, &status) == CT_OK);
    ct_code code;
    const size_t served = json_array_size(json_object_get(summary, "served"));
    while ((code = ct_block_reader_next(reader, batch, &status)) == CT_OK)
        FUZZ_MUST(batch->columns[4].present == (served == 2) && batch->columns[5].present == (served == 2));
    FUZZ_MUST(code == CT_END && (served == 0 || served == 2));
    ct_block_reader_close(reader);
    ct_source_close(source);
    ct_batch_destroy(batch);
    json_decref(described);
    json_decref(summary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char *const slices[] = {"u", "x"}, *const events[] = {"buy"};
    ct_status status = CT_STATUS_INIT;
    json_t *summary = NULL, *report = NULL;
    prepare();
    write_lines(data, bytes);
    const ct_join_options join = {.exposures = folder,
                                  .feedback = folder,
                                  .schema = schema,
                                  .out = "/dev/null",
                                  .positive = "click",
                                  .wait_ms = 1000,
                                  .until_ms = INT64_MIN};
    const ct_code joined = ct_join(&join, &summary, &status);
    if (joined != CT_OK) check_refusal(joined, &status);
    join_served();
    const ct_live_options live = {.exposures = folder,
                                  .feedback = folder,
                                  .experiment = experiment,
                                  .positive = "click",
                                  .events = events,
                                  .event_count = 1,
                                  .wait_ms = 1000,
                                  .until_ms = INT64_MIN,
                                  .slices = slices,
                                  .slice_count = 2,
                                  .plan = 100,
                                  .alpha = 0.05};
    const ct_code reported = ct_live_report(&live, &report, &status);
    if (reported == CT_OK) {
        char *table = ct_online_table(report), *page = NULL;
        FUZZ_MUST(table != NULL && ct_online_html(report, &page, &status) == CT_OK);
        FUZZ_MUST(json_array_size(json_object_get(report, "arms")) == 2 && json_array_size(json_object_get(report, "differences")) == 1);
        const json_t *read = json_object_get(json_object_get(report, "left_out"), "exposures");
        FUZZ_MUST(summary == NULL || json_equal(read, json_object_get(summary, "exposures")));
        free(table);
        free(page);
    } else {
        check_refusal(reported, &status);
    }
    json_decref(summary);
    json_decref(report);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
#define EXPOSURE(id, unit, arm, more)                                                                                                    \
    "{\"time_ms\": 1000, \"request_id\": \"" id "\", \"unit\": \"" unit "\", \"experiment\": \"e\", \"arm\": \"" arm                     \
    "\", \"assigned\": \"bucket\", \"sample_rate\": 0.5, \"latency_us\": 70, \"candidates\": 2, \"context\": [{\"name\": \"u\", "        \
    "\"tokens\": [\"v\"]}], \"columns\": [{\"name\": \"i\", \"integers\": [3, -4]}, {\"name\": \"x\", \"numbers\": [1.5], \"lengths\": " \
    "[1, 0]}, {\"name\": \"l\", \"tokens\": [\"a\", \"b\", {\"hex\": \"ff00\"}], \"lengths\": [3, 0]}]" more                             \
    ", \"scores\": {\"click\": [0.25, 0.125]}}\n"
#define EVENT(id, candidate, event, more)                                                                                  \
    "{\"received_ms\": 9000, \"time_ms\": 1500, \"event_id\": \"\", \"request_id\": \"" id "\", \"candidate\": " candidate \
    ", \"position\": 1, \"event\": \"" event "\"" more "}\n"
#define HISTORY(keys) ", \"derived\": [{\"name\": \"h\", \"rule\": \"RULE\", \"keys\": [" keys "]}]"
    static const char *const seeds[] = {
        EXPOSURE("r", "p", "a", "") EXPOSURE("s", "q", "b", ", \"derived\": [{\"name\": \"i#odds\", \"numbers\": [1, 2]}]")
            EVENT("r", "0", "shown", "") EVENT("r", "0", "click", "") EVENT("s", "1", "shown", "") EVENT("s", "1", "buy", ", \"value\": 7.5") EVENT("s", "1", "buy", ", \"value\": -1e100"),
        EXPOSURE("r", "p", "a", "") "{\"time_ms\": 1, \"request_id\": \"f\", \"unit\": \"p\", \"experiment\": \"e\", \"arm\": \"a\", "
                                    "\"assigned\": \"bucket\", \"error\": \"DEADLINE_EXCEEDED\"}\n" EVENT("r", "1", "shown", "")
                                        EVENT("r", "9", "shown", "") EVENT("t", "0", "click", ""),
        "{\"scores\": {}}\n{\"event\": 1}\n",
        EXPOSURE("r", "p", "a", HISTORY("\"000000000000000a\", \"fedcba9876543210\"")) EXPOSURE("s", "q", "b", HISTORY(""))
            EVENT("r", "0", "shown", "") EVENT("r", "1", "shown", "") EVENT("s", "1", "shown", ""),
        "{\"time_ms\": 1000, \"request_id\": \"r\", \"unit\": \"p\", \"candidates\": 2, \"columns\": [{\"name\": \"i\", \"integers\": [3, -4]}, "
        "{\"name\": \"h\", \"integers\": [1, 2, 3, 4], \"lengths\": [3, 1]}], \"scores\": {\"click\": [0.25, 0.125]}}\n"
        EVENT("r", "0", "shown", "") EVENT("r", "1", "shown", "")};
    if (index >= sizeof seeds / sizeof *seeds) return 0;
    prepare();
    const char *at = seeds[index], *rule = NULL;
    size_t bytes = 0;
    for (; (rule = strstr(at, "RULE")) != NULL; at = rule + 4) { /* by which the schema makes its history */
        memcpy(out + bytes, at, (size_t)(rule - at));
        bytes += (size_t)(rule - at);
        bytes += (size_t)snprintf((char *)out + bytes, 17, "%016llx", (unsigned long long)ct_schema_column_hash(with_history, 4));
    }
    memcpy(out + bytes, at, strlen(at));
    return bytes + strlen(at);
}
