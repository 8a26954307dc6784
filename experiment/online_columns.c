/* Tables whose header names their columns, in any order; tabs or commas separate them. */
#include <math.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "experiment/online_internal.h"

static size_t split(const ct_line *line, char separator, online_part *parts) {
    size_t count = 0;
    const char *at = line->text, *end = line->text + line->bytes;
    for (;;) {
        const char *stop = memchr(at, separator, (size_t)(end - at));
        if (count < ONLINE_MAX_COLUMNS) parts[count] = (online_part){at, (size_t)((stop == NULL ? end : stop) - at)};
        count++;
        if (stop == NULL) return count;
        at = stop + 1;
    }
}

ct_code online_header_read(online_header *header, const char *const *names, size_t count, size_t needed, const char *grammar,
                           const ct_line *line, ct_status *status) {
    online_part parts[ONLINE_MAX_COLUMNS];
    *header = (online_header){.names = names, .separator = memchr(line->text, '\t', line->bytes) != NULL ? '\t' : ','};
    header->columns = split(line, header->separator, parts);
    if (header->columns > ONLINE_MAX_COLUMNS)
        return ct_fail(status, CT_INVALID, "%s:1: more than %d columns", line->source, ONLINE_MAX_COLUMNS);
    for (size_t c = 0; c < count; c++) {
        header->at[c] = ONLINE_MAX_COLUMNS;
        for (size_t i = 0; i < header->columns; i++) {
            if (parts[i].bytes != strlen(names[c]) || memcmp(parts[i].text, names[c], parts[i].bytes) != 0) continue;
            if (header->at[c] != ONLINE_MAX_COLUMNS) return ct_fail(status, CT_INVALID, "%s:1: two columns '%s'", line->source, names[c]);
            header->at[c] = i;
        }
        if (c < needed && header->at[c] == ONLINE_MAX_COLUMNS) {
            char shown[160];
            return ct_fail(status, CT_INVALID, "%s:1: no column '%s'; the header must name %s; it is: %s", line->source, names[c], grammar,
                           ct_text_show(line->text, line->bytes, shown, sizeof shown));
        }
    }
    return CT_OK;
}

bool online_header_has(const online_header *header, size_t column) { return header->at[column] != ONLINE_MAX_COLUMNS; }

ct_code online_header_split(const online_header *header, const ct_line *line, online_part parts[ONLINE_MAX_COLUMNS], ct_status *status) {
    if (line->too_long) return ct_fail(status, CT_INVALID, "%s:%lld: the line is too long", line->source, (long long)line->number);
    const size_t columns = split(line, header->separator, parts);
    if (columns == header->columns) return CT_OK;
    return ct_fail(status, CT_INVALID, "%s:%lld: %zu columns instead of the header's %zu", line->source, (long long)line->number, columns,
                   header->columns);
}

ct_code online_header_number(const online_header *header, const ct_line *line, const online_part *parts, size_t column, double *out,
                             ct_status *status) {
    const online_part *part = &parts[header->at[column]];
    char shown[80];
    if (!ct_parse_f64(part->text, part->bytes, out))
        return ct_fail(status, CT_INVALID, "%s:%lld: column '%s': '%s' is no number", line->source, (long long)line->number,
                       header->names[column], ct_text_show(part->text, part->bytes, shown, sizeof shown));
    if (!(fabs(*out) <= CT_MOST_SUMMED))
        return ct_fail(status, CT_INVALID, "%s:%lld: column '%s': %g is beyond %g, and sums of squares would leave the numbers' range",
                       line->source, (long long)line->number, header->names[column], *out, CT_MOST_SUMMED);
    return CT_OK;
}
