/* In steps: some lines; the separator that cuts most of them into the same number of pieces; is the first one a header; what the values of
 * each column are; what that makes of the column. Names help where there is a header: `user_id` is an id and the unit, whatever it holds.
 */
#include "data/guess.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/text.h"
#include "base/yaml.h"
#include "data/internal.h"

enum { DEFAULT_ROWS = 10000, SAMPLE_BYTES = 64 << 20, MOST_SLOTS = 1 << 15, CODES = 32, NAME_BYTES = 256 };

typedef struct piece {
    const char *text;
    size_t bytes;
} piece;

typedef struct column {
    piece name; /* in the header */
    size_t values, missing;
    size_t integers, canonical, numbers, fractions, zeros, ones, rising, dates;
    size_t inner[3]; /* values that hold ',', '|' or ';' */
    double low, high, last;
    uint64_t *seen; /* (slots) hashes; 0 = free */
    size_t different;
} column;

static const char inner_separators[] = ",|;";

typedef struct guess {
    ct_arena arena;
    piece *lines;
    size_t line_count;
    size_t uneven; /* lines of another number of columns */
    size_t quoted; /* lines with a value that begins with a quote */
    char separator;
    size_t column_count;
    bool header;
    column *columns;
    size_t slots; /* of a column's set of values: twice the lines or more, but for MOST_SLOTS */
    piece *cells; /* (column_count) of one line */
} guess;

/* --- lines --- */

static ct_code read_lines(guess *g, const ct_guess_options *options, ct_status *status) {
    const size_t max_rows = options->max_rows ? options->max_rows : DEFAULT_ROWS;
    ct_lines *lines = NULL;
    CT_TRY(ct_lines_open(&options->source, 1, &lines, status));
    ct_lines_set_stop(lines, options->stop);
    g->lines = ct_arena_alloc(&g->arena, (max_rows + 1) * sizeof *g->lines);
    ct_code code = g->lines ? CT_OK : ct_fail_memory(status, max_rows * sizeof *g->lines, "a sample of a log");
    size_t bytes = 0;
    while (code == CT_OK && g->line_count <= max_rows && bytes < SAMPLE_BYTES) {
        ct_line line;
        code = ct_lines_next(lines, &line, status);
        if (code != CT_OK || line.bytes == 0) continue;
        if (line.too_long || memchr(line.text, '\0', line.bytes)) {
            code = ct_fail(status, CT_INVALID, "%s:%lld: this is no line of text", line.source, (long long)line.number);
            continue;
        }
        char *copy = ct_arena_strndup(&g->arena, line.text, line.bytes);
        if (copy)
            g->lines[g->line_count++] = (piece){copy, line.bytes};
        else
            code = ct_fail_memory(status, line.bytes, "a sample of a log");
        bytes += line.bytes;
    }
    ct_lines_close(lines);
    if (code == CT_END) code = CT_OK;
    if (code == CT_OK && g->line_count == 0) code = ct_fail(status, CT_INVALID, "%s holds no rows", options->source);
    return code;
}

static size_t count_of(piece line, char c) {
    size_t count = 0;
    for (size_t i = 0; i < line.bytes; i++) count += line.text[i] == c;
    return count;
}

static size_t count_quoted(const guess *g, char separator) {
    size_t quoted = 0;
    for (size_t i = 0; i < g->line_count; i++) {
        const piece line = g->lines[i];
        quoted += line.text[0] == '"' || memmem(line.text, line.bytes, (const char[]){separator, '"'}, 2) != NULL;
    }
    return quoted;
}

/* The separator whose number in a line is most often the same; the first of equal ones. */
static ct_code choose_separator(guess *g, const char *source, ct_status *status) {
    static const char separators[] = "\t,;| ";
    size_t best = 0;
    for (const char *s = separators; *s != '\0'; s++) {
        /* The first rows may be odd: the most frequent number among the first hundred is the candidate. */
        size_t agreeing = 0, number = 0;
        for (size_t i = 0; i < g->line_count && i < 100; i++) {
            const size_t candidate = count_of(g->lines[i], *s);
            size_t same = 0;
            for (size_t j = 0; j < g->line_count && j < 100; j++) same += count_of(g->lines[j], *s) == candidate;
            if (candidate && same > agreeing) {
                agreeing = same;
                number = candidate;
            }
        }
        size_t all = 0;
        for (size_t i = 0; i < g->line_count && number; i++) all += count_of(g->lines[i], *s) == number;
        if (all <= best) continue;
        best = all;
        g->separator = *s;
        g->column_count = number + 1;
    }
    if (best * 10 < g->line_count * 9)
        return ct_fail(status, CT_INVALID, "%s: no separator (tab , ; | blank) cuts nine of ten lines into the same number of columns%s",
                       source, count_quoted(g, ',') > 0 ? "; quotes do not hold a value together here: convert the log first" : "");
    g->quoted = count_quoted(g, g->separator);
    g->uneven = g->line_count - best;
    if (g->column_count > CT_SCHEMA_MAX_FIELDS)
        return ct_fail(status, CT_INVALID, "%s: %zu columns, more than %d", source, g->column_count, CT_SCHEMA_MAX_FIELDS);
    return CT_OK;
}

/* False where the line has another number of columns. */
static bool split(const guess *g, piece line) {
    if (count_of(line, g->separator) + 1 != g->column_count) return false;
    const char *at = line.text, *end = line.text + line.bytes;
    for (size_t c = 0; c < g->column_count; c++) {
        const char *stop = memchr(at, g->separator, (size_t)(end - at));
        if (!stop) stop = end;
        g->cells[c] = (piece){at, (size_t)(stop - at)};
        at = stop + 1;
    }
    return true;
}

/* --- values --- */

static bool parse(piece cell, double *out) { return ct_parse_f64(cell.text, cell.bytes, out); }

/* 2024-01-31..., 2024/1/31... */
static bool is_date(piece cell) {
    size_t digits = 0;
    while (digits < cell.bytes && isdigit((unsigned char)cell.text[digits])) digits++;
    return digits == 4 && cell.bytes >= 8 && (cell.text[4] == '-' || cell.text[4] == '/') && isdigit((unsigned char)cell.text[5]);
}

static void look_at(const guess *g, column *c, piece cell) {
    if (cell.bytes == 0) {
        c->missing++;
        return;
    }
    double value = 0;
    int64_t integer;
    const bool number = parse(cell, &value), whole = ct_parse_i64(cell.text, cell.bytes, &integer);
    c->numbers += number;
    c->dates += is_date(cell);
    c->integers += whole;
    c->fractions += number && !whole;
    if (whole) {
        char canonical[32];
        const int bytes = snprintf(canonical, sizeof canonical, "%lld", (long long)integer);
        c->canonical += (size_t)bytes == cell.bytes && memcmp(canonical, cell.text, cell.bytes) == 0;
    }
    if (number) {
        c->zeros += value == 0;
        c->ones += value == 1;
        c->low = c->values && c->low < value ? c->low : value;
        c->high = c->values && c->high > value ? c->high : value;
        c->rising += c->values && value >= c->last;
        c->last = value;
    }
    for (size_t s = 0; s < sizeof c->inner / sizeof *c->inner; s++)
        c->inner[s] += memchr(cell.text, inner_separators[s], cell.bytes) != NULL;
    c->values++;
    if (c->different >= MOST_SLOTS / 2) return; /* many */
    const uint64_t hash = ct_hash64(cell.text, cell.bytes, 0) | 1;
    size_t slot = hash % g->slots;
    while (c->seen[slot] && c->seen[slot] != hash) slot = (slot + 1) % g->slots;
    c->different += c->seen[slot] == 0;
    c->seen[slot] = hash;
}

static bool is_name(piece cell) {
    double number;
    if (cell.bytes == 0 || cell.bytes >= NAME_BYTES || parse(cell, &number)) return false;
    return ct_utf8_is_valid(cell.text, cell.bytes) && (isalpha((unsigned char)cell.text[0]) || cell.text[0] == '_');
}

/* Names in every column, no two alike, above at least one column of numbers or, where there are none, words that name a column often. */
static bool is_header(const guess *g, const char *const *words) {
    bool numbers = false, known = false;
    for (size_t c = 0; c < g->column_count; c++) {
        const piece name = g->cells[c];
        if (!is_name(name)) return false;
        for (size_t d = 0; d < c; d++)
            if (g->cells[d].bytes == name.bytes && memcmp(g->cells[d].text, name.text, name.bytes) == 0) return false;
        numbers = numbers || (g->columns[c].values && g->columns[c].numbers == g->columns[c].values);
        for (const char *const *w = words; *w; w++)
            known = known || (strlen(*w) == name.bytes && strncasecmp(*w, name.text, name.bytes) == 0);
    }
    return numbers || known;
}

static ct_code look_at_columns(guess *g, ct_status *status) {
    static const char *const words[] = {"label", "click", "user", "user_id", "item", "item_id", "timestamp", "time", NULL};
    g->columns = ct_arena_zalloc(&g->arena, g->column_count, sizeof *g->columns);
    g->cells = ct_arena_zalloc(&g->arena, g->column_count, sizeof *g->cells);
    if (!g->columns || !g->cells) return ct_fail_memory(status, g->column_count * sizeof *g->columns, "a guess");
    for (g->slots = 16; g->slots < 2 * g->line_count && g->slots < MOST_SLOTS;) g->slots *= 2;
    for (size_t c = 0; c < g->column_count; c++) {
        g->columns[c].seen = ct_arena_zalloc(&g->arena, g->slots, sizeof(uint64_t));
        if (!g->columns[c].seen) return ct_fail_memory(status, g->slots * sizeof(uint64_t), "a guess");
    }
    for (size_t i = 1; i < g->line_count; i++) {
        if (!split(g, g->lines[i])) continue;
        for (size_t c = 0; c < g->column_count; c++) look_at(g, &g->columns[c], g->cells[c]);
    }
    if (!split(g, g->lines[0])) return CT_OK;
    g->header = is_header(g, words);
    for (size_t c = 0; c < g->column_count; c++) {
        if (g->header)
            g->columns[c].name = g->cells[c];
        else
            look_at(g, &g->columns[c], g->cells[c]);
    }
    return CT_OK;
}

/* --- what a column is --- */

/* Is one of the words (separated by '|') a part of the column's name between underscores, blanks, points or the ends? */
static bool is_named(const column *c, const char *words) {
    for (const char *word = words; *word != '\0';) {
        const size_t bytes = strcspn(word, "|");
        for (size_t at = 0; at + bytes <= c->name.bytes; at++) {
            const char *name = c->name.text;
            const bool begins = at == 0 || !isalnum((unsigned char)name[at - 1]) ||
                                (islower((unsigned char)name[at - 1]) && isupper((unsigned char)name[at]));
            const bool ends = at + bytes == c->name.bytes || !isalnum((unsigned char)name[at + bytes]) ||
                              (islower((unsigned char)name[at + bytes - 1]) && isupper((unsigned char)name[at + bytes]));
            if (begins && ends && strncasecmp(name + at, word, bytes) == 0) return true;
        }
        word += bytes + (word[bytes] == '|');
    }
    return false;
}

typedef struct kind {
    const char *kind, *extra; /* extra: ", type: integer", ... */
    const char *why;
} kind;

static bool is_binary(const column *c) { return c->zeros && c->ones && c->zeros + c->ones == c->values && !c->missing; }

static bool is_time(const column *c, double low, double high) {
    return c->values && !c->missing && c->numbers == c->values && c->low >= low && c->high <= high &&
           (is_named(c, "time|timestamp|ts|date|when|at") || (c->different > c->values / 50 && c->rising * 10 >= c->values * 9));
}

static const char *many_of(const column *c) {
    static const char *const extras[] = {", separator: \",\"", ", separator: \"|\"", ", separator: \";\""};
    for (size_t s = 0; s < sizeof c->inner / sizeof *c->inner; s++)
        if (c->numbers < c->values && c->inner[s] * 4 >= c->values) return extras[s];
    return NULL;
}

static kind kind_of(const guess *g, const column *c) {
    const bool id_name = is_named(c, "id|ids|uid|guid|uuid|user|item|movie|product|code|zip|hash|category|brand|device|ad|campaign");
    if (c->values == 0) return (kind){NULL, "", "always missing"};
    if (c->different == 1 && c->missing == 0) return (kind){NULL, "", "always the same"};
    if (c->dates == c->values) return (kind){NULL, "", "a date; a time is read as seconds or milliseconds since 1970"};
    const char *many = many_of(c);
    if (many && *many != '\0' && !(g->separator == many[sizeof ", separator: \"" - 1])) return (kind){"id", many, "several values"};
    if (c->numbers < c->values) return (kind){"id", "", "not all are numbers"};
    if (id_name && c->canonical == c->values) return (kind){"id", ", type: integer", "by its name"};
    if (id_name) return (kind){"id", "", "by its name"};
    if (c->fractions) return (kind){"number", "", "fractions"};
    /* Numbers that are spread over a wide range and hardly repeat count nothing. */
    if (c->canonical == c->values && c->high - c->low > 1e6 && c->different * 2 > c->values)
        return (kind){"id", ", type: integer", "many large numbers"};
    if (c->canonical < c->values) return (kind){"id", "", "digits with leading zeros or signs"};
    return (kind){"number", "", c->different <= CODES ? "few whole numbers: an id where they are codes" : "whole numbers"};
}

/* --- YAML --- */

/* A column's name may hold what a field's may not. */
static void put_name(FILE *out, const guess *g, size_t c, const char *kind_name) {
    const piece name = g->columns[c].name;
    char text[NAME_BYTES];
    if (!g->header) {
        (void)fprintf(out, "%s%zu", kind_name, c + 1);
        return;
    }
    for (size_t i = 0; i < name.bytes; i++) text[i] = ct_name_may_hold(name.text[i]) ? name.text[i] : '_';
    ct_yaml_put_string(out, text, name.bytes);
}

static void put_column(FILE *out, const guess *g, size_t c) {
    (void)fprintf(out, ", column: ");
    if (g->header)
        ct_yaml_put_string(out, g->columns[c].name.text, g->columns[c].name.bytes);
    else
        (void)fprintf(out, "%zu", c + 1);
}

static void put_why(FILE *out, const column *c, const char *why) {
    (void)fprintf(out, "  # %s", why);
    if (c->values) (void)fprintf(out, "; %s%zu different", c->different >= MOST_SLOTS / 2 ? "more than " : "", c->different);
    if (c->numbers == c->values && c->values) (void)fprintf(out, ", %.10g to %.10g", c->low, c->high);
    if (c->missing) (void)fprintf(out, ", %.3g %% missing", 100 * (double)c->missing / (double)(c->values + c->missing));
    (void)fprintf(out, "\n");
}

/* The column that is the label, or column_count. */
static size_t find_label(const guess *g, const char **out_extra, const char **out_why) {
    static const char words[] = "label|click|clicked|clicks|target|y";
    *out_extra = "";
    *out_why = "by its name";
    for (size_t c = 0; c < g->column_count; c++)
        if (is_named(&g->columns[c], words) && is_binary(&g->columns[c])) return c;
    for (size_t c = 0; c < g->column_count; c++) {
        const column *at = &g->columns[c];
        if (!is_named(at, "rating|stars|score") || at->numbers < at->values || at->missing || at->high > 10 || at->low < 0) continue;
        *out_extra = at->high > 5 ? ", at_least: 7" : ", at_least: 4";
        *out_why = "a rating: say what counts as liked";
        return c;
    }
    *out_why = "the first column of zeros and ones";
    for (size_t c = 0; c < g->column_count; c++)
        if (is_binary(&g->columns[c])) return c;
    return g->column_count;
}

static void put_field(FILE *out, const guess *g, size_t c, const char *kind_name, const char *extra, const char *why) {
    (void)fprintf(out, "  - {name: ");
    put_name(out, g, c, kind_name);
    (void)fprintf(out, ", kind: %s", kind_name);
    put_column(out, g, c);
    (void)fprintf(out, "%s}", extra);
    put_why(out, &g->columns[c], why);
}

/* Beside the column's own field; its name must not be taken. */
static void put_role(FILE *out, const guess *g, size_t c, const char *role) {
    for (size_t d = 0; d < g->column_count && g->header; d++)
        if (g->columns[d].name.bytes == strlen(role) && memcmp(g->columns[d].name.text, role, strlen(role)) == 0) return;
    (void)fprintf(out, "  - {name: %s, kind: %s", role, role);
    put_column(out, g, c);
    (void)fprintf(out, "}  # by its name\n");
}

/* How many there are. */
static size_t put_fields(FILE *out, const guess *g) {
    const char *label_extra, *label_why;
    const size_t label = find_label(g, &label_extra, &label_why);
    bool has_time = false, has_unit = false, has_group = false;
    size_t count = 0;
    if (label == g->column_count)
        (void)fprintf(out, "  # no label was found: add {name: label, kind: label, column: ...}, with at_least: where it is not 0 or 1\n");
    for (size_t c = 0; c < g->column_count; c++) {
        const column *at = &g->columns[c];
        count++;
        if (c == label) {
            put_field(out, g, c, "label", label_extra, label_why);
            continue;
        }
        const bool seconds = is_time(at, 1e8, 5e9), milliseconds = is_time(at, 1e11, 5e12);
        if (!has_time && (seconds || milliseconds)) {
            has_time = true;
            put_field(out, g, c, "time", milliseconds ? ", time_unit: milliseconds" : "", "since 1970");
            continue;
        }
        const kind what = kind_of(g, at);
        if (!what.kind) {
            (void)fprintf(out, "  # column ");
            put_name(out, g, c, "");
            (void)fprintf(out, " is left out: %s\n", what.why);
            count--;
            continue;
        }
        const bool id = strcmp(what.kind, "id") == 0, user = is_named(at, "user|uid|visitor|customer|member");
        const bool context =
            user || is_named(at, "session|query|device|os|browser|hour|weekday|day|city|country|site|page|context|history");
        char extra[128];
        (void)snprintf(extra, sizeof extra, "%s%s", context ? ", side: context" : "", what.extra);
        put_field(out, g, c, what.kind, extra, what.why);
        if (!has_unit && id && user && !strstr(what.extra, "separator")) {
            has_unit = true;
            put_role(out, g, c, "unit");
        }
        if (!has_group && id && is_named(at, "session|request|query|impression|group") && !strstr(what.extra, "separator")) {
            has_group = true;
            put_role(out, g, c, "group");
        }
    }
    return count;
}

/* Criteo's logs: a label, 13 whole numbers, 26 ids of eight hex digits. */
static bool is_criteo(const guess *g) {
    if (g->column_count != 40 || g->header || g->separator != '\t' || !is_binary(&g->columns[0])) return false;
    for (size_t c = 1; c < 14; c++)
        if (g->columns[c].integers < g->columns[c].values) return false;
    for (size_t c = 14; c < 40; c++)
        if (g->columns[c].values && g->columns[c].numbers == g->columns[c].values) return false;
    return true;
}

static ct_code write_yaml(const guess *g, const ct_guess_options *options, char **out_yaml, ct_status *status) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return ct_fail_memory(status, 4096, "a schema");
    (void)fprintf(out, "# Guessed from %zu rows: look at every line. Fields are candidate's where `side: context` is not said.\n",
                  g->line_count - g->uneven - (g->header ? 1 : 0));
    if (is_criteo(g)) (void)fprintf(out, "# It looks like a log of Criteo's: `--schema criteo` is that, with its names.\n");
    if (g->uneven > 0)
        (void)fprintf(out, "# %zu of %zu lines do not have %zu columns and were not looked at: they would be bad rows.\n", g->uneven,
                      g->line_count, g->column_count);
    if (g->quoted > 0)
        (void)fprintf(
            out,
            "# %zu lines have a value that begins with a quote: it is part of the value, and a separator between quotes ends it.\n"
            "# A log in quoted CSV is converted first ('|' any tool that prints tabs).\n",
            g->quoted);
    (void)fprintf(out, "name: ");
    ct_yaml_put_string(out, options->name, strlen(options->name));
    (void)fprintf(out, "\nformat: {separator: \"%s\", header: %s, columns: %zu}\nfields:\n",
                  g->separator == '\t' ? "\\t" : (const char[]){g->separator, '\0'}, g->header ? "true" : "false", g->column_count);
    const size_t fields = put_fields(out, g);
    const bool bad = ferror(out) != 0;
    if (fclose(out) != 0 || bad) {
        free(text);
        return ct_fail_memory(status, bytes, "a schema");
    }
    if (fields == 0) {
        free(text);
        return ct_fail(status, CT_INVALID, "%s: no column has two different values in %zu rows", options->source, g->line_count);
    }
    ct_schema *schema = NULL; /* what we print must be good */
    const ct_code code = ct_schema_parse(text, bytes, "the guess", &schema, status);
    ct_schema_destroy(schema);
    if (code != CT_OK) {
        free(text);
        return ct_fail_within(status, "%s: no schema can be guessed", options->source);
    }
    *out_yaml = text;
    return CT_OK;
}

ct_code ct_schema_guess(const ct_guess_options *options, char **out_yaml, ct_status *status) {
    guess g = {0};
    ct_arena_init(&g.arena, 0);
    ct_code code;
    CT_TRY_GOTO(code, read_lines(&g, options, status), done);
    CT_TRY_GOTO(code, choose_separator(&g, options->source, status), done);
    CT_TRY_GOTO(code, look_at_columns(&g, status), done);
    code = write_yaml(&g, options, out_yaml, status);
done:
    ct_arena_deinit(&g.arena);
    return code;
}
