# SPDX-License-Identifier: BSD-2-Clause
"""One guest of skep or of QEMU: its command line, its boot, its rows, its memory."""

import os
import re
import shutil
import subprocess
import sys
import time

from native import LIMIT_S, BenchError, parse
from rows import BOOT

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))
from guest import Guest, GuestError, memory_beyond_mib  # noqa: E402

MEMORY_MIB = 512
DEBIAN_MIB = 1024
# These only end a hang; an interpreter on a busy machine is slow.
BOOT_LIMIT_S = 600
DEBIAN_LIMIT_S = 1800
# A row that hangs costs a boot; after so many the guest is given up.
BOOTS = 4
# Debian's OVMF, as skep finds it too: its code, and its variables before the first boot.
OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARIABLES = "/usr/share/OVMF/OVMF_VARS_4M.fd"
INIT_MARK = re.compile(rb"\[ *(\d+\.\d+)\] Run /init as init process")
# What a guest that broke can raise while it is talked to.
BROKEN = (GuestError, OSError, AttributeError, IndexError, ValueError, subprocess.TimeoutExpired)


def skep_command(program, engine, cpus, machine):
    """skep's command line for a machine of `machine`: memory; kernel, initrd, cmdline, disk; or the
    file for a firmware's variables."""
    command = [program, "-q", "run", "--engine", engine, "-c", str(cpus),
               "-m", f"{machine['memory_mib']}M"]
    if "variables" in machine:
        return command + ["--firmware", "uefi", "--nvram", machine["variables"], "--net", "none"]
    command += ["--kernel", machine["kernel"], "--initrd", machine["initrd"],
                "--cmdline", machine["cmdline"]]
    return command + (["--disk", machine["disk"]] if "disk" in machine else [])


def qemu_command(program, _engine, cpus, machine):
    """The same machine in QEMU."""
    command = [program, "-accel", "tcg", "-cpu", "max", "-M", "q35", "-smp", str(cpus),
               "-m", f"{machine['memory_mib']}M", "-display", "none", "-serial", "stdio",
               "-monitor", "none"]
    if "variables" in machine:
        flash = "if=pflash,format=raw"
        return command + ["-nodefaults", "-drive", f"{flash},unit=0,readonly=on,file={OVMF_CODE}",
                          "-drive", f"{flash},unit=1,file={machine['variables']}"]
    command += ["-kernel", machine["kernel"], "-initrd", machine["initrd"],
                "-append", machine["cmdline"], "-nic", "user,model=virtio-net-pci",
                "-device", "virtio-rng-pci"]
    disk = ["-drive", f"file={machine.get('disk')},format=raw,if=virtio"]
    return command + (disk if "disk" in machine else [])


def small_machine(files, initrd):
    """The guest of `make run`, with the programs of the benchmark."""
    return {"memory_mib": MEMORY_MIB, "kernel": f"{files}/vmlinuz", "initrd": initrd,
            "cmdline": "console=ttyS0"}


class Session:
    """Boots a guest, runs the rows in it, powers it off. What fails is told and left out."""

    def __init__(self, name, command, rows):
        self.name = name
        self.command = command
        self.left = [row for row in rows if row.program]
        self.wanted = {row.key for row in rows}
        self.found = {}

    def tell(self, text):
        print(f"bench: {self.name}: {text}", file=sys.stderr)

    def boot(self, guest):
        """To the prompt; the times of the first boot count."""
        start = guest.started
        said = guest.wait_for(INIT_MARK, BOOT_LIMIT_S)
        to_init = time.monotonic() - start
        guest.wait_for("skep guest:", BOOT_LIMIT_S)
        to_prompt = time.monotonic() - start
        kernel = float(INIT_MARK.search(said.encode()).group(1))
        for key, value in (("boot_to_init", to_init), ("kernel_to_init", kernel),
                           ("boot_to_prompt", to_prompt)):
            self.found.setdefault(key, (value, None))
        # The kernel's own words shall not come between those of the programs.
        guest.run("dmesg -n 1", LIMIT_S)

    def run_rows(self, guest):
        """Takes the rows off the list, each before it runs: one that hangs is not run again."""
        while self.left:
            row = self.left.pop(0)
            status, text = guest.run(f"/bench/{row.program} {row.key}", LIMIT_S)
            value = parse(row, text)
            if status:
                self.tell(f"{row.key}: status {status}: {text}")
            elif value:
                self.found[row.key] = value

    def power_off(self, guest):
        """Ends the guest as its user would."""
        start = time.monotonic()
        guest.send("poweroff\n")
        guest.wait_exit(LIMIT_S)
        took = time.monotonic() - start
        self.found["power_off"] = (took, None)
        self.found["boot_to_poweroff"] = (took + self.found["boot_to_prompt"][0], None)

    def once(self):
        """One boot, as many rows as work; True when the guest came to its end."""
        try:
            with Guest(self.command, LIMIT_S) as guest:
                self.boot(guest)
                self.run_rows(guest)
                beyond = memory_beyond_mib(guest.process.pid, MEMORY_MIB)
                self.found["memory_beyond_guest"] = (beyond, None)
                self.power_off(guest)
                return True
        except BROKEN as error:
            self.tell(str(error) or type(error).__name__)
            return False

    def run(self):
        """{key: (value, result)} of the rows that were wanted and worked."""
        for _ in range(BOOTS):
            if self.once():
                break
            if not self.found:
                raise BenchError(f"{self.name} does not boot the guest")
        return {key: value for key, value in self.found.items() if key in self.wanted}


def needs_guest(rows):
    """Whether any of the rows is measured in the small guest."""
    boot = {row.key for row in BOOT}
    return any(row.program or row.key in boot or row.unit == "MiB" for row in rows)


def seconds_to(mark, name, command, limit_s):
    """Seconds of a guest from start to the text `mark`; None if it fails, which is told."""
    try:
        with Guest(command, limit_s) as guest:
            guest.wait_for(mark)
            return time.monotonic() - guest.started
    except BROKEN as error:
        print(f"bench: {name}: {mark!r}: {error}", file=sys.stderr)
        return None


def debian_to_login(name, make, files, folder):
    """Seconds of a Debian from start to its login prompt, on a copy of its image; None if it fails.
    `make` gives the command line for a machine."""
    disk = os.path.join(folder, "debian.img")
    subprocess.run(["cp", "--sparse=always", f"{files}/debian.img", disk], check=True)
    machine = {"memory_mib": DEBIAN_MIB, "kernel": f"{files}/vmlinuz", "disk": disk,
               "initrd": f"{files}/initrd.img", "cmdline": "console=ttyS0 root=LABEL=debian ro"}
    try:
        return seconds_to("skep login: ", name, make(machine), DEBIAN_LIMIT_S)
    finally:
        os.remove(disk)


def uefi_to_shell(name, make, folder):
    """Seconds of OVMF with nothing to boot from start to its own shell; None if it fails."""
    variables = os.path.join(folder, "variables.fd")
    shutil.copyfile(OVMF_VARIABLES, variables)
    machine = {"memory_mib": MEMORY_MIB, "variables": variables}
    try:
        return seconds_to("BdsDxe: starting Boot", name, make(machine), BOOT_LIMIT_S)
    finally:
        os.remove(variables)


def libraries_bytes(program):
    """The bytes of the libraries that a program loads."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    paths = {os.path.realpath(path) for path in re.findall(r"(/\S+)", listing)}
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path))


def stripped_bytes(program, folder):
    """The program's size as it is installed by a package."""
    copy = os.path.join(folder, "stripped")
    if not shutil.which("strip") or subprocess.run(["strip", "-o", copy, program],
                                                   check=False).returncode:
        return os.path.getsize(program)
    return os.path.getsize(copy)
