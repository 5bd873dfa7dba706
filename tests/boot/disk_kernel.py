#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""--kernel-from-disk: kernels from ext4, XFS, btrfs and FAT, by GRUB, BLS, systemd-boot and extlinux,
and anew at each start of the guest.

    disk_kernel.py SKEP
"""

import os
import shutil
import subprocess
import sys
import tempfile

from check import Checks, expect, expect_equal
from guest import Guest, Machine, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 120
SECTOR = 512
FIRST_SECTOR = 2048

GRUB = """set default=0
if [ -s $prefix/grubenv ]; then load_env; fi
search --no-floppy --label --set=root {label}
menuentry 'Guest' {{
    linux /boot/vmlinuz {words}
    initrd /boot/initrd.img
}}
"""


class Disks:
    """Makes disk images of files, with no privileges."""

    def __init__(self, skep):
        self.skep = skep
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        files = guest_folder(ROOT)
        self.kernel = f"{files}/vmlinuz"
        self.initrd = f"{files}/initrd.cpio"

    def tool(self, *command):
        """Runs a tool of the host, wherever it is installed."""
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, PATH=path, MTOOLS_SKIP_CHECK="1"))

    def tree(self, name, kernel, initrd, config, text):
        """A folder with these files."""
        root = os.path.join(self.folder, name)
        for path, source in ((kernel, self.kernel), (initrd, self.initrd)):
            os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
            shutil.copy(source, f"{root}/{path}")
        os.makedirs(os.path.dirname(f"{root}/{config}"), exist_ok=True)
        with open(f"{root}/{config}", "w", encoding="utf-8") as file:
            file.write(text)
        return root

    def image(self, name, size_mib):
        """An empty image."""
        path = os.path.join(self.folder, name + ".img")
        with open(path, "wb") as file:
            file.truncate(size_mib << 20)
        return path

    def in_partition(self, name, filesystem):
        """A disk with a GPT whose second partition holds the file system."""
        size = os.path.getsize(filesystem)
        disk = self.image(name, (size >> 20) + 8)
        table = f"label: gpt\nsize=2048,type=U\nstart=8192,size={size // SECTOR}\n"
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True,
                       env=dict(os.environ, PATH=path), stdout=subprocess.DEVNULL)
        with open(filesystem, "rb") as source, open(disk, "r+b") as target:
            target.seek(8192 * SECTOR)
            shutil.copyfileobj(source, target)
        return disk

    def options(self, disk, *more):
        """The options of a machine with that disk."""
        return ["--kernel-from-disk", "--disk", disk, "--net", "none", *more]

    def start(self, disk, *more):
        """The command that runs it."""
        return [self.skep, "run", *self.options(disk, *more)]

    def boots(self, disk, summary, cmdline):
        """The disk's kernel starts, is told of as `summary`, and sees `cmdline`."""
        with Guest(self.start(disk, "--cmdline", "rdinit=/none panic=-1", "--no-reboot"),
                   LIMIT_S) as guest:
            guest.wait_for(f"Kernel command line: {cmdline} console=ttyS0 rdinit=/none panic=-1")
            guest.wait_exit()
            expect(summary in guest.errors.decode(), f"{summary!r} is not in {guest.errors!r}")


def ext4_grub(disks):
    """GRUB on ext4 in a partition; a change that the guest makes counts when it starts again, also
    when it was saved and restored meanwhile."""
    tree = disks.tree("ext4", "boot/vmlinuz", "boot/initrd.img", "boot/grub/grub.cfg",
                      GRUB.format(label="guest", words="console=ttyS0 quiet word=old"))
    filesystem = disks.image("ext4-fs", 64)
    disks.tool("mke2fs", "-q", "-t", "ext4", "-L", "guest", "-d", tree, filesystem)
    disk = disks.in_partition("ext4", filesystem)
    with Machine(disks.skep, disks.folder, "soft", disks.options(disk), LIMIT_S) as guest:
        guest.wait_prompt()
        expect_equal(guest.run("cat /proc/cmdline")[1], "console=ttyS0 quiet word=old", "words")
        status, text = guest.run("mount -t ext4 /dev/vda2 /mnt && "
                                 "sed -i s/word=old/word=new/ /mnt/boot/grub/grub.cfg && "
                                 "umount /mnt && sync")
        expect_equal(status, 0, f"editing the configuration ({text})")
        expect("'Guest': (loop0,gpt2)/boot/vmlinuz" in guest.errors.decode(), "no summary")
        guest.go_on("soft")
        guest.send("reboot -f\n")
        guest.wait_for("Restarting system")
        guest.wait_prompt()
        expect_equal(guest.run("cat /proc/cmdline")[1], "console=ttyS0 quiet word=new", "words")
        guest.send("poweroff -f\n")
        expect_equal(guest.wait_exit(), 0, "status")


def xfs_blscfg(disks):
    """GRUB's blscfg on XFS, as Fedora has it."""
    tree = disks.tree("xfs", "vmlinuz-6.1", "initrd-6.1", "loader/entries/f-6.1.conf",
                      "title Fedora\nversion 6.1\nlinux /vmlinuz-6.1\ninitrd /initrd-6.1\n"
                      "options $kernelopts\n")
    files = {"grub.cfg": "load_env\nset default=$saved_entry\nblscfg\n",
             "grubenv": "saved_entry=f-6.1\nkernelopts=root=/dev/vda2 ro\n"}
    for name, text in files.items():
        with open(f"{tree}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    proto = os.path.join(disks.folder, "proto")
    with open(proto, "w", encoding="ascii") as file:
        file.write(f"none\n0 0\nd--755 0 0\n"
                   f"vmlinuz-6.1 ---644 0 0 {tree}/vmlinuz-6.1\n"
                   f"initrd-6.1 ---644 0 0 {tree}/initrd-6.1\n"
                   f"grub2 d--755 0 0\n"
                   f"grub.cfg ---644 0 0 {tree}/grub.cfg\n"
                   f"grubenv ---644 0 0 {tree}/grubenv\n$\n"
                   f"loader d--755 0 0\nentries d--755 0 0\n"
                   f"f-6.1.conf ---644 0 0 {tree}/loader/entries/f-6.1.conf\n$\n$\n$\n")
    filesystem = disks.image("xfs-fs", 320)
    disks.tool("mkfs.xfs", "-q", "-f", "-p", proto, filesystem)
    disks.boots(filesystem, "'Fedora': (loop0)/vmlinuz-6.1", "root=/dev/vda2 ro")


def btrfs_grub(disks):
    """GRUB on btrfs, in a folder as Ubuntu has it."""
    tree = disks.tree("btrfs", "@/boot/vmlinuz", "@/boot/initrd.img", "@/boot/grub/grub.cfg",
                      GRUB.format(label="guest", words="ro").replace("/boot/", "/@/boot/"))
    filesystem = disks.image("btrfs-fs", 256)
    disks.tool("mkfs.btrfs", "-q", "-L", "guest", "--rootdir", tree, filesystem)
    disks.boots(filesystem, "'Guest': (loop0)/@/boot/vmlinuz", "ro")


def fat_systemd(disks):
    """systemd-boot on FAT."""
    tree = disks.tree("fat", "arch/linux", "arch/initrd", "loader/entries/arch.conf",
                      "title Arch\nlinux /arch/linux\ninitrd /arch/initrd\noptions rw\n")
    filesystem = disks.image("fat-fs", 64)
    disks.tool("mkfs.vfat", "-F", "32", filesystem)
    disks.tool("mcopy", "-i", filesystem, "-s", f"{tree}/arch", f"{tree}/loader", "::/")
    disk = disks.in_partition("fat", filesystem)
    disks.boots(disk, "'Arch': (loop0,gpt2)/arch/linux", "rw")


def ext4_extlinux(disks):
    """extlinux on a disk without partitions."""
    tree = disks.tree("extlinux", "boot/vmlinuz", "boot/initrd.img", "boot/extlinux/extlinux.conf",
                      "default l\nlabel l\n menu label Alpine\n kernel /boot/vmlinuz\n"
                      " initrd /boot/initrd.img\n append root=/dev/vda\n")
    disk = disks.image("extlinux", 64)
    disks.tool("mke2fs", "-q", "-t", "ext4", "-d", tree, disk)
    disks.boots(disk, "'Alpine': (loop0)/boot/vmlinuz", "root=/dev/vda")


def mistakes(disks):
    """A disk with nothing on it, and options that contradict each other."""
    empty = disks.image("empty", 4)
    for options, word in (([], "empty.img: there is no configuration"), (["--kernel", disks.kernel], "from the disk, too")):
        done = subprocess.run(disks.start(empty, *options), stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=LIMIT_S, check=False)
        expect(done.returncode in (1, 2) and word in done.stderr and "hint: " in done.stderr,
               f"status {done.returncode}: {done.stderr}")


def main():
    checks = Checks()
    disks = Disks(sys.argv[1])
    try:
        for function in (ext4_grub, xfs_blscfg, btrfs_grub, fat_systemd, ext4_extlinux, mistakes):
            checks.case(function.__name__, function, disks)
    finally:
        shutil.rmtree(disks.folder)
    checks.finish()


if __name__ == "__main__":
    main()
