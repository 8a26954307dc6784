#!/usr/bin/env bash
# clients/python is built as pip builds it, and imported from where it went. Skips where Debian's python3-setuptools is not there.
set -u
fail() {
    echo "$1"
    exit 1
}
if ! /usr/bin/python3 -c 'import setuptools, sys; sys.exit(int(setuptools.__version__.split(".")[0]) < 61)' 2>/dev/null; then
    echo "SKIP: python3-setuptools is not installed, or is older than 61"
    exit 0
fi
work=$(mktemp -d "${TEST_TMPDIR:-/tmp}/package.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/clients" "$work/proto"
cp -rL clients/python "$work/clients/" && cp -L proto/clicktower.proto "$work/proto/" || fail "copy"
chmod -R u+w "$work"
(cd "$work/clients/python" && /usr/bin/python3 setup.py -q build --build-base "$work/build" >"$work/log" 2>&1) || fail "$(cat "$work/log")"
[ -s "$work/build/lib/clicktower/clicktower_pb2.py" ] || fail "no messages were made: $(find "$work/build")"
(cd / && PYTHONPATH=$work/build/lib PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c '
import clicktower, importlib.metadata
from clicktower import clicktower_pb2
assert clicktower.Client and clicktower_pb2.ScoreRequest().ByteSize() == 0') || fail "the built package cannot be imported"
(cd "$work/clients/python" && /usr/bin/python3 setup.py --name --version 2>/dev/null | tail -n 2 | tr '\n' ' ' | grep -qx 'clicktower 0.1.0 ') ||
    fail "name and version"
echo "the package builds"
