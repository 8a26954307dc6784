#!/usr/bin/env bash
# The scripts of tools/: what setup says and installs on made-up systems, what the summary of tests counts, completion, wrong use.
. tests/frame.sh
tools=$root/tools

# expect CODE COMMAND...: output in out and err.
expect() {
    local wanted=$1
    shift
    "$@" >out 2>err
    local code=$?
    [ "$code" -eq "$wanted" ] || { wrong "$*: exit code $code, expected $wanted"; cat out err; }
}

# A system of our own: the few programs that setup uses, and stand-ins for the package tools. Packages in the file `missing` are not there.
make_system() {
    rm -rf bin
    mkdir bin
    for program in bash env cat mktemp tail rm dirname grep; do ln -s "$(command -v $program)" bin/; done
    printf '#!/bin/bash\necho "${FAKE_ID:-0}"\n' >bin/id
    cat >bin/dpkg-query <<'END'
#!/bin/bash
if grep -qx -- "${!#}" "$SYSTEM/missing"; then exit 1; fi
printf installed
END
    cat >bin/apt-get <<'END'
#!/bin/bash
echo "$DEBIAN_FRONTEND apt-get $*" >>"$SYSTEM/calls"
if [ "$1" = install ]; then [ -z "${APT_FAILS:-}" ] || { echo "E: no such mirror"; exit 100; }; fi
END
    chmod +x bin/*
    : >missing
    : >calls
}
on_system() { SYSTEM=$work PATH=$work/bin "$@"; }

setup_installs_only_what_is_missing() {
    make_system
    expect 0 on_system "$tools/setup"
    has out "all [0-9]+ packages are there"
    [ -s calls ] && wrong "apt-get was called for nothing: $(cat calls)"
    printf 'libcyaml-dev\nlibisal-dev\n' >missing
    expect 1 on_system "$tools/setup" --check
    has err "2 of [0-9]+ packages are missing: libcyaml-dev libisal-dev"
    [ -s calls ] && wrong "--check called apt-get: $(cat calls)"
    expect 0 on_system "$tools/setup"
    has out "installing 2 packages: libcyaml-dev libisal-dev"
    has calls "^noninteractive apt-get update$"
    has calls "^noninteractive apt-get install -y --no-install-recommends libcyaml-dev libisal-dev$"
}

setup_says_why_it_cannot() {
    make_system
    echo gcc >missing
    export FAKE_ID=1000
    expect 1 on_system "$tools/setup"
    has err "not root and no sudo: as root, run apt-get install gcc$"
    printf '#!/bin/bash\necho sudo >>"$SYSTEM/calls"\nexec "$@"\n' >bin/sudo
    chmod +x bin/sudo
    expect 0 on_system "$tools/setup"
    has calls "^sudo$"
    unset FAKE_ID
    export APT_FAILS=1
    expect 1 on_system "$tools/setup"
    has err "E: no such mirror"
    has err "apt-get install failed"
    unset APT_FAILS
    rm bin/dpkg-query
    expect 1 on_system "$tools/setup"
    has err "no Debian system"
    expect 2 "$tools/setup" --chekc
}

# event LABEL STATUS: one line of Bazel's events, with the log LABEL.log.
event() {
    local list=passed
    [ "$2" = PASSED ] || list=failed
    printf '{"id":{"testSummary":{"label":"%s"}},"testSummary":{"overallStatus":"%s","%s":[{"uri":"file://%s"}]}}\n' "$1" "$2" $list \
        "$work/${1##*:}.log"
}

summary_counts_cases() {
    cat >cmocka.log <<'END'
[==========] Running 4 test(s).
[ RUN      ] a
[       OK ] a
[ RUN      ] b
[  FAILED  ] b
[ RUN      ] c
SKIP: there is no moon
[  SKIPPED ] c
[ RUN      ] d
[       OK ] d
[==========] 4 test(s) run.
[  PASSED  ] 2 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] c
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] b
END
    echo "nothing that can be counted" >plain.log
    printf 'Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=1, skipped=1)\n' >python.log
    printf '[ RUN      ] x\n[       OK ] x\n' >crash.log
    { event //a:cmocka FAILED; event //a:plain PASSED; } >one.json
    expect 1 /usr/bin/python3 "$tools/test_summary.py" one=one.json:3
    [ "$(tail -n 1 out)" = "3 passed, 1 failed, 1 skipped" ] || wrong "last line: $(tail -n 1 out)"
    has out "one //a:cmocka: SKIP: there is no moon"
    has out "one //a:cmocka: b$"
    { event //a:python FAILED; event //a:crash FAILED; } >two.json
    expect 1 /usr/bin/python3 "$tools/test_summary.py" one=one.json:3 two=two.json:3 --case "x y=passed"
    [ "$(tail -n 1 out)" = "7 passed, 4 failed, 2 skipped" ] || wrong "last line: $(tail -n 1 out)"
    event //a:plain PASSED >good.json
    expect 0 /usr/bin/python3 "$tools/test_summary.py" good=good.json:0
    [ "$(tail -n 1 out)" = "1 passed, 0 failed" ] || wrong "last line: $(tail -n 1 out)"
}

summary_counts_a_log() {
    printf '[       OK ] a_fuzz (12608 inputs in 5 s, corpus of 91)\n[  FAILED  ] b_fuzz (cannot be built)\n1 passed, 1 failed\n' >fuzz.log
    expect 1 /usr/bin/python3 "$tools/test_summary.py" --log "fuzz=fuzz.log:1"
    [ "$(tail -n 1 out)" = "1 passed, 1 failed" ] || wrong "last line: $(tail -n 1 out)"
    has out "fuzz: b_fuzz$"
    echo "SKIP: no clang (tools/setup installs it)" >fuzz.log
    expect 0 /usr/bin/python3 "$tools/test_summary.py" --log "fuzz=fuzz.log:0"
    [ "$(tail -n 1 out)" = "0 passed, 0 failed, 1 skipped" ] || wrong "last line: $(tail -n 1 out)"
    has out "fuzz: SKIP: no clang"
    : >fuzz.log
    expect 1 /usr/bin/python3 "$tools/test_summary.py" --log "fuzz=fuzz.log:2"
    [ "$(tail -n 1 out)" = "0 passed, 1 failed" ] || wrong "last line: $(tail -n 1 out)"
}

summary_never_takes_a_broken_build_for_success() {
    event //a:plain PASSED >good.json
    expect 1 /usr/bin/python3 "$tools/test_summary.py" good=good.json:1
    [ "$(tail -n 1 out)" = "1 passed, 1 failed" ] || wrong "last line: $(tail -n 1 out)"
    expect 1 /usr/bin/python3 "$tools/test_summary.py" none=nowhere.json:1
    [ "$(tail -n 1 out)" = "0 passed, 1 failed" ] || wrong "last line: $(tail -n 1 out)"
    event //a:plain TIMEOUT >late.json
    expect 1 /usr/bin/python3 "$tools/test_summary.py" late=late.json:3
    has out "//a:plain: timeout"
    expect 1 /usr/bin/python3 "$tools/test_summary.py" good=good.json:0 --case "digest=failed"
    [ "$(tail -n 1 out)" = "1 passed, 1 failed" ] || wrong "last line: $(tail -n 1 out)"
}

completion_knows_verbs_and_options() {
    # shellcheck disable=SC1091
    source "$tools/completion.bash"
    # shellcheck disable=SC2034
    COMP_WORDS=(clicktower tr) COMP_CWORD=1
    _clicktower "$tools/clicktower" tr
    [ "${COMPREPLY[*]}" = train ] || wrong "tr: ${COMPREPLY[*]}"
    # shellcheck disable=SC2034
    COMP_WORDS=(clicktower train --ep) COMP_CWORD=2
    _clicktower "$tools/clicktower" --ep
    [ "${COMPREPLY[*]}" = --epochs ] || wrong "--ep: ${COMPREPLY[*]}"
}

scripts_refuse_what_they_do_not_know() {
    expect 2 "$tools/test" --fats
    has err "unknown option '--fats'"
    expect 2 "$tools/demo" --fast
    has err "unknown option '--fast'"
    expect 1 "$tools/demo" nowhere.tsv
    has err "nowhere.tsv: no such file"
    CLICKTOWER_DEMO_ROWS=ten expect 2 "$tools/demo"
    expect 2 "$tools/compile-commands" --fast
    for script in setup test demo compile-commands; do
        expect 0 "$tools/$script" --help
        has out "^Usage: tools/$script"
    done
}

for case in setup_installs_only_what_is_missing setup_says_why_it_cannot summary_counts_cases summary_counts_a_log summary_never_takes_a_broken_build_for_success \
    completion_knows_verbs_and_options scripts_refuse_what_they_do_not_know; do
    run_case $case
done
finish
