#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An Intel network card with Linux's own driver: link, DHCP, transfers both ways, the interface down
and up under load, and a file from the user network's TFTP folder.

    network.py SKEP MODEL DRIVER
"""

import hashlib
import http.server
import os
import socket
import sys
import threading

from check import expect, expect_equal, run_guest_test
from guest import Guest, GuestTest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRANSFER_BYTES = 8_000_000


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the payload."""

    def do_GET(self):  # pylint: disable=invalid-name
        """The payload."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.payload)))
        self.end_headers()
        try:
            self.wfile.write(self.server.payload)
        except OSError:
            pass  # the guest took its interface down

    def log_message(self, *_):  # pylint: disable=arguments-differ
        """Silent."""


class NetworkTest(GuestTest):
    """One guest, through all of its cases."""

    power_off_command = "poweroff -f"

    def __init__(self, skep, model, driver):
        super().__init__()
        self.skep, self.model, self.driver = skep, model, driver
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.payload = os.urandom(TRANSFER_BYTES)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(120)
        self.url = f"http://10.0.2.2:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def start(self):
        """To the prompt, with the card's driver loaded."""
        guest, programs = (guest_folder(ROOT, recipe) for recipe in ("drivers.sh", "systems.sh"))
        with open(os.path.join(self.folder, "note"), "w", encoding="ascii") as file:
            file.write("from-the-folder\n")
        self.guest = Guest([self.skep, "run", "--engine", "soft", "-m", "512M",
                            "--net", f"user,model={self.model},tftp={self.folder},http={self.folder}",
                            "--initrd", os.path.join(guest, "initrd.cpio"),
                            "--initrd", os.path.join(programs, "programs.cpio"),
                            "--kernel", os.path.join(guest, "vmlinuz")])
        self.guest.wait_prompt()
        self.guest.run("stty cols 999")  # no line of this test is broken by the shell's editor
        self.guest.run("dmesg -n 1")  # nor by the kernel's messages

    def check(self, command, what):
        """Runs a command that must succeed; gives what it printed."""
        status, text = self.guest.run(command)
        expect_equal(status, 0, f"{what} ({text})")
        return text

    def address(self):
        """The driver is bound, the link is up, DHCP gave an address."""
        text = self.check("readlink /sys/class/net/eth0/device/driver", "the driver")
        expect(text.endswith("/" + self.driver), f"the driver is {text}")
        expect_equal(self.check("cat /sys/class/net/eth0/carrier /sys/class/net/eth0/speed", "link"),
                     "1\n1000", "carrier and speed")
        expect("10.0.2.15/24" in self.check("ip -4 addr show eth0", "address"), "no address by DHCP")

    def receive(self):
        """A file from the host."""
        text = self.check(f"wget -q -O /tmp/in {self.url} && sha256sum </tmp/in", "wget")
        expect_equal(text.split()[0], hashlib.sha256(self.server.payload).hexdigest(), "sum")

    def transmit(self):
        """The same file back."""
        digest = hashlib.sha256()
        port = self.listener.getsockname()[1]
        self.check(f"(nc 10.0.2.2 {port} </tmp/in >/dev/null &)", "nc")
        connection, _ = self.listener.accept()
        left = TRANSFER_BYTES
        with connection:
            connection.settimeout(120)
            while left and (data := connection.recv(1 << 16)):
                digest.update(data)
                left -= len(data)
        expect_equal(digest.hexdigest(), hashlib.sha256(self.server.payload).hexdigest(), "sum")

    def down_and_up(self):
        """The interface down and up while a transfer runs, four times; then it works again."""
        self.check(f"(for i in 1 2 3 4 5 6; do wget -q -T 5 -O /dev/null {self.url}; done) "
                   ">/dev/null 2>&1 & for i in 1 2 3 4; do usleep 300000; ip link set eth0 down; "
                   "ip link set eth0 up; done; udhcpc -i eth0 -s /etc/udhcpc.script -q -n -t 10 -T 2 "
                   ">/dev/null 2>&1; kill $! 2>/dev/null; true", "down and up")
        self.receive()

    def ethtool(self):
        """What the driver tests by itself (registers by patterns, EEPROM, interrupts, frames looped back
        by the PHY), other rings, and the card's own counters."""
        status, text = self.guest.run("ethtool -t eth0 offline")
        expect(status == 0 and "PASS" in text, f"the driver's own test: {text}")
        self.check("ethtool -G eth0 rx 128 tx 512", "ring sizes")
        text = self.check("ethtool -g eth0 | tail -n +7", "ring sizes")
        sizes = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        expect_equal((sizes["RX"].strip(), sizes["TX"].strip()), ("128", "512"), "ring sizes")
        self.receive()
        text = self.check("ethtool -S eth0", "counters")
        counters = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        counters = {name.strip(): int(value or 0) for name, value in counters.items()
                    if value.strip().isdigit()}
        expect(counters["rx_bytes"] > TRANSFER_BYTES, f"counters: {counters}")
        expect_equal((counters["rx_errors"], counters["rx_crc_errors"]), (0, 0), "errors")

    def tftp(self):
        """A file of the folder, and none outside it."""
        self.check("cd /tmp && tftp -g -r note 10.0.2.2", "tftp")
        expect_equal(self.check("cat /tmp/note", "cat"), "from-the-folder", "the file")
        status, _ = self.guest.run("tftp -g -l /tmp/out -r ../../etc/passwd 10.0.2.2")
        expect(status != 0, "a file outside the folder was given")
        status, _ = self.guest.run("tftp -p -l /tmp/note -r written 10.0.2.2")
        expect(not os.path.exists(os.path.join(self.folder, "written")), "the folder was written to")

    def http(self):
        """The same by HTTP, and a large one."""
        with open(os.path.join(self.folder, "large"), "wb") as file:
            file.write(self.server.payload)
        text = self.check("wget -q -O /tmp/in http://10.0.2.2/large && sha256sum </tmp/in", "wget")
        expect_equal(text.split()[0], hashlib.sha256(self.server.payload).hexdigest(), "sum")
        expect_equal(self.check("wget -q -O - http://10.0.2.2/note", "wget"), "from-the-folder",
                     "the file")
        status, _ = self.guest.run("wget -q -O /tmp/out http://10.0.2.2/../../etc/passwd")
        expect(status != 0, "a file outside the folder was given")

    def quiet(self):
        """The driver has not complained."""
        status, text = self.guest.run("dmesg | grep -iE 'tx unit hang|transmit queue|netdev watchdog'")
        expect(status == 1, f"the kernel complains: {text}")

    def close(self):
        """Stops what runs."""
        self.server.shutdown()
        self.listener.close()
        super().close()


def main():
    """Runs the cases."""
    run_guest_test(NetworkTest(*sys.argv[1:4]),
                   ("address", "receive", "transmit", "down_and_up", "ethtool", "tftp", "http",
                    "quiet", "power_off"))


if __name__ == "__main__":
    main()
