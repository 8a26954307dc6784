#!/usr/bin/env bash
# Frozen vectors that are more than --memory: the same model, to the bit, as without a limit, also resumed; their memory is a file's, not
# anonymous; and `eval` and `serve` read them within a limit of their own, with the same scores.
TEST_WORK=${TEST_WORK:-${TEST_TMPDIR:-/tmp}} # on a disk
. tests/frame.sh

if ! /usr/bin/python3 -c 'import numpy' 2>/dev/null; then
    echo "SKIP: wide vectors are made with NumPy"
    exit 0
fi
limit=40 wide=640 items=20000 # 49 MiB
sanitized=$(ldd "$program" 2>/dev/null | grep -c 'libasan\|libtsan')
"$program" synth --rows 2048 --items $items --vectors items.npy --schema-out log.yaml --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 1024 log.tsv >half.tsv
model=(--schema log.yaml --model dnn --set 'deep=[4]' --set embedding.dim=4 --set embedding.min_count=1 --set vector.adapter=4 --batch 256)

# Peak of the anonymous memory of a training, in KiB, as sampled, in $peak.
train() { # ARGUMENT...
    "$program" train "${model[@]}" "$@" >out 2>err </dev/null &
    local child=$! now=0 key value
    peak=0
    while kill -0 $child 2>/dev/null; do
        while read -r key value _; do [ "$key" = RssAnon: ] && now=$value; done 2>/dev/null <"/proc/$child/status"
        [ "${now:-0}" -gt $peak ] && peak=$now
        read -rt 0.02 <> <(:) # a pause
    done
    wait $child || wrong "train $* ended with $?"
}
train --train half.tsv --out small
base=$peak
/usr/bin/python3 -c "
import numpy
narrow = numpy.load('items.npy')
wide = numpy.random.default_rng(1).standard_normal(($items, $wide), dtype=numpy.float32)
wide[:, :narrow.shape[1]] = narrow
numpy.save('items.npy', wide)"

echo "training"
train --train log.tsv --out free
wanted=$(digest free) free=$peak
[ -n "$wanted" ] || wrong "no digest"
train --train log.tsv --out held --memory $limit --threads 2
[ "$(digest held)" = "$wanted" ] || wrong "within a limit: digest $(digest held), should be $wanted"
echo "  anonymous memory: $(((free - base) / 1024)) MiB more than with a small table without a limit, $(((peak - base) / 1024)) with $limit"
if [ "$sanitized" -eq 0 ]; then
    [ $(((free - base) / 1024)) -gt $((items * wide * 4 / 1048576)) ] || wrong "the vectors are too few for this test"
    [ $(((peak - base) / 1024)) -le $limit ] || wrong "$limit MiB were promised"
fi
train --train half.tsv --out part --memory $limit --threads 1
train --train log.tsv --out part --memory $limit --resume
[ "$(digest part)" = "$wanted" ] || wrong "resumed: digest $(digest part), should be $wanted"
ls -A | grep -E 'live-|partial-|\.clicktower-' >left && wrong "left: $(cat left)"

echo "reading"
ct eval --model free --data half.tsv --predictions wanted.txt || wrong "eval"
for folder in free held; do
    ct eval --model $folder --data half.tsv --predictions got.txt --memory 24 || wrong "eval --memory"
    cmp -s got.txt wanted.txt || wrong "eval --memory of $folder: other predictions"
done
"$program" serve --model held --memory 24 --listen 127.0.0.1:0 --queue-ms 600000 >listening 2>log </dev/null &
server=$!
children+=("$server")
waiting="a server"
until grep -q '^listening on' listening 2>/dev/null; do
    kill -0 $server 2>/dev/null || break
    read -rt 0.05 <> <(:)
done
waiting=
address=$(sed -n 's/^listening on //p' listening)
[ -n "$address" ] || wrong "no server: $(tail -n 1 log)"
"$program" score --to "$address" --data half.tsv --schema log.yaml >got.txt 2>err </dev/null || wrong "score"
cmp -s got.txt wanted.txt || wrong "serve --memory: other scores"
kill -TERM $server
wait $server || wrong "the server ended with $?"
finish
