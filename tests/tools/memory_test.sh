#!/usr/bin/env bash
# Tables that outgrow their memory (that they keep within it is in memory_limit_test.sh): the result is the same to the bit, and nothing but the
# model folder is left, also after kill -9, from where a run is resumed.
. tests/frame.sh
kill_at=$root/tests/tools/kill_at.so

train() { # CODE ARGUMENT...
    local expected=$1
    shift
    "$program" train --schema criteo "$@" >out 2>err </dev/null
    local code=$?
    [ $code -eq "$expected" ] || wrong "train $* ended with $code, expected $expected"
}
same() { [ -n "$1" ] && [ "$1" = "$2" ] || wrong "$3: digest $1, should be $2"; }
nothing_left() { ls -d ./*.live-* ./*.partial-* >/dev/null 2>&1 && wrong "$1: left $(ls -d ./*.live-* ./*.partial-*)"; }
# rows, distinct tokens of a column, seed: many tokens are seen once or twice, some again and again
make_log() {
    awk -v rows="$1" -v tokens="$2" -v seed="$3" 'BEGIN {
        srand(seed)
        for (r = 0; r < rows; r++) {
            line = int(rand() * 1.3)
            for (i = 0; i < 13; i++) line = line "\t" int(rand() * 50)
            for (i = 0; i < 26; i++) line = line "\t" sprintf("%x", int(rand() ^ 2 * tokens))
            print line
        }
    }'
}

sanitized=$(ldd "$program" 2>/dev/null | grep -c 'libasan\|libtsan')
echo "what reads all rows holds none"
# 144 floats of values and 1 of state are 580 bytes a row
big=(--model dnn --set 'deep=[4]' --set embedding.dim=144 --set embedding.min_count=1 --batch 256)
make_log 10000 90000 1 >big.tsv
train 0 "${big[@]}" --train big.tsv --out held --memory 64
if [ "$sanitized" -eq 0 ]; then
    rows=$(sed -n 's/^keys *admitted \([0-9]*\).*/\1/p' out)
    [ "$((rows * 580))" -gt $((120 << 20)) ] || wrong "the table is too small for this test: $rows rows"
    for verb in verify inspect; do
        (ulimit -d $((112 * 1024)) && "$program" $verb held >out 2>err) || wrong "$verb with little memory"
    done
fi
nothing_left "a run"

echo "the same bits, by kinds of tables, limits and threads"
make_log 6000 3000 4 >log.tsv
make_log 1000 3000 5 >eval.tsv
for set in "embedding.optimizer=adam embedding.min_count=2" "embedding.admission=filter embedding.filter_mib=1 embedding.min_count=3" \
    "embedding.target_stats=true embedding.l2=0.001" "embedding.optimizer=adagrad numbers.buckets=true"; do
    settings=()
    for one in $set; do settings+=(--set "$one"); done
    with=(--model dnn --set 'deep=[8]' --set embedding.dim=16 "${settings[@]}" --batch 64 --train log.tsv --eval eval.tsv)
    train 0 "${with[@]}" --out free
    wanted=$(digest free)
    "$program" eval --model free --data eval.tsv --predictions wanted.txt >/dev/null 2>err || wrong "eval"
    for threads in 1 2 8; do
        train 0 "${with[@]}" --out held --memory 40 --threads $threads
        same "$(digest held)" "$wanted" "$set, $threads threads"
        grep -v '^model\|^report\|seconds' out >held.out
    done
    for folder in free held; do # read with a limit
        "$program" eval --model $folder --data eval.tsv --predictions got.txt --memory 9 >/dev/null 2>err || wrong "eval --memory"
        cmp -s got.txt wanted.txt || wrong "eval --memory of $folder: other predictions"
    done
    train 0 --model dnn --set 'deep=[8]' --set embedding.dim=16 "${settings[@]}" --batch 64 --train eval.tsv --init free --out one
    train 0 --model dnn --set 'deep=[8]' --set embedding.dim=16 "${settings[@]}" --batch 64 --train eval.tsv --init free --out two \
        --memory 40
    same "$(digest two)" "$(digest one)" "--init with a limit"
done
nothing_left "runs with limits"

echo "a limit that is too small has what would do: the least"
head -n 320 log.tsv >short.tsv
# few wide rows: of small batches, by chance, many fall into one partition. What changes, and is published, counts, too.
for kind in "4096 dnn log.tsv" "16 fm short.tsv embedding.dim=1024 embedding.min_count=1" "512 fm log.tsv embedding.dim=64 publish"; do
    read -r rows model source settings <<<"$kind"
    small=(--model "$model" --batch "$rows" --train "$source" --out small)
    for one in $settings; do
        case $one in
            publish) small+=(--publish small.pub) ;;
            *) small+=(--set "$one") ;;
        esac
    done
    train 1 "${small[@]}" --memory 16
    has err "a memory limit of 16 MiB is too small for batches of $rows rows; give [0-9]+ MiB, or smaller batches$"
    least=$(sed -n 's/.*give \([0-9]*\) MiB.*/\1/p' err)
    train 1 "${small[@]}" --memory $((${least:-1} - 1))
    has err "too small for batches of $rows rows; give $least MiB, or smaller batches$"
    train 0 "${small[@]}" --memory "${least:-1}"
done
nothing_left "a limit that is too small"

echo "later batches that outgrow the limit: what was learned is kept, and goes on"
awk 'BEGIN {
    srand(3)
    for (r = 0; r < 1024; r++) {
        line = int(rand() * 1.3)
        for (i = 0; i < 13; i++) line = line "\t" int(rand() * 50)
        for (i = 0; i < 26; i++) line = line "\t" sprintf("%x", int(rand() * (r < 512 ? 20 : 100000)))
        print line
    }
}' >grow.tsv
grow=(--model dnn --set 'deep=[8]' --set embedding.dim=256 --set embedding.min_count=1 --batch 256)
train 0 "${grow[@]}" --train grow.tsv --out whole
train 1 "${grow[@]}" --train grow.tsv --out grown --memory 16
least=$(sed -n 's/.*give \([0-9]*\) MiB.*/\1/p' err)
train 1 "${grow[@]}" --train grow.tsv --out grown --memory "${least:-1}"
has err "too small for batches of 256 rows; give [0-9]+ MiB, or smaller batches; grown holds the model of the first 512 rows, .* --resume and more memory$"
[ "$(wc -l <err)" -eq 1 ] || wrong "other lines: $(cat err)"
kept=$(digest grown)
head -n 512 grow.tsv >half.tsv
train 0 "${grow[@]}" --train half.tsv --out half
same "$kept" "$(digest half)" "what was kept"
train 1 "${grow[@]}" --train grow.tsv --out grown --memory "${least:-1}" --resume # nothing new
same "$(digest grown)" "$kept" "what was kept, in vain gone on with"
for ((tries = 0; tries < 4; tries++)); do
    least=$(sed -n 's/.*give \([0-9]*\) MiB.*/\1/p' err)
    "$program" train --schema criteo "${grow[@]}" --train grow.tsv --out grown --memory "${least:-1}" --resume >out 2>err </dev/null && break
done
same "$(digest grown)" "$(digest whole)" "gone on with enough"
nothing_left "outgrown"

echo "killed ahead of any change to the file system, and resumed: no row that was learned after the checkpoint is read"
crash=(--model dnn --set 'deep=[8]' --set embedding.dim=16 --batch 64 --checkpoint-rows 1024 --memory 40)
train 0 "${crash[@]}" --train log.tsv --out killed
wanted=$(digest killed)
rm -rf killed
if [ "$sanitized" -eq 0 ]; then
    env LD_PRELOAD="$kill_at" CT_KILL_COUNT=count "$program" train --schema criteo "${crash[@]}" --train log.tsv --out killed >out 2>err </dev/null ||
        wrong "counting the changes"
    mkfifo never
    exec 3<>never
    changes=$(cat count)
    kills=0
    # at a change of any thread, or in the middle of a compaction
    for where in "$((changes * 3 / 14))" "$((changes * 5 / 14))" "$((changes * 7 / 14))" "$((changes * 9 / 14))" "$((changes * 11 / 14))" \
        "1 CT_KILL_THREAD=rocksdb:low" "6 CT_KILL_THREAD=rocksdb:low"; do
        rm -rf killed
        source=log.tsv
        # A compaction comes when there is time for it: the log's last rows are not there before.
        case $where in *:low) source='|head -n 5952 log.tsv; exec cat never' waiting="a compaction to be killed" ;; esac
        {
            # shellcheck disable=SC2086 # the words of $where
            env LD_PRELOAD="$kill_at" CT_KILL_AT=$where "$program" train --schema criteo "${crash[@]}" --train "$source" --out killed \
                >out 2>err </dev/null 3>&-
            code=$?
        } 2>/dev/null # the shell's own word about it
        waiting=
        case $where in *:low) [ $code -eq 137 ] || wrong "no compaction was killed: $(tail -n 1 err)" ;; esac
        [ $code -eq 137 ] && kills=$((kills + 1)) # compactions come as they like, so a run may have fewer changes than another
        if [ -e killed ]; then
            train 0 "${crash[@]}" --train log.tsv --out killed --resume
        else
            train 0 "${crash[@]}" --train log.tsv --out killed
        fi
        same "$(digest killed)" "$wanted" "killed at change $where of $changes"
        nothing_left "resumed"
    done
    exec 3>&- # ends what read from it
    [ $kills -ge 3 ] || wrong "only $kills runs were killed"
else
    echo "  SKIP: a preloaded library does not go with a sanitizer"
fi

finish
