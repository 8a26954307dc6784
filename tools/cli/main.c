/* clicktower: finds the verb, runs it, and turns its status into an exit code and a last line. Only tools/ prints and exits. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "tools/cli/cli.h"

static const struct verb {
    const char *name, *summary;
    ct_verb_fn run;
} verbs[] = {
    {"train", "a click log in, a model folder out", ct_verb_train},
    {"eval", "metrics and predictions of a model on a log", ct_verb_eval},
    {"compare", "arms of an experiment, offline, with honest intervals", ct_verb_compare},
    {"split", "a log into training, validation and test rows, honestly", ct_verb_split},
    {"quantize", "vectors to semantic IDs", ct_verb_quantize},
    {"report", "an experiment on live traffic: differences between arms, with intervals", ct_verb_report},
    {"join", "what was shown on live traffic, as training rows", ct_verb_join},
    {"power", "how much traffic a question needs", ct_verb_power},
    {"schema", "guesses a schema from a log and prints it", ct_verb_schema},
    {"convert", "logs to block files, which read faster", ct_verb_convert},
    {"synth", "a log with a known truth, to try things with", ct_verb_synth},
    {"serve", "answers score requests over gRPC", ct_verb_serve},
    {"score", "a client: rows in, probabilities out", ct_verb_score},
    {"load", "drives a server and measures it", ct_verb_load},
    {"example", "a filled request for a model, as JSON, Python or Go", ct_verb_example},
    {"inspect", "what a model folder, publish folder, block file or schema holds", ct_verb_inspect},
    {"verify", "checks every checksum and prints the content's digest", ct_verb_verify},
    {"devices", "what hardware and libraries are there, what will be used", ct_verb_devices},
};
enum { VERB_COUNT = sizeof verbs / sizeof *verbs };

static const char about[] = "Trains click-through-rate models on click logs, compares feature arms, serves the winner.";
static const char conventions[] =
    "A SOURCE is a log as text, plain, .gz or .zst, a block file (.ctb), - for standard input, or\n"
    "'|COMMAND' for what a command prints.\n"
    "Results go to standard output, everything else to standard error.\n"
    "Exit codes: 0 done, 1 the input or the run failed, 2 wrong use.\n";
static const char examples[] =
    "  clicktower synth --rows 200000 --out log.tsv.gz\n"
    "  clicktower train --schema criteo --model dcn-v2 --train log.tsv.gz --out model\n"
    "  clicktower serve --model model --listen 127.0.0.1:8500\n";

static void print_help(FILE *file) {
    (void)fprintf(file, "Usage: clicktower VERB [OPTION...]\n%s\n\n", about);
    for (size_t i = 0; i < VERB_COUNT; i++) (void)fprintf(file, "  %-9s %s\n", verbs[i].name, verbs[i].summary);
    (void)fprintf(file,
                  "\n"
                  "  clicktower VERB --help     options of a verb, with examples\n"
                  "  clicktower --version\n\n"
                  "%s\nExamples:\n%s",
                  conventions, examples);
}

/* The manual page: each verb prints its own part of it. */
static ct_code print_man(ct_status *status) {
    (void)printf(
        ".TH CLICKTOWER 1 \"\" \"clicktower %s\" \"User Commands\"\n.SH NAME\nclicktower \\- click\\-through\\-rate models, "
        "trained and served\n.SH SYNOPSIS\n\\fBclicktower\\fR \\fIVERB\\fR [\\fIOPTION\\fR...]\n.SH DESCRIPTION\n",
        CT_VERSION);
    ct_man_text(stdout, about);
    (void)printf("\n.PP\n");
    ct_man_text(stdout, conventions);
    (void)printf(".SH VERBS\n");
    for (size_t i = 0; i < VERB_COUNT; i++) {
        char name[32], option[] = "--man";
        (void)snprintf(name, sizeof name, "%s", verbs[i].name);
        char *arguments[] = {name, option, NULL};
        const ct_code code = verbs[i].run(2, arguments, status);
        if (code != CT_END) return code == CT_OK ? ct_fail(status, CT_INTERNAL, "%s has no manual", name) : code;
    }
    (void)printf(".SH EXAMPLES\n.nf\n");
    ct_man_text(stdout, examples);
    (void)printf(
        ".fi\n.SH SEE ALSO\nIn /usr/share/doc/clicktower:\n.IR file\\-formats.md ,\nthe keys of schemas and model files and all that is "
        "read and written;\n.IR operations.md ,\ntraining, serving, metrics;\n.IR ab.md ,\ncomparisons and live experiments;\n.IR "
        "api.md ,\nthe server's API, with\n.IR clicktower.proto .\n");
    return CT_OK;
}

static int wrong_use(const char *word) {
    const char *names[VERB_COUNT];
    char shown[64];
    for (size_t i = 0; i < VERB_COUNT; i++) names[i] = verbs[i].name;
    (void)ct_text_show(word, strlen(word), shown, sizeof shown);
    const char *closest = ct_closest_name(word, names, VERB_COUNT);
    if (closest)
        (void)fprintf(stderr, "clicktower: unknown verb '%s': did you mean '%s'?\n", shown, closest);
    else
        (void)fprintf(stderr, "clicktower: unknown verb '%s': clicktower --help lists them\n", shown);
    return 2;
}

int main(int argc, char **argv) {
    ct_status status = CT_STATUS_INIT;
    (void)signal(SIGXFSZ, SIG_IGN); /* a file that may grow no more is an error, which is told, not an end */
    if (argc < 2) {
        print_help(stderr);
        (void)fprintf(stderr, "\nclicktower: a verb is needed: one of those above\n");
        return 2;
    }
    const char *word = argv[1];
    const bool version = strcmp(word, "--version") == 0;
    const bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
    if (version || (help && argc == 2)) {
        if (version)
            (void)printf("clicktower %s\n", CT_VERSION);
        else
            print_help(stdout);
        if (ct_flush_results(&status) == CT_OK) return 0;
        (void)fprintf(stderr, "clicktower: %s\n", status.message);
        return 1;
    }
    if (strcmp(word, "--man") == 0) { /* for tools/package */
        ct_code code = print_man(&status);
        if (code == CT_OK) code = ct_flush_results(&status);
        if (code != CT_OK) (void)fprintf(stderr, "clicktower: %s\n", status.message);
        return code != CT_OK;
    }
    char help_option[] = "--help", *help_of_verb[] = {argv[help ? 2 : 1], help_option, NULL}; /* clicktower help VERB */
    char **arguments = help ? help_of_verb : argv + 1;
    const int argument_count = help ? 2 : argc - 1;
    const struct verb *verb = NULL;
    for (size_t i = 0; i < VERB_COUNT; i++)
        if (strcmp(verbs[i].name, arguments[0]) == 0) verb = &verbs[i];
    if (!verb) return wrong_use(arguments[0]);

    ct_code code = verb->run(argument_count, arguments, &status);
    if (code == CT_OK || code == CT_END) code = ct_flush_results(&status);
    if (code == CT_OK) return 0;
    (void)fprintf(stderr, "clicktower %s: %s\n", verb->name, status.message);
    return code == CT_USAGE ? 2 : 1;
}
