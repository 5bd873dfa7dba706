#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots the guest of `make run` and uses it as a person does: shell, disk, network, reboot, power
off.

    shell.py SKEP ENGINE PROCESSORS
"""

import hashlib
import os
import socket
import subprocess
import sys
import threading

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRANSFER_BYTES = 100_000_000


def free_port():
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_all(connection):
    """Everything until the peer closes."""
    parts = []
    while True:
        data = connection.recv(1 << 20)
        if not data:
            return b"".join(parts)
        parts.append(data)


def connect(port):
    """A connection to a forwarded port."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.settimeout(240)
    return connection


class ShellTest(GuestTest):
    """One guest, through all of its cases."""

    def __init__(self, skep, engine, processors):
        super().__init__()
        self.skep = skep
        self.engine = engine
        self.processors = processors
        self.port = free_port()

    def start(self):
        """Boots to the prompt."""
        files = guest_folder(ROOT)
        disk = os.path.join(self.folder, "disk.img")
        subprocess.run(["cp", "--sparse=always", os.path.join(files, "disk.img"), disk], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True,
                       env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin"))
        self.guest = Guest([self.skep, "run", "--engine", self.engine, "-c", str(self.processors),
                            "-m", "512M", "--kernel", f"{files}/vmlinuz",
                            "--initrd", f"{files}/initrd.cpio", "--disk", disk,
                            "-p", f"{self.port}:5000"])
        self.quiet_prompt()

    def quiet_prompt(self):
        """Waits for the shell, and keeps the kernel's messages out of what commands print."""
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")

    def uname(self):
        status, text = self.guest.run("uname -a")
        expect_equal(status, 0, "status of uname")
        expect("Debian" in text and "x86_64" in text, text)

    def all_processors(self):
        _, text = self.guest.run("grep -c ^processor /proc/cpuinfo")
        expect_equal(text, str(self.processors), "processors")
        if self.processors > 1:
            # Local timer and rescheduling interrupts must have come on each.
            self.guest.run("for i in 1 2 3 4 5 6 7 8; do (echo x | cat >/dev/null) & done; wait")
            _, table = self.guest.run("cat /proc/interrupts")
            for name in ("LOC:", "RES:", "CAL:"):
                line = next(line for line in table.splitlines() if name in line)
                counts = [int(word) for word in line.split()[1:1 + self.processors]]
                expect(name == "RES:" or all(counts), f"{line}: not on every processor")

    def write_disk(self):
        status, _ = self.guest.run("echo kept-$((6 * 7)) >/mnt/note && sync")
        expect_equal(status, 0, "status of the write")

    def address(self):
        _, text = self.guest.run("ip -4 -o addr show eth0")
        expect("10.0.2.15/24" in text, text)

    def name_service(self):
        # The host may have no names to give; that the server answers at all is what counts.
        _, text = self.guest.run("nslookup localhost.; nslookup skep.invalid.", 60)
        expect("timed out" not in text and "10.0.2.3" in text, text)

    def transfer(self):
        """100 MB into the guest and the same back."""
        data = os.urandom(1 << 20) * (TRANSFER_BYTES >> 20)
        digest = hashlib.md5(data).hexdigest()
        self.guest.send("nc -l -p 5000 >/tmp/got; md5sum /tmp/got; echo received''-all\n")
        self.send_retrying(data)
        text = self.guest.wait_for("received-all", 600)
        expect(digest in text, f"sent {digest}, the guest has {text}")
        self.guest.send("nc -l -p 5000 </tmp/got; echo sent''-all\n")
        back = self.receive_retrying()
        expect_equal(hashlib.md5(back).hexdigest(), digest, "what came back")
        self.guest.wait_for("sent-all")
        self.guest.run("rm /tmp/got")

    def send_retrying(self, data):
        """The guest's listener may not be there yet: the user network then closes at once."""
        for _ in range(50):
            with connect(self.port) as connection:
                try:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    read_all(connection)
                    return
                except OSError:
                    threading.Event().wait(0.2)
        raise AssertionError("the guest took no connection")

    def receive_retrying(self):
        for _ in range(50):
            with connect(self.port) as connection:
                try:
                    back = read_all(connection)
                    if back:
                        return back
                except OSError:
                    pass
                threading.Event().wait(0.2)
        raise AssertionError("the guest sent nothing")

    def reboot(self):
        """The same process starts the guest again, and the disk kept what was written."""
        self.guest.send("reboot\n")
        self.guest.wait_for("This is a guest of skep")
        self.quiet_prompt()
        _, text = self.guest.run("cat /mnt/note")
        expect_equal(text, "kept-42", "the file written before the reboot")


def main():
    skep, engine, processors = sys.argv[1], sys.argv[2], int(sys.argv[3])
    run_guest_test(ShellTest(skep, engine, processors),
                   ("uname", "all_processors", "write_disk", "address", "name_service", "transfer",
                    "reboot", "power_off"))


if __name__ == "__main__":
    main()
