/* Sums in 16 lanes that are added in a fixed tree: the same bits on every instruction set. For CT_HOT functions. */
#ifndef TOWER_CPU_LANES_H
#define TOWER_CPU_LANES_H

#include <stddef.h>

#define CT_INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

CT_INLINE float add_lanes(float *lane) {
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; ++i) lane[i] += lane[i + width];
    }
    return lane[0];
}

#endif
