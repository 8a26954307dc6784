#include "experiment/power.h"

#include <math.h>

#include "base/math.h"
#include "experiment/statistics.h"

static ct_code check(const ct_power_options *o, ct_status *status) {
    const struct {
        const char *name;
        double value, low, high;
        bool closed; /* low belongs to it */
    } ranges[] = {{"rate", o->rate, 0, 1, false},
                  {"alpha", o->alpha, 0, 1, false},
                  {"power", o->power, 0, 1, false},
                  {"share", o->share, 0, 1, false},
                  {"rows per unit", o->rows_per_unit, 1, 1e12, true},
                  {"correlation", o->correlation, 0, 1, true},
                  {"covariate's correlation", o->covariate_correlation, -1, 1, false}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value > ranges[i].low || (ranges[i].closed && ranges[i].value == ranges[i].low)) ||
            !(ranges[i].value < ranges[i].high))
            return ct_fail(status, CT_INVALID, "power: %s is %g; it must be between %g and %g", ranges[i].name, ranges[i].value,
                           ranges[i].low, ranges[i].high);
    return CT_OK;
}

/* Variance of the difference, times the units of both arms. */
static double unit_variance(const ct_power_options *o, double lift) {
    const double a = o->rate, b = o->rate * (1.0 + lift), design = 1.0 + (o->rows_per_unit - 1.0) * o->correlation;
    return (a * (1.0 - a) / (1.0 - o->share) + b * (1.0 - b) / o->share) * design / o->rows_per_unit *
           (1.0 - o->covariate_correlation * o->covariate_correlation);
}

static double fixed_width(const ct_power_options *o) { return -ct_normal_quantile(o->alpha / 2.0); }
static double planned_width(const ct_power_options *o) { return ct_sequence_width(1.0, 1.0, o->alpha); }

static double units_for(const ct_power_options *o, double width) {
    const double needed = width + ct_normal_quantile(o->power), d = o->rate * o->lift;
    return ceil(needed * needed * unit_variance(o, o->lift) / (d * d));
}

ct_code ct_power_units(const ct_power_options *options, ct_power_need *out_need, ct_status *status) {
    CT_TRY(check(options, status));
    const double rate = options->rate * (1.0 + options->lift);
    if (!(options->lift != 0.0) || !(rate >= 0.0 && rate <= 1.0))
        return ct_fail(status, CT_INVALID,
                       "power: a lift of %g takes the rate from %g to %g; the lift must not be 0 and the rate stay between 0 and 1",
                       options->lift, options->rate, rate);
    ct_power_need need = {.units = units_for(options, fixed_width(options)), .sequence_units = units_for(options, planned_width(options))};
    need.rows = need.units * options->rows_per_unit;
    need.sequence_rows = need.sequence_units * options->rows_per_unit;
    *out_need = need;
    return CT_OK;
}

static double lift_for(const ct_power_options *o, double width, double units) {
    const double needed = width + ct_normal_quantile(o->power);
    double low = 0.0, high = 1.0 / o->rate - 1.0;
    if (o->rate * high < needed * sqrt(unit_variance(o, high) / units)) return (double)INFINITY;
    for (int i = 0; i < 200; i++) {
        const double middle = 0.5 * (low + high);
        if (o->rate * middle < needed * sqrt(unit_variance(o, middle) / units))
            low = middle;
        else
            high = middle;
    }
    return high;
}

ct_code ct_power_lift(const ct_power_options *options, double units, double *out_lift, double *out_sequence_lift, ct_status *status) {
    CT_TRY(check(options, status));
    if (!(units >= 2.0)) return ct_fail(status, CT_INVALID, "power: %g units; two or more are needed", units);
    *out_lift = lift_for(options, fixed_width(options), units);
    *out_sequence_lift = lift_for(options, planned_width(options), units);
    return CT_OK;
}
