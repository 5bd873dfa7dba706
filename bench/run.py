#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Speed and size of skep, beside QEMU where that is installed and beside the host itself.

    run.py [BUILD] [--skep PROGRAM] [--skep-options KEY=VALUE,…] [--cpus 1,2] [--rounds N]
           [--rows REGEX] [--debian] [--json FILE]

Each round boots the small guest of `make run` in skep's software processor and in QEMU's (TCG) and
runs the programs of bench/guest in both, then the same static programs natively, turn and turn
about. Medians over the rounds are printed, and how many times as fast skep is as QEMU and the host
as skep. The exit status is 0 when all rows were measured and all results agree.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import guests
import native
import rows as bench_rows
import table
from native import BenchError

QEMU = "qemu-system-x86_64"


def script_output(name):
    """What a script of guest/ printed: the folder of what it made."""
    made = subprocess.run([os.path.join(guests.ROOT, "guest", name)], stdout=subprocess.PIPE,
                          check=False, text=True)
    if made.returncode:
        raise BenchError(f"guest/{name} failed")
    return made.stdout.strip()


def parse_arguments():
    parser = argparse.ArgumentParser(description="skep beside QEMU and the host")
    parser.add_argument("build", nargs="?", default="build", help="the build folder (build)")
    parser.add_argument("--skep", metavar="PROGRAM", help="skep's program (BUILD/skep)")
    parser.add_argument("--skep-options", metavar="KEY=VALUE,…", default="",
                        help="options of its engine, as translator=on")
    parser.add_argument("--cpus", type=cpu_list, default=[1, 2], metavar="N,…",
                        help="numbers of processors, as 1 or 1,2 (1,2)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N",
                        help="how often all is measured (3)")
    parser.add_argument("--rows", type=pattern, default=pattern(""), metavar="REGEX",
                        help="only rows of which this is found in the name")
    parser.add_argument("--debian", action="store_true",
                        help="also a Debian to its login prompt (made if missing: minutes)")
    parser.add_argument("--no-qemu", action="store_true", help="skep and the host only")
    parser.add_argument("--json", metavar="FILE", help="write all values there")
    return parser.parse_args()


def positive(text):
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise argparse.ArgumentTypeError(f"not a number from 1: {text}")
    return int(text)


def cpu_list(text):
    return [positive(word) for word in text.split(",")]


def pattern(text):
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from error


class Bench:
    """What stays the same over all rounds."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.folder = folder
        self.engine = ",".join(["soft"] + [arguments.skep_options] * bool(arguments.skep_options))
        program = arguments.skep or os.path.join(arguments.build, "skep")
        if not os.access(program, os.X_OK):
            raise BenchError(f"cannot run {program}: build skep first, or name it by --skep")
        self.contestants = {"skep": (os.path.abspath(program), guests.skep_command)}
        if not arguments.no_qemu and shutil.which(QEMU):
            self.contestants["qemu"] = (shutil.which(QEMU), guests.qemu_command)
        elif not arguments.no_qemu:
            print(f"bench: {QEMU} is not installed: nothing to compare with", file=sys.stderr)
        files = script_output("build.sh")
        self.debian_files = script_output("debian.sh") if arguments.debian else None
        native.build(folder)
        self.busybox = native.extract_busybox(folder, f"{files}/initrd.cpio")
        initrd = native.pack(folder, f"{files}/initrd.cpio")
        self.machine = guests.small_machine(files, initrd)

    def guest_values(self, name, cpus, rows):
        """What one contestant reaches in one round."""
        program, command = self.contestants[name]

        def make(machine):
            return command(program, self.engine, cpus, machine)

        found = {}
        if guests.needs_guest(rows):
            found = guests.Session(name, make(self.machine), rows).run()
        if any(row in bench_rows.UEFI for row in rows):
            seconds = guests.uefi_to_shell(name, make, self.folder)
            if seconds:
                found["uefi_to_shell"] = (seconds, None)
        if any(row in bench_rows.DEBIAN for row in rows):
            seconds = guests.debian_to_login(name, make, self.debian_files, self.folder)
            if seconds:
                found["debian_to_login"] = (seconds, None)
        return found

    def round(self, cpus, rows):
        """One round of all: {contestant: {key: (value, result)}}."""
        found = {}
        for name in self.contestants:
            print(f"bench:   {name}", file=sys.stderr)
            found[name] = self.guest_values(name, cpus, rows)
        print("bench:   native", file=sys.stderr)
        found["native"] = native.session(self.folder, rows, self.busybox, cpus)
        return found

    def print_sizes(self):
        """The sizes of the contestants' programs."""
        print()
        for name, (program, _) in self.contestants.items():
            print(f"{name}: program {guests.stripped_bytes(program, self.folder) / 1024:.0f} KiB "
                  f"stripped, its libraries {guests.libraries_bytes(program) / 1024:.0f} KiB")


def missing(rounds, rows, contestants):
    """The rows that a contestant never gave, as lines of text."""
    lines = []
    for name in [*contestants, "native"]:
        keys = [row.key for row in rows if (name != "native" or (row.program and row.native)) and
                not any(row.key in one.get(name, {}) for one in rounds)]
        if keys:
            lines.append(f"{name} has no {', '.join(keys)}")
    return lines


def measure(bench, cpus):
    """All rounds with so many processors: the table as lines, its rounds, whether all is well."""
    arguments = bench.arguments
    rows = bench_rows.chosen(arguments.rows, cpus, arguments.debian)
    if not rows:
        raise BenchError(f"no row has {arguments.rows.pattern!r} in its name")
    rounds = []
    for count in range(arguments.rounds):
        print(f"bench: {cpus} processor(s), round {count + 1} of {arguments.rounds}",
              file=sys.stderr)
        rounds.append(bench.round(cpus, rows))
    lines = table.table_lines(rows, table.medians(rounds))
    table.print_table(f"{cpus} processor(s)", lines)
    sys.stdout.flush()
    wrong = table.differences(rounds, rows) + missing(rounds, rows, bench.contestants)
    for text in wrong:
        print(f"bench: {text}", file=sys.stderr)
    return {"cpus": cpus, "rows": lines, "rounds": rounds}, not wrong


def run(arguments):
    """The whole benchmark; the exit status."""
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as folder:
        bench = Bench(arguments, folder)
        results, well = [], True
        for cpus in arguments.cpus:
            result, complete = measure(bench, cpus)
            results.append(result)
            well = well and complete
        bench.print_sizes()
        under = [f"{line['title']} ({result['cpus']})" for result in results
                 for line in result["rows"] if table.is_under(line)]
        print(f"under the floor: {', '.join(under) or 'none'}")
        if arguments.json:
            with open(arguments.json, "w", encoding="utf-8") as out:
                json.dump({"engine": bench.engine, "tables": results}, out, indent=2)
    return 0 if well else 1


def main():
    try:
        return run(parse_arguments())
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
