#include "experiment/sketch.h"

#include <math.h>

double ct_sketch_count(const ct_sketch *sketch) {
    const double m = CT_SKETCH_REGISTERS, alpha = 0.7213 / (1 + 1.079 / m);
    double sum = 0.0;
    int empty = 0;
    for (int i = 0; i < CT_SKETCH_REGISTERS; i++) {
        sum += ldexp(1.0, -sketch->rank[i]);
        empty += sketch->rank[i] == 0;
    }
    const double estimate = alpha * m * m / sum;
    return estimate <= 2.5 * m && empty > 0 ? m * log(m / empty) : estimate; /* few keys: linear counting */
}
