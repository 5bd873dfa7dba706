# SPDX-License-Identifier: BSD-2-Clause
"""A guest that a test talks to over its console: skep (or QEMU) as a child with pipes.

Time limits here only end a hang; no test asserts how long something takes.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

from check import expect_equal

PROMPT = "skep guest:"
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class GuestError(Exception):
    """Something that was waited for did not come; says what was on the console."""


def guest_folder(root, recipe="build.sh"):
    """The folder with vmlinuz and initrd.cpio, made when it is missing; of the guest with the
    drivers of all devices when `recipe` is drivers.sh."""
    made = subprocess.run([os.path.join(root, "guest", recipe)], stdout=subprocess.PIPE,
                          check=True, text=True)
    return made.stdout.strip()


def memory_beyond_mib(pid, guest_mib):
    """What is resident of a process beyond its guest's memory, which is the mapping of that size."""
    total_kib = 0
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
        shared = guests = False
        for line in file:
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                # A memfd that is mapped twice is there once; its proportional size says so.
                shared = "/memfd:" in line
            elif words[0] == "Size:":
                guests = guest_mib * 512 <= int(words[1]) <= guest_mib * 1024 * 1.25
            elif words[0] == ("Pss:" if shared else "Rss:") and not guests:
                total_kib += int(words[1])
    return total_kib / 1024


class Guest:
    """Runs a command whose stdin and stdout are a guest's console."""

    def __init__(self, command, limit_s=300):
        self.command = command
        self.limit_s = limit_s
        self.seen = b""       # all that the console gave
        self.position = 0     # how much of it was waited for already
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.errors = b""
        self.started = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass

    def console(self):
        """All of the console so far, as text."""
        return ESCAPES.sub(b"", self.seen).decode(errors="replace")

    def fail(self, what):
        """Raises, with the end of the console and of stderr."""
        tail = "\n".join(self.console().splitlines()[-25:])
        errors = self.errors.decode(errors="replace")[-2000:]
        raise GuestError(f"{what}; the console ended with:\n{tail}\nstderr: {errors}")

    def read_some(self, timeout_s):
        """Takes what stdout and stderr hold; False at the end of both."""
        streams = [s for s in (self.process.stdout, self.process.stderr) if not s.closed]
        ready, _, _ = select.select(streams, [], [], timeout_s)
        for stream in ready:
            data = os.read(stream.fileno(), 65536)
            if not data:
                stream.close()
            elif stream is self.process.stdout:
                self.seen += data
            else:
                self.errors += data
        return bool(streams)

    def wait_for(self, text, limit_s=None):
        """Waits until `text` (a str, or a compiled bytes pattern) comes after what was waited for
        before; returns what the console gave up to its end."""
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(text.encode()))
        end = time.monotonic() + (limit_s or self.limit_s)
        while True:
            found = pattern.search(self.seen, self.position)
            if found:
                before = self.seen[self.position:found.end()]
                self.position = found.end()
                return ESCAPES.sub(b"", before).decode(errors="replace")
            if time.monotonic() > end:
                self.fail(f"no {pattern.pattern!r} within the limit")
            if not self.read_some(0.2):
                self.fail(f"it ended (status {self.process.wait()}) before {pattern.pattern!r}")

    def send(self, text):
        """Types on the console."""
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait_prompt(self):
        """Waits for the shell of the small guest."""
        return self.wait_for(PROMPT)

    def run(self, command, limit_s=None):
        """Runs a shell command in the guest; returns (status, output)."""
        mark = f"end{self.position}x"
        # The echo of the typed line must not look like the mark itself. Xen's console ends lines with
        # two carriage returns.
        telling = f"echo {mark[:3]}''{mark[3:]}=$?"
        self.send(f"{command}; {telling}\n")
        found = self.wait_for(re.compile(mark.encode() + rb"=(\d+)\r*\n"), limit_s)
        # What is typed before the prompt is there comes twice: by the terminal, then by the shell.
        # A line editor that breaks a long line leaves no whole echo: it is one line then.
        output = found.replace("\r", "").rpartition(telling)[2]
        lines = output.split("\n")
        status = int(re.search(r"=(\d+)", lines[-2]).group(1))
        return status, "\n".join(lines[1:-2]).strip()

    def wait_exit(self, limit_s=None):
        """Waits for the process to end; returns its exit status."""
        end = time.monotonic() + (limit_s or self.limit_s)
        while self.read_some(0.2):
            if time.monotonic() > end:
                self.fail("it did not end within the limit")
        return self.process.wait(timeout=30)

    def terminate(self):
        """As a person's Ctrl-C would."""
        self.process.send_signal(signal.SIGTERM)


class Machine(Guest):
    """A guest that verbs of skep reach by a control socket in a folder. It can be saved, and go on as
    another process."""

    def __init__(self, skep, folder, engine, options, limit_s=300):
        self.skep, self.folder = skep, folder
        self.socket = os.path.join(folder, "control")
        if os.path.exists(self.socket):
            os.unlink(self.socket)  # of a machine that was killed
        self.control = ["--control", "unix:" + self.socket, "--engine"]
        super().__init__([skep, "run", *self.control, engine, *options], limit_s)

    def verb(self, *words):
        """A command of skep for this machine, which may have only just begun."""
        while self.process.poll() is None and not os.path.exists(self.socket):
            self.read_some(0.1)
        done = subprocess.run([self.skep, words[0], self.socket, *words[1:]], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=self.limit_s)
        if done.returncode:
            self.fail(f"skep {words[0]}: {done.stdout}")

    def go_on(self, engine):
        """Saves the machine, ends it, and restores it with an engine. What was on the console and not
        waited for stays."""
        file = os.path.join(self.folder, "saved")
        self.verb("save", "--stop", file)
        if self.wait_exit():
            self.fail("it did not end well when it was saved")
        self.__exit__()
        seen, position = self.seen, self.position
        super().__init__([self.skep, "run", "--restore", file, *self.control, engine], self.limit_s)
        self.seen, self.position = seen, position


class GuestTest:
    """A test in one guest, with a folder of its own, as run_guest_test() (check.py) runs it."""

    power_off_command = "poweroff"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.guest = None

    def path(self, name):
        """A file of this test."""
        return os.path.join(self.folder, name)

    def run(self, command):
        """In the guest; it has to succeed. Gives its output."""
        status, text = self.guest.run(command)
        expect_equal(status, 0, f"status of {command!r}: {text}")
        return text

    def power_off(self):
        """Ends it."""
        self.guest.send(f"{self.power_off_command}\n")
        expect_equal(self.guest.wait_exit(), 0, "exit status")

    def close(self):
        """Stops what runs."""
        if self.guest:
            self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)
