#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots a full Debian 12 (guest/debian.sh) from its virtio disk, logs in, works in it, and powers it
off; e2fsck must then find nothing in the image.

    debian.py SKEP ENGINE PROCESSORS
    debian.py --qemu QEMU ACCELERATOR PROCESSORS

The second form runs the same in QEMU (`debian.py --qemu qemu-system-x86_64 tcg 2`): what fails in
both is the image's or the test's fault.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile

from check import Checks, expect, expect_equal
from guest import Guest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
MEMORY = "1G"
CMDLINE = "console=ttyS0 root=LABEL=debian ro"
# These only end a hang, and an interpreter on a busy machine is slow.
BOOT_LIMIT_S = 3000
WORK_LIMIT_S = 1500

# What the kernel says when the processor or a device does something that it should not. That it was
# kept waiting (lockups, stalls) tells of the host's load.
TROUBLE = re.compile(r"BUG:|\bOops\b|WARNING:|general protection|segfault at|trap invalid opcode|"
                     r"trap divide error|double fault|I/O error|EXT4-fs error|EXT4-fs warning|"
                     r"Call Trace|Machine Check|nobody cared")
WAITING = re.compile(r"soft lockup|hung_task|blocked for more than|rcu.*stall|nospec|spectre",
                     re.IGNORECASE)


def skep_command(program, engine, processors, files, disks):
    """The command line of skep."""
    return [program, "run", "--engine", engine, "-c", str(processors), "-m", MEMORY,
            "--kernel", f"{files}/vmlinuz", "--initrd", f"{files}/initrd.img",
            "--cmdline", CMDLINE, *(word for disk in disks for word in ("--disk", disk)),
            "--no-reboot"]


def qemu_command(program, engine, processors, files, disks):
    """The same machine in QEMU."""
    return [program, "-machine", "q35", "-accel", engine, "-cpu", "max", "-smp", str(processors),
            "-m", MEMORY, "-kernel", f"{files}/vmlinuz", "-initrd", f"{files}/initrd.img",
            "-append", CMDLINE,
            *(word for disk in disks for word in ("-drive", f"file={disk},format=raw,if=virtio")),
            "-nic", "user,model=virtio-net-pci", "-device", "virtio-rng-pci",
            "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]


def host_tool(*command):
    """Runs one of e2fsprogs; (status, what it printed)."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, text=True, errors="replace",
                          env=dict(os.environ, PATH=TOOLS_PATH, LC_ALL="C"))
    return done.returncode, done.stdout


def interrupt_counts(table, name, processors):
    """The counts of one line of /proc/interrupts, a number per processor."""
    for line in table.splitlines():
        words = line.split()
        if words and words[0] == name + ":":
            return [int(word) for word in words[1:1 + processors]]
    raise AssertionError(f"no {name} in {table}")


class DebianTest:
    """One guest, through all of its cases."""

    image = ()          # what guest/debian.sh is asked for

    def __init__(self, command, program, engine, processors):
        self.make_command = command
        self.program = program
        self.engine = engine
        self.processors = processors
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.disk = os.path.join(self.folder, "debian.img")
        self.guest = None

    def disks(self):
        """The images of the guest's disks, its root first."""
        return [self.disk]

    def boot(self):
        """To the login prompt."""
        made = subprocess.run([os.path.join(ROOT, "guest", "debian.sh"), *self.image],
                              stdout=subprocess.PIPE, check=True, text=True)
        files = made.stdout.strip()
        subprocess.run(["cp", "--sparse=always", f"{files}/debian.img", self.disk], check=True)
        self.guest = Guest(self.make_command(self.program, self.engine, self.processors, files,
                                             self.disks()), WORK_LIMIT_S)
        self.guest.wait_for("skep login: ", BOOT_LIMIT_S)

    def log_in(self):
        self.guest.send("root\n")
        self.guest.wait_for("Password: ")
        self.guest.send("skep\n")
        self.guest.wait_for("root@skep:~#")
        # A shell without line editing or prompt: what comes is the echo of what was typed, and the
        # output. Then no kernel messages, which could come in between.
        self.guest.send("exec env PS1=dash-is-here: dash\n")
        self.guest.wait_for(re.compile(rb"[\r\n]dash-is-here:"))
        self.succeeds("export PS1= PS2= PAGER=cat; set +m")
        self.succeeds("dmesg --console-level 1")

    def succeeds(self, command, limit_s=None):
        """Runs a command that must not fail; its output."""
        status, text = self.guest.run(command, limit_s)
        expect_equal(status, 0, f"status of {command!r} ({text})")
        return text

    def finished_boot(self):
        # systemd's own words on the console end with the boot, so what is read is said after.
        self.guest.run("systemctl is-system-running --wait >/dev/null", BOOT_LIMIT_S)
        failed = self.succeeds("systemctl list-units --failed --plain --no-legend")
        expect_equal(failed, "", "failed units")
        _, state = self.guest.run("systemctl is-system-running")
        expect_equal(state, "running", "state of the system")

    def release(self):
        text = self.succeeds("uname -a; cat /etc/debian_version")
        expect("skep" in text and "x86_64" in text and "Debian" in text, text)
        expect(re.search(r"^12\.", text, re.MULTILINE), text)

    def root_file_system(self):
        text = self.succeeds("findmnt -n -o SOURCE,FSTYPE,OPTIONS /")
        expect(re.match(r"/dev/vda +ext4 +rw\b", text), text)

    def all_processors(self):
        expect_equal(self.succeeds("nproc"), str(self.processors), "processors")
        if self.processors == 1:
            return
        before = self.succeeds("cat /proc/interrupts")
        # Every processor computes long enough for its timer, and each line that goes through the
        # pipe wakes a reader on another one.
        pipes = " & ".join(
            f"(yes | head -n 30000 | while read -r x; do echo $x; done | "
            f"taskset -c {(cpu + 1) % self.processors} cat >/dev/null)"
            for cpu in range(self.processors))
        self.succeeds(f"{pipes} & wait", WORK_LIMIT_S)
        after = self.succeeds("cat /proc/interrupts")
        for names in (("LOC",), ("RES", "CAL", "TLB")):
            for cpu in range(self.processors):
                counts = [sum(interrupt_counts(table, name, self.processors)[cpu]
                              for name in names) for table in (before, after)]
                expect(0 < counts[0] < counts[1], f"{names} on processor {cpu}: {counts}")

    def address(self):
        # DHCP is not waited for by a login.
        self.succeeds("/lib/systemd/systemd-networkd-wait-online --ipv4 --timeout=600", 900)
        text = self.succeeds("ip -4 -o addr show scope global; ip route")
        expect(" 10.0.2.15/24 " in text and "default via 10.0.2.2" in text, text)
        text = self.succeeds("resolvectl dns")
        expect("10.0.2.3" in text, text)

    def packages_are_whole(self):
        """What was read from the disk has the checksums of the packages."""
        text = self.succeeds("dpkg --verify coreutils libc6 bash perl-base systemd util-linux",
                             WORK_LIMIT_S)
        expect_equal(text, "", "files that differ from their packages")

    def archives_agree(self):
        """The same long work on every processor at once has one result: that of reading anew."""
        archive = "tar -c --sort=name -C / usr/bin"
        first = self.succeeds(f"{archive} | sha256sum", WORK_LIMIT_S)
        self.succeeds("sync; echo 3 >/proc/sys/vm/drop_caches")
        each = " ".join(
            f"(taskset -c {cpu} {archive} | taskset -c {cpu} sha256sum >/tmp/sum{cpu}) &"
            for cpu in range(self.processors))
        self.succeeds(f"{each} wait", WORK_LIMIT_S)
        again = self.succeeds("cat /tmp/sum*").splitlines()
        expect(re.match(r"[0-9a-f]{64}\b", first), first)
        expect_equal(again, [first] * self.processors, "sums of the same archive")

    def compression_returns(self):
        """Compressed and back, through the disk."""
        self.succeeds("tar -c -C / usr/sbin | tee /root/a.tar | gzip -1 >/root/a.gz && sync && "
                      "echo 3 >/proc/sys/vm/drop_caches && zcat /root/a.gz | cmp - /root/a.tar && "
                      "zstd -q -3 -T0 /root/a.tar && zstd -dc /root/a.tar.zst | cmp - /root/a.tar "
                      "&& rm /root/a.tar /root/a.gz /root/a.tar.zst", WORK_LIMIT_S)

    def arithmetic(self):
        """Floating point as any x86-64 has it; the sum is the host's."""
        loop = "my $s=0; for my $i (1..20000) { $s += sqrt($i) * sin($i) / log($i + 1) } " \
               "printf \"%.17g\\n\", $s"
        wanted = subprocess.run(["perl", "-e", loop], stdout=subprocess.PIPE, check=True,
                                text=True).stdout
        # Both libraries choose by the processor how they compute the sine: the last digits may
        # differ, as they do between hosts.
        got = self.succeeds(f"perl -e '{loop}'")
        expect(abs(float(got) - float(wanted)) < 1e-9 * abs(float(wanted)), f"{got}, not {wanted}")

    def kernel_is_content(self):
        text = self.succeeds("dmesg --notime")
        lines = [line for line in text.splitlines()
                 if TROUBLE.search(line) and not WAITING.search(line)]
        expect_equal(lines, [], "trouble in the kernel's log")
        text = self.succeeds("coredumpctl --no-legend list 2>/dev/null || true")
        expect_equal(text, "", "crashes")

    def write_file(self):
        self.succeeds("echo kept-$((6 * 7)) >/root/note")

    def power_off(self):
        self.guest.send("systemctl poweroff\n")
        expect_equal(self.guest.wait_exit(BOOT_LIMIT_S), 0, "exit status")
        expect("Power down" in self.guest.console()[-2000:], self.guest.console()[-2000:])

    def file_system_is_clean(self):
        status, text = host_tool("dumpe2fs", "-h", self.disk)
        expect_equal(status, 0, f"status of dumpe2fs ({text})")
        expect(re.search(r"^Filesystem state: +clean$", text, re.MULTILINE), text)
        expect("needs_recovery" not in text, "it was not unmounted: its journal is not empty")
        status, text = host_tool("e2fsck", "-f", "-n", self.disk)
        expect_equal(status, 0, f"status of e2fsck ({text})")
        status, text = host_tool("debugfs", "-R", "cat /root/note", self.disk)
        expect("kept-42" in text.split("\n"), f"the file written in the guest: {text!r}")

    def close(self):
        if self.guest:
            self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="boots a full Debian and works in it")
    parser.add_argument("program", help="skep, or QEMU")
    parser.add_argument("engine", help="skep's engine, or QEMU's accelerator")
    parser.add_argument("processors", type=int)
    parser.add_argument("--qemu", action="store_true", help="the program is QEMU")
    arguments = parser.parse_args()

    command = qemu_command if arguments.qemu else skep_command
    test = DebianTest(command, arguments.program, arguments.engine, arguments.processors)
    checks = Checks()
    try:
        # Nothing can be asked of a guest that nobody is logged in to.
        checks.steps(test, ("boot", "log_in"))
        if not checks.failed:
            checks.methods(test, ("finished_boot", "release", "root_file_system", "all_processors",
                                  "address", "packages_are_whole", "archives_agree",
                                  "compression_returns", "arithmetic", "write_file",
                                  "kernel_is_content", "power_off", "file_system_is_clean"))
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
