#!/usr/bin/env bash
# A comparison that was broken off goes on where it was, and ends with the report of one that was not: after kill -9 ahead of any change to
# the file system, and after an interrupt. The report does not depend on how many arms train at once, nor on a limit on memory.
. tests/frame.sh
exec 2>/dev/null # what bash says of killed children
kill_at=$root/tests/tools/kill_at.so

"$program" synth --rows 4000 --seed 3 --out log.tsv --vectors items.npy --schema-out log.yaml >/dev/null 2>err || wrong "synth"
head -n 2600 log.tsv >train.tsv
sed -n '2601,3200p' log.tsv >valid.tsv
tail -n +3201 log.tsv >test.tsv
cat >arms.yaml <<'END'
model: dnn
set: ["deep=[8]", "embedding.dim=4", "vector.adapter=4", "numbers.buckets=false"]
arms:
  - {name: id, features: [C1, C2, I1], set: ["embedding.learning_rate=0.5"]}
  - {name: both, features: [C1, C2, I1, item_vector]}
  - {name: shuffled, placebo: both}
END
compare=(compare --schema log.yaml --arms arms.yaml --train train.tsv --valid valid.tsv --test test.tsv --seeds 2 --epochs 4 --draws 100)
# The report without what time decides, and where there is a limit on memory, the bytes taken.
drop='"(train_seconds|rows_per_second)"'
report() { grep -vE "$drop" "$1/compare.json"; }
same() { # FOLDER WHAT
    [ -s "$1/compare.json" ] && cmp -s <(report whole) <(report "$1") || wrong "$2: another report"
    [ -s "$1/compare.html" ] || wrong "$2: no page"
    [ ! -e "$1/state" ] || wrong "$2: the state stays"
}

a_comparison_leaves_no_state() {
    expect 0 "page whole/compare.html" "${compare[@]}" --out whole
    same whole "the whole run"
    # What it takes is told in one line, before the work.
    [ "$(wc -l <err)" -eq 1 ] || wrong "more than one line: $(cat err)"
    has err '^clicktower compare: about [0-9.]+ (s|min|h) to train and judge, and [0-9]+ MiB of memory, at most: 6 models, 3 arms at once, on 2600 rows, 4 epochs at most; the slowest arm, .(id|both|shuffled)., learns [0-9]+ rows/s$'
    [ -z "$(find whole -mindepth 1 ! -name compare.json ! -name compare.html)" ] || wrong "left behind: $(find whole)"
    # Models must end at different epochs for the rest to mean something.
    /usr/bin/python3 - <<'END' || wrong "all models have one best epoch"
import json, sys
best = [epoch for arm in json.load(open("whole/compare.json"))["arms"] for epoch in arm["best_epochs"]]
print("  best epochs", best)
sys.exit(len(set(best)) < 2)
END
}

# Ends ahead of its change of that number, or not if it has fewer.
killed() { # NUMBER ARGUMENT...
    local number=$1
    shift
    env LD_PRELOAD="$kill_at" CT_KILL_AT="$number" CT_KILL_COUNT=count ASAN_OPTIONS=verify_asan_link_order=0 "$program" "$@" >out 2>err </dev/null
}

goes_on_after_kill_9() {
    local changes place kills=0 part
    rm -f count
    killed 0 "${compare[@]}" --out often --save-seconds 0 || wrong "saved behind each epoch"
    same often "saved behind each epoch"
    changes=$(cat count)
    [ "$changes" -gt 300 ] || wrong "only $changes changes were counted"
    for part in 0 1 2 3 4 5 6; do
        rm -rf cut count
        place=$((part * changes / 7 + 5 + part * 3))
        killed $place "${compare[@]}" --out cut --save-seconds 0
        [ -e count ] && wrong "the run that was to be killed at change $place of $changes ended"
        killed $((40 + part * 11)) "${compare[@]}" --out cut --save-seconds 0 # and once more, in what follows
        kills=$((kills + 1))
        expect 0 "page" "${compare[@]}" --out cut --save-seconds 0 --parallel-arms $((part % 3 + 1))
        same cut "killed at change $place of $changes"
    done
    for place in $((changes - 1)) $((changes - 4)) $changes; do # while the report is written and the state removed
        rm -rf cut count
        killed $place "${compare[@]}" --out cut --save-seconds 0
        [ -e count ] && wrong "the run that was to be killed at change $place of $changes ended"
        expect 0 "page" "${compare[@]}" --out cut
        same cut "killed at change $place of $changes"
    done
    echo "  $kills kills in $changes changes"
}

# What is finished is not trained again: the training log is read less often.
goes_on_after_an_interrupt() {
    rm -rf cut reads readings
    local counted=("${compare[@]}")
    counted[6]='|cat train.tsv; echo >>readings'
    # The reading of the validation rows that comes in the second arm's training interrupts the program.
    counted[8]='|cat valid.tsv; echo >>reads; [ "$(wc -l <reads)" -ne 12 ] || kill -INT $PPID'
    ct "${counted[@]}" --out cut --parallel-arms 1
    [ "$code" -eq 1 ] || wrong "an interrupted run ended with $code"
    tail -n 1 err | grep -q 'stopped by SIGINT.*goes on where it was' || wrong "the last line does not say that it goes on"
    ls cut/state/arm-0-seed-0.json cut/state/arm-0-seed-1.json >/dev/null || wrong "the first arm's results are not saved"
    local before after
    before=$(wc -l <readings)
    expect 0 "page" "${counted[@]}" --out cut --parallel-arms 1
    same cut "interrupted"
    after=$(($(wc -l <readings) - before))
    rm readings
    expect 0 "page" "${counted[@]}" --out anew --parallel-arms 1
    [ $after -le $(($(wc -l <readings) - 4)) ] || wrong "the log was read $after times behind the interrupt, and $(wc -l <readings) times in a whole run"
}

other_inputs_are_refused_with_both_values() {
    rm -rf cut
    killed 120 "${compare[@]}" --out cut --save-seconds 0
    [ -e cut/state/comparison.json ] || wrong "no state"
    expect 1 "the first seed is '1', but here it is '2'.*remove cut/state" "${compare[@]}" --out cut --seed 2
    expect 1 "the number of seeds is '2', but here it is '3'" "${compare[@]}" --out cut --seeds 3
    expect 1 "number of epochs is '4', but here it is '5'" "${compare[@]}" --out cut --epochs 5
    expect 1 "number of rows in a batch is '256', but here it is '128'" "${compare[@]}" --out cut --batch 128
    mv train.tsv kept.tsv
    sed '9s/\t[^\t]*$/\tother/' kept.tsv >train.tsv
    expect 1 "the training rows is '2600 \(fingerprint [0-9a-f]{16}\)', but here it is '2600" "${compare[@]}" --out cut
    mv kept.tsv train.tsv
    cp test.tsv kept.tsv
    head -n 700 kept.tsv >test.tsv
    expect 1 "the test rows is '800 .*but here it is '700" "${compare[@]}" --out cut
    mv kept.tsv test.tsv
    sed 's/deep=\[8\]/deep=[9]/' arms.yaml >other.yaml
    expect 1 "the model of arm 'id' is .*8.*but here it is .*9" "${compare[@]}" --out cut --arms other.yaml
    sed 's/name: both/name: other/; s/placebo: both/placebo: other/' arms.yaml >other.yaml
    expect 1 "has other arms \(the number of arm 'both' there, the number of arm 'other' here\)" "${compare[@]}" --out cut --arms other.yaml
    sed -i 's/[0-9]/7/g' cut/state/arm-*-seed-*/manifest 2>/dev/null && expect 1 "manifest" "${compare[@]}" --out cut
    rm -rf cut
    mkdir -p cut/state
    echo mine >cut/state/notes
    expect 1 "cut/state/notes: this is no state of a comparison" "${compare[@]}" --out cut
    [ "$(cat cut/state/notes)" = mine ] || wrong "a file of somebody else is gone"
}

any_number_of_arms_at_once() {
    local n
    for n in 1 2; do
        expect 0 "page" "${compare[@]}" --out arms$n --parallel-arms $n --threads $n
        same arms$n "$n arms at once"
    done
}

a_limit_on_memory_changes_nothing() {
    local drop="$drop|table_bytes"
    expect 0 "page" "${compare[@]}" --out within --memory 400
    same within "within a limit on memory"
    expect 0 "page" "${compare[@]}" --out within1 --memory 120 --parallel-arms 1
    same within1 "within a limit, an arm at a time"
    [ -z "$(find within within1 -name '*.live-*')" ] || wrong "scratch stays"
    expect 1 "a memory limit of 30 MiB is too small for 6 models that train at once.*give [0-9]+ MiB, or --parallel-arms 1" "${compare[@]}" --out less --memory 30
    # What it says is enough is enough.
    local least
    least=$(sed -n 's/.*give \([0-9]*\) MiB.*/\1/p' err | tail -n 1)
    expect 0 "page" "${compare[@]}" --out less --memory "${least:-0}"
    same less "with the least memory that works, $least MiB"
    echo "  $least MiB are enough"
}

# Arms on histories, which models, rows and the state hold each for themselves.
arms_on_histories_go_on_too() {
    mkdir histories
    /usr/bin/python3 "$root/tests/tools/history_log.py" histories || wrong "the log"
    cat >histories/arms.yaml <<'END'
model: dnn
set: ["deep=[8]", "embedding.dim=4", "embedding.min_count=1", "numbers.buckets=false"]
item: item
arms:
  - {name: ids, features: [user, item]}
  - {name: close, features: [user, item, liked, likes, text, close]}
  - {name: shuffled, placebo: close}
END
    local on=(compare --schema histories/derived.yaml --arms histories/arms.yaml --train histories/train.tsv --valid histories/valid.tsv
        --test histories/test.tsv --seeds 2 --epochs 3 --draws 100)
    expect 0 "page" "${on[@]}" --out told
    expect 0 "page" "${on[@]}" --out told1 --parallel-arms 1
    cmp -s <(report told) <(report told1) || wrong "an arm at a time: another report"
    rm -f count
    killed 0 "${on[@]}" --out cut_told --save-seconds 0
    local changes place
    changes=$(cat count)
    for place in $((changes / 3)) $((changes * 2 / 3)); do
        rm -rf cut_told count
        killed $place "${on[@]}" --out cut_told --save-seconds 0
        [ -e count ] && wrong "the run that was to be killed at change $place of $changes ended"
        expect 0 "page" "${on[@]}" --out cut_told
        cmp -s <(report told) <(report cut_told) || wrong "killed at change $place of $changes: another report"
    done
    # Shuffled in windows, anew in each epoch: another report, and again one for however many arms at once, threads and beginnings.
    expect 0 "page" "${on[@]}" --shuffle-rows 1500 --out mixed
    cmp -s <(report told) <(report mixed) && wrong "the order of the rows does not show"
    rm -rf cut_told
    killed $((changes / 2)) "${on[@]}" --shuffle-rows 1500 --out cut_told --save-seconds 0
    expect 1 "the number of rows in a shuffle window" "${on[@]}" --out cut_told
    expect 0 "page" "${on[@]}" --shuffle-rows 1500 --out cut_told --parallel-arms 1 --threads 1
    cmp -s <(report mixed) <(report cut_told) || wrong "shuffled and killed: another report"
    sed 's/"numbers.buckets=false"/&, "embedding.target_stats=true"/' histories/arms.yaml >histories/counted.yaml
    expect 1 "target statistics are those of the log's order" "${on[@]}" --arms histories/counted.yaml --shuffle-rows 1500 --out never
}

# Guards: what is wrong with the rows is told before the work.
rows_that_cannot_be_right_are_refused_or_said() {
    awk -F'\t' -v OFS='\t' '{ $2 = 3 * $1 + 1; print }' train.tsv >leak.tsv # I1 is the label
    local guarded=(compare --schema log.yaml --arms arms.yaml --test test.tsv --seeds 2 --draws 100 --out guarded)
    expect 1 "feature 'I1' holds the label: alone it predicts the 2600 training rows with an AUC of (1.0000|0.999[0-9]); leave it out of every arm" \
        "${guarded[@]}" --train leak.tsv
    [ ! -e guarded/state ] || wrong "work was begun"
    # Now and then it is another row's, and no id of the test is known.
    awk -F'\t' -v OFS='\t' '{ $2 = 3 * (NR % 10 ? $1 : last) + 1; last = $1; $15 = "new" NR; print }' train.tsv >leak.tsv
    expect 0 "warning: feature 'I1' alone predicts the training rows with an AUC of 0.9[0-9]{3}, which is implausibly well" "${guarded[@]}" --train leak.tsv
    has err "warning: feature 'C1': all values in the test are new to training \(800 test rows were looked at\)"
    [ "$(grep -c warning: err)" -eq 2 ] || wrong "other warnings: $(cat err)"
    # The AUC is that of the feature alone, by an independent count.
    /usr/bin/python3 - <<'END' || wrong "another AUC"
import json, sys
rows = [line.split("\t")[:2] for line in open("leak.tsv")]
clicks = [float(value) for label, value in rows if label == "1"]
others = [float(value) for label, value in rows if label == "0"]
auc = sum((c > o) + (c == o) / 2 for c in clicks for o in others) / len(clicks) / len(others)
found = {f["name"]: f for f in json.load(open("guarded/compare.json"))["features"]}
print("  I1:", auc, found["I1"]["auc"], "C1:", found["C1"])
sys.exit(abs(found["I1"]["auc"] - auc) > 1e-9 or found["C1"]["new_in_test"] != 1 or abs(found["C1"]["distinct"] / 2600 - 1) > 0.07)
END
    # Test rows among the training and the validation rows.
    (cat train.tsv && head -n 7 test.tsv) >overlap.tsv
    (cat valid.tsv && head -n 5 test.tsv) >overlap_valid.tsv
    expect 0 "warning: 7 training rows are also test rows" "${guarded[@]}" --train overlap.tsv --valid overlap_valid.tsv
    has err "warning: 5 validation rows are also test rows"
    # Vectors whose ids are not written as in the log are zeros for every row; said once, though two arms have them.
    sed 's/^/item-/' items.txt >other.txt
    sed 's/items.txt/other.txt/' log.yaml >other.yaml
    expect 0 "warning: 'item_vector' has no vector for any value of 'C2' in the first rows" "${guarded[@]}" --schema other.yaml --arms arms.yaml --train train.tsv
    [ "$(grep -c 'no vector' err)" -eq 1 ] || wrong "said more than once: $(cat err)"
}

for name in a_comparison_leaves_no_state goes_on_after_kill_9 goes_on_after_an_interrupt other_inputs_are_refused_with_both_values \
    any_number_of_arms_at_once \
    a_limit_on_memory_changes_nothing arms_on_histories_go_on_too rows_that_cannot_be_right_are_refused_or_said; do run_case $name; done
finish
