/* How many candidates a packed request has is known before it is decoded, also where it does not say so: it decides who is in time, what is
 * short and what is shared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* after them */
#include <cmocka.h>

#include "tests/serving/requests.h"

static size_t glance(const test_request *r) {
    size_t bytes = 0;
    uint8_t *packed = test_pack(r, &bytes);
    const size_t rows = ct_request_rows_guess(packed, bytes);
    free(packed);
    return rows;
}

typedef enum column_kind { TOKENS, INTEGERS, NUMBERS, EMPTY_TOKENS, SOME_NUMBERS, MANY_TOKENS, MANY_INTEGERS, KINDS } column_kind;

/* A column of so many rows. */
static void fill(test_column *c, column_kind kind, size_t rows) {
    static const size_t counts[] = {2, 0, 3, 1};
    for (size_t r = 0; r < rows; r++) {
        const size_t many = counts[r % 4];
        const int64_t integer = r % 2 ? INT64_MIN + (int64_t)r : (int64_t)r;
        if (kind == TOKENS) test_token(c, "some token");
        if (kind == EMPTY_TOKENS) test_token(c, "");
        if (kind == INTEGERS) test_integer(c, integer);
        if (kind == NUMBERS) test_number(c, 1.5f);
        if (kind == SOME_NUMBERS && r % 3 == 0) test_number(c, 1.5f);
        if (kind == SOME_NUMBERS) test_length(c, r % 3 == 0);
        if (kind == MANY_TOKENS || kind == MANY_INTEGERS) test_length(c, (uint32_t)many);
        for (size_t i = 0; i < many; i++) {
            if (kind == MANY_TOKENS) test_token(c, "t");
            if (kind == MANY_INTEGERS) test_integer(c, integer);
        }
    }
}

static void test_rows_of_every_kind_of_column(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 31, 33, 127, 128, 300, 1000};
    for (column_kind kind = 0; kind < KINDS; kind++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            test_request r;
            test_request_init(&r);
            r.message.unit = ct_text_data("somebody");
            fill(test_add(&r, true, "likes"), MANY_INTEGERS, 1); /* a context column is of one row */
            fill(test_add(&r, false, "a column"), kind, sizes[s]);
            fill(test_add(&r, false, "another"), TOKENS, sizes[s]);
            assert_int_equal(glance(&r), sizes[s]);
            r.message.candidate_count = 77; /* what is said is believed: the decoder compares */
            assert_int_equal(glance(&r), 77);
            test_request_deinit(&r);
        }
    }
}

/* Other libraries may send numbers one at a time, and fields in any order. */
static void test_rows_that_are_not_packed(void **state) {
    (void)state;
    static const uint8_t numbers[] = {0x2a, 18, 0x25, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 0x0a, 1, 'n', 0x25, 0, 0, 0, 0};
    static const uint8_t integers[] = {0x2a, 7, 0x18, 2, 0x18, 0x80, 0x01, 0x18, 4};
    static const uint8_t lengths[] = {0x2a, 11, 0x28, 2, 0x28, 0, 0x12, 0, 0x12, 0, 0x28, 0x80, 0x00};
    assert_int_equal(ct_request_rows_guess(numbers, sizeof numbers), 3);
    assert_int_equal(ct_request_rows_guess(integers, sizeof integers), 3);
    assert_int_equal(ct_request_rows_guess(lengths, sizeof lengths), 3);
    assert_int_equal(ct_request_rows_guess(lengths, sizeof lengths - 1), 1); /* the column is longer than the message */
}

/* Then it is a guess from the size: at least 1, and no more than there are bytes for. */
static void test_what_is_broken(void **state) {
    (void)state;
    test_request r;
    test_request_init(&r);
    fill(test_add(&r, false, "a column"), INTEGERS, 300);
    size_t bytes = 0;
    uint8_t *packed = test_pack(&r, &bytes);
    for (size_t count = 0; count < bytes; count++) {
        uint8_t *cut = malloc(count + 1); /* of its own, so that a sanitizer sees who reads on */
        memcpy(cut, packed, count);
        assert_in_range(ct_request_rows_guess(cut, count), 1, 1 + count / 64);
        free(cut);
    }
    free(packed);
    test_request_deinit(&r);
    test_request_init(&r);
    (void)test_add(&r, false, "no rows");
    assert_int_equal(glance(&r), 1);
    test_request_deinit(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_of_every_kind_of_column),
        cmocka_unit_test(test_rows_that_are_not_packed),
        cmocka_unit_test(test_what_is_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
