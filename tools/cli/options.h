/* Options of a verb: one table says what a verb takes, for parsing, for checking and for --help. Parsing is glibc's argp with our own
 * words: a wrong use ends with one last line that says what was wrong and what to do.
 *
 * A list option takes all words up to the next option (`--train a b --eval c`) and may be repeated; any other option that is repeated takes
 * its last value. What an option's target holds before parsing is its default, and --help shows it. */
#ifndef TOOLS_CLI_OPTIONS_H
#define TOOLS_CLI_OPTIONS_H

#include <stdio.h>

#include "base/status.h"

typedef struct ct_text_list {
    const char **items; /* point into argv */
    size_t count;
} ct_text_list;
void ct_text_list_deinit(ct_text_list *list);

/* How many bad rows a reader forgives: `N` rows or `P%` of all. */
typedef struct ct_bad_row_limit {
    int64_t rows; /* -1 = no limit */
    double share; /* 0..1; 1 = no limit */
} ct_bad_row_limit;
#define CT_BAD_ROW_LIMIT_INIT \
    { -1, 1.0 }

typedef enum ct_option_kind {
    CT_OPTION_FLAG,     /* bool: becomes true */
    CT_OPTION_UNFLAG,   /* bool: becomes false */
    CT_OPTION_TEXT,     /* const char *; NULL = not given */
    CT_OPTION_CHOICE,   /* const char *: one of the words of `choices` */
    CT_OPTION_LIST,     /* ct_text_list */
    CT_OPTION_REPEATED, /* ct_text_list; one word for each use of the option */
    CT_OPTION_INTEGER,  /* int64_t in [low, high] */
    CT_OPTION_SEED,     /* uint64_t */
    CT_OPTION_NUMBER,   /* double in [low, high] */
    CT_OPTION_BAD_ROWS, /* ct_bad_row_limit */
    CT_OPTION_PERCENT,  /* double, a share: `P%` in [low, high], a hundredth of it is kept */
    CT_OPTION_ADDRESS   /* const char *: HOST:PORT or [IPV6]:PORT, port in [low, 65535] */
} ct_option_kind;

typedef struct ct_option {
    const char *name;  /* without dashes */
    const char *value; /* placeholder for --help, as N or DIR; NULL for flags */
    ct_option_kind kind;
    bool required;
    void *to;
    const char *help;
    double low, high;
    const char *choices; /* separated by '|' */
} ct_option;

typedef struct ct_command {
    const char *verb;
    const char *summary;   /* one sentence */
    const char *examples;  /* lines, indented by two */
    const char *arguments; /* names of the plain words, as "DIR|FILE"; NULL = takes none */
    ct_text_list *words;   /* where they go: exactly one is needed */
    const ct_option *options;
    size_t option_count;
} ct_command;

/* An option that does nothing without another one, which must be given, too (where it is a number: above 0). Of several, which '|'
 * separates, one is enough; an option that needs two stands in the table twice. */
typedef struct ct_option_need {
    const char *option, *needs;
} ct_option_need;

/* Parses argv[1 ..]. CT_OK: go on. CT_END: --help, or --man alone, was asked for and printed. CT_USAGE: the status says what was wrong. */
CT_MUST_CHECK ct_code ct_command_parse(const ct_command *command, int argc, char **argv, ct_status *status);
/* The same; an option without what it needs is CT_USAGE, as it would be ignored. */
CT_MUST_CHECK ct_code ct_command_parse_needs(const ct_command *command, const ct_option_need *needs, size_t need_count, int argc,
                                             char **argv, ct_status *status);

/* The help of an option with its default behind it; returns out. */
const char *ct_option_help(const ct_option *option, char *out, size_t out_bytes);
/* What a usage line must show: the needed options and the plain words; returns out. */
const char *ct_command_needed(const ct_command *command, char *out, size_t out_bytes);

/* --- man.c: the manual page, from the same tables --- */
/* The verb's part of it. */
void ct_command_print_man(const ct_command *command, FILE *out);
/* Text in troff: what would be taken for a request or an escape is not. */
void ct_man_text(FILE *out, const char *text);

/* The closest of `names` to `word`, or NULL where none is close. */
const char *ct_closest_name(const char *word, const char *const *names, size_t count);

/* Standard input can be read once: CT_USAGE where "-" stands more than once in the lists, or where `passes` > 1. NULL lists are fine. */
CT_MUST_CHECK ct_code ct_check_standard_input(const ct_text_list *const *lists, size_t list_count, int64_t passes, ct_status *status);

/* CT_USAGE where the --memory (0 = no limit) of a verb that reads models, or follows one, is less than that takes. */
CT_MUST_CHECK ct_code ct_check_read_memory(int64_t mib, bool follows, ct_status *status);

#endif
