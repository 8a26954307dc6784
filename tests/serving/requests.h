/* Requests for tests: columns from literals, packed by protobuf-c. */
#ifndef TESTS_SERVING_REQUESTS_H
#define TESTS_SERVING_REQUESTS_H

#include <stdlib.h>
#include <string.h>

#include "serving/decode.h"

enum { TEST_COLUMNS = 64, TEST_VALUES = 4096 };

typedef struct test_column {
    Clicktower__V1__Column message;
    ProtobufCBinaryData tokens[TEST_VALUES];
    int64_t integers[TEST_VALUES];
    float numbers[TEST_VALUES];
    uint32_t lengths[TEST_VALUES];
} test_column;

typedef struct test_request {
    Clicktower__V1__ScoreRequest message;
    Clicktower__V1__Column *context[TEST_COLUMNS], *candidates[TEST_COLUMNS];
    test_column *owned[2 * TEST_COLUMNS];
    size_t owned_count;
} test_request;

static inline void test_request_init(test_request *r) {
    memset(r, 0, sizeof *r);
    clicktower__v1__score_request__init(&r->message);
    r->message.context = r->context;
    r->message.candidates = r->candidates;
}

static inline void test_request_deinit(test_request *r) {
    for (size_t i = 0; i < r->owned_count; i++) free(r->owned[i]);
}

static inline test_column *test_add(test_request *r, bool context, const char *name) {
    test_column *c = calloc(1, sizeof *c);
    clicktower__v1__column__init(&c->message);
    c->message.name = ct_text_data(name);
    c->message.tokens = c->tokens;
    c->message.integers = c->integers;
    c->message.numbers = c->numbers;
    c->message.lengths = c->lengths;
    r->owned[r->owned_count++] = c;
    if (context)
        r->context[r->message.n_context++] = &c->message;
    else
        r->candidates[r->message.n_candidates++] = &c->message;
    return c;
}

static inline void test_token(test_column *c, const char *token) { c->tokens[c->message.n_tokens++] = ct_text_data(token); }
static inline void test_integer(test_column *c, int64_t value) { c->integers[c->message.n_integers++] = value; }
static inline void test_number(test_column *c, float value) { c->numbers[c->message.n_numbers++] = value; }
static inline void test_length(test_column *c, uint32_t value) { c->lengths[c->message.n_lengths++] = value; }

/* malloc'd */
static inline uint8_t *test_pack(const test_request *r, size_t *out_bytes) {
    *out_bytes = clicktower__v1__score_request__get_packed_size(&r->message);
    uint8_t *bytes = malloc(*out_bytes + 1);
    (void)clicktower__v1__score_request__pack(&r->message, bytes);
    return bytes;
}

#endif
