/* IEEE 754 half floats: 1 bit of sign, 5 of exponent (bias 15), 10 of fraction. For rows that are kept in them; all arithmetic is done in
 * floats. Plain integer and float operations, so the bits are the same whatever the instruction set. */
#ifndef EMBEDDING_STORE_HALF_H
#define EMBEDDING_STORE_HALF_H

#include <stdint.h>
#include <string.h>

enum { CT_HALF_NEAREST = 1 << 12 /* for ct_half_of: rounds to the nearest, halves away from 0 */ };

/* Of a finite half: exact. */
static inline float ct_half_to_float(uint16_t half) {
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13; /* a float whose exponent is 112 too small; subnormal where the half is */
    float value;
    memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The half below or above `value` in magnitude; `random`, 0 .. 2^13 - 1 and uniform, decides which, so that the mean is the value. What is
 * beyond the largest half (65504) becomes infinite. */
static inline uint16_t ct_half_of(float value, uint32_t random) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) {
        half = 0x7e00; /* not a number */
    } else if (magnitude >= 0x47800000) {
        half = 0x7c00; /* 2^16 and more */
    } else if (magnitude >= 0x38800000) {
        half = (magnitude - 0x38000000 + random) >> 13; /* 2^-14 and more: normal, an exponent that is 112 smaller */
    } else {
        float part;
        memcpy(&part, &magnitude, sizeof part);
        half = ((uint32_t)(part * 0x1p37f) + random) >> 13; /* in steps of 2^-24 */
    }
    return (uint16_t)(sign | half);
}

#endif
