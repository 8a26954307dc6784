#!/usr/bin/python3
"""clicktower devices: it says what the kernel, the loader and the C library say.

Usage: devices_test.py PROGRAM
"""

import json
import os
import re
import shutil
import subprocess
import sys

PROGRAM = os.path.abspath(sys.argv[1])


def run(*command, **environment):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=dict(os.environ, **environment)).stdout


def devices(**environment):
    return json.loads(run(PROGRAM, "devices", "--json", **environment))


def main():
    said = devices()
    assert said["processors"] == os.sysconf("SC_NPROCESSORS_ONLN")
    assert said["processors_allowed"] == len(os.sched_getaffinity(0)) == said["uses"]["threads"]
    with open("/proc/cpuinfo") as file:
        cpuinfo = file.read()
    flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.M).group(1).split())
    assert set(said["instruction_sets"]) <= flags and (("avx2" in flags) == ("avx2" in said["instruction_sets"])), said
    assert ("avx512f" in flags) == ("avx512f" in said["instruction_sets"])
    with open("/proc/meminfo") as file:
        meminfo = dict(line.split(":") for line in file)
    assert said["memory_bytes"] == int(meminfo["MemTotal"].split()[0]) * 1024
    assert 0 < said["memory_available_bytes"] <= said["memory_bytes"]
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        assert f"[{said['huge_pages']}]" in file.read()
    assert said["uses"]["device"] == "cpu" and "no CUDA" in said["gpu"]

    # What the loader finds, as ldd tells it.
    files = {os.path.realpath(path) for path in re.findall(r"=> (\S+)", run("ldd", PROGRAM))}
    libraries = {library["name"]: library for library in said["libraries"]}
    for name in ("librocksdb", "libgrpc", "libdnnl", "libjansson", "libmicrohttpd", "libgnutls"):
        assert libraries[name]["file"] in files and libraries[name]["file"].endswith(".so." + libraries[name]["version"]), libraries[name]
    assert libraries["libc"]["version"] == os.confstr("CS_GNU_LIBC_VERSION").split()[-1]

    # Fewer processors, another instruction set.
    if shutil.which("taskset"):
        one = min(os.sched_getaffinity(0))
        only = json.loads(run("taskset", "-c", str(one), PROGRAM, "devices", "--json"))
        assert only["processors_allowed"] == only["uses"]["threads"] == 1 and only["processors"] == said["processors"], only
    if "avx2" in flags:
        older = devices(DNNL_MAX_CPU_ISA="AVX2")["uses"]
        assert older["instruction_set"] == "avx2" and older["precision"] == "fp32", older
    assert (said["uses"]["precision"] == "bf16") == ("avx512_bf16" in flags or "amx_bf16" in flags), said["uses"]

    text = run(PROGRAM, "devices").splitlines()
    assert f"memory_bytes {said['memory_bytes']}" in text and f"  threads {said['uses']['threads']}" in text, text


main()
