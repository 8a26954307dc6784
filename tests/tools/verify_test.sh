#!/usr/bin/env bash
# What verify says of damaged files: every one of them, and in its last line which one, or how many, and what to do.
. tests/frame.sh

flip() { printf '\377' | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }

make_files() {
    expect 0 "" synth --rows 1000 --seed 3 --out log.tsv
    expect 0 "" train --schema criteo --model lr --batch 256 --train log.tsv --out model --publish pub --publish-rows 256
    expect 0 "" convert --schema criteo --in log.tsv --out log.ctb
    for good in model pub log.ctb; do expect 0 "^digest [0-9a-f]{32}$" verify $good; done
}

a_damaged_file_is_named() {
    cp -r model one
    truncate -s 100 one/tower.safetensors
    expect 1 "^clicktower verify: one/tower.safetensors: 100 bytes, where the manifest says [0-9]+; copy the folder again$" verify one
    cp model/tower.safetensors one/
    flip one/tower.safetensors 700
    expect 1 "^clicktower verify: one/tower.safetensors: checksum [0-9a-f]+, where the manifest says [0-9a-f]+; copy the folder again$" \
        verify one
    rm one/tower.safetensors
    expect 1 "^clicktower verify: one/tower.safetensors: the manifest lists it, and it is not there; copy the folder again$" verify one
    rm -r one
    cp log.ctb bad.ctb
    flip bad.ctb 5000
    expect 1 "bad.ctb: block 1: its checksum does not fit; copy the file, or convert the log, again$" verify bad.ctb
}

several_are_listed_and_counted() {
    cp -r model several
    local count
    count=$(find several -type f ! -path several/manifest | wc -l)
    rm several/schema.yaml
    echo >>several/tower.safetensors
    echo >several/tables/CURRENT
    expect 1 "^clicktower verify: several: 3 of $count files are not what was written.*; copy the folder again$" verify several
    for file in schema.yaml tower.safetensors tables/CURRENT; do
        [ "$(grep -c "^clicktower verify: problem: several/$file: " err)" -eq 1 ] || wrong "$file is not listed once"
    done
    [ "$(wc -l <err)" -eq 4 ] || wrong "other lines"
}

so_is_a_publish_folder() {
    cp -r pub copy
    flip copy/delta-000000000002.ctd 300
    expect 1 "^clicktower verify: copy/delta-000000000002.ctd: .*; copy the file again$" verify copy
    flip copy/delta-000000000003.ctd 300
    rm copy/base-000000000000/model.yaml
    expect 1 "^clicktower verify: copy: 3 of [0-9]+ files are not what was written" verify copy
    for file in base-000000000000/model.yaml delta-000000000002.ctd delta-000000000003.ctd; do
        has err "^clicktower verify: problem: copy/$file: "
    done
}

run_case make_files
run_case a_damaged_file_is_named
run_case several_are_listed_and_counted
run_case so_is_a_publish_folder
finish
