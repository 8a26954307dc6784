#!/bin/sh
# embed.sh HEADER NAME=FILE...: C source on standard output that holds each file's bytes as NAME[] and their number as NAME_bytes; HEADER
# declares them.
set -eu
echo "#include \"$1\""
shift
for pair; do
    name=${pair%%=*} file=${pair#*=}
    if [ ! -s "$file" ]; then
        echo "$file is missing or empty: tools/setup installs what the build needs (libjs-chart.js)" >&2
        exit 1
    fi
    echo "const unsigned char ${name}[] = {"
    od -An -v -tu1 -w32 "$file" | sed 's/  *\([0-9][0-9]*\)/\1,/g'
    echo "};"
    echo "const size_t ${name}_bytes = sizeof ${name};"
done
