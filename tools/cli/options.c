#include "tools/cli/options.h"

#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "embedding_store/store.h"

enum { FIRST_KEY = 0x100, HELP_KEY = 0x4000, MAX_OPTIONS = 64, SHOWN_BYTES = 200 };

typedef struct parse_state {
    const ct_command *command;
    const ct_option *open_list; /* takes the plain words that follow; NULL = none */
    bool given[MAX_OPTIONS];
    bool help;
    ct_status *status;
} parse_state;

void ct_text_list_deinit(ct_text_list *list) {
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

static ct_code list_add(ct_text_list *list, const char *item, ct_status *status) {
    const char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) return ct_fail_memory(status, (list->count + 1) * sizeof *items, "the command line");
    items[list->count++] = item;
    list->items = items;
    return CT_OK;
}

static ct_code wrong_value(const ct_option *option, const char *text, const char *wanted, ct_status *status) {
    char shown[SHOWN_BYTES];
    return ct_fail(status, CT_USAGE, "--%s is '%s': give %s", option->name, ct_text_show(text, strlen(text), shown, sizeof shown), wanted);
}

static ct_code parse_integer(const ct_option *option, const char *text, ct_status *status) {
    int64_t value;
    if (!ct_parse_i64(text, strlen(text), &value) || (double)value < option->low || (double)value > option->high) {
        char wanted[96];
        (void)snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f", option->low, option->high);
        return wrong_value(option, text, wanted, status);
    }
    *(int64_t *)option->to = value;
    return CT_OK;
}

static ct_code parse_number(const ct_option *option, const char *text, ct_status *status) {
    double value;
    if (!ct_parse_f64(text, strlen(text), &value) || !(value >= option->low && value <= option->high)) {
        char wanted[96];
        (void)snprintf(wanted, sizeof wanted, "a number from %g to %g", option->low, option->high);
        return wrong_value(option, text, wanted, status);
    }
    *(double *)option->to = value;
    return CT_OK;
}

static ct_code parse_seed(const ct_option *option, const char *text, ct_status *status) {
    uint64_t value = 0;
    bool good = *text != '\0';
    for (const char *c = text; *c && good; c++)
        good = *c >= '0' && *c <= '9' && !__builtin_mul_overflow(value, UINT64_C(10), &value) &&
               !__builtin_add_overflow(value, (uint64_t)(*c - '0'), &value);
    if (!good) return wrong_value(option, text, "a whole number from 0 to 18446744073709551615", status);
    *(uint64_t *)option->to = value;
    return CT_OK;
}

static ct_code parse_choice(const ct_option *option, const char *text, ct_status *status) {
    const size_t bytes = strlen(text);
    for (const char *choice = option->choices; *choice;) {
        const size_t length = strcspn(choice, "|");
        if (length == bytes && memcmp(choice, text, bytes) == 0) {
            *(const char **)option->to = text;
            return CT_OK;
        }
        choice += length + (choice[length] == '|');
    }
    char wanted[96];
    (void)snprintf(wanted, sizeof wanted, "one of %s", option->choices);
    return wrong_value(option, text, wanted, status);
}

static ct_code parse_bad_rows(const ct_option *option, const char *text, ct_status *status) {
    static const char *const wanted = "a number of rows, as 100, or a share, as 0.1%";
    const size_t bytes = strlen(text);
    ct_bad_row_limit limit = CT_BAD_ROW_LIMIT_INIT;
    if (bytes && text[bytes - 1] == '%') {
        double percent;
        if (!ct_parse_f64(text, bytes - 1, &percent) || !(percent >= 0 && percent <= 100)) return wrong_value(option, text, wanted, status);
        limit.share = percent / 100;
    } else if (!ct_parse_i64(text, bytes, &limit.rows) || limit.rows < 0) {
        return wrong_value(option, text, wanted, status);
    }
    *(ct_bad_row_limit *)option->to = limit;
    return CT_OK;
}

static ct_code parse_percent(const ct_option *option, const char *text, ct_status *status) {
    const size_t bytes = strlen(text);
    double percent;
    if (!bytes || text[bytes - 1] != '%' || !ct_parse_f64(text, bytes - 1, &percent) ||
        !(percent >= option->low && percent <= option->high)) {
        char wanted[96];
        (void)snprintf(wanted, sizeof wanted, "a percentage from %g%% to %g%%, as 20%%", option->low, option->high);
        return wrong_value(option, text, wanted, status);
    }
    *(double *)option->to = percent / 100;
    return CT_OK;
}

static ct_code parse_address(const ct_option *option, const char *text, ct_status *status) {
    const char *colon = strrchr(text, ':');
    const size_t host_bytes = colon ? (size_t)(colon - text) : 0;
    const bool bracketed = host_bytes > 2 && text[0] == '[' && text[host_bytes - 1] == ']';
    int64_t port;
    const bool good = host_bytes > 0 && (bracketed || !memchr(text, ':', host_bytes)) &&
                      ct_parse_i64(colon + 1, strlen(colon + 1), &port) && (double)port >= option->low && port <= 65535;
    if (!good) return wrong_value(option, text, "HOST:PORT, as 127.0.0.1:8500 or [::1]:8500", status);
    *(const char **)option->to = text;
    return CT_OK;
}

static ct_code take_value(const ct_option *option, const char *text, ct_status *status) {
    switch (option->kind) {
        case CT_OPTION_FLAG:
            *(bool *)option->to = true;
            return CT_OK;
        case CT_OPTION_UNFLAG:
            *(bool *)option->to = false;
            return CT_OK;
        case CT_OPTION_TEXT:
            if (!*text) return wrong_value(option, text, "something that is not empty", status);
            *(const char **)option->to = text;
            return CT_OK;
        case CT_OPTION_CHOICE:
            return parse_choice(option, text, status);
        case CT_OPTION_LIST:
        case CT_OPTION_REPEATED:
            if (!*text) return wrong_value(option, text, "something that is not empty", status);
            return list_add(option->to, text, status);
        case CT_OPTION_INTEGER:
            return parse_integer(option, text, status);
        case CT_OPTION_SEED:
            return parse_seed(option, text, status);
        case CT_OPTION_NUMBER:
            return parse_number(option, text, status);
        case CT_OPTION_BAD_ROWS:
            return parse_bad_rows(option, text, status);
        case CT_OPTION_PERCENT:
            return parse_percent(option, text, status);
        case CT_OPTION_ADDRESS:
            return parse_address(option, text, status);
    }
    return ct_fail(status, CT_INTERNAL, "--%s: unknown kind of option", option->name);
}

static ct_code unknown_option(const parse_state *parse, const char *text, ct_status *status) {
    const ct_command *command = parse->command;
    const char *names[MAX_OPTIONS];
    char shown[SHOWN_BYTES];
    const char *name = text + strspn(text, "-");
    const size_t bytes = strcspn(name, "=");
    for (size_t i = 0; i < command->option_count; i++) {
        names[i] = command->options[i].name;
        if (strlen(names[i]) == bytes && memcmp(names[i], name, bytes) == 0)
            return name[bytes] == '='
                       ? ct_fail(status, CT_USAGE, "--%s takes no value: leave '%s' out", names[i], name + bytes)
                       : ct_fail(status, CT_USAGE, "--%s needs a value: --%s %s", names[i], names[i], command->options[i].value);
    }
    char word[SHOWN_BYTES];
    (void)snprintf(word, sizeof word, "%.*s", (int)(bytes < sizeof word ? bytes : sizeof word - 1), name);
    (void)ct_text_show(text, strlen(text), shown, sizeof shown);
    const char *closest = ct_closest_name(word, names, command->option_count);
    if (closest) return ct_fail(status, CT_USAGE, "unknown option '%s': did you mean --%s?", shown, closest);
    return ct_fail(status, CT_USAGE, "unknown option '%s': see clicktower %s --help", shown, command->verb);
}

static ct_code plain_word(parse_state *parse, const char *text) {
    if (parse->open_list) return take_value(parse->open_list, text, parse->status);
    if (parse->command->words) return list_add(parse->command->words, text, parse->status);
    char shown[SHOWN_BYTES];
    return ct_fail(parse->status, CT_USAGE, "'%s' belongs to no option: see clicktower %s --help",
                   ct_text_show(text, strlen(text), shown, sizeof shown), parse->command->verb);
}

static error_t on_key(int key, char *argument, struct argp_state *state) {
    parse_state *parse = state->input;
    if (key == HELP_KEY || key == 'h') {
        parse->help = true;
        state->next = state->argc; /* nothing behind --help matters */
        return 0;
    }
    if (key == ARGP_KEY_ERROR) {
        if (parse->status->code == CT_OK) (void)unknown_option(parse, state->argv[state->next - 1], parse->status);
        return 0;
    }
    if (key == ARGP_KEY_ARG) return plain_word(parse, argument) == CT_OK ? 0 : EINVAL;
    if (key >= FIRST_KEY && (size_t)(key - FIRST_KEY) < parse->command->option_count) {
        const size_t index = (size_t)(key - FIRST_KEY);
        const ct_option *option = &parse->command->options[index];
        parse->given[index] = true;
        parse->open_list = option->kind == CT_OPTION_LIST ? option : NULL;
        return take_value(option, argument, parse->status) == CT_OK ? 0 : EINVAL;
    }
    return ARGP_ERR_UNKNOWN;
}

const char *ct_option_help(const ct_option *option, char *out, size_t out_bytes) {
    char value[64] = "";
    switch (option->kind) {
        case CT_OPTION_TEXT:
        case CT_OPTION_CHOICE:
        case CT_OPTION_ADDRESS:
            if (*(const char **)option->to) (void)snprintf(value, sizeof value, "%s", *(const char **)option->to);
            break;
        case CT_OPTION_INTEGER:
            (void)snprintf(value, sizeof value, "%lld", (long long)*(int64_t *)option->to);
            break;
        case CT_OPTION_SEED:
            (void)snprintf(value, sizeof value, "%llu", (unsigned long long)*(uint64_t *)option->to);
            break;
        case CT_OPTION_NUMBER:
            (void)snprintf(value, sizeof value, "%g", *(double *)option->to);
            break;
        case CT_OPTION_BAD_ROWS:
            (void)snprintf(value, sizeof value, "no limit");
            break;
        case CT_OPTION_PERCENT:
            (void)snprintf(value, sizeof value, "%g%%", 100 * *(double *)option->to);
            break;
        case CT_OPTION_FLAG:
        case CT_OPTION_UNFLAG:
        case CT_OPTION_LIST:
        case CT_OPTION_REPEATED:
            break;
    }
    const char *need = option->required ? "needed: " : "";
    if (*value && !option->required)
        (void)snprintf(out, out_bytes, "%s%s (default %s)", need, option->help, value);
    else
        (void)snprintf(out, out_bytes, "%s%s", need, option->help);
    return out;
}

const char *ct_command_needed(const ct_command *command, char *out, size_t out_bytes) {
    size_t used = 0;
    *out = '\0';
    for (size_t i = 0; i < command->option_count && used < out_bytes; i++) {
        const ct_option *option = &command->options[i];
        if (option->required)
            used += (size_t)snprintf(out + used, out_bytes - used, "%s--%s %s%s", used ? " " : "", option->name, option->value,
                                     option->kind == CT_OPTION_LIST ? "..." : "");
    }
    if (command->arguments && used < out_bytes) (void)snprintf(out + used, out_bytes - used, "%s%s", used ? " " : "", command->arguments);
    return out;
}

/* The option of that name; the command's option_count where there is none. */
static size_t find_option(const ct_command *command, const char *name, size_t bytes) {
    size_t i = 0;
    while (i < command->option_count && (strlen(command->options[i].name) != bytes || memcmp(command->options[i].name, name, bytes) != 0))
        i++;
    return i;
}

static ct_code check_need(const parse_state *parse, const ct_option_need *need, ct_status *status) {
    const ct_command *command = parse->command;
    const size_t index = find_option(command, need->option, strlen(need->option));
    if (index == command->option_count) return ct_fail(status, CT_INTERNAL, "%s has no option --%s", command->verb, need->option);
    if (!parse->given[index]) return CT_OK;
    char wanted[SHOWN_BYTES] = "";
    size_t count = 0;
    for (const char *name = need->needs; *name; count++) {
        const size_t bytes = strcspn(name, "|"), other = find_option(command, name, bytes), used = strlen(wanted);
        if (other == command->option_count) return ct_fail(status, CT_INTERNAL, "%s has no option --%s", command->verb, name);
        const ct_option *option = &command->options[other];
        if (parse->given[other] && (option->kind != CT_OPTION_INTEGER || *(int64_t *)option->to > 0)) return CT_OK;
        (void)snprintf(wanted + used, sizeof wanted - used, "%s--%s%s%s", count ? " or " : "", option->name, option->value ? " " : "",
                       option->value ? option->value : "");
        name += bytes + (name[bytes] == '|');
    }
    return ct_fail(status, CT_USAGE, "--%s does nothing without %s: give %s, too, or leave it out", need->option, wanted,
                   count > 1 ? "one of them" : "that");
}

ct_code ct_command_parse(const ct_command *command, int argc, char **argv, ct_status *status) {
    return ct_command_parse_needs(command, NULL, 0, argc, argv, status);
}

ct_code ct_command_parse_needs(const ct_command *command, const ct_option_need *needs, size_t need_count, int argc, char **argv,
                               ct_status *status) {
    if (command->option_count > MAX_OPTIONS) return ct_fail(status, CT_INTERNAL, "%s has too many options", command->verb);
    if (argc == 2 && strcmp(argv[1], "--man") == 0) {
        ct_command_print_man(command, stdout);
        return CT_END;
    }
    struct argp_option options[MAX_OPTIONS + 3];
    char helps[MAX_OPTIONS][320], values[MAX_OPTIONS][48];
    memset(options, 0, sizeof options);
    for (size_t i = 0; i < command->option_count; i++) {
        const ct_option *option = &command->options[i];
        const bool list = option->kind == CT_OPTION_LIST;
        (void)snprintf(values[i], sizeof values[i], "%s%s", option->value ? option->value : "", list ? "..." : "");
        options[i] = (struct argp_option){.name = option->name,
                                          .key = FIRST_KEY + (int)i,
                                          .arg = option->value ? values[i] : NULL,
                                          .doc = ct_option_help(option, helps[i], sizeof helps[i]),
                                          .group = (int)i + 1}; /* keeps the table's order */
    }
    options[command->option_count] = (struct argp_option){.name = "help", .key = HELP_KEY, .doc = "show this help", .group = -1};
    options[command->option_count + 1] = (struct argp_option){.key = 'h', .flags = OPTION_HIDDEN, .group = -1};

    char doc[2048], name[64], words[512];
    (void)ct_command_needed(command, words, sizeof words);
    (void)snprintf(doc, sizeof doc, "%s\vExamples:\n%s", command->summary, command->examples);
    (void)snprintf(name, sizeof name, "clicktower %s", command->verb);
    const struct argp argp = {.options = options, .parser = on_key, .args_doc = words[0] ? words : NULL, .doc = doc};
    parse_state parse = {.command = command, .status = status};
    const error_t error = argp_parse(&argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_IN_ORDER, NULL, &parse);
    if (parse.help) {
        (void)setenv("ARGP_HELP_FMT", "opt-doc-col=36", 0); /* wide enough for the longest option */
        argp_help(&argp, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
        return CT_END;
    }
    if (status->code != CT_OK) return status->code;
    if (error) return ct_fail(status, CT_USAGE, "the command line cannot be read: see clicktower %s --help", command->verb);
    for (size_t i = 0; i < command->option_count; i++) {
        const ct_option *option = &command->options[i];
        if (option->required && !parse.given[i])
            return ct_fail(status, CT_USAGE, "--%s %s is needed: see clicktower %s --help", option->name, option->value, command->verb);
    }
    if (command->words && command->words->count != 1)
        return ct_fail(status, CT_USAGE, "give one %s, not %zu: see clicktower %s --help", command->arguments, command->words->count,
                       command->verb);
    for (size_t i = 0; i < need_count; i++) CT_TRY(check_need(&parse, &needs[i], status));
    return CT_OK;
}

ct_code ct_check_read_memory(int64_t mib, bool follows, ct_status *status) {
    const int64_t least = follows ? CT_STORE_LEAST_READ_MIB * 3 / 2 : CT_STORE_LEAST_READ_MIB; /* a quarter is for what deltas change */
    if (mib == 0 || mib >= least) return CT_OK;
    return ct_fail(status, CT_USAGE,
                   "--memory is '%lld': reading rows from disk takes more; give at least %lld, or 0 to have all in memory", (long long)mib,
                   (long long)least);
}

/* Edit distance (Levenshtein); words beyond 31 bytes are far from everything. */
static size_t distance(const char *a, const char *b) {
    enum { LONGEST = 31 };
    const size_t na = strlen(a), nb = strlen(b);
    if (na > LONGEST || nb > LONGEST) return LONGEST;
    size_t row[LONGEST + 1];
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            const size_t change = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < best ? change : best;
        }
    }
    return row[nb];
}

const char *ct_closest_name(const char *word, const char *const *names, size_t count) {
    const char *closest = NULL;
    size_t least = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t d = distance(word, names[i]);
        const size_t limit = strlen(names[i]) <= 4 ? 1 : 2; /* so many wrong letters are a slip of the hand */
        if (d <= limit && (!closest || d < least)) {
            closest = names[i];
            least = d;
        }
    }
    return closest;
}

ct_code ct_check_standard_input(const ct_text_list *const *lists, size_t list_count, int64_t passes, ct_status *status) {
    size_t uses = 0;
    for (size_t i = 0; i < list_count; i++)
        for (size_t j = 0; lists[i] && j < lists[i]->count; j++) uses += strcmp(lists[i]->items[j], "-") == 0;
    if (uses > 1) return ct_fail(status, CT_USAGE, "standard input ('-') is named %zu times and can be read once: give files", uses);
    if (uses == 1 && passes > 1)
        return ct_fail(status, CT_USAGE, "standard input ('-') can be read once, and the log is read %lld times here: give a file",
                       (long long)passes);
    return CT_OK;
}
