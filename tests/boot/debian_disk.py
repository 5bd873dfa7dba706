#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A Debian on a disk with partitions, booted by its own GRUB under firmware.

    debian_disk.py SKEP bios|uefi [upgrade]

The disk is made of guest/debian.sh's root: GPT with a BIOS boot partition and an EFI system
partition. The first time, the Debian on it installs GRUB for both firmwares itself, from Debian's
mirror; that disk is kept beside the other guests. With "upgrade", apt-get then installs another
kernel in the guest, and a reboot comes up in it.
"""

import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import time

from check import Checks, expect, expect_equal
from debian import BOOT_LIMIT_S, ROOT, TOOLS_PATH, WORK_LIMIT_S, DebianTest
from guest import Guest
from host_apt import apt_proxy, as_guest

MIB = 1 << 20
SECTOR = 512
# Name of the type for sfdisk, size.
BIOS_BOOT = ("21686148-6449-6E6F-744E-656564454649", 1 * MIB)
EFI_SYSTEM = ("U", 64 * MIB)
MARGIN = 1 * MIB        # before the first partition, and behind the last one
GRUB_DEFAULTS = """GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX="console=ttyS0"
GRUB_TERMINAL=console
"""
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends"


def tool(*command, text=None):
    """Runs one of the host's tools."""
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL,
                   env=dict(os.environ, PATH=TOOLS_PATH))


def copy(source, target):
    tool("cp", "--sparse=always", source, target)


def make_partitions(root, disk):
    """A disk with the file system of the image `root` as its third partition."""
    sizes = [BIOS_BOOT[1], EFI_SYSTEM[1], os.path.getsize(root)]
    starts = [MARGIN + sum(sizes[:i]) for i in range(len(sizes))]
    with open(disk, "wb") as file:
        file.truncate(starts[-1] + sizes[-1] + MARGIN)
    kinds = (BIOS_BOOT[0], EFI_SYSTEM[0], "L")
    table = "label: gpt\n" + "".join(
        f"start={start // SECTOR}, size={size // SECTOR}, type={kind}\n"
        for start, size, kind in zip(starts, sizes, kinds))
    tool("sfdisk", "-q", disk, text=table)
    with open(f"{disk}.esp", "wb") as file:
        file.truncate(sizes[1])
    tool("mkfs.vfat", "-F", "16", "-n", "ESP", file.name)
    for image, start in zip((file.name, root), starts[1:]):
        tool("dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={start // MIB}",
             "conv=notrunc,sparse", "status=none")
    os.unlink(file.name)


class LoggedGuest(Guest):
    """Its console goes to a file, too, as it comes."""

    def __init__(self, log, command, limit_s):
        super().__init__(command, limit_s)
        self.log = log
        self.logged = 0

    def read_some(self, timeout_s):
        going_on = super().read_some(timeout_s)
        self.log.write(self.seen[self.logged:])
        self.log.flush()
        self.logged = len(self.seen)
        return going_on


class DiskTest(DebianTest):
    """One disk, under one firmware."""

    name = "debian-disk"                # of its log
    other_kernel_package = "linux-image-amd64"
    # The root and the EFI system partition.
    mounted = dict.fromkeys(("bios", "uefi"), ["/dev/vda3", "/dev/vda2"])

    def __init__(self, skep, firmware):
        super().__init__(None, skep, "soft", 1)
        self.firmware = firmware
        self.log = open(f"{self.name}-{firmware}.log", "wb")
        self.started = time.monotonic()

    def close(self):
        super().close()
        self.log.close()

    def step(self, text):
        """Progress, with the time since the start."""
        print(f"  {time.monotonic() - self.started:5.0f} s  {text}", flush=True)

    def run_skep(self, *options):
        """A machine with the disk."""
        return LoggedGuest(self.log, [self.program, "run", "--engine", self.engine, "-m", "1G",
                                      "--disk", self.disk, "--net", "user", *options],
                           WORK_LIMIT_S)

    def make_disk(self):
        """With GRUB for both firmwares: that of before when nothing has changed since."""
        made = subprocess.run([os.path.join(ROOT, "guest", "debian.sh")], stdout=subprocess.PIPE,
                              check=True, text=True).stdout.strip()
        with open(f"{made}/recipe", encoding="ascii") as file:
            recipe = file.read() + GRUB_DEFAULTS
        for function in (make_partitions, self.install_grub):
            recipe += inspect.getsource(function)
        stamp = hashlib.sha256(recipe.encode()).hexdigest()
        kept = os.path.join(os.path.dirname(made), "debian-disk")
        if not os.path.exists(f"{kept}/{stamp}.img"):
            self.install_grub(made)
            shutil.rmtree(kept, ignore_errors=True)
            os.mkdir(kept)
            copy(self.disk, f"{kept}/new")
            os.rename(f"{kept}/new", f"{kept}/{stamp}.img")
        else:
            copy(f"{kept}/{stamp}.img", self.disk)

    def install_grub(self, made):
        """As a person would in the system, which is started without firmware once."""
        self.step("making the disk")
        make_partitions(f"{made}/debian.img", self.disk)
        self.guest = self.run_skep("--kernel", f"{made}/vmlinuz", "--initrd", f"{made}/initrd.img",
                                   "--cmdline", "console=ttyS0 root=LABEL=debian ro")
        self.guest.wait_for("skep login: ", BOOT_LIMIT_S)
        self.log_in()
        self.step("installing GRUB in the guest")
        self.use_mirror()
        self.succeeds("echo 'LABEL=ESP /boot/efi vfat umask=0077 0 1' >>/etc/fstab; "
                      "mkdir /boot/efi; mount /boot/efi")
        self.succeeds(f"{INSTALL} grub2-common grub-pc-bin grub-efi-amd64-bin efibootmgr")
        for line in GRUB_DEFAULTS.splitlines():
            self.succeeds(f"echo '{line}' >>/etc/default/grub")
        self.succeeds("grub-install --target=i386-pc /dev/vda")
        self.succeeds("grub-install --target=x86_64-efi --removable --no-nvram")
        self.succeeds("update-grub")
        self.power_off()
        self.guest.__exit__()
        self.step("GRUB is on the disk")

    def use_mirror(self):
        """The guest's apt goes out as the host's does."""
        self.succeeds("for i in $(seq 300); do ip route | grep -q default && break; sleep 1; done",
                      900)
        proxy = as_guest(apt_proxy())
        if proxy:
            self.succeeds(f"echo 'Acquire::http::Proxy \"{proxy}\";' >/etc/apt/apt.conf.d/10proxy")
        self.succeeds("apt-get update -q")

    def boot(self):
        """Firmware, GRUB, kernel, login."""
        self.step("booting")
        self.guest = self.run_skep("--firmware", self.firmware, "--boot", "disk")
        self.guest.wait_for("skep login: ", BOOT_LIMIT_S)
        self.step("login")
        self.log_in()

    def came_through_grub(self):
        text = self.succeeds("cat /proc/cmdline")
        expect(text.startswith("BOOT_IMAGE=/boot/vmlinuz-"), text)
        status, _ = self.guest.run("test -d /sys/firmware/efi")
        expect_equal(status == 0, self.firmware == "uefi", "booted by UEFI")
        _, text = self.guest.run("findmnt -n -o SOURCE /; findmnt -n -o SOURCE /boot/efi")
        expect_equal(text.split(), self.mounted[self.firmware], "file systems")

    def own_entry(self):
        """GRUB's entry among UEFI's variables is what firmware starts, with --boot as without."""
        if self.firmware != "uefi":
            return
        entry = re.compile(r"^Boot(\w+)\* debian", re.MULTILINE | re.IGNORECASE)
        if not entry.search(self.succeeds("efibootmgr")):
            self.succeeds("grub-install --target=x86_64-efi --bootloader-id=debian")
            self.guest.send("systemctl reboot\n")
            self.guest.wait_for("skep login: ", BOOT_LIMIT_S)
            self.log_in()
        text = self.succeeds("efibootmgr")
        current = re.search(r"^BootCurrent: (\w+)", text, re.MULTILINE).group(1)
        expect_equal(current, entry.search(text).group(1), "what was started")

    def other_kernel(self):
        """Installed by apt-get, chosen by grub-reboot, which GRUB itself then takes back."""
        before = self.succeeds("uname -r")
        self.use_mirror()
        self.succeeds("sed -i '/^GRUB_DEFAULT=/d' /etc/default/grub; "
                      "echo GRUB_DEFAULT=saved >>/etc/default/grub")
        # An initrd with all drivers takes minutes.
        self.succeeds("echo MODULES=dep >/etc/initramfs-tools/conf.d/driver-policy")
        self.step(f"apt-get install {self.other_kernel_package}")
        self.succeeds(f"{INSTALL} {self.other_kernel_package}")
        self.step("installed")
        text = self.succeeds("cat /boot/grub/grub.cfg")
        menu = re.search(r"submenu .*'(gnulinux-advanced-[^']*)'", text).group(1)
        entries = dict(re.findall(r"menuentry .*'gnulinux-(.+)(-advanced-[^']*)'", text))
        version = next(version for version in entries if version != before)
        self.succeeds(f"grub-reboot '{menu}>gnulinux-{version}{entries[version]}'")
        self.guest.send("systemctl reboot\n")
        self.step("reboot")
        self.guest.wait_for("skep login: ", BOOT_LIMIT_S)
        self.step("login")
        self.log_in()
        expect_equal(self.succeeds("uname -r"), version, "the kernel after the reboot")
        expect("next_entry=gnulinux" not in self.succeeds("grub-editenv - list"),
               "GRUB has not taken its one-time entry back")


def main():
    checks = Checks()
    test = DiskTest(*sys.argv[1:3])
    names = ["make_disk", "boot", "came_through_grub", "finished_boot"]
    names += ["own_entry", "other_kernel"] if "upgrade" in sys.argv[3:] else []
    try:
        checks.steps(test, names + ["kernel_is_content", "power_off"])
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
