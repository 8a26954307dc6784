#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void gives_aligned_memory_of_its_own(void **state) {
    (void)state;
    enum { COUNT = 500 };
    ct_arena arena;
    unsigned char *memory[COUNT];
    ct_arena_init(&arena, 1024);
    for (size_t i = 0; i < COUNT; i++) {
        memory[i] = ct_arena_alloc(&arena, i * 7);
        assert_non_null(memory[i]);
        assert_int_equal((uintptr_t)memory[i] % 64, 0);
        memset(memory[i], (int)(i & 255), i * 7);
    }
    for (size_t i = 0; i < COUNT; i++) /* nobody wrote into another's */
        for (size_t k = 0; k < i * 7; k++) assert_int_equal(memory[i][k], i & 255);
    ct_arena_deinit(&arena);
}

static void takes_nothing_more_after_a_reset(void **state) {
    (void)state;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    assert_int_equal(ct_arena_bytes(&arena), 0);
    size_t warm = 0;
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < 1000; i++) assert_non_null(ct_arena_alloc(&arena, 1000));
        if (round == 0) warm = ct_arena_bytes(&arena);
        assert_int_equal(ct_arena_bytes(&arena), warm);
        ct_arena_reset(&arena);
    }
    assert_true(warm >= 1000 * 1024);
    assert_true(warm < 3 * 1000 * 1024);
    ct_arena_deinit(&arena);
    assert_int_equal(ct_arena_bytes(&arena), 0);
}

static void zeroes_and_refuses_overflow(void **state) {
    (void)state;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    unsigned char *dirty = ct_arena_alloc(&arena, 4000);
    memset(dirty, 0xff, 4000);
    ct_arena_reset(&arena);
    const unsigned char *clean = ct_arena_zalloc(&arena, 1000, 4);
    assert_non_null(clean);
    for (size_t i = 0; i < 4000; i++) assert_int_equal(clean[i], 0);
    assert_null(ct_arena_zalloc(&arena, SIZE_MAX / 2, 3));
    assert_null(ct_arena_zalloc(&arena, SIZE_MAX, SIZE_MAX));
    assert_null(ct_arena_alloc(&arena, SIZE_MAX));
    assert_null(ct_arena_alloc(&arena, SIZE_MAX - 63));
    assert_null(ct_arena_strndup(&arena, "", SIZE_MAX));
    assert_non_null(ct_arena_alloc(&arena, 10)); /* a refusal leaves it usable */
    ct_arena_deinit(&arena);
}

static void copies_text(void **state) {
    (void)state;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    const char *copy = ct_arena_strndup(&arena, "a\0bc", 4);
    assert_memory_equal(copy, "a\0bc", 5); /* with the NUL behind */
    assert_string_equal(ct_arena_strndup(&arena, NULL, 0), "");
    assert_string_equal(ct_arena_strndup(&arena, "abcdef", 3), "abc");
    ct_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_aligned_memory_of_its_own),
        cmocka_unit_test(takes_nothing_more_after_a_reset),
        cmocka_unit_test(zeroes_and_refuses_overflow),
        cmocka_unit_test(copies_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
