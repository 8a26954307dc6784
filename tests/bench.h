/* What the benchmarks share. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"

static ct_status status = CT_STATUS_INIT;

/* Ends the program where `code`, whose failure is in `status`, is one. */
static inline void must(ct_code code) {
    if (code == CT_OK) return;
    (void)fprintf(stderr, "%s: %s\n", program_invocation_short_name, status.message);
    exit(1);
}

static inline int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of values: (n), which it sorts. */
static inline double median(double *values, size_t n) {
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

/* The next number of a fixed sequence (xorshift), 0 .. below - 1. */
static inline uint64_t draw(uint64_t below) {
    static uint64_t state = 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % below;
}

/* A key as a store meets it: a hash. */
static inline uint64_t key_of(uint64_t number) { return ct_hash64(&number, sizeof number, 0); }

#endif
