#include "embedding_store/pace.h"

#include <math.h>

/* Where `have` stands between `slow` and `most`. */
static double between(double have, double slow, double most) { return have > slow ? (have - slow) / (most - slow) : 0.0; }

double ct_pace_pressure(const ct_tuning *tuning, const ct_backlog *backlog) {
    const double by_runs = between(backlog->runs, tuning->slow_runs, tuning->most_runs), level0 = (double)tuning->most_level0_bytes;
    if (tuning->by_levels || backlog->runs < tuning->runs) return by_runs;
    const double spare = (double)((uint64_t)CT_PACE_SPARE_MIB << 20), oldest = (double)backlog->oldest_bytes / 100;
    const double by_bytes =
        between((double)backlog->newer_bytes, spare + oldest * tuning->slow_percent, 2 * spare + oldest * tuning->most_percent);
    const double by_level0 = level0 > 0 ? between((double)backlog->level0_bytes, level0 / 2, level0) : 0;
    return fmax(fmax(by_runs, by_bytes), by_level0);
}

int64_t ct_pace_pause_ns(double pressure, int64_t worked_ns) {
    const double most = CT_PACE_MOST_PAUSE_MS * 1e6;
    const double pause = (double)worked_ns * CT_PACE_GAIN * pressure / (1.0 - pressure);
    return pause < most ? (int64_t)pause : (int64_t)most;
}
