/* clicktower power: how much traffic a question needs. */
#include "experiment/power.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "base/json.h"
#include "tools/cli/cli.h"

static double days(double units, double per_day) { return ceil(units / per_day); }

static void print_days(double units, double per_day) {
    if (per_day > 0.0) (void)printf("  (%.0f days)", days(units, per_day));
}

ct_code ct_verb_power(int argc, char **argv, ct_status *status) {
    ct_power_options power = CT_POWER_OPTIONS_INIT;
    double units = 0.0, per_day = 0.0;
    bool json = false;
    const ct_option options[] = {
        {"rate", "P", CT_OPTION_NUMBER, true, &power.rate, "click rate of the control", 0, 1, NULL},
        {"lift", "L", CT_OPTION_NUMBER, false, &power.lift, "B / A - 1 that must be found, as 0.02: prints the traffic it needs", -1, 1e9,
         NULL},
        {"units", "N", CT_OPTION_NUMBER, false, &units, "instead of --lift: prints the least lift that so many units of both arms show", 0,
         1e15, NULL},
        {"rows-per-unit", "M", CT_OPTION_NUMBER, false, &power.rows_per_unit, "rows (impressions) of a unit (user)", 1, 1e9, NULL},
        {"correlation", "R", CT_OPTION_NUMBER, false, &power.correlation, "of two rows of one unit", 0, 0.999999, NULL},
        {"covariate", "R", CT_OPTION_NUMBER, false, &power.covariate_correlation,
         "correlation of the value with one from before the experiment (CUPED)", -0.999999, 0.999999, NULL},
        {"share", "P", CT_OPTION_NUMBER, false, &power.share, "of the units that get B", 0.000001, 0.999999, NULL},
        {"alpha", "P", CT_OPTION_NUMBER, false, &power.alpha, "chance of a false claim", 0.000001, 0.999999, NULL},
        {"power", "P", CT_OPTION_NUMBER, false, &power.power, "chance to find the lift where it is there", 0.000001, 0.999999, NULL},
        {"units-per-day", "N", CT_OPTION_NUMBER, false, &per_day, "of both arms: also prints days", 0, 1e15, NULL},
        {"json", NULL, CT_OPTION_FLAG, false, &json, "one JSON object", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"units-per-day", "lift"}};
    const ct_command command = {"power",
                                "Says how much traffic an experiment needs to find a lift, or which lift some traffic finds, "
                                "for one look at a time fixed before, and for looks at any time (a confidence sequence).",
                                "  clicktower power --rate 0.03 --lift 0.02 --rows-per-unit 20 \\\n"
                                "      --correlation 0.05\n"
                                "  clicktower power --rate 0.03 --units 100000",
                                NULL,
                                NULL,
                                options,
                                sizeof options / sizeof *options};
    CT_TRY(ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status));
    if ((power.lift != 0.0) == (units > 0.0)) return ct_fail(status, CT_USAGE, "give either --lift or --units: one of them, above 0");
    if (units > 0.0) {
        double lift, sequence_lift;
        CT_TRY(ct_power_lift(&power, units, &lift, &sequence_lift, status));
        if (json) {
            json_t *object =
                json_pack("{s:f, s:o, s:o}", "units", units, "lift", ct_json_real(lift), "sequence_lift", ct_json_real(sequence_lift));
            const ct_code code = ct_json_output("-", object, status);
            json_decref(object);
            return code;
        }
        (void)printf("one look at a fixed time   lift %.6g\nlooks at any time          lift %.6g\n", lift, sequence_lift);
        return CT_OK;
    }
    ct_power_need need;
    CT_TRY(ct_power_units(&power, &need, status));
    if (json) {
        json_t *object = json_pack("{s:f, s:f, s:f, s:f, s:f}", "lift", power.lift, "units", need.units, "rows", need.rows,
                                   "sequence_units", need.sequence_units, "sequence_rows", need.sequence_rows);
        if (per_day > 0.0) {
            (void)json_object_set_new(object, "days", json_real(days(need.units, per_day)));
            (void)json_object_set_new(object, "sequence_days", json_real(days(need.sequence_units, per_day)));
        }
        const ct_code code = ct_json_output("-", object, status);
        json_decref(object);
        return code;
    }
    (void)printf("one look at a fixed time   units %.0f  rows %.0f", need.units, need.rows);
    print_days(need.units, per_day);
    (void)printf("\nlooks at any time          units %.0f  rows %.0f", need.sequence_units, need.sequence_rows);
    print_days(need.sequence_units, per_day);
    (void)printf("\n");
    return CT_OK;
}
