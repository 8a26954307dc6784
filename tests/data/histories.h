/* What the tests of histories share. */
#ifndef TESTS_DATA_HISTORIES_H
#define TESTS_DATA_HISTORIES_H

#include "base/hash.h"
#include "data/history.h"
#include "tests/data/fixture.h"

static inline void digest_of(ct_histories *histories, char out_hex[CT_DIGEST_HEX_BYTES]) {
    ct_digest *digest = NULL;
    ct_status status = CT_STATUS_INIT;
    assert_ok(ct_digest_create(&digest, &status), &status);
    assert_ok(ct_histories_digest(histories, digest, &status), &status);
    ct_digest_hex(digest, out_hex);
    ct_digest_destroy(digest);
}

#endif
