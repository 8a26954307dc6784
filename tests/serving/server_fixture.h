/* A server with two fake models (fake_model.h), a log whose rows it scores, and clients of it. */
#ifndef TESTS_SERVING_SERVER_FIXTURE_H
#define TESTS_SERVING_SERVER_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after them */
#include <cmocka.h>

#include "proto/health.pb-c.h"
#include "serving/client.h"
#include "serving/server.h"
#include "tests/base/temp.h"
#include "tests/serving/fake_model.h"
#include "tests/serving/requests.h"

#define SCORE  "/clicktower.v1.Scorer/Score"
#define HEALTH "/grpc.health.v1.Health/Check"

enum { LOG_ROWS = 2300, TIMEOUT_MS = 600000 };

typedef struct fixture {
    ct_schema *schema;
    ct_model *model, *other;         /* `other` has two outputs */
    const ct_experiment *experiment; /* that `start` runs; NULL = none, and so the next two */
    ct_exposures *exposures;
    ct_feedback *feedback;
    ct_server *server;
    char target[64];
    char *folder, *log;
    float *expected; /* (LOG_ROWS) probabilities of `log`'s rows */
} fixture;

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

int setup(void **state);
int teardown(void **state);
int each_setup(void **state);
int each_teardown(void **state);
#define EACH(test) cmocka_unit_test_setup_teardown(test, each_setup, each_teardown)
void start(fixture *fx, size_t threads);
void stop(fixture *fx);
/* For tests that ask until it is so: first, those that wait for the server's lock have their turn. */
ct_server_stats look(const fixture *fx);
/* Until nothing is scored: a request is counted just after its answer has gone. */
void wait_until_counted(const fixture *fx);
/* The probabilities of a log's rows, read by the text reader: what `eval --predictions` would give. */
float *expected_of(const fixture *fx, const char *path, size_t rows);

/* --- asking --- */

typedef struct answers {
    float *values;
    size_t count;
} answers;
ct_code take_answer(void *context, const float *probabilities, size_t count, ct_status *status);
ct_code score(const fixture *fx, const ct_schema *schema, const char *path, size_t per_request, bool context, int64_t max_rows,
              int64_t timeout_ms, answers *out, ct_status *status);

/* A score call in a thread of its own. */
typedef struct asker {
    pthread_t thread;
    const fixture *fx;
    size_t per_request;
    int64_t rows, timeout_ms;
    answers answers;
    ct_code code;
    ct_status status;
    atomic_bool done; /* ask_join will not wait */
} asker;
void ask(asker *a, const fixture *fx, size_t rows, int64_t timeout_ms);
void ask_join(asker *a);

/* One call with given bytes. */
ct_code raw_call(const fixture *fx, const char *path, const void *bytes, size_t count, ct_arena *arena,
                 const ProtobufCMessageDescriptor *type, ProtobufCMessage **out, ct_status *status);
ct_code health(const fixture *fx, const char *service, Grpc__Health__V1__HealthCheckResponse__ServingStatus *out, ct_status *status);

int connect_to(int port);
/* Says hello (RFC 7540) and waits for the server's. */
int connect_http2(int port);

#endif
