#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Firmware of Debian's packages, and GRUB through it: from a disk, a CD-ROM, USB and a floppy under
SeaBIOS, from an EFI system partition under OVMF; reboots, boot order, UEFI's variables.

    firmware.py SKEP bios|uefi [CASE…]
"""

import os
import shutil
import subprocess
import sys
import tempfile

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder
from terminal import LIMIT_S, Screen, says, to_prompt

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESCUE = "/usr/lib/grub-rescue"
SECTOR = 512
FIRST_SECTOR = 2048
# On UEFI's console: firmware reads the serial port too, so that GRUB's own driver would miss keys.
GRUB_CONFIG = "echo platform: $grub_platform\n"


class Place:
    """A folder with images, and how a machine is started with them."""

    def __init__(self, skep):
        self.skep = skep
        self.folder = tempfile.mkdtemp(prefix="skep-test-")

    def path(self, name):
        return os.path.join(self.folder, name)

    def copy(self, name):
        """A rescue image to write to."""
        path = self.path(name)
        shutil.copy(f"{RESCUE}/{name}", path)
        return path

    def start(self, *options):
        network = () if "--net" in options else ("--net", "none")
        return [self.skep, "run", "--engine", "soft", "-m", "256M", *network, *options]


def disk(place):
    """GRUB from a virtio disk; what it reads from there; three starts in one process; power off."""
    with Screen(place.start("--disk", place.copy("grub-rescue-usb.img"))) as screen:
        for start in range(3):
            screen.wait("Booting from Hard Disk")
            to_prompt(screen)
            says(screen, f"start{start}")
            if start < 2:
                screen.type("reboot")
        screen.type("ls (hd0)/boot/grub/i386-pc/halt.mod")
        screen.wait("halt.mod")
        screen.type("halt")
        expect_equal(screen.wait_exit(), 0, "the status")
        expect(b"firmware bios: the first disk has no EFI system partition" in screen.errors,
               screen.errors)


def cdrom_first(place):
    """With both, the order decides."""
    options = ("--disk", place.copy("grub-rescue-usb.img"), "--cdrom",
               f"{RESCUE}/grub-rescue-cdrom.iso")
    for order, text in (("cdrom,disk", "Booting from DVD/CD"), ("disk", "Booting from Hard Disk")):
        with Screen(place.start(*options, "--boot", order)) as screen:
            screen.wait(text)
            screen.wait("GNU GRUB")


def usb(place):
    """USB mass storage, a disk and a CD: read as well as booted from, in the order that was told."""
    options = ("--disk", place.copy("grub-rescue-usb.img") + ",bus=usb", "--cdrom",
               f"{RESCUE}/grub-rescue-cdrom.iso,bus=usb", "--firmware", "bios", "--boot")
    with Screen(place.start(*options, "disk")) as screen:
        screen.wait("Booting from Hard Disk")
        to_prompt(screen)
        screen.type("ls (hd0)/boot/grub/i386-pc/halt.mod")
        screen.wait("halt.mod")
        screen.type("halt")
        expect_equal(screen.wait_exit(), 0, "the status")
    with Screen(place.start(*options, "cdrom,disk")) as screen:
        screen.wait("Booting from DVD/CD")
        screen.wait("GNU GRUB")


def floppy(place):
    """A floppy disk alone."""
    image = place.copy("grub-rescue-floppy.img")
    os.truncate(image, next(n << 10 for n in (1440, 2880) if n << 10 >= os.path.getsize(image)))
    command = place.start("--floppy", image, "--firmware", "bios")
    with Screen(command) as screen:
        screen.wait("Booting from Floppy")
        screen.wait("GNU GRUB")


def nothing(place):
    """An empty disk: it says so and waits; the menu lists it."""
    with open(place.path("empty"), "wb") as file:
        file.truncate(1 << 20)
    with Screen(place.start("--disk", place.path("empty"), "--boot", "disk,menu")) as screen:
        screen.wait("for boot menu")
        screen.wait("No bootable device")


def mistakes(place):
    """What can't be is told with a hint."""
    empty = place.path("empty2")
    with open(empty, "wb") as file:
        file.truncate(1 << 20)
    for options, word in ((["--firmware", place.path("none")], "none"),
                          (["--boot", "tape"], "nothing to boot from"),
                          (["--nvram", "x", "--firmware", "bios"], "keeps none"),
                          (["--rom", empty, "--firmware", "bios"], "two ways")):
        done = subprocess.run(place.start("--disk", empty, *options), stdin=subprocess.DEVNULL,
                              text=True, capture_output=True, timeout=LIMIT_S, check=False)
        expect(done.returncode in (1, 2) and word in done.stderr, done.stderr)


def efi_disk(place):
    """A disk with an EFI system partition, and on it GRUB where firmware looks by itself."""
    def tool(*command):
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=dict(os.environ, PATH=path, MTOOLS_SKIP_CHECK="1"))
    partition, image = place.path("esp"), place.path("efi")
    with open(place.path("grub.cfg"), "w", encoding="ascii") as file:
        file.write(GRUB_CONFIG)
    modules = "normal echo halt reboot serial terminal part_gpt fat ls"
    tool("grub-mkstandalone", "-O", "x86_64-efi", "-o", place.path("boot.efi"), "--fonts=",
         "--themes=", "--locales=", f"--install-modules={modules}", f"--modules={modules}",
         f"boot/grub/grub.cfg={place.path('grub.cfg')}")
    with open(partition, "wb") as file:
        file.truncate(40 << 20)
    tool("mkfs.vfat", "-F", "32", partition)
    tool("mmd", "-i", partition, "::/EFI", "::/EFI/BOOT")
    tool("mcopy", "-i", partition, place.path("boot.efi"), "::/EFI/BOOT/BOOTX64.EFI")
    with open(image, "wb") as file:
        file.truncate(48 << 20)
    table = f"label: gpt\nstart={FIRST_SECTOR}, size={(40 << 20) // SECTOR}, type=U\n"
    subprocess.run(["/usr/sbin/sfdisk", "-q", image], input=table, text=True, check=True)
    tool("dd", f"if={partition}", f"of={image}", "bs=1M", "seek=1", "conv=notrunc")
    return image


def uefi(place):
    """GRUB through OVMF, twice; variables are in the file beside the disk."""
    image = efi_disk(place)
    with open("/usr/share/OVMF/OVMF_VARS_4M.fd", "rb") as file:
        template = file.read()
    with Guest(place.start("--disk", image), 1500) as guest:
        for command in ("reboot", "halt"):
            guest.wait_for("platform: efi")
            guest.wait_for("grub>")
            guest.send(command + "\r")
        expect_equal(guest.wait_exit(), 0, "the status")
        expect(b"firmware uefi: the first disk has an EFI system partition" in guest.errors,
               guest.errors)
    with open(image + ".nvram", "rb") as file:
        variables = file.read()
    expect_equal(len(variables), len(template), "the size of the variables")
    expect(variables != template, "UEFI has written no variable")


def efi_cdrom(place):
    """An empty disk, then GRUB from a CD with a boot image for UEFI; no network in between."""
    os.makedirs(place.path("iso/boot/grub"))
    with open(place.path("iso/boot/grub/grub.cfg"), "w", encoding="ascii") as file:
        file.write(GRUB_CONFIG + "halt\n")
    subprocess.run(["grub-mkrescue", "-o", place.path("cd.iso"), place.path("iso")], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(place.path("empty3"), "wb") as file:
        file.truncate(1 << 20)
    command = place.start("--disk", place.path("empty3"), "--cdrom", place.path("cd.iso"),
                          "--firmware", "uefi", "--boot", "disk,cdrom", "--net", "user")
    with Guest(command, 1500) as guest:
        guest.wait_for("platform: efi")
        expect_equal(guest.wait_exit(), 0, "the status")
        expect("PXE" not in guest.console(), guest.console())


def efi_nothing(place):
    """An empty disk alone: UEFI's shell follows at once, and nobody waits for a network."""
    with open(place.path("empty4"), "wb") as file:
        file.truncate(1 << 20)
    command = place.start("--disk", place.path("empty4"), "--firmware", "uefi", "--boot", "disk",
                          "--net", "user")
    with Guest(command, 1500) as guest:
        console = guest.wait_for("Shell>")
        expect("PXE" not in console and "Not Found" in console, console)


def efi_variables(place):
    """Linux, which UEFI starts from fw_cfg, makes a variable by efivarfs; the next machine has it."""
    files = guest_folder(ROOT, "drivers.sh")
    command = place.start("--firmware", "uefi", "--nvram", place.path("vars"), "--kernel",
                          f"{files}/vmlinuz", "--initrd", f"{files}/initrd.cpio", "--cmdline",
                          "console=ttyS0 quiet net=off")
    variables, name = "/sys/firmware/efi/efivars", "Skep-12345678-1234-1234-1234-123456789abc"
    for start in range(2):
        with Guest(command, 1500) as guest:
            guest.wait_prompt()
            for line in (f"mount -t efivarfs none {variables} && cd {variables}",
                         f"[ {start} = 1 ] || printf '\\007\\000\\000\\000kept' >{name}"):
                expect_equal(guest.run(line)[0], 0, line)
            expect_equal(guest.run(f"tail -c 4 {name}; echo")[1], "kept", "the variable")
            guest.send("poweroff -f\n")
            expect_equal(guest.wait_exit(), 0, "the status")


def main():
    checks = Checks()
    place = Place(sys.argv[1])
    only = sys.argv[3:]
    cases = {"bios": (disk, cdrom_first, usb, floppy, nothing, mistakes),
             "uefi": (uefi, efi_cdrom, efi_nothing, efi_variables)}
    try:
        for function in cases[sys.argv[2]]:
            if not only or function.__name__ in only:
                checks.case(function.__name__, function, place)
    finally:
        shutil.rmtree(place.folder)
    checks.finish()


if __name__ == "__main__":
    main()
