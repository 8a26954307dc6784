/* One value as text to what a batch holds. Text files, requests and the client of a server all come through here, so that the same text
 * has the same key and the same number wherever it enters. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "data/internal.h"
#include "data/key.h"

enum { SHOWN_BYTES = 80 };

const char *ct_field_kind_name(ct_field_kind kind) {
    switch (kind) {
        case CT_FIELD_LABEL:
            return "label";
        case CT_FIELD_WEIGHT:
            return "weight";
        case CT_FIELD_TIME:
            return "time";
        case CT_FIELD_GROUP:
            return "group";
        case CT_FIELD_UNIT:
            return "unit";
        case CT_FIELD_NUMBER:
            return "number";
        case CT_FIELD_ID:
            return "id";
        case CT_FIELD_VECTOR:
            return "vector";
        case CT_FIELD_HISTORY:
            return "history";
        case CT_FIELD_SIMILARITY:
            return "similarity";
    }
    return "?";
}

void ct_field_rule(const ct_field *field, char out_rule[CT_FIELD_RULE_BYTES]) {
    char extra[256] = "", many[128] = "";
    if (ct_field_is_multi(field)) {
        (void)snprintf(many, sizeof many, " separator=0x%02x max=%u newest=%s", (unsigned)(unsigned char)field->value_separator,
                       field->max_values, field->newest_first ? "first" : "last");
    }
    switch (field->kind) {
        case CT_FIELD_LABEL:
            if (field->has_at_least) (void)snprintf(extra, sizeof extra, " at_least=%.17g", field->at_least);
            break;
        case CT_FIELD_TIME:
            (void)snprintf(extra, sizeof extra, " time_unit=%s", field->time_unit == CT_TIME_SECONDS ? "seconds" : "milliseconds");
            break;
        case CT_FIELD_GROUP:
        case CT_FIELD_UNIT:
        case CT_FIELD_ID:
        case CT_FIELD_VECTOR:
            (void)snprintf(extra, sizeof extra, " type=%s salt=%016llx%s", field->id_type == CT_ID_TEXT ? "text" : "integer",
                           (unsigned long long)field->salt, many);
            break;
        case CT_FIELD_HISTORY:
            (void)snprintf(extra, sizeof extra, " type=%s salt=%016llx%s%s", field->id_type == CT_ID_TEXT ? "text" : "integer",
                           (unsigned long long)field->salt, many, field->clicked ? " clicked" : "");
            break;
        case CT_FIELD_SIMILARITY:
            (void)snprintf(extra, sizeof extra, " of=%zu vector=%zu tiers=%u%s", field->of, field->vector, field->tiers, many);
            break;
        case CT_FIELD_NUMBER:
            if (field->derived) (void)snprintf(extra, sizeof extra, " of=%zu", field->of);
            break;
        case CT_FIELD_WEIGHT:
            break;
    }
    (void)snprintf(out_rule, CT_FIELD_RULE_BYTES, "%s%s", ct_field_kind_name(field->kind), extra);
}

void ct_column_rule(const ct_schema *schema, size_t field, char out_rule[CT_FIELD_RULE_BYTES]) {
    const ct_field *of = &schema->fields[field];
    char history[CT_FIELD_RULE_BYTES];
    if (!of->derived || of->kind == CT_FIELD_HISTORY) {
        ct_field_rule(of, out_rule);
        return;
    }
    ct_field_rule(&schema->fields[of->of], history);
    (void)snprintf(out_rule, CT_FIELD_RULE_BYTES, "%s of %.400s", of->kind == CT_FIELD_SIMILARITY ? "vectors" : "count", history);
}

uint64_t ct_schema_column_hash(const ct_schema *schema, size_t field) {
    char rule[CT_FIELD_RULE_BYTES];
    ct_column_rule(schema, field, rule);
    return ct_hash64(rule, strlen(rule), 0);
}

static ct_code fail_value(const ct_field *field, const char *text, size_t bytes, const char *what, ct_status *status) {
    char shown[SHOWN_BYTES];
    return ct_fail(status, CT_INVALID, "field '%s': '%s' %s", field->name, ct_text_show(text, bytes, shown, sizeof shown), what);
}

/* Is the text the canonical decimal form of an integer that surely fits 64 bits? */
static bool is_canonical(const char *text, size_t bytes) {
    size_t at = 0;
    if (bytes && text[0] == '-') at = 1;
    if (bytes - at == 0 || bytes - at > 18) return false;
    if (text[at] == '0') return bytes == 1;
    for (; at < bytes; at++) {
        if (text[at] < '0' || text[at] > '9') return false;
    }
    return true;
}

ct_code ct_field_key(const ct_field *field, const char *token, size_t bytes, uint64_t *out_key, ct_status *status) {
    if (field->id_type == CT_ID_INTEGER && bytes && !is_canonical(token, bytes)) {
        int64_t value;
        char canonical[24];
        if (!ct_parse_i64(token, bytes, &value)) return fail_value(field, token, bytes, "is no integer of 64 bits", status);
        const int length = snprintf(canonical, sizeof canonical, "%lld", (long long)value);
        *out_key = ct_key_of_salt(field->salt, canonical, (size_t)length);
        return CT_OK;
    }
    *out_key = ct_key_of_salt(field->salt, token, bytes);
    return CT_OK;
}

ct_code ct_field_number(const ct_field *field, const char *text, size_t bytes, float *out_value, ct_status *status) {
    if (!bytes) {
        *out_value = NAN;
        return CT_OK;
    }
    float value;
    if (!ct_parse_f32(text, bytes, &value)) return fail_value(field, text, bytes, "is no decimal number in float's range", status);
    *out_value = value;
    return CT_OK;
}

ct_code ct_field_label(const ct_field *field, const char *text, size_t bytes, float *out_label, ct_status *status) {
    double value;
    if (!field->has_at_least && bytes == 1 && (text[0] == '0' || text[0] == '1')) {
        *out_label = (float)(text[0] - '0');
        return CT_OK;
    }
    if (!bytes) return ct_fail(status, CT_INVALID, "field '%s': the label is empty", field->name);
    if (!ct_parse_f64(text, bytes, &value)) return fail_value(field, text, bytes, "is no number", status);
    if (field->has_at_least) {
        *out_label = value >= field->at_least ? 1.0f : 0.0f;
        return CT_OK;
    }
    if (value != 0 && value != 1) {
        return fail_value(field, text, bytes, "is neither 0 nor 1 (at_least: N in the schema makes a label of a number)", status);
    }
    *out_label = (float)value;
    return CT_OK;
}

ct_code ct_field_weight(const ct_field *field, const char *text, size_t bytes, float *out_weight, ct_status *status) {
    float value;
    if (!ct_parse_f32(text, bytes, &value) || value < 0) return fail_value(field, text, bytes, "is no number of at least 0", status);
    *out_weight = value;
    return CT_OK;
}

ct_code ct_field_time(const ct_field *field, const char *text, size_t bytes, int64_t *out_ms, ct_status *status) {
    const int64_t scale = field->time_unit == CT_TIME_SECONDS ? 1000 : 1;
    int64_t whole;
    double value;
    if (ct_parse_i64(text, bytes, &whole)) {
        if (__builtin_mul_overflow(whole, scale, &whole)) return fail_value(field, text, bytes, "is a time out of range", status);
        *out_ms = whole;
        return CT_OK;
    }
    /* A fraction of a second, as many logs have it: to the nearest millisecond. */
    if (!ct_parse_f64(text, bytes, &value))
        return fail_value(field, text, bytes, "is no time (seconds or milliseconds since 1970)", status);
    value = round(value * (double)scale);
    if (!(fabs(value) < 9e18)) return fail_value(field, text, bytes, "is a time out of range", status);
    *out_ms = (int64_t)value;
    return CT_OK;
}
