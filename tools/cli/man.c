/* The manual page in troff's man macros. A verb's part comes from its table of options, as --help does; main.c puts the parts together. */
#include <string.h>

#include "tools/cli/options.h"

void ct_man_text(FILE *out, const char *text) {
    bool line_begin = true;
    for (const char *at = text; *at != '\0'; at++) {
        if (line_begin && (*at == '.' || *at == '\'')) (void)fputs("\\&", out);
        line_begin = *at == '\n';
        if (*at == '\\')
            (void)fputs("\\e", out);
        else if (*at == '-')
            (void)fputs("\\-", out);
        else
            (void)fputc(*at, out);
    }
}

static void put_option(FILE *out, const ct_option *option) {
    char help[512];
    (void)fprintf(out, ".TP\n\\fB\\-\\-");
    ct_man_text(out, option->name);
    (void)fprintf(out, "\\fR");
    if (option->value) {
        (void)fprintf(out, " \\fI");
        ct_man_text(out, option->value);
        (void)fprintf(out, "%s\\fR", option->kind == CT_OPTION_LIST ? "..." : "");
    }
    (void)fputc('\n', out);
    ct_man_text(out, ct_option_help(option, help, sizeof help));
    (void)fputc('\n', out);
}

/* Some spaces at a line's begin would be a break and an indentation. */
static void put_examples(FILE *out, const char *examples) {
    (void)fprintf(out, ".PP\n.nf\n");
    for (const char *line = examples; *line != '\0';) {
        const size_t bytes = strcspn(line, "\n");
        char text[512];
        (void)snprintf(text, sizeof text, "%.*s", (int)bytes, line);
        ct_man_text(out, text + strspn(text, " "));
        (void)fputc('\n', out);
        line += bytes + (line[bytes] == '\n');
    }
    (void)fprintf(out, ".fi\n");
}

void ct_command_print_man(const ct_command *command, FILE *out) {
    char words[512];
    (void)fprintf(out, ".SS clicktower ");
    ct_man_text(out, command->verb);
    (void)ct_command_needed(command, words, sizeof words);
    if (words[0] != '\0') {
        (void)fputc(' ', out);
        ct_man_text(out, words);
    }
    (void)fprintf(out, "\n");
    ct_man_text(out, command->summary);
    (void)fputc('\n', out);
    for (size_t i = 0; i < command->option_count; i++) put_option(out, &command->options[i]);
    put_examples(out, command->examples);
}
