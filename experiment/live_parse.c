/* A line of a server's files to what it says. Members that nobody knows are fine: later servers may say more. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/math.h"
#include "base/text.h"
#include "experiment/live_internal.h"

enum { SHOWN_BYTES = 80, CANDIDATES_MAX = 1 << 24 };

ct_code live_fail(const live_line *line, ct_status *status, const char *format, ...) {
    char what[CT_STATUS_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return ct_fail(status, CT_INVALID, "%s:%lld: %s", line->path, (long long)line->number, what);
}

static ct_code parse_object(const live_line *line, json_t **out_json, ct_status *status) {
    json_error_t error;
    char shown[SHOWN_BYTES];
    json_t *json = json_loadb(line->text, line->bytes, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(json)) {
        *out_json = json;
        return CT_OK;
    }
    (void)ct_text_show(line->text, line->bytes, shown, sizeof shown);
    if (json != NULL) {
        json_decref(json);
        return live_fail(line, status, "no JSON object: %s", shown);
    }
    if (json_error_code(&error) == json_error_out_of_memory) return ct_fail_memory(status, line->bytes, line->path);
    return live_fail(line, status, "no JSON: column %d: %s; the line begins: %s", error.column, error.text, shown);
}

/* --- members --- */

typedef struct member_of {
    const live_line *line;
    const json_t *object;
    ct_status *status;
} member_of;

static ct_code wrong(const member_of *of, const char *name, const char *wanted) {
    const json_t *value = json_object_get(of->object, name);
    char *text = value != NULL ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    char shown[SHOWN_BYTES];
    const ct_code code = text == NULL ? live_fail(of->line, of->status, "\"%s\" is missing: %s is needed", name, wanted)
                                      : live_fail(of->line, of->status, "\"%s\" is %s: %s is needed", name,
                                                  ct_text_show(text, strlen(text), shown, sizeof shown), wanted);
    free(text);
    return code;
}

/* absent: what it is where it is not there; NULL = it must be. */
static ct_code text_member(const member_of *of, const char *name, const char *absent, const char **out) {
    const json_t *value = json_object_get(of->object, name);
    if (value == NULL && absent != NULL) {
        *out = absent;
        return CT_OK;
    }
    if (!json_is_string(value)) return wrong(of, name, "a text");
    *out = json_string_value(value);
    return CT_OK;
}

static ct_code whole_member(const member_of *of, const char *name, int64_t low, int64_t high, int64_t *out) {
    const json_t *value = json_object_get(of->object, name);
    const int64_t number = json_integer_value(value);
    char wanted[96];
    if (json_is_integer(value) && number >= low && number <= high) {
        *out = number;
        return CT_OK;
    }
    (void)snprintf(wanted, sizeof wanted, "a whole number from %lld to %lld", (long long)low, (long long)high);
    return wrong(of, name, wanted);
}

/* Times from year 1970 to 10,000, so that sums don't overflow. */
static ct_code time_member(const member_of *of, const char *name, int64_t *out) {
    return whole_member(of, name, 0, INT64_C(253402300800000), out);
}

/* --- exposures --- */

static ct_code assigned_member(const member_of *of, ct_assign_how *out_how) {
    const char *name = NULL;
    CT_TRY(text_member(of, "assigned", "none", &name));
    for (int how = 0; how < CT_ASSIGN_HOWS; how++) {
        if (strcmp(name, ct_assign_how_name((ct_assign_how)how)) != 0) continue;
        *out_how = (ct_assign_how)how;
        return CT_OK;
    }
    return wrong(of, "assigned", "bucket, ramp, holdout, forced, outside, fallback or none");
}

static ct_code list_member(const member_of *of, const char *name, const json_t **out) {
    const json_t *value = json_object_get(of->object, name);
    if (value != NULL && !json_is_array(value)) return wrong(of, name, "a list of columns");
    *out = value;
    return CT_OK;
}

static ct_code scored_members(const member_of *of, live_exposure *e) {
    const json_t *scores = json_object_get(of->object, "scores");
    int64_t candidates = 0;
    CT_TRY(whole_member(of, "candidates", 1, CANDIDATES_MAX, &candidates));
    e->candidates = (size_t)candidates;
    CT_TRY(list_member(of, "context", &e->context));
    CT_TRY(list_member(of, "columns", &e->columns));
    CT_TRY(list_member(of, "derived", &e->derived));
    if (!json_is_object(scores) || json_object_size(scores) == 0) return wrong(of, "scores", "an object with a list for each output");
    e->scores = json_object_get(scores, "click");
    if (e->scores == NULL) e->scores = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)scores));
    if (!json_is_array(e->scores) || json_array_size(e->scores) != e->candidates)
        return live_fail(of->line, of->status, "\"scores\" has %zu values for %zu candidates",
                         json_is_array(e->scores) ? json_array_size(e->scores) : (size_t)0, e->candidates);
    return CT_OK;
}

static ct_code exposure_members(const member_of *of, live_exposure *e) {
    const json_t *rate = json_object_get(of->object, "sample_rate");
    CT_TRY(time_member(of, "time_ms", &e->time_ms));
    CT_TRY(text_member(of, "request_id", NULL, &e->request_id));
    if (e->request_id[0] == '\0') return wrong(of, "request_id", "a name");
    e->request = ct_hash64(e->request_id, strlen(e->request_id), 0);
    CT_TRY(text_member(of, "unit", "", &e->unit));
    CT_TRY(text_member(of, "experiment", "", &e->experiment));
    CT_TRY(text_member(of, "arm", "", &e->arm));
    CT_TRY(text_member(of, "model", "", &e->model));
    CT_TRY(assigned_member(of, &e->assigned));
    e->latency_us = -1;
    if (json_object_get(of->object, "latency_us") != NULL) CT_TRY(whole_member(of, "latency_us", 0, INT64_MAX, &e->latency_us));
    e->sample_rate = rate != NULL ? json_number_value(rate) : 1.0;
    if (!(e->sample_rate >= 1e-9 && e->sample_rate <= 1.0))
        return wrong(of, "sample_rate", "a number from 1e-9 to 1"); /* as serve has it */
    e->failed = json_object_get(of->object, "error") != NULL;
    return e->failed ? CT_OK : scored_members(of, e);
}

ct_code live_exposure_parse(const live_line *line, live_exposure *out_exposure, ct_status *status) {
    live_exposure exposure = {.line = *line};
    CT_TRY(parse_object(line, &exposure.json, status));
    exposure.line.text = NULL; /* goes with the next line */
    const member_of of = {line, exposure.json, status};
    const ct_code code = exposure_members(&of, &exposure);
    if (code != CT_OK) {
        live_exposure_deinit(&exposure);
        return code;
    }
    *out_exposure = exposure;
    return CT_OK;
}

void live_exposure_deinit(live_exposure *exposure) {
    json_decref(exposure->json);
    exposure->json = NULL;
}

ct_code live_exposure_score(const live_exposure *exposure, size_t candidate, float *out_score, ct_status *status) {
    const json_t *value = json_array_get(exposure->scores, candidate);
    const double score = json_number_value(value);
    if (!json_is_number(value) || !(score >= 0.0 && score <= 1.0))
        return live_fail(&exposure->line, status, "\"scores\": that of candidate %zu is no probability", candidate);
    *out_score = (float)score;
    return CT_OK;
}

/* --- columns --- */

static ct_code fail_column(const live_exposure *exposure, const live_column *column, ct_status *status, const char *what, size_t at) {
    return live_fail(&exposure->line, status, "%s column '%s': %s %zu", column->shared ? "context" : "candidates'", column->name, what, at);
}

ct_code live_column_read(const live_exposure *exposure, const json_t *json, bool shared, live_column *out_column, ct_status *status) {
    static const char *const lists[] = {"tokens", "integers", "numbers"};
    live_column column = {.shared = shared, .name = json_string_value(json_object_get(json, "name"))};
    const size_t rows = shared ? 1 : exposure->candidates;
    size_t values = 0;
    if (column.name == NULL)
        return live_fail(&exposure->line, status, "a %s column without a \"name\"", shared ? "context" : "candidates'");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const json_t *list = json_object_get(json, lists[i]);
        if (list == NULL) continue;
        if (!json_is_array(list)) return live_fail(&exposure->line, status, "column '%s': \"%s\" is no list", column.name, lists[i]);
        if (json_array_size(list) == 0) continue;
        if (values > 0) return live_fail(&exposure->line, status, "column '%s': two lists of values", column.name);
        column.values = list;
        column.numbers = i == 2;
        values = json_array_size(list);
    }
    const json_t *lengths = json_object_get(json, "lengths");
    size_t count = values, sum = values;
    if (json_array_size(lengths) > 0) {
        column.lengths = lengths;
        count = json_array_size(lengths);
        sum = 0;
        for (size_t r = 0; r < count; r++) {
            const json_t *length = json_array_get(lengths, r);
            if (!json_is_integer(length) || json_integer_value(length) < 0 || json_integer_value(length) > CANDIDATES_MAX)
                return fail_column(exposure, &column, status, "no length is row", r);
            sum += (size_t)json_integer_value(length);
        }
    }
    if (count != rows || sum != values)
        return live_fail(&exposure->line, status,
                         "%s column '%s': %zu rows with %zu values in all, where there are %zu rows and %zu values",
                         shared ? "context" : "candidates'", column.name, count, sum, rows, values);
    *out_column = column;
    return CT_OK;
}

static const json_t *column_at(const live_exposure *exposure, size_t i, bool *out_shared) {
    const size_t shared = json_array_size(exposure->context);
    *out_shared = i < shared;
    return i < shared ? json_array_get(exposure->context, i) : json_array_get(exposure->columns, i - shared);
}

ct_code live_column_find(const live_exposure *exposure, const char *name, size_t *hint, live_column *out_column, bool *out_found,
                         ct_status *status) {
    const size_t count = json_array_size(exposure->context) + json_array_size(exposure->columns);
    *out_found = false;
    for (size_t n = 0; n < count; n++) {
        const size_t i = (*hint + n) % count;
        bool shared = false;
        const json_t *column = column_at(exposure, i, &shared);
        const char *its = json_string_value(json_object_get(column, "name"));
        if (its == NULL || strcmp(its, name) != 0) continue;
        CT_TRY(live_column_read(exposure, column, shared, out_column, status));
        *hint = i;
        *out_found = true;
        return CT_OK;
    }
    return CT_OK;
}

void live_column_row(const live_column *column, size_t candidate, size_t *out_first, size_t *out_count) {
    const size_t row = column->shared ? 0 : candidate;
    size_t first = column->lengths != NULL ? 0 : row;
    for (size_t r = 0; column->lengths != NULL && r < row; r++) first += (size_t)json_integer_value(json_array_get(column->lengths, r));
    *out_first = first;
    *out_count = column->lengths != NULL ? (size_t)json_integer_value(json_array_get(column->lengths, row)) : 1;
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* {"hex": "c3"}: bytes that are not UTF-8. They take their place in the list as a text. */
static bool unhex(const live_column *column, size_t i) {
    const char *hex = json_string_value(json_object_get(json_array_get(column->values, i), "hex"));
    const size_t bytes = hex != NULL ? strlen(hex) / 2 : 0;
    char *text = bytes > 0 && strlen(hex) % 2 == 0 ? malloc(bytes) : NULL;
    bool good = text != NULL;
    for (size_t b = 0; good && b < bytes; b++) {
        const int high = hex_digit(hex[2 * b]), low = hex_digit(hex[2 * b + 1]);
        good = high >= 0 && low >= 0;
        text[b] = (char)(high * 16 + low);
    }
    good = good && json_array_set_new((json_t *)(uintptr_t)column->values, i, json_stringn_nocheck(text, bytes)) == 0;
    free(text);
    return good;
}

ct_code live_column_token(const live_exposure *exposure, const live_column *column, size_t i, char buffer[LIVE_INTEGER_BYTES],
                          const char **out_text, size_t *out_bytes, ct_status *status) {
    const json_t *value = json_array_get(column->values, i);
    if (json_is_object(value) && unhex(column, i)) value = json_array_get(column->values, i);
    if (json_is_string(value)) {
        *out_text = json_string_value(value);
        *out_bytes = json_string_length(value);
        return CT_OK;
    }
    if (!json_is_integer(value)) return fail_column(exposure, column, status, "an id is a text or a whole number, and not so value", i);
    *out_text = buffer;
    *out_bytes = (size_t)snprintf(buffer, LIVE_INTEGER_BYTES, "%lld", (long long)json_integer_value(value));
    return CT_OK;
}

ct_code live_column_number(const live_exposure *exposure, const live_column *column, size_t i, float *out_value, ct_status *status) {
    const json_t *value = json_array_get(column->values, i);
    const float number = (float)json_number_value(value);
    if (json_is_null(value)) { /* it was not finite: no number */
        *out_value = NAN;
        return CT_OK;
    }
    if (!json_is_number(value) || !isfinite(number)) return fail_column(exposure, column, status, "no number is value", i);
    *out_value = number;
    return CT_OK;
}

/* --- feedback --- */

static ct_code event_members(const member_of *of, live_event *event) {
    const json_t *value = json_object_get(of->object, "value");
    int64_t candidate = 0;
    CT_TRY(time_member(of, "received_ms", &event->received_ms));
    event->time_ms = event->received_ms;
    if (json_object_get(of->object, "time_ms") != NULL) CT_TRY(time_member(of, "time_ms", &event->time_ms));
    CT_TRY(text_member(of, "event_id", "", &event->event_id));
    CT_TRY(text_member(of, "request_id", NULL, &event->request_id));
    if (event->request_id[0] == '\0') return wrong(of, "request_id", "a name");
    CT_TRY(whole_member(of, "candidate", 0, UINT32_MAX, &candidate));
    event->candidate = (uint32_t)candidate;
    CT_TRY(text_member(of, "event", NULL, &event->event));
    if (event->event[0] == '\0') return wrong(of, "event", "a name");
    if (value != NULL && !json_is_number(value)) return wrong(of, "value", "a number");
    event->value = value != NULL ? json_number_value(value) : 1.0;
    if (fabs(event->value) > CT_MOST_SUMMED) return wrong(of, "value", "within 1e100, with either sign");
    return CT_OK;
}

ct_code live_event_parse(const live_line *line, live_event *out_event, ct_status *status) {
    live_event event = {0};
    CT_TRY(parse_object(line, &event.json, status));
    const member_of of = {line, event.json, status};
    const ct_code code = event_members(&of, &event);
    if (code != CT_OK) {
        live_event_deinit(&event);
        return code;
    }
    *out_event = event;
    return CT_OK;
}

void live_event_deinit(live_event *event) {
    json_decref(event->json);
    event->json = NULL;
}
