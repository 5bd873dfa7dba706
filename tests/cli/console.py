#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The console and the life of a machine as a person at a terminal sees them: the escape's keys, the
terminal given back, signals, --no-reboot, further serial ports and virtio consoles, memory given
back to the host.

    console.py SKEP ENGINE
"""

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
from check import Checks, expect, expect_equal  # noqa: E402
from guest import Guest, guest_folder  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 300
ESCAPE = b"\x1d"


class Terminal:
    """A program on a pseudo terminal."""

    def __init__(self, command):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(command, stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave)
        self.seen = b""

    def wait_for(self, text):
        """Reads until the text comes; forgets what came up to it."""
        end = time.monotonic() + LIMIT_S
        while text not in self.seen:
            expect(time.monotonic() < end, f"no {text!r}; seen {self.seen[-800:]!r}")
            ready, _, _ = select.select([self.master], [], [], 0.2)
            if ready:
                self.seen += os.read(self.master, 65536)
            else:
                expect(self.process.poll() is None, f"ended before {text!r}: {self.seen[-800:]!r}")
        self.seen = self.seen[self.seen.index(text) + len(text):]

    def wait_exit(self):
        """The exit status; what the program still says is taken so that it does not block."""
        end = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            expect(time.monotonic() < end, f"does not end; seen {self.seen[-800:]!r}")
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        return self.process.returncode

    def type(self, keys):
        """Types on the terminal."""
        os.write(self.master, keys)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class ConsoleTest:
    """The command, its guest, and a folder for sockets and files."""

    def __init__(self, skep, engine):
        self.skep = skep
        files = guest_folder(ROOT)
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.command = [skep, "run", "--engine", engine, "-m", "256M",
                        "--kernel", f"{files}/vmlinuz", "--initrd", f"{files}/initrd.cpio",
                        "--cmdline", "console=ttyS0 quiet"]

    def escape_keys(self):
        terminal = Terminal(self.command)
        try:
            terminal.wait_for(b"skep guest:")
            raw = termios.tcgetattr(terminal.slave)
            expect(not raw[3] & termios.ICANON and not raw[3] & termios.ECHO, "not in raw mode")
            terminal.type(ESCAPE + b"?")
            terminal.wait_for(b"presses its power button")
            terminal.type(ESCAPE + b"i")
            terminal.wait_for(b"soft" if "soft" in self.command[3] else b"kvm")
            terminal.type(b"cat -v\r")
            terminal.type(ESCAPE + ESCAPE + b"\r")
            terminal.wait_for(b"^]")
            # Ctrl-C is the guest's.
            terminal.type(b"\x03")
            terminal.wait_for(b"skep guest:")
            terminal.type(ESCAPE + b"r")
            terminal.wait_for(b"This is a guest of skep")
            terminal.wait_for(b"skep guest:")
            terminal.type(ESCAPE + b"q")
            expect_equal(terminal.wait_exit(), 0, "exit status after Ctrl-] q")
            expect_equal(termios.tcgetattr(terminal.slave), terminal.before, "the terminal after")
        finally:
            terminal.close()

    def killed_terminal(self):
        """A signal that ends skep gives the terminal back, too."""
        terminal = Terminal(self.command)
        try:
            terminal.wait_for(b"skep guest:")
            terminal.process.send_signal(signal.SIGTERM)
            terminal.wait_for(b"power button pressed")
            terminal.process.send_signal(signal.SIGTERM)
            status = terminal.wait_exit()
            expect(status in (0, 128 + signal.SIGTERM), f"exit status {status}")
            expect_equal(termios.tcgetattr(terminal.slave), terminal.before, "the terminal after")
        finally:
            terminal.close()

    def no_reboot(self):
        with Guest(self.command + ["--no-reboot"], LIMIT_S) as guest:
            guest.wait_prompt()
            guest.send("reboot\n")
            expect_equal(guest.wait_exit(), 0, "exit status of --no-reboot")

    def input_ends(self):
        """The end of stdin leaves the guest running."""
        with Guest(self.command, LIMIT_S) as guest:
            guest.wait_prompt()
            guest.send("sleep 3; echo still''-here; poweroff\n")
            guest.process.stdin.close()
            guest.wait_for("still-here")
            expect_equal(guest.wait_exit(), 0, "exit status")

    def other_ports(self):
        second = os.path.join(self.folder, "com2.log")
        path = os.path.join(self.folder, "hvc0.sock")
        channel = os.path.join(self.folder, "agent.sock")
        command = self.command + ["--serial", f"file:{second}", "--virtio-console", f"unix:{path}",
                                  "--virtio-console", f"org.skep.test=unix:{channel}"]
        with Guest(command, LIMIT_S) as guest, socket.socket(socket.AF_UNIX) as hvc, \
                socket.socket(socket.AF_UNIX) as agent:
            guest.wait_prompt()
            hvc.connect(path)
            agent.connect(channel)
            hvc.settimeout(60)
            agent.settimeout(60)
            guest.run("dmesg -n 1")
            guest.run("echo to-com2 >/dev/ttyS1; stty -F /dev/hvc0 raw -echo")
            guest.run("echo to-hvc >/dev/hvc0")
            expect(b"to-hvc" in hvc.recv(100), "nothing from /dev/hvc0")
            guest.send("head -n 1 </dev/hvc0\n")
            hvc.sendall(b"from-the-host\n")
            guest.wait_for("from-the-host")
            guest.wait_prompt()
            port = "/dev/$(basename $(dirname $(grep -l org.skep.test /sys/class/virtio-ports/*/name)))"
            guest.run(f"echo to-agent >{port}")
            expect(b"to-agent" in agent.recv(100), "nothing from the named port")
            guest.send("poweroff\n")
            expect_equal(guest.wait_exit(), 0, "exit status")
        with open(second, "rb") as log:
            expect(b"to-com2" in log.read(), "nothing from the second serial port")

    def memory_given_back(self):
        """What the guest frees leaves the process: free page reporting."""
        with Guest(self.command, LIMIT_S) as guest:
            guest.wait_prompt()
            guest.run("dmesg -n 1")
            guest.run("dd if=/dev/zero of=/tmp/fill bs=1M count=100 2>/dev/null")
            full = resident_kib(guest.process.pid)
            guest.run("rm /tmp/fill")
            end = time.monotonic() + 60
            while resident_kib(guest.process.pid) > full - 80 * 1024:
                expect(time.monotonic() < end,
                       f"{resident_kib(guest.process.pid)} KiB stay of {full}")
                guest.run("sleep 1")
            guest.send("poweroff\n")
            expect_equal(guest.wait_exit(), 0, "exit status")

    def statistics(self):
        command = [self.skep, "--json"] + self.command[1:] + ["--stats"]
        with Guest(command, LIMIT_S) as guest:
            guest.wait_prompt()
            guest.send("poweroff\n")
            expect_equal(guest.wait_exit(), 0, "exit status")
            text = guest.console()
        found = json.loads(text[text.rindex("{"):])
        expect(found["uptime_ns"] > 0, text)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def resident_kib(pid):
    """Resident memory of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def main():
    checks = Checks()
    test = ConsoleTest(sys.argv[1], sys.argv[2])
    try:
        checks.methods(test, ("escape_keys", "killed_terminal", "no_reboot", "input_ends",
                              "other_ports", "memory_given_back", "statistics"))
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
