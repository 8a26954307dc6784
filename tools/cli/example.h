/* What `clicktower example` prints: one request in the words of a client. */
#ifndef TOOLS_CLI_EXAMPLE_H
#define TOOLS_CLI_EXAMPLE_H

#include <stdio.h>

#include "proto/clicktower.pb-c.h"

typedef struct ct_example {
    const Clicktower__V1__ScoreRequest *request;
    const char *to; /* HOST:PORT of gRPC */
} ct_example;

void ct_example_print_json(FILE *out, const ct_example *example);
void ct_example_print_python(FILE *out, const ct_example *example);
void ct_example_print_go(FILE *out, const ct_example *example);

#endif
