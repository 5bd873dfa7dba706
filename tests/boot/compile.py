#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Compiles in a full Debian for a while, two jobs at a time, and compares all that comes out.

    compile.py SKEP ENGINE PROCESSORS [--minutes N]
    compile.py --qemu QEMU ACCELERATOR PROCESSORS [--minutes N]

Each object, each linked program and what it prints must be what the host's compiler makes of the
same sources (compile_units.py), and the same in every round. The kernel must have nothing to
complain of, and the process may not grow: it is sampled each minute.

Where the host has other versions of compiler and library than the guest, the first round in the
guest is what later ones are compared with; it is said then.
"""

import argparse
import base64
import os
import re
import subprocess
import time

import compile_units
from check import Checks, expect, expect_equal
from debian import DebianTest, host_tool, qemu_command, skep_command
from guest import memory_beyond_mib

MEMORY_MIB = 1024           # of the guest of debian.py
UNITS_A_JOB = 4             # so that a round takes less than a minute also on a busy host
ROUND_LIMIT_S = 3000        # only ends a hang
UNITS_MIB = 64
SAMPLE_S = 60
# Decoded blocks and code of each processor of skep's have bounds, but fill up over time.
BLOCKS_MIB = 128
CODE_MIB = 96
# All else: the program and its libraries, stacks, tables, look-ups of each processor.
REST_MIB = 32
# Once the blocks have filled up, what is no code may move by so much.
GROWTH_MIB = 4
KEPT_FILES = 3
LOCKUP = re.compile(r"soft lockup|hard LOCKUP|hung_task|blocked for more than")


def host_flags():
    """The host's processor flags, as Linux names them."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        found = re.search(r"^flags\s*:(.*)$", file.read(), re.MULTILINE)
    return set(found.group(1).split()) if found else set()


def processor_seconds(pid):
    """The processor time of a process so far: how much a minute on a busy host was worth."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def code_mib(pid):
    """What is resident of skep's translated code, which is mapped twice but there once."""
    total_kib = 0
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
        is_code = False
        for line in file:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                is_code = "/memfd:skep-code" in line
            elif is_code and line.startswith("Pss:"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


def parse_sums(text):
    """{name: checksum} of what job.sh printed."""
    return dict(re.findall(r"^(\S+) ([0-9a-f]{64})$", text, re.MULTILINE))


class CompileTest(DebianTest):
    """The guest of debian.py with a compiler, and a second disk with sources."""

    image = ("gcc",)

    def __init__(self, command, arguments):
        super().__init__(command, arguments.program, arguments.engine, arguments.processors)
        self.minutes = arguments.minutes
        self.sources = os.path.join(self.folder, "units")
        self.sources_disk = os.path.join(self.folder, "units.img")
        self.made = os.path.join(self.folder, "made")
        self.has_host = False
        self.units = 0
        self.wanted = {}        # checksums by file name
        self.compared = 0
        self.rounds = 0
        self.loop_started = 0
        self.differences = []
        self.samples = []       # MiB of code, and of all else beyond the guest's memory

    def disks(self):
        return [self.disk, self.sources_disk]

    def make_sources(self):
        """The second disk. Whether the guest has AVX2 is asked in the guest, later."""
        os.mkdir(self.sources)
        self.units = compile_units.write_units(self.sources, host_flags())
        status, text = host_tool("mke2fs", "-q", "-t", "ext4", "-L", "units", "-d", self.sources,
                                 self.sources_disk, f"{UNITS_MIB}M")
        expect_equal(status, 0, f"status of mke2fs ({text})")
        expect(self.units > 4 * UNITS_A_JOB, f"{self.units} units")

    def prepare(self):
        """Mounts the sources; finds out what can be compared with the host."""
        self.succeeds("mkdir -p /units && mount -o ro LABEL=units /units")
        flags = self.succeeds("sed -n '/^flags/{s/.*: *//;p;q}' /proc/cpuinfo").split()
        has_vectors = compile_units.VECTOR_FLAGS <= set(flags)
        print(f"  AVX2 and FMA in the guest: {'yes' if has_vectors else 'no'}")
        if not has_vectors:
            # Programs that the guest's processor cannot run are not asked of it.
            self.succeeds("mkdir /run/units && cp -r /units/. /run/units && umount /units && "
                          "mount --bind /run/units /units && sed -i '/-mavx2/d' /units/units")
            self.units = int(self.succeeds("wc -l </units/units"))
            with open(f"{self.sources}/units", "w", encoding="ascii") as file:
                file.write(self.succeeds("cat /units/units") + "\n")
        names = " ".join(compile_units.PACKAGES)
        there = self.succeeds("dpkg-query -W -f '${binary:Package} ${Version}\\n' " + names)
        here = compile_units.package_versions()
        self.has_host = sorted(there.splitlines()) == sorted(here.splitlines())
        print(f"  {self.units} units; compared with " +
              ("the host's compiler, which is the guest's" if self.has_host else
               f"the first round only: the host has {here!r}, the guest {there!r}"), flush=True)

    def host_makes(self, first):
        """What the host makes of the units of one job."""
        done = subprocess.run(["sh", f"{self.sources}/job.sh", str(first), str(UNITS_A_JOB),
                               self.made], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, check=False, text=True)
        expect_equal(done.returncode, 0, f"status of the job on the host ({done.stdout})")
        return parse_sums(done.stdout)

    def firsts(self):
        """The first line of each job in this round: one goes through the list forwards, the other
        one backwards, so that both compile all and neighbours change."""
        steps = -(-self.units // UNITS_A_JOB)
        places = (self.rounds, steps // 2 - self.rounds)
        return [1 + UNITS_A_JOB * (place % steps) for place in places]

    def one_round(self):
        """Both jobs at once in the guest, and their checksums."""
        firsts = self.firsts()
        jobs = " ".join(f"sh /units/job.sh {first} {UNITS_A_JOB} /root/out{job} "
                        f">/root/sums{job} 2>&1 & p{job}=$!;" for job, first in enumerate(firsts))
        waits = " ".join(f"wait $p{job} || s=$?;" for job in range(len(firsts)))
        status, text = self.guest.run(f"{jobs} s=0; {waits} cat /root/sums*; (exit $s)",
                                      ROUND_LIMIT_S)
        expect_equal(status, 0, f"status of round {self.rounds} ({text})")
        for job, first in enumerate(firsts):
            got = parse_sums(self.succeeds(f"cat /root/sums{job}"))
            expect(len(got) >= min(UNITS_A_JOB, self.units - first + 1), f"few files: {text}")
            if self.has_host and not set(got) <= set(self.wanted):
                self.wanted.update(self.host_makes(first))
            self.compare(job, got)
        self.rounds += 1
        if self.rounds % 5 == 0:
            # The compiler comes anew from the disk, into other pages.
            self.succeeds("sync; echo 3 >/proc/sys/vm/drop_caches")

    def compare(self, job, got):
        """Compares checksums; what differs is fetched from the guest."""
        for name, checksum in got.items():
            wanted = self.wanted.setdefault(name, checksum)
            self.compared += 1
            if checksum != wanted:
                self.differences.append((self.rounds, job, name))
                print(f"  DIFFERENCE in round {self.rounds}, job {job}: {name}", flush=True)
                if len(self.differences) <= KEPT_FILES:
                    self.show_difference(job, name)

    def show_difference(self, job, name):
        """Where a file of the guest differs from the host's."""
        path = f"{self.folder}/round{self.rounds}-{name}"
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.succeeds(f"base64 /root/out{job}/{name}")))
        if self.has_host:
            _, text = host_tool("cmp", "-l", path, f"{self.made}/{name}")
            print("    byte, guest, host:", *text.splitlines()[:24], sep="\n    ", flush=True)

    def sample(self):
        """Memory, and what the kernel said since."""
        pid = self.guest.process.pid
        code = code_mib(pid)
        other = memory_beyond_mib(pid, MEMORY_MIB) - code
        self.samples.append((code, other))
        self.kernel_is_content()
        lockups = [line for line in self.succeeds("dmesg --notime").splitlines()
                   if LOCKUP.search(line)]
        expect_equal(lockups, [], "lockups")
        print(f"  minute {(time.monotonic() - self.loop_started) / 60:.1f}: {code:.1f} MiB of "
              f"code, {other:.1f} MiB else beyond the guest's, {self.rounds} rounds, {self.compared} files compared, "
              f"{len(self.differences)} differences, {processor_seconds(pid):.0f} s of processors",
              flush=True)

    def compile_and_compare(self):
        """The loop."""
        self.loop_started = now = time.monotonic()
        end, next_sample = now + 60 * self.minutes, now + SAMPLE_S
        # A round at least, however slow the host is, and each unit twice if no host can tell.
        while now < end or self.rounds < 2:
            self.one_round()
            now = time.monotonic()
            if now >= next_sample:
                self.sample()
                next_sample += SAMPLE_S * (1 + (now - next_sample) // SAMPLE_S)
        self.sample()
        expect_equal(self.differences, [], "files that differ (round, job, name)")

    def memory_is_bounded(self):
        """Code and decoded blocks fill up to their bounds; nothing else grows."""
        code = [sample[0] for sample in self.samples]
        other = [sample[1] for sample in self.samples]
        limits = [self.processors * mib for mib in (CODE_MIB, BLOCKS_MIB)]
        expect(max(code) <= limits[0], f"{max(code):.1f} MiB of code, more than {limits[0]}")
        expect(max(other) <= limits[1] + REST_MIB,
               f"{max(other):.1f} MiB else, more than {limits[1] + REST_MIB}")
        full = [mib for mib in other if mib >= limits[1]]
        print(f"  code at most {max(code):.1f} MiB; all else at most {max(other):.1f} MiB, in the "
              f"{len(full)} samples since the blocks are full from {full[0]:.1f} on"
              if full else "  the blocks have not filled up")
        if full:
            expect(max(full) <= full[0] + GROWTH_MIB,
                   f"it grew from {full[0]:.1f} to {max(full):.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description="compiles in a full Debian and compares")
    parser.add_argument("program", help="skep, or QEMU")
    parser.add_argument("engine", help="skep's engine, or QEMU's accelerator")
    parser.add_argument("processors", type=int)
    parser.add_argument("--qemu", action="store_true", help="the program is QEMU")
    parser.add_argument("--minutes", type=float, default=5, help="how long the loop runs")
    arguments = parser.parse_args()

    test = CompileTest(qemu_command if arguments.qemu else skep_command, arguments)
    checks = Checks()
    try:
        # Nothing can be asked of a guest that nobody is logged in to.
        checks.steps(test, ("make_sources", "boot", "log_in", "prepare"))
        if not checks.failed:
            checks.methods(test, ("compile_and_compare", "memory_is_bounded", "write_file",
                                  "kernel_is_content", "power_off", "file_system_is_clean"))
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
