/* Sums in 16 lanes that are added in a fixed tree: the same bits on every instruction set. For CT_HOT functions. */
#ifndef TOWER_CPU_LANES_H
#define TOWER_CPU_LANES_H

#include <stddef.h>
#include <string.h>

#define CT_INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

/* Sixteen floats side by side. The compiler splits it into what the processor has; the bits do not depend on that. */
typedef float lanes16 __attribute__((vector_size(LANES * sizeof(float))));

CT_INLINE void load16(lanes16 *to, const float *from) { memcpy(to, from, sizeof *to); }
CT_INLINE void store16(float *to, const lanes16 *from) { memcpy(to, from, sizeof *from); }

CT_INLINE float add_lanes(float *lane) {
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; ++i) lane[i] += lane[i + width];
    }
    return lane[0];
}

#endif
