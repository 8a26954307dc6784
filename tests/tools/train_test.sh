#!/usr/bin/env bash
# What a training run has and leaves: warnings, divergence, metrics that don't exist, older checkpoints, a schedule, a model that begins
# with another one's weights, memory that does not grow with the log.
. tests/frame.sh

small=(--schema criteo --set embedding.dim=4)
train() { # CODE ARGUMENT...
    local expected=$1
    shift
    "$program" train "${small[@]}" "$@" >out 2>err </dev/null
    local code=$?
    [ $code -eq "$expected" ] || wrong "train $* ended with $code, expected $expected"
}
silent() { [ ! -s err ] || wrong "$1: $(head -n 2 err)"; }
check() { python3 -c "import json, math, sys
$2" || wrong "$1"; }

"$program" synth --rows 12000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 6000 log.tsv >day1.tsv
tail -n +6001 log.tsv | head -n 3000 >day2.tsv
tail -n 3000 log.tsv >day3.tsv
dnn=(--model dnn --set 'deep=[16,8]' --batch 256)

echo "evaluation of the folder gives what the trainer printed"
for model in lr fm dnn deepfm dcn-v2 dlrm; do
    train 0 --model $model --batch 256 --train day1.tsv --eval day2.tsv --out "plain-$model"
    silent "$model: a warning about nothing"
    "$program" eval --model "plain-$model" --data day2.tsv --json eval.json >/dev/null 2>err || wrong "eval"
    check "$model: other metrics" "
run, alone = json.load(open('plain-$model/metrics.json')), json.load(open('eval.json'))
for key in 'rows', 'auc', 'log_loss', 'normalized_entropy', 'calibration', 'mean_prediction':
    assert run[key] == alone[key], (key, run[key], alone[key])
printed = open('out').read().split('evaluation')[1]
assert f'auc {alone[\"auc\"]:.5f}' in printed and f'log_loss {alone[\"log_loss\"]:.5f}' in printed, printed"
done

echo "a log to evaluate on that can't be read is told before the training where that is possible; else the model is kept"
mkdir folder.tsv
for name in none.tsv folder.tsv; do
    train 1 --model lr --batch 256 --train '|touch began; cat day1.tsv' --eval day2.tsv $name --out unjudged
    has err "^clicktower train: $name: (cannot open|is a folder)"
done
[ ! -e began ] && [ ! -e unjudged ] || wrong "the training began, though a log to evaluate on is not there"
gzip -c day2.tsv | head -c 20000 >cut.tsv.gz
train 1 --model lr --batch 256 --train day1.tsv --eval cut.tsv.gz --out unjudged
has out '^trained +rows 6000 '
grep -q '^evaluation' out && wrong "an evaluation that failed was printed"
has err '^clicktower train: cut.tsv.gz: cut gzip data: .*; unjudged holds the trained model, which was not evaluated'
[ "$(digest unjudged)" = "$(digest plain-lr)" ] || wrong "the model that was kept is another one"

echo "where the time went: parts that do not overlap add up to the whole; the reader's are processor time beside it"
train 0 --model dnn --batch 256 --train log.tsv --out profiled --profile
check "the profile" "
import re
text = open('out').read()
seconds = float(re.search(r'seconds ([0-9.]+)', text).group(1))
beside = text.index('beside it')
parts = [(m.start() < beside, m.group(1), float(m.group(2))) for m in re.finditer(r'^  (\\S.*?) +(-?[0-9.]+) s +-?[0-9.]+ %\$', text, re.M)]
assert [name for inside, name, _ in parts if inside] == [
    'waiting for rows', 'look-up', 'number moments', 'gather', 'forward', 'backward', 'weight gradient', 'tower update', 'row update',
    'checkpoints', 'publishing', 'other'], parts
assert abs(sum(s for inside, _, s in parts if inside) - seconds) < 0.02, parts
assert [name for inside, name, s in parts if not inside and s > 0] == ['read, unpack', 'parse', 'fill batches'], parts"

echo "a model begins with another one's weights"
"$program" eval --model plain-dnn --data day2.tsv --json before.json >/dev/null 2>err || wrong "eval of yesterday's model"
train 0 --model dnn --batch 256 --train day2.tsv --init plain-dnn --out today
has out '^init +from plain-dnn: dnn, 6000 rows, schema criteo$'
has out '^init +features: 39 as before$'
has out '^init +layer deep.2: taken$'
has out '^init +table ids: [0-9]+ rows taken, [0-9]+ keys still counted; with the state of adagrad_rowwise$'
has out '^init +new in any case: learning rates and their schedule'
has out '^trained +rows 3000 '
# Each row is scored before it is learned: today's begins no worse than yesterday's model ends.
check "today's model does not begin where yesterday's ended" "
before, today = json.load(open('before.json')), json.load(open('today/metrics.json'))
assert today['progressive']['log_loss'] < before['log_loss'] + 0.01, (before['log_loss'], today['progressive']['log_loss'])
assert today['model']['rows'] == 3000 and any('deep.0: taken' in line for line in today['init'])"
sed 's/name: C26,/name: C99,/' plain-dnn/schema.yaml >other.yaml
small=(--schema other.yaml --set embedding.dim=4)
train 0 --model deepfm --batch 256 --set embedding.optimizer=adam --set embedding.learning_rate=0.01 --train day2.tsv --init plain-dnn --out today2
has out '^init +feature C99: new$'
has out '^init +feature C26: dropped'
has out '^init +layer fm: new$'
has out '^init +layer deep.0: taken; 4 of its [0-9]+ inputs are new'
has out '^init +table ids: .*the state of adam is new, as they were trained with adagrad_rowwise$'
small=(--schema criteo --set embedding.dim=4)
train 2 --model dnn --train day2.tsv --init plain-dnn --resume --out today
train 1 --model dnn --train day2.tsv --init nowhere --out today3
has err '^clicktower train: --init nowhere: nowhere: no such folder'
train 0 --model dnn --batch 256 --train day2.tsv --init plain-dnn --out today # it is there
has err 'today holds a model, which stays until this run writes its own'
[ "$(wc -l <err)" -eq 1 ] || wrong "more than one warning: $(cat err)"
mkdir today/notes && touch today/notes/mine.txt
train 0 --model lr --train day2.tsv --out today
has err 'warning: notes/mine.txt is no part of the model in today and goes when this run replaces the folder'
train 0 --model dnn --batch 256 --train day2.tsv --init plain-dnn --out today
[ "$(wc -l <err)" -eq 1 ] || wrong "a folder of the program's own parts: $(cat err)"
train 0 --model dnn --batch 256 --train day2.tsv --init plain-dnn --checkpoint-rows 1000 --out again
[ "$(digest today)" = "$(digest again)" ] || wrong "the same run twice gives other bits"
cp -r again broken && rm broken/tables/store.json
train 1 --model dnn --batch 256 --train day2.tsv --init broken --out today3
has err 'broken/tables/store.json.*missing'

echo "older checkpoints"
train 0 "${dnn[@]}" --train day1.tsv --checkpoint-rows 1024 --keep 3 --out kept
[ "$(cd kept.checkpoints && echo *)" = "rows-4096 rows-5120" ] || wrong "kept: $(ls kept.checkpoints)"
head -n 4096 day1.tsv >to4096.tsv
train 0 "${dnn[@]}" --train to4096.tsv --out alone
[ "$(digest kept.checkpoints/rows-4096)" = "$(digest alone)" ] || wrong "an older checkpoint is not the model of its rows"
cp -r kept.checkpoints/rows-4096 back # and training goes on from it
train 0 "${dnn[@]}" --train day1.tsv --resume --out back
[ "$(digest back)" = "$(digest kept)" ] || wrong "resumed from an older checkpoint, other bits"
train 0 "${dnn[@]}" --train day1.tsv day2.tsv --checkpoint-rows 1024 --keep 3 --resume --out kept/
[ "$(cd kept.checkpoints && echo *)" = "rows-7168 rows-8192" ] || wrong "kept after resume: $(ls kept.checkpoints)"
train 0 "${dnn[@]}" --train day1.tsv --keep 2 --out kept # another training: the old ones go
[ -z "$(ls -A kept.checkpoints)" ] || wrong "another training's checkpoints stay: $(ls kept.checkpoints)"

echo "a schedule goes on where it was"
scheduled=("${dnn[@]}" --schedule-rows 8000)
train 0 "${scheduled[@]}" --train day1.tsv day2.tsv --out scheduled
has err 'learning rates reached 0 at row 8000'
train 0 "${scheduled[@]}" --train day1.tsv --out parts
silent "a schedule that is not over"
train 0 "${scheduled[@]}" --train day1.tsv day2.tsv --resume --out parts
[ "$(digest parts)" = "$(digest scheduled)" ] || wrong "resumed, the schedule is another one"
train 0 "${dnn[@]}" --set schedule.rows=8000 --train day1.tsv day2.tsv --out set
[ "$(digest set)" = "$(digest scheduled)" ] || wrong "--schedule-rows is not --set schedule.rows"
train 0 "${dnn[@]}" --train day1.tsv day2.tsv --out constant
[ "$(digest constant)" != "$(digest scheduled)" ] || wrong "a schedule changes nothing"
# Rates are 0 behind row 8,000: more rows move the counts, not the weights, and --init begins the schedule anew.
train 0 "${scheduled[@]}" --train day1.tsv day2.tsv day3.tsv --out longer
cmp -s scheduled/tower.safetensors longer/tower.safetensors && wrong "the average stands still, too"
train 0 "${dnn[@]}" --set optimizer.learning_rate=0 --set embedding.learning_rate=0 --train day1.tsv --out nothing
has err 'embedding.learning_rate is 0: the rows of the ids never change'
has err "optimizer.learning_rate is 0: the tower's weights never change"

echo "divergence"
train 0 "${dnn[@]}" --train day1.tsv --out lost
before=$(digest lost)
bad=(--model dnn --batch 256 --set 'deep=[8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8]' --set precision=fp32 --set optimizer.learning_rate=999 --set embedding.learning_rate=999)
train 1 "${bad[@]}" --train day1.tsv --out lost
has err '^clicktower train: diverged at step [0-9]+ \(rows [0-9]+ to [0-9]+ of the pass\): the loss is .*lower optimizer.learning_rate \(now 999\) or embedding.learning_rate \(now 999\) with --set; nothing was written$'
[ "$(digest lost)" = "$before" ] || wrong "a run that diverged wrote over a model"
# Rows alone: sums of ids leave float's range; the tower's own gradients stay finite.
train 1 --model lr --batch 64 --set embedding.optimizer=sgd --set embedding.learning_rate=999 --set embedding.l2=900 --train day1.tsv --out lost2
has err 'diverged'
[ -e lost2 ] && wrong "a run that diverged wrote a folder"
# Fine until a weight is near the end of float's range: the last good checkpoint stays.
sed 's/^name: .*/name: weighted/; s/kind: number, column: 2, side: candidate/kind: weight, column: 2/' plain-dnn/schema.yaml >weighted.yaml
small=(--schema weighted.yaml --set embedding.dim=4)
awk -F'\t' -v OFS='\t' '{ $2 = NR > 4000 ? "3e38" : "1" } 1' day1.tsv >weights.tsv
train 1 "${dnn[@]}" --train weights.tsv --checkpoint-rows 1024 --out later
has err 'diverged at step 16 \(rows 3841 to 4096 of the pass\).*later keeps the model of the first 3072 rows$'
"$program" verify later >/dev/null 2>err || wrong "the last good checkpoint is damaged"
small=(--schema criteo --set embedding.dim=4)
# A loss that stays finite, but far above the constant's: said after some hundred steps.
for i in 1 2 3 4 5 6; do cat log.tsv; done >long.tsv
train 1 --model lr --batch 32 --set optimizer.learning_rate=30 --set average.power=0 --train long.tsv --out high --checkpoint-rows 8000
has err 'the mean loss of 256 steps is [0-9.]+, worse than guessing one half.*diverged at step 1024 .*high keeps the model of the first (8|16)000 rows'
train 0 --model dnn --set 'deep=[16]' --batch 32 --set optimizer.learning_rate=30 --set average.power=0 --train long.tsv --out dead
has err "worse than the constant click rate of the training's rows"

echo "labels"
awk -F'\t' -v OFS='\t' '{ $1 = 0 } 1' log.tsv >zeros.tsv # long enough for a point of the curve
awk -F'\t' -v OFS='\t' '{ $1 = 1 } 1' log.tsv >ones.tsv
awk -F'\t' -v OFS='\t' '{ $1 = NR > 1 } 1' day2.tsv >almost.tsv
awk -F'\t' -v OFS='\t' '{ $2 = 5 + 3 * $1 } 1' day2.tsv >number.tsv
awk -F'\t' -v OFS='\t' '{ $20 = $1 ? "yes" : "no" } 1' day2.tsv >word.tsv
cut -f 2- day2.tsv | awk -F'\t' -v OFS='\t' '{ print $0, "x" }' >shifted.tsv
for label in zeros ones; do
    train 0 "${dnn[@]}" --train $label.tsv --eval $label.tsv --out $label
    has err "all of the first 12000 rows have the label [01]: .*is the column of 'label' the right one"
    grep -qiE '\bnan\b|\binf\b' $label/metrics.json $label/curve.jsonl out && wrong "$label: a metric that is no number: $(grep -iE '\bnan\b|\binf\b' $label/metrics.json $label/curve.jsonl out)"
    sed -n '/id="curve-data"/,/<\/script>/p; /id="metrics-data"/,/<\/script>/p' $label/train.html | grep -iE '\bnan\b|\binf\b' && wrong "$label: NaN in train.html"
    check "$label: metrics that do not exist are null" "
m = json.load(open('$label/metrics.json'))
points = [json.loads(line) for line in open('$label/curve.jsonl')]
assert len(points) == 1 and points[0]['auc'] is None and points[0]['log_loss'] > 0, points
assert m['auc'] is None and m['normalized_entropy'] is None and m['progressive']['auc'] is None
assert isinstance(m['log_loss'], float) and any('label' in w for w in m['warnings'])"
done
check "without clicks there is no calibration" "assert json.load(open('zeros/metrics.json'))['calibration'] is None"
train 0 "${dnn[@]}" --train almost.tsv --out almost
has err '99.967 % of the first 3000 rows have the label 1'
train 0 "${dnn[@]}" --train number.tsv --out number
has err "'I1' tells the label of each of the first 3000 rows"
train 0 "${dnn[@]}" --train word.tsv --out word
has err "'C6' tells the label of each of the first 3000 rows.*--set exclude=\[C6\]"
train 0 "${dnn[@]}" --set 'exclude=[C6]' --train word.tsv --out excluded
silent "a column that the model does not read"
train 0 "${dnn[@]}" --train shifted.tsv --out shifted # some rows pass, but nobody overlooks it
has err "[0-9]+ of 3000 rows were left out as their label is neither 0 nor 1: is the column of 'label' the right one"
has err 'warning: 29[0-9]+ bad training rows were left out of 3000'
awk -F'\t' -v OFS='\t' 'NR % 3 == 0 { $1 = 7 } 1' day2.tsv >ratings.tsv
train 0 "${dnn[@]}" --train ratings.tsv --out ratings
has err "1000 of 3000 rows were left out as their label is neither 0 nor 1: is the column of 'label' the right one"

echo "rows that never change"
train 0 "${dnn[@]}" --set embedding.min_count=1000000 --train day1.tsv --out rare
has err 'none of the [0-9]+ keys has a row of its own, as none was seen 1000000 times'
check "warnings stand in metrics.json" "assert any('row of its own' in w for w in json.load(open('rare/metrics.json'))['warnings'])"

echo "vectors whose ids are not written as in the log"
expect 0 "" synth --rows 2000 --seed 3 --out items.tsv --vectors items.npy --schema-out items.yaml
sed 's/^/item-/' items.txt >other.txt
sed 's/items.txt/other.txt/' items.yaml >other.yaml
vectors=(--model dnn --set 'deep=[8]' --train items.tsv --set 'features=[C1,item_vector]')
expect 0 "^trained" train --schema items.yaml "${vectors[@]}" --out with
silent "vectors that are found"
expect 0 "warning: 'item_vector' has no vector for any value of 'C2' in the first 2000 rows" train --schema other.yaml "${vectors[@]}" --out without

echo "memory does not grow with the log"
peak() { /usr/bin/python3 - "$program" "$@" <<'END'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
END
}
once=$(peak train "${small[@]}" --model lr --train long.tsv --out once)
often=$(peak train "${small[@]}" --model lr --train long.tsv long.tsv long.tsv long.tsv long.tsv --out often)
bytes=$(($(stat -c %s long.tsv) >> 20))
echo "  $once MiB for a log of $bytes MiB, $often MiB for one of $((5 * bytes)) MiB"
[ $((often - once)) -lt $((2 * bytes)) ] || wrong "memory grows with the log"

finish
