#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Linux with its own drivers on NVMe, virtio SCSI, the floppy controller, a TPM, the source of entropy
and the firmware configuration device, all in one machine: read, write, compare with the image,
discard, errors, reset while busy.

    controllers.py SKEP TPM_MODEL
"""

import hashlib
import os
import re
import struct
import subprocess
import sys
import threading

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
FLOPPY_BYTES = 1440 << 10


class Controllers(GuestTest):
    """One guest, through all of its cases."""

    power_off_command = "poweroff -f"

    def __init__(self, skep, model):
        super().__init__()
        self.skep = skep
        self.model = model
        self.swtpm = None
        for name, size in (("nvme", 16 * MIB), ("scsi", 8 * MIB), ("iso", 4 * MIB),
                           ("floppy", FLOPPY_BYTES)):
            with open(self.path(name), "wb") as file:
                file.write(os.urandom(size))

    def bytes_of(self, name, offset=0, size=-1):
        """What an image holds."""
        with open(self.path(name), "rb") as file:
            file.seek(offset)
            return file.read(size)

    def start(self):
        os.mkdir(self.path("tpm"))
        self.swtpm = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.path('tpm')}", "--ctrl",
             f"type=unixio,path={self.path('socket')}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if os.path.exists(self.path("socket")):
                break
            threading.Event().wait(0.1)
        folder = guest_folder(ROOT, "drivers.sh")
        self.guest = Guest(
            [self.skep, "run", "-c", "2", "-m", "256M", "--net", "none", "--kernel", f"{folder}/vmlinuz",
             "--initrd", f"{folder}/initrd.cpio", "--disk", f"{self.path('nvme')},bus=nvme",
             "--disk", f"{self.path('scsi')},bus=scsi", "--cdrom", f"{self.path('iso')},bus=scsi",
             "--floppy", self.path("floppy"), "--floppy", "none",
             "--tpm", f"unix:{self.path('socket')},model={self.model}"], limit_s=600)
        self.guest.wait_prompt()
        self.run("echo 1 > /proc/sys/kernel/printk")

    def compare(self, device, name):
        """The guest reads all that the image holds."""
        found = re.search(r"[0-9a-f]{32}", self.run(f"md5sum {device}"))
        expect_equal(found.group(), hashlib.md5(self.bytes_of(name)).hexdigest(), device)

    def write(self, device, name, at_kib):
        """100 KiB of the guest's own reach the image."""
        self.run("dd if=/dev/urandom of=/tmp/x bs=1k count=100 2>/dev/null")
        self.run(f"dd if=/tmp/x of={device} bs=1k seek={at_kib} conv=fsync 2>/dev/null")
        found = re.search(r"[0-9a-f]{32}", self.run("md5sum /tmp/x"))
        data = self.bytes_of(name, at_kib << 10, 100 << 10)
        expect_equal(hashlib.md5(data).hexdigest(), found.group(), name)

    def nvme(self):
        self.compare("/dev/nvme0n1", "nvme")
        self.write("/dev/nvme0n1", "nvme", 3000)
        self.run(f"blkdiscard -o {4 * MIB} -l {MIB} /dev/nvme0n1")
        expect_equal(self.bytes_of("nvme", 4 * MIB, MIB), bytes(MIB), "what was discarded")
        expect(any(self.bytes_of("nvme", 5 * MIB, 4096)), "what was not discarded is still there")

    def several_queues(self):
        """One a processor; sixteen writers at once, eight on each."""
        for disk, name in (("nvme0n1", "nvme"), ("sda", "scsi")):
            expect_equal(self.run(f"ls /sys/block/{disk}/mq"), "0  1", f"queues of {disk}")
            self.run(f"dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null; D=/dev/{disk}")
            self.run("w() { taskset $((1 + $1 % 2)) dd if=/tmp/x of=$D bs=16k skip=$((16 * $1)) "
                     "seek=$((16 * $1)) count=16 oflag=direct 2>/dev/null || touch /tmp/failed; }")
            self.run("for i in $(seq 0 15); do w $i & done; wait; [ ! -e /tmp/failed ]")
            found = re.search(r"[0-9a-f]{32}", self.run("md5sum /tmp/x"))
            expect_equal(hashlib.md5(self.bytes_of(name, 0, 4 * MIB)).hexdigest(), found.group(), name)
        self.run("rm /tmp/x")

    def nvme_reset_while_busy(self):
        self.run("dd if=/dev/nvme0n1 of=/tmp/before bs=64k skip=128 2>/dev/null")
        self.run("(while :; do dd if=/tmp/before of=/dev/nvme0n1 bs=64k seek=128 oflag=direct "
                 "2>>/tmp/errors || echo failed >>/tmp/failures; done) & echo $! > /tmp/writer")
        for _ in range(3):
            self.run("echo 1 > /sys/class/nvme/nvme0/reset_controller")
        self.run("kill $(cat /tmp/writer); sleep 1; test ! -e /tmp/failures")
        self.run("echo 3 > /proc/sys/vm/drop_caches; "
                 "dd if=/dev/nvme0n1 bs=64k skip=128 2>/dev/null | cmp - /tmp/before")
        self.run("rm /tmp/before")

    def scsi(self):
        self.compare("/dev/sda", "scsi")
        self.compare("/dev/sr0", "iso")
        self.write("/dev/sda", "scsi", 1000)
        self.run(f"blkdiscard -o {4 * MIB} -l {MIB} /dev/sda")
        expect_equal(self.bytes_of("scsi", 4 * MIB, MIB), bytes(MIB), "what was discarded")
        status, _ = self.guest.run("dd if=/tmp/x of=/dev/sr0 2>/dev/null")
        expect(status != 0, "a CD-ROM is not written to")

    def driver_again(self, device, busy):
        """The driver of a device of sysfs goes while `busy` runs over and over, and comes again."""
        self.run(f"cd $(readlink -f {device}/driver); N=$(basename $(readlink -f {device}))")
        self.run("rm -f /tmp/stop")
        self.run(f"(while [ ! -e /tmp/stop ]; do {busy} 2>/dev/null; done &)")
        for _ in range(3):
            self.run("echo $N > unbind")
            self.run("echo $N > bind")
        self.run("touch /tmp/stop; cd /; sleep 1")

    def scsi_reset_while_busy(self):
        """What is under way fails; the disk and the drive are there again, under whatever name."""
        disk = "/tmp/busy"
        self.run(f"cp -a /dev/sda {disk}")
        self.driver_again("/sys/bus/virtio/drivers/virtio_scsi/virtio*",
                          f"dd if={disk} of=/dev/null bs=64k iflag=direct")
        self.run("for i in $(seq 60); do [ -b /dev/sr0 ] && break; sleep 1; done")
        self.run("S=$(basename $(echo /sys/bus/virtio/drivers/virtio_scsi/virtio*/host*/target*"
                 "/*/block/sd?))")
        self.compare("/dev/$S", "scsi")
        self.compare("/dev/sr0", "iso")

    def entropy(self):
        expect_equal(self.run("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0", "it")
        read = "dd if=/dev/hwrng bs=64 count=16 2>/dev/null | md5sum"
        self.driver_again("/sys/bus/virtio/drivers/virtio_rng/virtio*",
                          "dd if=/dev/hwrng bs=64 count=16 of=/dev/null")
        expect(self.run(read) != self.run(read), "two kilobytes of random numbers differ")

    def firmware_configuration(self):
        """The memory map, as firmware would read it."""
        self.run("ln -s /sys/firmware/qemu_fw_cfg/by_name/etc/e820/raw /tmp/map")
        dump = self.run("hexdump -v -e '1/1 \"%02x\"' /tmp/map; echo")
        entries = list(struct.iter_unpack("<QQI", bytes.fromhex(dump)))
        ram = sum(size for _, size, kind in entries if kind == 1)
        expect(255 * MIB < ram <= 256 * MIB, f"memory of the map: {entries}")

    def floppy(self):
        self.compare("/dev/fd0", "floppy")
        self.write("/dev/fd0", "floppy", 700)
        status, _ = self.guest.run("dd if=/dev/fd1 of=/dev/null count=1 2>/dev/null")
        expect(status != 0, "an empty drive cannot be read")

    def tpm(self):
        # A long prompt makes the shell break lines, so the folder gets a short name instead.
        self.run("ln -s /sys/class/tpm/tpm0 /t")
        expect_equal(self.run("cat /t/tpm_version_major"), "2", "version")
        expect_equal(self.run("cat /t/pcr-sha256/0"), "0" * 64, "PCR 0, as after power-on")

        # TPM2_GetRandom of 16 bytes, by hand: tag, size; code, count. In short lines: the shell's
        # line editor breaks long ones.
        self.run(r"printf '\200\001\000\000\000\014' >/tmp/c")
        self.run(r"printf '\000\000\001\173\000\020' >>/tmp/c")
        answers = set()
        for _ in range(2):
            self.run("exec 3<>/dev/tpm0")
            self.run("cat /tmp/c >&3")
            self.run("dd bs=4096 count=1 <&3 >/tmp/o")
            self.run("exec 3>&-")
            answers.add(self.run("hexdump -v -e '1/1 \"%02x\"' /tmp/o; echo"))
        expect_equal(len(answers), 2, f"two random numbers differ: {answers}")
        for answer in answers:
            expect(answer.startswith("80010000001c000000000010"), f"an answer of the TPM: {answer}")

    def tpm_reset_while_busy(self):
        """It has another number each time that its driver comes."""
        self.driver_again("/sys/class/tpm/tpm*/device", "cat /sys/class/tpm/tpm*/pcr-sha256/0")
        self.run("for i in $(seq 60); do [ -c /dev/tpm[0-9] ] && break; sleep 1; done")
        expect_equal(self.run("cat /sys/class/tpm/tpm*/pcr-sha256/0"), "0" * 64, "PCR 0")

    def tpm_gone(self):
        """swtpm dies: the guest is told by errors, and goes on."""
        self.swtpm.kill()
        self.swtpm.wait()
        for _ in range(2):
            _, text = self.guest.run("cat /sys/class/tpm/tpm*/pcr-sha256/0")
            expect("0" * 64 not in text, "a TPM that is gone still answers")
        self.compare("/dev/nvme0n1", "nvme")

    def close(self):
        super().close()
        if self.swtpm:
            self.swtpm.kill()
            self.swtpm.wait()


def main():
    run_guest_test(Controllers(sys.argv[1], sys.argv[2]),
                   ("nvme", "nvme_reset_while_busy", "scsi", "several_queues",
                    "scsi_reset_while_busy", "floppy", "tpm", "tpm_reset_while_busy", "entropy",
                    "firmware_configuration", "tpm_gone", "power_off"))


if __name__ == "__main__":
    main()
