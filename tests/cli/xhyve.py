#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Scripts that were written for xhyve and HyperKit run as they are: flags, exit codes, signals,
files that are made and removed.

    xhyve.py SKEP
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
from check import Checks, expect, expect_equal  # noqa: E402
from guest import Guest, guest_folder  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 60
UUID = "8e7af180-c54d-4aa2-9bef-59cf2bc8ea84"

# As xhyve's users have them: variables for each kind of flag, the kernel's line last.
SCRIPT = """#!/bin/sh
KERNEL="{kernel}"
INITRD="{initrd}"
CMDLINE="earlyprintk=serial console=ttyS0 acpi=off quiet"
MEM="-m 256M"
SMP="-c 2"
NET="-s 2:0,virtio-net"
IMG_HDD="-s 4,virtio-blk,file://{disk}?sync=os&buffered=1,format=raw"
PCI_DEV="-s 0:0,hostbridge -s 31,lpc"
LPC_DEV="-l com1,stdio"
ACPI="-A"
UUID="-U {uuid}"
exec {xhyve} $ACPI $MEM $SMP $PCI_DEV $LPC_DEV $NET $IMG_HDD $UUID -f kexec,$KERNEL,$INITRD,"$CMDLINE"
"""


class Xhyve:
    """The program under its other names, and the files that it is given."""

    def __init__(self, skep):
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        files = guest_folder(ROOT)
        self.kernel = f"{files}/vmlinuz"
        self.initrd = f"{files}/initrd.cpio"
        self.xhyve = self.path("xhyve")
        self.hyperkit = self.path("com.docker.hyperkit")
        for name in (self.xhyve, self.hyperkit):
            os.symlink(os.path.abspath(skep), name)
        self.disk = self.path("disk.img")
        with open(self.disk, "wb") as file:
            file.write(b"first sector".ljust(512) + bytes(1 << 20))

    def path(self, name):
        """A name in the test's folder."""
        return os.path.join(self.folder, name)

    def kexec(self):
        """The flags that boot the small guest with its console on the terminal."""
        return ["-m", "256", "-c", "2", "-l", "com1,stdio", "-f",
                f"kexec,{self.kernel},{self.initrd},console=ttyS0 quiet"]

    def ends(self, program, command, wanted):
        """A guest that runs a command at its prompt ends the program with this status."""
        with Guest([program] + self.kexec()) as guest:
            guest.wait_prompt()
            guest.send(command + "\n")
            expect_equal(guest.wait_exit(), wanted, f"{os.path.basename(program)}: {command}")

    def prints(self, *arguments):
        """What a call that runs nothing prints."""
        return subprocess.run([self.xhyve, *arguments], capture_output=True, text=True,
                              timeout=LIMIT_S, check=True).stdout.strip()

    def fails(self, arguments, *words):
        """A call that ends with status 1 and a message with these words."""
        before = sorted(os.listdir(self.folder))
        done = subprocess.run([self.xhyve, *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
        expect_equal(done.returncode, 1, f"status ({done.stderr.strip()})")
        for word in words:
            expect(word in done.stderr, f"{word!r} is not in {done.stderr!r}")
        expect_equal(sorted(os.listdir(self.folder)), before, "what is left behind")


def script(xhyve):
    """A run script boots; devices are in their slots, the address follows from the UUID. xhyve's
    own scripts have acpi=off: processors and interrupts come from the MP table, which Debian's
    kernel for clouds does not read, and nothing turns the machine off."""
    files = guest_folder(ROOT, "drivers.sh")
    path = xhyve.path("xhyverun.sh")
    with open(path, "w", encoding="utf-8") as file:
        file.write(SCRIPT.format(kernel=f"{files}/vmlinuz", initrd=f"{files}/initrd.cpio",
                                 disk=xhyve.disk, xhyve=xhyve.xhyve, uuid=UUID))
    mac = xhyve.prints("-M", "-U", UUID, "-s", "2:0,virtio-net")
    with Guest(["sh", path]) as guest:
        guest.wait_prompt()
        _, address = guest.run("cat /sys/class/net/eth0/address")
        expect_equal("MAC: " + address, mac, "the card's address")
        _, places = guest.run("ls /sys/bus/pci/devices")
        expect_equal(places.split(), ["0000:00:00.0", "0000:00:02.0", "0000:00:04.0",
                                      "0000:00:1f.0"], "PCI functions")
        _, text = guest.run("head -c 12 /dev/vda; echo")
        expect_equal(text, "first sector", "the disk")
        _, uuid = guest.run("cat /sys/class/dmi/id/product_uuid")
        expect_equal(uuid.lower(), UUID, "the machine's UUID")
        _, count = guest.run("grep -c ^processor /proc/cpuinfo")
        expect_equal(count, "2", "processors")
        status, text = guest.run("ping -c 1 10.0.2.2")
        expect_equal(status, 0, f"ping: {text}")
        guest.send("poweroff -f\n")
        expect_equal(guest.wait_exit(), 2, "xhyve's status where nothing turns it off")


def exit_codes(xhyve):
    """Off, reset, halt and triple fault, as either program tells them."""
    xhyve.ends(xhyve.xhyve, "reboot -f", 0)
    xhyve.ends(xhyve.hyperkit, "poweroff -f", 0)
    xhyve.ends(xhyve.hyperkit, "reboot -f", 2)
    xhyve.ends(xhyve.xhyve, "busybox halt -f", 2)
    xhyve.ends(xhyve.hyperkit, "busybox halt -f", 0)
    rom = xhyve.path("fault.rom")
    # At the reset vector CS:F000H is where these 4 KiB begin: an empty IDT, then an interrupt.
    image = bytearray(4096)
    image[0:8] = b"\x2e\x0f\x01\x1e\x20\xf0\xcd\x03"
    image[0xff0:0xff3] = b"\xe9" + (0x10000 - 0xff3).to_bytes(2, "little")
    with open(rom, "wb") as file:
        file.write(image)
    for program in (xhyve.xhyve, xhyve.hyperkit):
        done = subprocess.run([program, "-l", f"bootrom,{rom}"], timeout=LIMIT_S, check=False,
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expect_equal(done.returncode, 3, "status for a triple fault")


def strange_port(xhyve):
    """-e ends what reads a port that nothing answers; without it the guest goes on, to halt."""
    rom = xhyve.path("port.rom")
    image = bytearray(4096)
    image[0:6] = b"\xba\x34\x12\xec\xfa\xf4"  # mov $0x1234,%dx; in (%dx),%al; cli; hlt
    image[0xff0:0xff3] = b"\xe9" + (0x10000 - 0xff3).to_bytes(2, "little")
    with open(rom, "wb") as file:
        file.write(image)
    for program, flags, wanted in ((xhyve.xhyve, ["-e"], 1), (xhyve.hyperkit, ["-e"], 100),
                                   (xhyve.xhyve, [], 2)):
        done = subprocess.run([program, *flags, "-l", f"bootrom,{rom}"], timeout=LIMIT_S,
                              check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        expect_equal(done.returncode, wanted, f"status with {flags}: {done.stderr}")
        expect_equal("port 0x1234" in done.stderr, bool(flags), f"message {done.stderr!r}")


def signals(xhyve):
    """SIGUSR1 pauses and SIGUSR2 resumes; a second SIGTERM ends what ignores the power button."""
    pid_file = xhyve.path("pid")
    with Guest([xhyve.hyperkit, "-F", pid_file] + xhyve.kexec()) as guest:
        guest.wait_prompt()
        with open(pid_file, encoding="ascii") as file:
            expect_equal(int(file.read()), guest.process.pid, "the pid file")
        xhyve.fails(["-F", pid_file] + xhyve.kexec(), "pid file", pid_file, "File exists")
        guest.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)  # for the signal to arrive; what is typed afterwards must not be answered
        guest.send("echo he''re\n")
        for _ in range(5):
            guest.read_some(0.2)
        expect("here" not in guest.console(), "a paused machine ran a command")
        guest.process.send_signal(signal.SIGUSR2)
        guest.wait_for("here")
        guest.terminate()  # presses the power button, which this guest has no driver for
        guest.run("true")
        guest.terminate()
        expect_equal(guest.wait_exit(), 128 + signal.SIGTERM, "status after the second SIGTERM")
    expect(not os.path.exists(pid_file), "the pid file is left behind")


# As Docker for Mac started it, but for its qcow2 image, its 9P servers and sockets.
DOCKER = """-A -m 512M -c 2 -u -s 0:0,hostbridge -s 31,lpc
-s 2:0,virtio-vpnkit,uuid={uuid},path={folder}/s50,macfile={folder}/mac.0
-s 3,virtio-blk,file://{disk}?sync=os&buffered=1,sectorsize=512/4096 -s 4,virtio-rnd
-l com1,autopty={folder}/tty,log={folder}/console-ring -F {folder}/hypervisor.pid"""


def docker(xhyve):
    """autopty=LINK makes a link to the terminal, which goes when the machine does; a log beside it
    stays. What such a command line has besides is refused with what to do instead."""
    link = xhyve.path("tty")
    flags = DOCKER.format(uuid=UUID, folder=xhyve.folder, disk=xhyve.disk).split()
    flags += ["-f", f"kexec,{xhyve.kernel},{xhyve.initrd},earlyprintk=serial console=ttyS0 quiet"]
    xhyve.fails(flags + ["-s", "6,virtio-9p,path=/s40,tag=db"], "virtio-9p", "leave this slot out")
    xhyve.fails(flags + ["-s", "7,virtio-sock,guest_cid=3,path=/,guest_forwards=2376;1525"],
                "virtio-sock", "leave this slot out")
    with Guest([xhyve.hyperkit] + flags) as run:
        run.wait_for("com1 is at /dev/pts/")
        terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
        seen = b""
        while b"skep guest:" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"poweroff -f\n")
        expect_equal(run.wait_exit(), 0, "status for power off")
        os.close(terminal)
    expect(not os.path.lexists(link), "the link is left behind")
    with open(xhyve.path("console-ring"), "rb") as file:
        expect(b"skep guest:" in file.read(), "the log does not have what the guest wrote")


def line(xhyve):
    """A serial line that is there, as /dev/ttyS0 would be: the other side is a pty's master."""
    master, slave = os.openpty()
    flags = ["-m", "256", "-l", f"com1,{os.ttyname(slave)}", "-f",
             f"kexec,{xhyve.kernel},{xhyve.initrd},console=ttyS0 quiet"]
    with Guest([xhyve.xhyve] + flags) as run:
        seen = b""
        while b"skep guest:" not in seen:
            seen += os.read(master, 4096)
        os.write(master, b"poweroff -f\n")
        expect_equal(run.wait_exit(), 1, "status for power off")
    os.close(master)
    os.close(slave)


def screen_and_cdrom(xhyve):
    """fbuf is a VGA with a VNC server that asks for the password, ahci-cd a drive on the board."""
    flags = ["-s", f"3,ahci-cd,{xhyve.disk}", "-s",
             "29,fbuf,tcp=127.0.0.1:0,w=800,h=600,vga=off,password=secret",
             "-s", "5:0,e1000"]
    with Guest([xhyve.xhyve] + flags + xhyve.kexec()) as guest:
        guest.wait_prompt()
        _, places = guest.run("ls /sys/bus/pci/devices")
        expect("0000:00:1f.2" in places and "0000:00:05.0" in places, f"devices: {places}")
        _, classes = guest.run("cat /sys/bus/pci/devices/*/class")
        expect("0x030000" in classes, f"no VGA: {classes}")
        found = re.search(rb"VNC server at 127.0.0.1:(\d+)", guest.errors)
        expect(found, f"no VNC server: {guest.errors}")
        with socket.create_connection(("127.0.0.1", int(found.group(1))), LIMIT_S) as viewer:
            viewer.settimeout(LIMIT_S)
            expect_equal(viewer.recv(12), b"RFB 003.008\n", "greeting")
            viewer.sendall(b"RFB 003.008\n")
            kinds = viewer.recv(1)
            kinds = viewer.recv(kinds[0])
            expect(2 in kinds and 1 not in kinds, f"kinds of security: {kinds}")
        guest.send("poweroff -f\n")
        expect_equal(guest.wait_exit(), 1, "status for power off")


def texts(xhyve):
    """What prints and ends."""
    expect(xhyve.prints("-h").startswith("Usage: skep xhyve"), "help")
    expect(xhyve.prints("-v").startswith("skep "), "version")
    expect_equal(xhyve.prints("-M", "-U", UUID, "-s", "2,virtio-net"),
                 xhyve.prints("-M", "-s", "2,virtio-net", "-U", UUID.upper()), "the same address")


def mistakes(xhyve):
    """Each names the thing and what to do."""
    good = xhyve.kexec()
    xhyve.fails([], "neither -f nor -l bootrom", "hint: ")
    xhyve.fails(["-f", "kexec,/no/kernel,,console=ttyS0", "quiet"], "'quiet'", "quotation mark")
    xhyve.fails(["-F", "/no/such/folder/pid"] + good, "/no/such/folder/pid", "a folder that is")
    xhyve.fails(["-l", "bootrom"], "bootrom", "OVMF.fd")
    xhyve.fails(["-Z"], "-Z", "not known")
    xhyve.fails(["-m"], "-m", "needs a value")
    xhyve.fails(["-s", "4"] + good, "emulation", "none of this name")
    xhyve.fails(["-s", "32,virtio-net"] + good, "slot 32", "0 to 31")
    xhyve.fails(["-s", "1:4:0,virtio-net"] + good, "slot 1:4:0")
    xhyve.fails(["-s", "0,virtio-net"] + good, "chipset")
    xhyve.fails(["-s", "4,virtio-net", "-s", "4:0,virtio-rnd"] + good, "taken already")
    xhyve.fails(["-s", "4,virtio-blk"] + good, "no path")
    xhyve.fails(["-s", "4,virtio-blk,x.qcow2,format=qcow"] + good, "format=qcow", "qemu-img")
    xhyve.fails(["-s", "4,virtio-blk,/no/such/disk"] + good, "/no/such/disk")
    xhyve.fails(["-s", "4,virtio-9p,path=x,tag=y"] + good, "virtio-9p", "hint: ")
    xhyve.fails(["-s", "4,virtio-sock,guest_cid=3,path=x"] + good, "virtio-sock", "hint: ")
    xhyve.fails(["-f", "fbsd,userboot.so,disk,"], "userboot.so", "bootrom")
    xhyve.fails(["-f", "kexec,/no/kernel,,"], "/no/kernel")
    xhyve.fails(["-l", "com9,stdio"] + good, "com9")
    xhyve.fails(["-l", "com1"] + good, "com1")
    xhyve.fails(["-l", "com1,nonsense"] + good, "nonsense")
    xhyve.fails(["-l", "com2,null,/dev/null"] + good, "/dev/null", "one already")
    xhyve.fails(["-l", "com2,/dev/null"] + good, "/dev/null", "not a terminal", "hint: ")
    xhyve.fails(["-l", "com2,log=/no/such/folder/log"] + good, "/no/such/folder/log")
    xhyve.fails(["-s", f"4,virtio-blk,{xhyve.disk},sectorsize=4096"] + good, "sectorsize=4096",
                "512 bytes")
    xhyve.fails(["-U", "12345"] + good, "32 hexadecimal digits")
    xhyve.fails(["-c", "0"] + good, "number of processors")
    xhyve.fails(["-p", "0"] + good, "VCPU:HOSTCPU")


def main():
    checks = Checks()
    xhyve = Xhyve(sys.argv[1])
    try:
        for function in (script, exit_codes, strange_port, signals, docker, line, screen_and_cdrom,
                         texts, mistakes):
            checks.case(function.__name__, function, xhyve)
    finally:
        shutil.rmtree(xhyve.folder)
    checks.finish()


if __name__ == "__main__":
    main()
