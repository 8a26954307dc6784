#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

/* Expected values: xxHash's own tool, `printf TEXT | xxhsum -H3` and `-H2`. */
static void agrees_with_xxhsum(void **state) {
    (void)state;
    assert_true(ct_hash64("", 0, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(ct_hash64("abc", 3, 0) == UINT64_C(0x78af5f94892f3950));
    assert_true(ct_hash64("abc", 3, 1) != ct_hash64("abc", 3, 0));

    ct_status status = CT_STATUS_INIT;
    ct_digest *digest = NULL;
    char hex[CT_DIGEST_HEX_BYTES];
    assert_int_equal(ct_digest_create(&digest, &status), CT_OK);
    ct_digest_hex(digest, hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    ct_digest_update(digest, "abc", 3);
    ct_digest_hex(digest, hex);
    assert_string_equal(hex, "06b05ab6733a618578af5f94892f3950");
    ct_digest_destroy(digest);
    ct_digest_destroy(NULL);
}

static void pieces_do_not_matter(void **state) {
    (void)state;
    enum { BYTES = 5000 };
    unsigned char data[BYTES];
    for (size_t i = 0; i < BYTES; i++) data[i] = (unsigned char)(i * 131 + i / 251);
    ct_status status = CT_STATUS_INIT;
    ct_digest *digest = NULL;
    assert_int_equal(ct_digest_create(&digest, &status), CT_OK);
    char whole[CT_DIGEST_HEX_BYTES], pieces[CT_DIGEST_HEX_BYTES], read_early[CT_DIGEST_HEX_BYTES];
    ct_digest_update(digest, data, BYTES);
    ct_digest_hex(digest, whole);
    ct_digest_destroy(digest);
    assert_int_equal(ct_digest_create(&digest, &status), CT_OK);
    for (size_t at = 0, step = 1; at < BYTES; at += step, step = step % 37 + 1) {
        if (step > BYTES - at) step = BYTES - at;
        ct_digest_update(digest, data + at, step);
        ct_digest_update(digest, NULL, 0);
        ct_digest_hex(digest, read_early); /* reading does not disturb */
    }
    ct_digest_hex(digest, pieces);
    assert_string_equal(pieces, whole);
    ct_digest_destroy(digest);
}

static void numbers_and_text_are_framed(void **state) {
    (void)state;
    ct_status status = CT_STATUS_INIT;
    ct_digest *digest = NULL;
    assert_int_equal(ct_digest_create(&digest, &status), CT_OK);
    char a[CT_DIGEST_HEX_BYTES], b[CT_DIGEST_HEX_BYTES];
    ct_digest_update_text(digest, "ab");
    ct_digest_update_text(digest, "c");
    ct_digest_hex(digest, a);
    ct_digest_destroy(digest);
    assert_int_equal(ct_digest_create(&digest, &status), CT_OK);
    ct_digest_update(digest, "\2\0\0\0\0\0\0\0ab\1\0\0\0\0\0\0\0c", 19);
    ct_digest_hex(digest, b);
    assert_string_equal(a, b);
    ct_digest_destroy(digest);
    assert_int_equal(ct_digest_create(&digest, &status), CT_OK);
    ct_digest_update_text(digest, "a");
    ct_digest_update_text(digest, "bc");
    ct_digest_hex(digest, b);
    assert_string_not_equal(a, b);
    ct_digest_destroy(digest);
}

static void bytes_have_their_order(void **state) {
    (void)state;
    unsigned char bytes[8];
    ct_put_le32(bytes, 0x01020304u);
    assert_memory_equal(bytes, "\4\3\2\1", 4);
    assert_int_equal(ct_get_le32(bytes), 0x01020304u);
    ct_put_le64(bytes, UINT64_C(0x0102030405060708));
    assert_memory_equal(bytes, "\10\7\6\5\4\3\2\1", 8);
    assert_true(ct_get_le64(bytes) == UINT64_C(0x0102030405060708));
    ct_put_be64(bytes, UINT64_C(0x0102030405060708));
    assert_memory_equal(bytes, "\1\2\3\4\5\6\7\10", 8);
    assert_true(ct_get_be64(bytes) == UINT64_C(0x0102030405060708));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_xxhsum),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(numbers_and_text_are_framed),
        cmocka_unit_test(bytes_have_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
