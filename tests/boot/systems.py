#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Other systems than Linux, and boot loaders that start it: each to a state that is named, read from
its serial console or from its screen.

    systems.py SKEP FLOPPY_PROGRAM ENGINE CASE…
"""

import functools
import hashlib
import http.server
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder
from terminal import ROOT, Screen, Vga

SECTOR = 512
FLOPPY_BYTES = 1440 << 10
LIMIT_S = 600
DOM0 = "console=hvc0 net=off"
LINUX = "console=ttyS0 net=off"


def tool(*command, text=None):
    """A program of the host; what it says is shown when it fails."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    done = subprocess.run(command, input=text, text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          env=dict(os.environ, PATH=path, MTOOLS_SKIP_CHECK="1"))
    expect_equal(done.returncode, 0, f"status of {' '.join(command)} ({done.stdout[-2000:]})")


class Systems:
    """A folder with images that the cases make, and how a machine is started with them."""

    def __init__(self, skep, program, engine):
        self.skep, self.program, self.engine = skep, program, engine
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.files = guest_folder(ROOT, "systems.sh")
        self.linux = guest_folder(ROOT)

    def path(self, name):
        """A file of this test."""
        return os.path.join(self.folder, name)

    def put(self, name, text):
        """Makes a file, and folders that it needs; gives its path."""
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)
        return self.path(name)

    def put_linux(self, name):
        """A folder with the small guest's kernel and initrd."""
        os.makedirs(self.path(name), exist_ok=True)
        for file in ("vmlinuz", "initrd.cpio"):
            shutil.copy(os.path.join(self.linux, file), self.path(name))
        return self.path(name)

    def start(self, *options, network="none", limit_s=LIMIT_S):
        """A machine whose serial console is drawn."""
        return Screen([self.skep, "run", "--engine", self.engine, "--no-reboot", "--net", network,
                       *options], limit_s)

    # ---- GRUB ----

    def grub_image(self, config):
        """grub-mkrescue's image of the folder "grub"."""
        self.put("grub/boot/grub/grub.cfg", config)
        tool("grub-mkrescue", "-o", self.path("grub.iso"), self.path("grub"))
        return self.path("grub.iso")

    def grub_linux(self):
        """GRUB's menu on the VGA; its entry starts Linux, which talks on the serial port."""
        self.put_linux("grub")
        image = self.grub_image("set timeout=60\nmenuentry another { halt }\n"
                                "menuentry the-small-guest {\n"
                                f"linux /vmlinuz {LINUX}\ninitrd /initrd.cpio\n}}\n")
        options = ("-m", "256M", "--cdrom", image)
        with Vga(self.skep, self.folder, self.engine, options, LIMIT_S) as vga:
            lines = vga.wait_text("the-small-guest")
            expect(any("GNU GRUB" in line for line in lines), lines)
            vga.verb("key", "down")
            vga.verb("key", "ret")
            linux_works(vga)

    def grub_saved(self):
        """Saved while a command is half typed at GRUB's prompt: screen, keyboard and disk go on, on
        the same engine, then on the interpreter."""
        options = ("-m", "128M", "--cdrom", "/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
        with Vga(self.skep, self.folder, self.engine, options, LIMIT_S) as vga:
            vga.wait_text("GNU GRUB")
            vga.verb("key", "c")
            vga.wait_text("grub>")
            for number, engine in enumerate((self.engine, "soft,translator=off")):
                vga.verb("type", f"echo half''{number}and''")
                before = vga.wait_text(f"half''{number}and''")
                vga.go_on(engine)
                expect_equal([line.replace("?", " ") for line in vga.text()],
                             [line.replace("?", " ") for line in before],
                             "the screen of the restored machine")  # but for the cursor
                vga.verb("type", "half\n")
                vga.wait_text(f"half{number}andhalf")
            vga.verb("type", "ls (cd)/boot/grub/i386-pc/he''xdump.mod\n")
            vga.wait_text("hexdump.mod")

    # ---- SYSLINUX ----

    def syslinux_config(self):
        return (f"default linux\nprompt 1\nlabel linux\n  kernel vmlinuz\n"
                f"  append initrd=initrd.cpio {LINUX}\nlabel memtest\n  linux memtest\n"
                "  append console=ttyS0,115200\n")

    def boot_linux(self, *options):
        """From the prompt of a loader of the family to the prompt of Linux."""
        with self.start("-m", "256M", *options) as screen:
            screen.wait("boot:")
            screen.type("linux", "boot: ")
            linux_works(screen)

    def isolinux(self):
        """A CD with ISOLINUX."""
        folder = self.put_linux("isolinux")
        for file in ("isolinux.bin", "ldlinux.c32"):
            shutil.copy(os.path.join(self.files, file), folder)
        self.put("isolinux/isolinux.cfg", self.syslinux_config())
        tool("xorriso", "-as", "mkisofs", "-o", self.path("isolinux.iso"), "-b", "isolinux.bin", "-c",
             "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", folder)
        self.boot_linux("--cdrom", self.path("isolinux.iso"))

    def disk_image(self, partition):
        """A disk with this one partition from 1 MiB on, active, and SYSLINUX's boot record."""
        image, first = self.path("disk"), (1 << 20) // SECTOR
        with open(os.path.join(self.files, "mbr.bin"), "rb") as file:
            record = file.read()
        with open(image, "wb") as file:
            file.write(record)
            file.truncate((1 << 20) + os.path.getsize(partition))
        tool("sfdisk", "-q", image, text=f"label: dos\nstart={first}, type=c, bootable\n")
        tool("dd", f"if={partition}", f"of={image}", "bs=1M", "seek=1", "conv=notrunc")
        return image

    def syslinux(self):
        """A disk with SYSLINUX in a FAT file system."""
        folder, partition = self.put_linux("linux"), self.path("fat")
        with open(partition, "wb") as file:
            file.truncate(63 << 20)
        tool("mkfs.vfat", "-h", str((1 << 20) // SECTOR), partition)
        self.put("linux/syslinux.cfg", self.syslinux_config())
        for file in ("vmlinuz", "initrd.cpio", "syslinux.cfg"):
            tool("mcopy", "-i", partition, os.path.join(folder, file), "::/")
        tool(os.path.join(self.files, "syslinux"), "--install", partition)
        self.boot_linux("--firmware", "bios", "--disk", self.disk_image(partition) + ",bus=ahci")

    def syslinux_floppy(self):
        """A floppy disk with SYSLINUX in a FAT file system, which starts memtest86+ from it."""
        image = self.path("floppy")
        with open(image, "wb") as file:
            file.truncate(FLOPPY_BYTES)
        tool("mkfs.vfat", image)
        tool("mcopy", "-i", image, os.path.join(self.files, "memtest"), "::/")
        tool("mcopy", "-i", image, self.put("syslinux.cfg", self.syslinux_config()), "::/")
        tool(os.path.join(self.files, "syslinux"), "--install", image)
        with self.start("-m", "32M", "--firmware", "bios", "--floppy", image) as screen:
            screen.wait("boot:")
            screen.type("memtest", "boot: ")
            screen.wait("Memtest86+ v")
            screen.wait(re.compile(r"Test #[1-9] "))

    def extlinux(self):
        """A disk with EXTLINUX in an ext4 file system, installed by a guest; then it boots itself."""
        folder, partition = self.put_linux("linux"), self.path("ext")
        self.put("linux/extlinux.conf", self.syslinux_config())
        tool("mkfs.ext4", "-q", "-O", "^64bit,^metadata_csum", "-d", folder, partition, "100M")
        image = self.disk_image(partition)
        drivers = guest_folder(ROOT, "drivers.sh")
        with Guest([self.skep, "run", "--engine", self.engine, "-m", "256M", "--net", "none",
                    "--kernel", f"{drivers}/vmlinuz", "--initrd", f"{drivers}/initrd.cpio",
                    "--initrd", f"{self.files}/programs.cpio", "--disk", image], LIMIT_S) as guest:
            guest.wait_prompt()
            # mkfs leaves holes for blocks of zeroes; EXTLINUX reads none.
            for command in ("mount -t ext4 /dev/vda1 /mnt; cd /mnt",
                            "for f in vmlinuz initrd.cpio; do cp $f x && mv x $f; done",
                            "extlinux --install /mnt", "cd /; umount /mnt"):
                status, text = guest.run(command)
                expect_equal(status, 0, f"status of {command} ({text})")
            guest.send("poweroff -f\n")
            expect_equal(guest.wait_exit(), 0, "status of the machine that installs")
        self.boot_linux("--firmware", "bios", "--disk", image)

    # ---- others ----

    def floppy_program(self):
        """A boot sector that uses INT 13h, 10h and 16h: reads all of the disk, and writes."""
        image = self.path("program")
        with open(self.program, "rb") as file:
            data = file.read()
        data += random.Random(20261128).randbytes(FLOPPY_BYTES - len(data))
        with open(image, "wb") as file:
            file.write(data)
        total = sum(struct.unpack(f"<{len(data) // 2}H", data)) & 0xffff
        options = ("-m", "16M", "--firmware", "bios", "--floppy", image)
        with Vga(self.skep, self.folder, self.engine, options, LIMIT_S) as vga:
            lines = vga.wait_text("key ")
            expect(any(f"sum {total:04x}" in line for line in lines), f"{total:04x}: {lines}")
            vga.verb("key", "k")
            vga.wait_text("written")
        with open(image, "rb") as file:
            after = file.read()
        expect(after == data[:-SECTOR] + b"k" * SECTOR, "what is on the disk at last")

    def ipxe(self):
        """iPXE's CD: an address by DHCP, then Linux by HTTP."""
        folder = self.put_linux("http")
        self.put("http/s", f"#!ipxe\nkernel vmlinuz {LINUX}\ninitrd initrd.cpio\nboot\n")
        handler = functools.partial(QuietHandler, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with self.start("-m", "256M", "--cdrom", os.path.join(self.files, "ipxe.iso"),
                            network="user") as screen:
                screen.wait("Ctrl-B")
                screen.send("\x02")
                screen.wait("iPXE>")
                screen.type("dhcp", "iPXE> ")
                screen.wait(re.compile(r"Configuring .* ok"))
                screen.type(f"chain http://10.0.2.2:{server.server_port}/s", "iPXE> ")
                linux_works(screen)
            server.shutdown()

    def memtest(self):
        """All tests of memtest86+ but the one that waits for bits to fade: no error."""
        self.run_memtest(10)

    def memtest_pass(self):
        """A whole pass."""
        self.run_memtest(None)

    def run_memtest(self, last_test):
        with self.start("-m", "24M", "--kernel", os.path.join(self.files, "memtest"), "--cmdline",
                        "console=ttyS0,115200") as screen:
            screen.wait("Test #0 ")
            screen.wait(f"Test #{last_test} " if last_test else "Pass:  1 ")
            screen.wait("Errors: 0 ")
            screen.send("\x1b")
            expect_equal(screen.wait_exit(), 0, "status after Escape, which reboots")

    # ---- Xen ----

    def xen_files(self):
        """The hypervisor, and for dom0 the generic kernel: the cloud kernel cannot be one."""
        drivers = guest_folder(ROOT, "drivers.sh")
        return f"{self.files}/xen", f"{drivers}/vmlinuz", f"{drivers}/initrd.cpio"

    def xen(self):
        """Xen as a Multiboot kernel, Linux as its dom0: to the shell. Its pages lie anywhere in the
        machine's memory, which is what its disks' DMA has to find."""
        hypervisor, kernel, initrd = self.xen_files()
        disks, names = [], ("virtio", "ahci")
        for name in names:
            with open(self.path(name), "wb") as file:
                file.write(random.Random(name).randbytes(4 << 20))
            disks += ["--disk", f"{self.path(name)},bus={name}"]
        with self.start("-m", "512M", "--no-balloon", "--kernel", hypervisor, "--initrd",
                        f"{kernel} {DOM0},{initrd}", "--cmdline",
                        "console=com1 com1=115200,8n1 no-real-mode", *disks) as guest:
            dom0_works(guest, 1)
            _, text = guest.run("cat /dev/vda /dev/sda | md5sum")
            data = b"".join(random.Random(name).randbytes(4 << 20) for name in names)
            expect(hashlib.md5(data).hexdigest() in text, f"what dom0 reads: {text}")
            linux_works(guest)

    def xen_grub(self):
        """Xen through GRUB's multiboot2, with two processors."""
        hypervisor, kernel, initrd = self.xen_files()
        os.makedirs(self.path("grub"), exist_ok=True)
        for name, path in (("xen", hypervisor), ("vmlinuz", kernel), ("initrd.cpio", initrd)):
            shutil.copy(path, self.path("grub/" + name))
        image = self.grub_image("insmod all_video\nmultiboot2 /xen console=com1 com1=115200,8n1\n"
                                f"module2 /vmlinuz {DOM0}\nmodule2 /initrd.cpio\nboot\n")
        with self.start("-m", "512M", "-c", "2", "--no-balloon", "--cdrom", image) as guest:
            dom0_works(guest, 2)
            linux_works(guest)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Without a line of log for each request."""

    def log_message(self, *_):
        pass


def linux_works(guest):
    """The small guest comes to its prompt, and its checksums are right."""
    guest.wait_prompt()
    guest.run("dmesg -n 1")
    status, text = guest.run("echo skep | sha256sum")
    expect_equal(status, 0, "status")
    expect("38c8cda4d482919cc5df4accdb4a5fd49ea42ebdf25057de7e614fbb09d84661" in text, text)
    guest.send("poweroff -f\n")
    expect_equal(guest.wait_exit(), 0, "exit status")


def dom0_works(guest, processors):
    """Xen starts it; it comes to its prompt and knows what it runs on."""
    guest.wait_prompt()
    expect("(XEN) Xen version" in guest.console(), "Xen has not told its version")
    guest.run("dmesg -n 1")
    _, text = guest.run("cat /sys/hypervisor/type")
    expect("xen" in text.split(), text)
    _, text = guest.run("grep -c ^processor /proc/cpuinfo")
    expect(str(processors) in text.split(), text)


def main():
    skep, program, engine = sys.argv[1:4]
    checks = Checks()
    systems = Systems(skep, program, engine)
    try:
        checks.methods(systems, sys.argv[4:])
    finally:
        systems.close()
    checks.finish()


if __name__ == "__main__":
    main()
