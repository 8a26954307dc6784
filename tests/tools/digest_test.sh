#!/usr/bin/env bash
# The same seed gives the same bits, for every kind of model, row optimiser and what may stand beside them: for any number of threads, from
# any kind of source, with checkpoints or without, in one run or in a run over the first part of the log that is taken up with the second.
. tests/frame.sh

"$program" synth --rows 5000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 2501 log.tsv >first.tsv # a batch is cut in two
tail -n +2502 log.tsv >second.tsv
gzip -k first.tsv second.tsv log.tsv
zst=second.tsv
if command -v zstd >/dev/null; then zstd -q second.tsv && zst=second.tsv.zst; else echo "no zstd here: .zst is left out"; fi
"$program" convert --schema criteo --in log.tsv --out log.ctb >/dev/null 2>err || wrong "convert"
"$program" convert --schema criteo --in second.tsv --out second.ctb >/dev/null 2>err || wrong "convert"

# model, then settings; each row optimiser and each option stands somewhere
table='
lr      embedding.optimizer=adam embedding.learning_rate=0.01
fm      embedding.optimizer=sgd embedding.learning_rate=0.001
deepfm  embedding.optimizer=adagrad deep=[16,8] dropout=0.2
dlrm    embedding.optimizer=adam embedding.learning_rate=0.01 deep=[16] bottom=[12] layer_norm=true
dcn-v2  embedding.optimizer=adagrad_rowwise deep=[16] cross.layers=2 cross.rank=5 embedding.target_stats=true
dcn-v2  embedding.optimizer=sgd embedding.learning_rate=0.001 deep=[16] cross.layers=1 average.power=0 schedule.rows=6000
dnn     embedding.optimizer=adagrad deep=[16] embedding.target_stats=true embedding.l2=0.001 optimizer.l2=0.0001 embedding.id_drop=0.05 precision=fp32
dnn     deep=[16] embedding.admission=filter embedding.filter_mib=1 embedding.min_count=3
dnn     epochs deep=[16] embedding.optimizer=adam embedding.learning_rate=0.01 embedding.target_stats=true dropout=0.1
'

run() { # OUT ARGUMENT...; sets $digest
    local out=$1
    shift
    "$program" train --schema criteo --batch 256 --set embedding.dim=4 "${model[@]}" --out "$out" "$@" >out 2>err || wrong "$name: train $*"
    digest=$("$program" verify "$out" 2>>err | sed -n 's/^digest //p')
}
same() { # WHAT
    [ -n "$digest" ] && [ "$digest" = "$expected" ] || wrong "$name, $*: digest '$digest', expected '$expected'"
    compared=$((compared + 1))
}

compared=0
digests=()
while read -r kind settings; do
    [ -n "$kind" ] || continue
    name="$kind $settings"
    model=(--model "$kind")
    passes=1
    for setting in $settings; do
        case $setting in
            epochs) passes=2 && model+=(--epochs 2) ;;
            *) model+=(--set "$setting") ;;
        esac
    done
    rm -rf a b c d e
    run a --train log.tsv --threads 1 </dev/null
    expected=$digest
    digests+=("$digest")
    run b --train first.tsv.gz $zst --threads 2 --checkpoint-rows 1000 </dev/null
    same "2 threads, two compressed files, checkpoints"
    if [ $passes -eq 1 ]; then
        run c --train - --threads 3 <log.tsv
        same "3 threads, standard input"
    else
        run c --train '|cat first.tsv second.tsv' --threads 3 </dev/null
        same "3 threads, a command"
    fi
    run d --train log.ctb --threads 8 --keep 2 --checkpoint-rows 2000 </dev/null
    same "8 threads, a block file, older checkpoints kept"
    [ $passes -eq 1 ] || continue # a log that grows between passes is another training
    run e --train first.tsv --threads 8 </dev/null
    [ "$digest" != "$expected" ] || wrong "$name: half of the log gives the digest of all of it"
    run e --train '|gzip -dc first.tsv.gz' second.ctb --resume --threads 3 </dev/null
    same "the first part, then a command and a block file with --resume"
done <<<"$table"

# Shards have other owners where there are more or fewer threads, and other places with a limit on memory.
name="trained by 4 threads"
model=(--model dcn-v2 --set 'deep=[16]' --set cross.layers=1)
run a --train log.tsv --threads 4 </dev/null
expected=$digest
run four --train first.tsv --threads 4 </dev/null
for threads in 1 3 7; do
    for limit in 0 48; do
        rm -rf on
        cp -r four on
        run on --train first.tsv second.tsv --resume --threads $threads --memory $limit </dev/null
        same "taken up by $threads, a limit of $limit MiB"
    done
done

[ "$(printf '%s\n' "${digests[@]}" | sort -u | wc -l)" -eq ${#digests[@]} ] || wrong "two models have the same digest"
echo "$compared digests compared"
[ $compared -ge 36 ] || wrong "fewer than meant"
finish
