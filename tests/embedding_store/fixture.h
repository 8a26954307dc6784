/* What the tests of the store share. Behind cmocka.h. */
#ifndef TESTS_EMBEDDING_STORE_FIXTURE_H
#define TESTS_EMBEDDING_STORE_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "embedding_store/store.h"

static ct_status status = CT_STATUS_INIT;

#define assert_ok(expression)                                                       \
    do {                                                                            \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, status.message); \
    } while (0)

/* How a table learns in tests to which it does not matter much: of a ct_table_spec. */
#define USUAL_STEPS                                                                                                                  \
    .learning_rate = 0.05f, .initial_accumulator = 0.1f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-6f, .first_value_scale = 0.1f, \
    .seed = 7

static inline void digest_hex(ct_store *store, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_digest *digest;
    assert_ok(ct_digest_create(&digest, &status));
    assert_ok(ct_store_digest(store, digest, &status));
    ct_digest_hex(digest, out_hex);
    ct_digest_destroy(digest);
}

static char root[512]; /* a folder of the test's own */

/* In memory where there is such a file system: each sorted file is synced, and that is what takes long elsewhere. */
static inline void root_create(const char *test) {
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TEST_TMPDIR");
    (void)snprintf(root, sizeof root, "%s/%s.XXXXXX", folder ? folder : "/tmp", test);
    if (!mkdtemp(root)) abort();
}

/* A name in it; of the last four calls. */
static inline const char *path_of(const char *name) {
    static char paths[4][1024];
    static size_t next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

#endif
