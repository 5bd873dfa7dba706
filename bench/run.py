#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Speed and size of skep, beside QEMU where that is installed, as ratios of one run.

    run.py BUILD [--rounds N] [--json FILE]

Each round boots the small guest of `make run` in skep's software processor and in QEMU's (TCG),
turn and turn about; medians over the rounds are printed. The integer loop also runs on the host.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))
from guest import Guest, guest_folder  # noqa: E402

MEMORY_MIB = 512
LOOP_MILLIONS = 400
INIT_MARK = re.compile(rb"Run /init as init process")


def build_loop(folder):
    """The integer loop as a static program, and an initrd that holds it."""
    program = os.path.join(folder, "integer")
    subprocess.run(["gcc", "-O2", "-static", "-o", program,
                    os.path.join(ROOT, "bench/guest/integer.c")], check=True)
    initrd = os.path.join(folder, "bench.cpio")
    with open(initrd, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"integer\n", stdout=out,
                       cwd=folder, check=True)
    return program, initrd


def resident_kib(pid):
    """(all, shared memory that is the guest's) of a process, in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0]), int(fields["RssShmem"].split()[0])


def guest_kib(pid, size_kib):
    """What of the guest's memory is resident: the mappings that are as large as it."""
    total = 0
    with open(f"/proc/{pid}/smaps", encoding="ascii") as file:
        size = 0
        for line in file:
            if line.startswith("Size:"):
                size = int(line.split()[1])
            elif line.startswith("Rss:") and size >= size_kib // 2:
                total += int(line.split()[1])
    return total


def measure(command):
    """One boot: seconds to init, the loop's speed, memory beyond the guest's."""
    result = {}
    start = time.monotonic()
    with Guest(command, limit_s=600) as guest:
        guest.wait_for(INIT_MARK)
        result["boot_to_init_s"] = time.monotonic() - start
        guest.wait_prompt()
        guest.run("dmesg -n 1")
        result["boot_to_prompt_s"] = time.monotonic() - start
        _, text = guest.run(f"/integer {LOOP_MILLIONS}", 600)
        # The kernel may still say something of its own on the console.
        instructions, seconds = re.search(r"^(\d+) (\d+\.\d+) ", text, re.MULTILINE).groups()
        result["integer_mips"] = int(instructions) / float(seconds) / 1e6
        everything, _ = resident_kib(guest.process.pid)
        result["memory_beyond_guest_mib"] = (
            everything - guest_kib(guest.process.pid, MEMORY_MIB * 1024)) / 1024
        off = time.monotonic()
        guest.send("poweroff\n")
        guest.wait_exit()
        result["power_off_s"] = time.monotonic() - off
    return result


def commands(build, files, extra):
    """The two contestants; QEMU only where it is installed."""
    initrd = os.path.join(os.path.dirname(extra), "both.cpio")
    with open(initrd, "wb") as out:
        for name in (f"{files}/initrd.cpio", extra):
            with open(name, "rb") as part:
                shutil.copyfileobj(part, out)
    found = {"skep": [f"{build}/skep", "-q", "run", "--engine", "soft", "-m", f"{MEMORY_MIB}M",
                      "--kernel", f"{files}/vmlinuz", "--initrd", initrd,
                      "--cmdline", "console=ttyS0"]}
    if shutil.which("qemu-system-x86_64"):
        found["qemu"] = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35",
                         "-m", f"{MEMORY_MIB}M", "-display", "none", "-serial", "stdio",
                         "-monitor", "none", "-kernel", f"{files}/vmlinuz", "-initrd", initrd,
                         "-append", "console=ttyS0", "-nic", "user,model=virtio-net-pci"]
    return found


def libraries(program):
    """(bytes of the program, bytes of the libraries that it loads)."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = {os.path.realpath(path) for path in re.findall(r"(/\S+)", listing)}
    return os.path.getsize(program), sum(os.path.getsize(path) for path in paths)


def stripped_bytes(program, folder):
    """The program's size as it is installed by a package."""
    copy = os.path.join(folder, "stripped")
    subprocess.run(["strip", "-o", copy, program], check=True)
    return os.path.getsize(copy)


ROWS = [
    ("boot_to_init_s", "boot to init, s", True),
    ("boot_to_prompt_s", "boot to prompt, s", True),
    ("power_off_s", "power off, s", True),
    ("integer_mips", "integer loop, M instructions/s", False),
    ("memory_beyond_guest_mib", "memory beyond the guest's, MiB", True),
]


def print_table(medians, native_mips):
    """A row per measure; the ratio is how much better skep is."""
    print(f"{'':36}{'skep':>10}{'qemu':>10}{'ratio':>8}{'native':>10}")
    for key, title, less_is_better in ROWS:
        skep = medians["skep"][key]
        line = f"{title:36}{skep:10.2f}"
        if "qemu" in medians:
            qemu = medians["qemu"][key]
            line += f"{qemu:10.2f}{(qemu / skep if less_is_better else skep / qemu):8.2f}"
        else:
            line += f"{'-':>10}{'-':>8}"
        print(line + (f"{native_mips:10.0f}" if key == "integer_mips" else ""))


def main():
    parser = argparse.ArgumentParser(description="skep beside QEMU")
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as folder:
        files = guest_folder(ROOT)
        program, extra = build_loop(folder)
        contestants = commands(arguments.build, files, extra)
        results = {name: [] for name in contestants}
        for number in range(arguments.rounds):
            for name, command in contestants.items():
                print(f"bench: round {number + 1} of {arguments.rounds}: {name}", file=sys.stderr)
                results[name].append(measure(command))
        native = subprocess.run([program, str(LOOP_MILLIONS)], capture_output=True, text=True,
                                check=True).stdout.split()
        native_mips = int(native[0]) / float(native[1]) / 1e6
        medians = {name: {key: statistics.median(r[key] for r in rounds) for key, _, _ in ROWS}
                   for name, rounds in results.items()}
        print_table(medians, native_mips)
        for name in contestants:
            path = f"{arguments.build}/skep" if name == "skep" else shutil.which(contestants[name][0])
            _, shared = libraries(path)
            print(f"{name}: program {stripped_bytes(path, folder) / 1024:.0f} KiB stripped, "
                  f"its libraries {shared / 1024:.0f} KiB")
        if arguments.json:
            with open(arguments.json, "w", encoding="ascii") as out:
                json.dump({"medians": medians, "native_mips": native_mips}, out, indent=2)


if __name__ == "__main__":
    main()
