# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark's programs: making them, packing them for a guest, running them on the host."""

import os
import re
import shutil
import subprocess
import sys

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")
# Scalar means scalar, and vectors are what the compiler makes of plain C.
FLAGS = {"float": ["-O2", "-fno-tree-vectorize"], "vector": ["-O3"]}
NAMES = ("loop", "integer", "float", "vector", "memory", "kernel", "busybox")
# A program ends itself before (LIMIT_S of bench.c).
LIMIT_S = 120


class BenchError(Exception):
    """The benchmark cannot go on; the text says why."""


def build(folder):
    """The programs, static, in folder/bench."""
    out = os.path.join(folder, "bench")
    os.mkdir(out)
    for name in NAMES:
        command = ["gcc", "-std=gnu17", *FLAGS.get(name, ["-O2"]), "-static", "-o",
                   os.path.join(out, name), os.path.join(SOURCE, f"{name}.c"),
                   os.path.join(SOURCE, "bench.c"), "-lm"]
        if subprocess.run(command, check=False).returncode:
            raise BenchError(f"cannot compile bench/guest/{name}.c")


def pack(folder, guest_initrd):
    """An initrd that holds the guest's own and the programs in /bench."""
    names = "\n".join(["bench"] + [f"bench/{name}" for name in NAMES]) + "\n"
    packed = subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=folder,
                            input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
    path = os.path.join(folder, "initrd.cpio")
    with open(path, "wb") as out, open(guest_initrd, "rb") as first:
        shutil.copyfileobj(first, out)
        # Each archive begins at a multiple of four bytes.
        out.write(b"\0" * (-out.tell() % 4))
        out.write(packed)
    return path


def extract_busybox(folder, guest_initrd):
    """The guest's own busybox, to be run on the host."""
    with open(guest_initrd, "rb") as archive:
        subprocess.run(["cpio", "-i", "-d", "--quiet", "bin/busybox"], cwd=folder, stdin=archive,
                       check=True)
    return os.path.join(folder, "bin", "busybox")


def parse(row, text):
    """(value, result) of a row in a program's output; None where it printed no such row."""
    found = re.search(rf"^{row.key} (\S+) {re.escape(row.unit)} ([0-9a-f]+)\s*$", text,
                      re.MULTILINE)
    return (float(found.group(1)), found.group(2)) if found else None


def run_row(folder, row, busybox, processors):
    """A row on the host's processors of that set; None where it failed or cannot be had."""
    environment = dict(os.environ, BUSYBOX=busybox)
    command = [os.path.join(folder, "bench", row.program), row.key]
    try:
        done = subprocess.run(["taskset", "-c", ",".join(map(str, processors)), *command],
                              capture_output=True, text=True, env=environment, timeout=LIMIT_S,
                              check=False)
    except subprocess.TimeoutExpired:
        print(f"bench: native: {row.key}: no result within {LIMIT_S} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"bench: native: {row.key}: status {done.returncode}: {done.stderr.strip()}",
              file=sys.stderr)
    return parse(row, done.stdout)


def session(folder, rows, busybox, cpus):
    """All rows of programs on as many of the host's processors; {key: (value, result)}."""
    processors = sorted(os.sched_getaffinity(0))[:cpus]
    found = {row.key: run_row(folder, row, busybox, processors) for row in rows if row.program}
    return {key: value for key, value in found.items() if value}
