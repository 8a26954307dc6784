"""clicktower report and power against SciPy and statsmodels: another implementation of the same statistics.

Usage: report_check.py PROGRAM FOLDER
"""

import json
import subprocess
import sys

import numpy
import statsmodels.api
from scipy import optimize, stats


def run(program, *arguments):
    return json.loads(subprocess.run([program, *arguments], check=True, capture_output=True).stdout)


def close(got, wanted, bound, what):
    assert abs(got - wanted) <= bound * abs(wanted), f"{what}: got {got!r}, expected {wanted!r}"


def half(interval):
    return (interval["high"] - interval["low"]) / 2


def check_means(program, folder, random):
    """One row a unit: Welch's deviation by SciPy, CUPED by the analysis of covariance of statsmodels."""
    units = 3000
    arm = random.integers(0, 2, units)
    covariate = random.normal(size=units)
    value = random.gamma(2.0, size=units) + 0.8 * covariate + 0.15 * arm
    path = folder + "/means.tsv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("unit\ttime\tarm\tvalue\tcovariate\n")
        for i in range(units):
            file.write(f"u{i}\t{i}\t{'ab'[arm[i]]}\t{value[i]:.17g}\t{covariate[i]:.17g}\n")
    report = run(program, "report", "--table", path, "--plan", "2000", "--json", "-")
    one = report["differences"][0]
    welch = stats.ttest_ind(value[arm == 1], value[arm == 0], equal_var=False)
    difference = value[arm == 1].mean() - value[arm == 0].mean()
    deviation = difference / welch.statistic
    close(one["estimate"], difference, 1e-9, "difference")
    close(half(one["fixed"]), stats.norm.ppf(0.975) * deviation, 1e-9, "fixed interval")
    # Waudby-Smith et al., "Time-uniform central limit theory and asymptotic confidence sequences", equations 15 and 20
    rho2 = (-2 * numpy.log(0.05) + numpy.log(-2 * numpy.log(0.05) + 1)) / 2000
    boundary = numpy.sqrt(2 * (units * rho2 + 1) / (units**2 * rho2) * numpy.log(numpy.sqrt(units * rho2 + 1) / 0.05))
    close(half(one["sequence"]), boundary * deviation * numpy.sqrt(units), 1e-9, "confidence sequence")
    model = statsmodels.api.OLS(value, numpy.column_stack([numpy.ones(units), arm, covariate])).fit()
    close(one["cuped"]["theta"], model.params[2], 1e-9, "theta")
    close(one["cuped"]["estimate"], model.params[1], 1e-9, "difference with CUPED")
    robust = model.get_robustcov_results("HC0").bse[1]
    close(half(one["cuped"]["fixed"]) / stats.norm.ppf(0.975), robust, 2e-3, "deviation with CUPED")
    counts = numpy.bincount(arm)
    close(report["sample_ratio"]["p"], stats.chisquare(counts).pvalue, 1e-9, "sample ratio")


def check_ratio(program, folder, random):
    """Many rows a unit: the deviation clustered by unit, by statsmodels' sandwich over rows."""
    units = 2000
    arm = random.integers(0, 3, units)
    rows = random.integers(1, 12, units)
    rate = random.beta(2, 8, units) * (1 + 0.1 * (arm == 1))
    of = numpy.repeat(numpy.arange(units), rows)
    click = (random.random(of.size) < rate[of]).astype(float)
    order = random.permutation(of.size)
    path = folder + "/rows.csv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("time,unit,value,arm\n")
        for i in order:
            file.write(f"{i},u{of[i]},{click[i]:g},{'abc'[arm[of[i]]]}\n")
    report = run(program, "report", "--table", path, "--control", "a", "--weights", "a=2,b=1,c=1", "--json", "-")
    for one, b in zip(report["differences"], (1, 2)):
        chosen = numpy.isin(arm[of], (0, b))
        treated = (arm[of][chosen] == b).astype(float)
        model = statsmodels.api.OLS(click[chosen], numpy.column_stack([numpy.ones(treated.size), treated]))
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": of[chosen], "use_correction": False})
        close(one["estimate"], fit.params[1], 1e-9, "difference of ratios")
        close(half(one["fixed"]) / stats.norm.ppf(0.975), fit.bse[1], 2e-3, "clustered deviation")
        close(one["p"], 2 * stats.norm.sf(abs(one["estimate"]) / (half(one["fixed"]) / stats.norm.ppf(0.975))), 1e-9, "p")
    counts = numpy.bincount(arm)
    close(report["sample_ratio"]["p"], stats.chisquare(counts, units * numpy.array([0.5, 0.25, 0.25])).pvalue, 1e-9, "weighted sample ratio")


def check_power(program):
    for rate, lift, share, power, alpha in ((0.03, 0.05, 0.5, 0.8, 0.05), (0.2, -0.1, 0.1, 0.9, 0.01), (0.001, 0.3, 0.5, 0.5, 0.1)):
        need = run(program, "power", "--rate", str(rate), "--lift", str(lift), "--share", str(share), "--power", str(power), "--alpha",
                   str(alpha), "--json")

        def found(units):
            a, b = rate, rate * (1 + lift)
            deviation = numpy.sqrt(a * (1 - a) / (units * (1 - share)) + b * (1 - b) / (units * share))
            return stats.norm.sf(stats.norm.isf(alpha / 2) - abs(b - a) / deviation)

        wanted = optimize.brentq(lambda units: found(units) - power, 2, 1e12)
        assert abs(need["units"] - wanted) <= 1 + 1e-6 * wanted, (need, wanted)
        least = run(program, "power", "--rate", str(rate), "--units", str(need["units"]), "--share", str(share), "--power", str(power),
                    "--alpha", str(alpha), "--json")
        if lift > 0:
            close(least["lift"], lift, 1e-3, "least lift")


def main(program, folder):
    random = numpy.random.default_rng(7)
    check_means(program, folder, random)
    check_ratio(program, folder, random)
    check_power(program)


if __name__ == "__main__":
    main(*sys.argv[1:])
