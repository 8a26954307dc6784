#!/usr/bin/env bash
# Sources of the command line: a command gives the model that its file gives and is run again for each pass, one that fails fails the run
# and one that never ends is ended; a device as output stays one; memory does not grow with the log.
. tests/frame.sh

model=(--schema criteo --model lr --batch 256 --epochs 2)
train() { "$program" train "${model[@]}" "$@" >out 2>err </dev/null; }

"$program" synth --rows 6000 --seed 3 --out log.tsv >/dev/null 2>err || wrong "synth"
head -n 2500 log.tsv >first.tsv
tail -n +2501 log.tsv | gzip >second.tsv.gz
train --train log.tsv --out whole || wrong "from the file"
expected=$(digest whole)
[ -n "$expected" ] || wrong "no digest"

commands_give_the_model_of_their_file() {
    train --train '|echo run >>runs; cat log.tsv' --out command || wrong "from a command"
    [ "$(digest command)" = "$expected" ] || wrong "a command gives another model"
    [ "$(wc -l <runs)" -eq 2 ] || wrong "the command ran $(wc -l <runs) times in 2 epochs"
    train --train first.tsv '|gzip -dc second.tsv.gz | gzip -1' --out mixed || wrong "from a file and a command"
    [ "$(digest mixed)" = "$expected" ] || wrong "a file and a command give another model"
    train --train first.tsv second.tsv.gz --out files || wrong "from two files"
    [ "$(digest files)" = "$expected" ] || wrong "two files give another model"
    command -v zstd >/dev/null || { echo "SKIP: no zstd to pack a log with"; return; }
    zstd -q log.tsv -o log.tsv.zst
    train --train log.tsv.zst --out zstd || wrong "from zstd"
    [ "$(digest zstd)" = "$expected" ] || wrong "zstd gives another model"
}

a_failing_command_fails_the_run() {
    train --train '|cat first.tsv; exit 7' --out never && wrong "exit status 7 is no failure"
    grep -q "command 'cat first.tsv; exit 7': exit status 7" err || wrong "the exit status is not told"
    train --train '|cat first.tsv; kill -9 $$' --out never && wrong "a signal is no failure"
    grep -q "ended by signal 9" err || wrong "the signal is not told"
    train --train '|head -c 50000 second.tsv.gz' --out never && wrong "a cut .gz is no failure"
    grep -q "cut gzip data" err || wrong "the cut is not told"
    [ ! -e never ] || wrong "a failed run has written a folder"
}

# All that the command starts holds a pipe open: it is closed when the last of it has ended. The run is stopped while it waits for more.
a_stop_ends_the_command() {
    mkfifo held
    : >ready # `tail` may come before `cat`
    timeout 600 cat held >ready &
    local reader=$!
    "$program" convert --schema criteo --in '|exec 3>held; cat first.tsv; echo ready >&3; sleep 1000 | cat' --out never.ctb >out 2>err \
        </dev/null &
    local child=$!
    timeout 600 tail -f -n +1 --pid=$child ready | read -r _
    kill -INT $child
    wait $child
    [ $? -eq 1 ] || wrong "the exit code of a stopped run"
    grep -q "stopped by SIGINT" err || wrong "no word of the stop"
    wait $reader || wrong "the command goes on"
    [ ! -e never.ctb ] || wrong "a stopped run has written a file"
}

# By a link, so that a program that gets this wrong takes away the link only.
a_device_stays_one() {
    ln -s /dev/null nothing
    "$program" convert --schema criteo --in log.tsv --out nothing >out 2>err || wrong "convert to nothing"
    grep -q "^rows 6000$" out || wrong "the rows that were read"
    [ -L nothing ] && [ -c nothing ] || wrong "the device was replaced"
}

memory_does_not_grow_with_the_log() {
    cat >memory.py <<'END'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
END
    local small large
    small=$(/usr/bin/python3 memory.py "$program" convert --schema criteo --in '|for i in $(seq 10); do cat log.tsv; done' --out nothing 2>err)
    large=$(/usr/bin/python3 memory.py "$program" convert --schema criteo --in '|for i in $(seq 200); do cat log.tsv; done' --out nothing 2>err)
    echo "peak of 60,000 rows $small KiB, of 1,200,000 rows $large KiB"
    [ "${large:-999999}" -lt $((128 * 1024)) ] || wrong "reading takes more than 128 MiB"
    [ "$large" -lt $((small + 12 * 1024)) ] || wrong "memory grows with the log"
}

for case in commands_give_the_model_of_their_file a_failing_command_fails_the_run a_stop_ends_the_command a_device_stays_one \
    memory_does_not_grow_with_the_log; do
    run_case $case
done
finish
