"""What an honest comparison finds on MovieLens 100K (a click is a rating of 4 or more), checked on the reports of ml100k_test.sh.

Usage: ml100k_check.py FOLDER SPLIT
"""

import json
import math
import sys

# Of smoothed click rates alone, and of arm A (AUC); None: depends on which items are drawn.
BASELINE = {"time": 0.6970, "user": 0.7627, "cold20": 0.7466, "cold20b": 0.7466, "unseen": None}
IDS = {"time": 0.7126, "user": 0.7868, "cold20": 0.7639, "cold20b": None, "unseen": None}
METRICS = ("auc", "grouped_auc")
# Draws of the unseen items on which nobody found anything before: what they show is printed, not asked for.
OTHER_DRAWS = ("cold20b", "unseen")
# What others found and this program does not show: said by name, so that nothing else can join it unseen.
MISSED = {("user", "E over A", "auc")}
SMOOTHING = 20


def read(path):
    with open(path, encoding="ascii") as file:
        return [tuple(map(int, line.split("\t")[:3])) for line in file]


def auc(scored):
    """Ties count half."""
    scored.sort()
    clicks = sum(click for _, click in scored)
    ranks, first = 0.0, 0
    while first < len(scored):
        last = first
        while last < len(scored) and scored[last][0] == scored[first][0]:
            last += 1
        ranks += (first + last + 1) / 2 * sum(click for _, click in scored[first:last])
        first = last
    return (ranks - clicks * (clicks + 1) / 2) / clicks / (len(scored) - clicks)


def baseline(folder, split):
    """Sum of the log odds of the user's and the item's smoothed click rates in training."""
    train, test = read(f"{folder}/{split}/train.tsv"), read(f"{folder}/{split}/test.tsv")
    prior = sum(rating >= 4 for _, _, rating in train) / len(train)
    counts = {}
    for user, item, rating in train:
        for key in (("user", user), ("item", item)):
            shown, clicked = counts.get(key, (0, 0))
            counts[key] = (shown + 1, clicked + (rating >= 4))

    def odds(key):
        shown, clicked = counts.get(key, (0, 0))
        rate = (clicked + SMOOTHING * prior) / (shown + SMOOTHING)
        return math.log(rate / (1 - rate))

    return auc([(odds(("user", user)) + odds(("item", item)), rating >= 4) for user, item, rating in test])


def main(folder, split):
    got = baseline(folder, split)
    print(f"{split}: click rates alone {got:.4f}")
    assert BASELINE[split] is None or abs(got - BASELINE[split]) < 0.00005, got
    with open(f"{folder}/{split}/report/compare.json", encoding="utf-8") as file:
        report = json.load(file)
    arms = {arm["name"]: arm for arm in report["arms"]}
    ids = arms["A"]["test"]["auc"]["mean"]
    print(f"{split}: A {ids:.4f}")
    pairs = {one["b"]: {part["slice"]: part for part in one["slices"]} for one in report["comparisons"] if one["a"] == "A"}
    for name, slices in pairs.items():
        for where in ("all", "cold", "new", "warm"):
            one = slices[where]
            print(f"{split}: {name} - A, {where}: " + "; ".join(
                f"{metric} {one[metric]['difference']:+.4f} [{one[metric]['low']:+.4f} {one[metric]['high']:+.4f}]"
                for metric in METRICS if one[metric]["difference"] is not None) + f" {one['verdict']}")
    wrong = []

    def claim(true, what):
        if not true:
            wrong.append(f"{split}: {what}")

    claim(IDS[split] is None or abs(ids - IDS[split]) <= 0.005, f"A {ids:.4f}, but {IDS[split]} was found before")
    new = pairs["C"]["new"]["grouped_auc"]["a"]
    claim(new == 0.5, f"A ranks two items of one user that it never saw: {new}")
    for metric in METRICS:
        sure = {"E over A": pairs["E"]["all"][metric]["low"] > 0}
        for name in ("B", "C") if split == "cold20" or split in OTHER_DRAWS else ():
            sure[f"{name} over A on cold items"] = pairs[name]["cold"][metric]["low"] > 0
        for what, holds in sure.items():
            print(f"{split}: {what} by {metric}: {'sure' if holds else 'not sure'}")
            claim(holds or split in OTHER_DRAWS or (split, what, metric) in MISSED, f"{what} is not sure by {metric}")
        for name in ("D", "placebo"):
            claim(pairs[name]["all"][metric]["low"] <= 0, f"{name} over A by {metric}")
    for what in wrong:
        print("WRONG", what)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
