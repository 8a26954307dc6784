#!/usr/bin/env bash
# One writer, many readers: a second writer of a folder is refused at once with the first one's process id, readers beside the writer get
# one whole model each time, and what reads works from a file system that can't be written.
. tests/frame.sh

model=(--schema criteo --model dnn --set 'deep=[8]' --set embedding.dim=4 --batch 64)
"$program" synth --rows 3000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
"$program" train "${model[@]}" --train log.tsv --out model >out 2>err </dev/null || wrong "train"
[ -e model.lock ] && wrong "the lock's file is left"

echo "a second writer"
# It reads from a pipe that is never written, so it works for as long as it is wanted.
mkfifo never
"$program" train "${model[@]}" --train '|echo begun >begun; cat never' --out model >out 2>writer.err </dev/null &
writer=$!
children+=("$writer")
exec 3<>never
while [ ! -e begun ] && kill -0 "$writer"; do read -rt 0.02 <> <(:); done
for more in "" "--resume" "--memory 64"; do
    # shellcheck disable=SC2086 # the words of $more
    "$program" train "${model[@]}" --train log.tsv --out ./model/ $more >out 2>err </dev/null
    [ $? -eq 1 ] || wrong "a second writer was let in $more"
    tail -n 1 err | grep -qE "^clicktower train: ./model: process $writer writes it \(it holds ./model.lock\): wait until it ends" ||
        wrong "the last line does not name process $writer"
done
for verb in "eval --data log.tsv" "eval --data log.tsv --memory 16"; do
    # shellcheck disable=SC2086
    "$program" $verb --model model >out 2>err </dev/null || wrong "$verb beside the writer"
done
"$program" verify model >out 2>err || wrong "verify beside the writer"
kill -KILL "$writer"
wait "$writer" 2>/dev/null
writer=
exec 3>&-
"$program" train "${model[@]}" --train log.tsv --out model >out 2>err </dev/null || wrong "a writer after one that was killed"
[ -e model.lock ] && wrong "the lock's file is left after a kill"

echo "readers while the folder is replaced again and again"
# The log ends when enough was read.
"$program" train "${model[@]}" --train '|while [ ! -e enough ]; do cat log.tsv; done' --checkpoint-rows 192 --out model >out 2>writer.err </dev/null &
writer=$!
children+=("$writer")
before=$(stat -c %i model/manifest)
for ((reads = 0, others = 0; others < 3 || reads < 6; reads++)); do
    kill -0 "$writer" 2>/dev/null || { wrong "the writer ended"; break; }
    "$program" eval --model model --data log.tsv >eval.out 2>err </dev/null || wrong "reader $reads"
    now=$(stat -c %i model/manifest 2>/dev/null)
    [ "$now" = "$before" ] || others=$((others + 1))
    before=$now
    [ $failures -gt 3 ] && break
done
touch enough
wait "$writer" || wrong "the writer: $(tail -n 1 writer.err)"
writer=
echo "  $reads reads, beside which the folder was replaced $others times"

echo "a file system that can't be written"
"$program" eval --model model --data log.tsv --predictions wanted >/dev/null 2>err || wrong "eval"
"$program" train "${model[@]}" --train log.tsv --out other --publish followed --publish-rows 1024 >out 2>err </dev/null || wrong "publish"
"$program" eval --model other --data log.tsv --predictions wanted.followed >/dev/null 2>err || wrong "eval"
cat >readonly.sh <<'END'
mount --bind model mounted && mount -o remount,bind,ro mounted || exit 77
touch mounted/file 2>/dev/null && exit 77
failed() { echo "  FAILED: $*"; exit 1; }
"$1" eval --model mounted --data log.tsv --predictions got >/dev/null 2>err && cmp -s got wanted || failed "eval: $(tail -n 1 err)"
"$1" eval --model mounted --data log.tsv --predictions got --memory 16 >/dev/null 2>err && cmp -s got wanted ||
    failed "eval --memory: $(tail -n 1 err)"
"$1" inspect mounted >/dev/null 2>err || failed "inspect: $(tail -n 1 err)"
"$1" verify mounted >/dev/null 2>err || failed "verify: $(tail -n 1 err)"
for limit in 0 16; do
    rm -f serve.out # of the one before
    "$1" serve --model mounted --memory $limit --listen 127.0.0.1:0 --queue-ms 600000 >serve.out 2>err &
    server=$!
    while ! grep -qs '^listening on ' serve.out; do
        kill -0 $server 2>/dev/null || failed "serve: $(tail -n 1 err)"
        read -rt 0.02 <> <(:)
    done
    "$1" score --to "$(sed -n 's/^listening on //p' serve.out)" --data log.tsv --schema criteo >got 2>err || failed "score: $(tail -n 1 err)"
    cmp -s got wanted || failed "serve --memory $limit: other scores"
    kill $server
    wait $server || failed "serve ended with $?: $(tail -n 1 err)"
done
mount --bind followed mounted && mount -o remount,bind,ro mounted || failed "a second mount"
rm -f serve.out
"$1" serve --follow mounted --listen 127.0.0.1:0 --queue-ms 600000 >serve.out 2>err &
server=$!
while ! grep -qs '^listening on ' serve.out; do
    kill -0 $server 2>/dev/null || failed "serve --follow: $(tail -n 1 err)"
    read -rt 0.02 <> <(:)
done
"$1" score --to "$(sed -n 's/^listening on //p' serve.out)" --data log.tsv --schema criteo >got 2>err || failed "score: $(tail -n 1 err)"
cmp -s got wanted.followed || failed "serve --follow: other scores"
kill $server
wait $server || failed "serve --follow ended with $?"
END
mkdir mounted
unshare --user --map-root-user --mount bash readonly.sh "$program"
case $? in
    0) ;;
    77) echo "  SKIP: nothing can be mounted here" ;;
    *) wrong "from a read-only file system" ;;
esac

finish
