# What the tests in shell share. Sourced first, in the folder that Bazel runs tests in:
#     . tests/frame.sh
# gives the program and a folder of the test's own, which is the current one from then on and goes when the test ends. `wrong` says what is
# wrong and goes on; a test ends with `finish`.
# shellcheck shell=bash
set -u

root=$PWD
program=$root/tools/clicktower
work=${TEST_WORK:-} # folders are synced often, which costs nothing in memory
[ -n "$work" ] || { [ -w /dev/shm ] && work=/dev/shm || work=${TEST_TMPDIR:-/tmp}; }
work=$(mktemp -d "$work/$(basename "$0" .sh).XXXXXX")
cd "$work" || exit 1
children=() # process ids; killed at the end
clean_up() {
    local child
    for child in ${children[@]+"${children[@]}"}; do kill -KILL "$child" 2>/dev/null; done
    rm -rf "$work"
}
trap clean_up EXIT
waiting= # for what; said where a test that hangs is stopped
trap 'echo "stopped${waiting:+ while it waited for $waiting}"; exit 1' TERM

failures=0
wrong() {
    failures=$((failures + 1))
    echo "  FAILED: $*"
    [ -s err ] && tail -n 2 err
    return 0
}
# One case of several: a function.
run_case() {
    local before=$failures began=$SECONDS
    "$1"
    if [ $failures -eq "$before" ]; then echo "[       OK ] $1 ($((SECONDS - began)) s)"; else echo "[  FAILED  ] $1"; fi
}
finish() {
    [ $failures -eq 0 ] || echo "$failures wrong"
    exit $((failures > 0))
}

# Runs the program; its output is in out and err, its exit code in $code.
ct() {
    "$program" "$@" >out 2>err </dev/null
    code=$?
}
# expect CODE PATTERN ARGUMENT...: the exit code; PATTERN somewhere in what it says, and for a failure in its last line.
expect() {
    local wanted=$1 pattern=$2 last
    shift 2
    ct "$@"
    [ "$code" -eq "$wanted" ] || wrong "clicktower $*: exit code $code, expected $wanted"
    if [ "$wanted" -eq 0 ]; then
        cat out err | grep -qE -- "$pattern" || wrong "clicktower $*: nothing says '$pattern'"
    else
        last=$(tail -n 1 err)
        [[ $last == "clicktower"*": "* ]] || wrong "clicktower $*: the last line does not begin with the program's name: $last"
        grep -qE -- "$pattern" <<<"$last" || wrong "clicktower $*: the last line does not say '$pattern': $last"
    fi
}
# has FILE PATTERN
has() { grep -qE -- "$2" "$1" || { wrong "nothing like '$2' in $1:"; sed 's/^/    /' "$1" | head -n 20; }; }
# The digest of a model folder; nothing where it can't be read.
digest() { "$program" verify "$1" 2>>err | sed -n 's/^digest //p'; }
# needs_browser NAME: goes on where there is one; else test NAME is skipped, and it says why. The browser's own files go into the folder.
needs_browser() {
    local why=
    /usr/bin/python3 -c 'import selenium' 2>/dev/null || why="python3-selenium is not installed"
    command -v chromedriver >/dev/null || why="chromedriver (package chromium-driver) is not installed"
    command -v chromium >/dev/null || why="chromium is not installed"
    export HOME=$work
    [ -n "$why" ] || return 0
    echo "SKIP: $why"
    echo "[  SKIPPED ] $1"
    exit 0
}
