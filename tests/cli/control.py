#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The control socket of a running machine, and the verbs that use it.

    control.py SKEP
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))

from check import Checks, expect, expect_equal  # noqa: E402
from guest import Guest, guest_folder  # noqa: E402


WAIT_S = 120  # that ends a hang


def threads_of(pid):
    """What each thread of a process does, for the message about one that stands still."""
    lines = []
    for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
        folder = f"/proc/{pid}/task/{task}"
        words = []
        for name in ("stat", "wchan", "syscall"):
            try:
                with open(f"{folder}/{name}", encoding="ascii", errors="replace") as file:
                    text = file.read()
                if name == "stat":  # (name), state, …, ticks of the processor in user and kernel mode
                    comm, _, rest = text.rpartition(")")
                    rest = rest.split()
                    text = f"{comm.partition('(')[2]}: {rest[0]}, {rest[11]}+{rest[12]} ticks"
            except OSError as error:  # a thread that has just ended
                text = error.strerror
            words.append(text)
        lines.append(" | ".join(words))
    return "\n".join(lines)


def wait_until(what, condition, process, limit_s=WAIT_S):
    """Waits for what `process` is to bring about; tells what did not come, and what it does."""
    end = time.monotonic() + limit_s
    while not condition():
        expect(process.poll() is None, f"the machine has ended (status {process.poll()}) "
                                       f"before {what}")
        if time.monotonic() >= end:
            expect(False, f"no {what} within {limit_s} s; its threads:\n{threads_of(process.pid)}")
        time.sleep(0.05)


class Peer:
    """A program that speaks the protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def send(self, raw):
        """Bytes as they are."""
        self.socket.sendall(raw)

    def answer(self):
        """The next line, as an object; None at the end."""
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, **request):
        """One request and its answer, without progress."""
        self.send(json.dumps(request).encode() + b"\n")
        while True:
            answer = self.answer()
            if not answer or "progress" not in answer:
                return answer


class Debugger:
    """As much of GDB as stops a guest."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)

    def send(self, packet):
        checksum = sum(packet.encode()) & 0xff
        self.socket.sendall(f"${packet}#{checksum:02x}".encode())

    def answer(self):
        """The next packet. The server does not wait for an acknowledgement."""
        text = b""
        while not text.rpartition(b"$")[2][-3:-2] == b"#":
            got = self.socket.recv(1)
            expect(got, "the connection ended")
            text += got
        return text.rpartition(b"$")[2][:-3].decode()


class ControlTest:
    """One machine with a name, through all cases."""

    def __init__(self, skep):
        self.skep = skep
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        os.environ["XDG_RUNTIME_DIR"] = self.folder
        os.environ.pop("SKEP_HOME", None)
        self.path = os.path.join(self.folder, "skep", "one.sock")
        files = guest_folder(ROOT)
        self.command = [skep, "run", "--kernel", f"{files}/vmlinuz", "--initrd",
                        f"{files}/initrd.cpio", "-m", "256M", "--name"]
        self.guest = None

    def verb(self, *arguments):
        """(status, stdout, stderr) of a verb."""
        done = subprocess.run([self.skep, *arguments], stdout=subprocess.PIPE, check=False,
                              stderr=subprocess.PIPE, text=True, timeout=WAIT_S)
        return done.returncode, done.stdout, done.stderr

    def start(self):
        """A socket that was left behind is no obstacle."""
        dead = Guest([*self.command, "one"])
        wait_until("control socket", lambda: os.path.exists(self.path), dead.process)
        dead.process.send_signal(signal.SIGKILL)
        dead.__exit__()
        expect(os.path.exists(self.path), "SIGKILL leaves no socket: this case shows nothing")
        self.guest = Guest([*self.command, "one", "--gdb", f"unix:{self.folder}/gdb"])
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")  # the kernel's messages would come into lines of the console
        for path, wanted in ((self.path, 0o600), (os.path.dirname(self.path), 0o700)):
            expect_equal(stat.S_IMODE(os.stat(path).st_mode), wanted, f"mode of {path}")

    def second_of_a_name(self):
        status, _, errors = self.verb(*self.command[1:], "one")
        expect_equal(status, 1, "status")
        expect("another machine has it" in errors, errors)
        expect_equal(self.verb("status", "one")[0], 0, "the first one still answers")

    def status(self):
        status, text, _ = self.verb("status", "one")
        expect_equal(status, 0, "status")
        expect("running" in text and "268435456" in text, text)
        values = json.loads(self.verb("--json", "status", self.path)[1])
        expect_equal((values["state"], values["cpus"], values["pid"]),
                     ("running", 1, self.guest.process.pid), "values")

    def pause_and_resume(self):
        for verb, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"),
                            ("resume", "running")):
            expect_equal(self.verb(verb, "one"), (0, "", ""), verb)
            values = json.loads(self.verb("--json", "status", f"unix:{self.path}")[1])
            expect_equal(values["state"], state, f"state after {verb}")
        expect_equal(self.guest.run("echo here")[1], "here", "the guest goes on")

    def balloon(self):
        """The guest gives memory back, which the host then has, and takes it again."""
        mib = 1 << 20

        def told():
            return json.loads(self.verb("--json", "balloon", "one")[1])

        def resident():
            with open(f"/proc/{self.guest.process.pid}/status", encoding="ascii") as file:
                return int(re.search(r"RssShmem:\s*(\d+) kB", file.read()).group(1)) << 10

        wait_until("what the guest tells", lambda: told().get("free", 0) > 0, self.guest.process)
        expect_equal(told()["memory"], 256 * mib, "memory")
        self.guest.run("dd if=/dev/zero of=/tmp/x bs=1M count=100; rm /tmp/x")
        expect_equal(self.verb("balloon", "one", "96M"), (0, "", ""), "balloon")
        wait_until("less memory", lambda: told()["memory"] == 96 * mib, self.guest.process)
        expect(resident() <= 97 * mib, f"the host still has {resident() // mib} MiB in use")
        expect_equal(self.verb("balloon", "one", "256"), (0, "", ""), "balloon")
        wait_until("all of it", lambda: told()["memory"] == 256 * mib, self.guest.process)
        for size, wanted, cause in (("257M", 1, "256 MiB"), ("0", 1, "256 MiB"), ("-", 2, "size")):
            status, _, errors = self.verb("balloon", "one", size)
            expect_equal(status, wanted, f"status of {size}: {errors}")
            expect(cause in errors and "hint: " in errors, errors)

    def protocol(self):
        peer = Peer(self.path)
        names = peer.ask(command="help", id=7)
        expect_equal(names["id"], 7, "id")
        expect("save" in names["ok"] and "status" in names["ok"], names)
        peer.send(b'{"command": "st')
        peer.send(b'atus"}\n\n{"command": "status", "id": "x"}\n')
        expect("ok" in peer.answer(), "a request in two parts")
        expect_equal(peer.answer()["id"], "x", "the second request")
        for bad, cause in ((b"nonsense", "no JSON object"), (b"[]", "no JSON object"),
                           (b"{}", 'no "command"'), (b'{"command": 3}', 'no "command"'),
                           (b'{"command": "fly"}', "no such command"),
                           (b'{"command": "save"}', "absolute name"),
                           (b'{"command": "save", "file": "here"}', "absolute name"),
                           (b'{"command": "balloon", "size": "1M"}', "a number of bytes"),
                           (b'{"command": "status", "command": "status"}', "no JSON object"),
                           (b"\xff\x00\xfe", "no JSON object")):
            peer.send(bad + b"\n")
            error = peer.answer()["error"]
            expect(cause in error["cause"], f"{bad}: {error}")
        expect("ok" in peer.ask(command="status"), "the connection is still good")

    def long_line(self):
        peer = Peer(self.path)
        try:
            peer.send(b"x" * 100000)
            peer.answer()
        except OSError:
            pass
        expect("ok" in Peer(self.path).ask(command="status"), "others are served")

    def many_peers(self):
        peers = [Peer(self.path) for _ in range(40)]
        served = sum(1 for peer in peers[:16] if peer.ask(command="status"))
        expect_equal(served, 16, "peers at once")
        for peer in peers:
            peer.file.close()
            peer.socket.close()
        expect("ok" in Peer(self.path).ask(command="status"), "there is room again")

    def save(self):
        file = os.path.join(self.folder, "saved")
        status, _, errors = self.verb("save", "one", "/nonexistent/folder/file")
        expect_equal(status, 1, "status")
        expect("No such file" in errors, errors)
        expect_equal(self.verb("save", "one", file)[0], 0, "status")
        expect_equal(self.guest.run("echo on")[1], "on", "the guest goes on")
        self.save_with_progress()
        with Guest([self.skep, "run", "--restore", file, "--name", "two"]) as other:
            other.send("echo restored''-one\n")
            other.wait_for("restored-one")
            expect_equal(self.verb("stop", "--now", "two")[0], 0, "status of stop")
            expect_equal(other.wait_exit(60), 0, "exit status")

    def save_with_progress(self):
        """To its end: a save that is still under way would put its file over one of a later case."""
        peer = Peer(self.path)
        peer.send(json.dumps({"command": "save", "file": f"{self.folder}/again"}).encode() + b"\n")
        done = total = 0
        answer = peer.answer()
        while "progress" in answer:
            progress = answer["progress"]
            expect(done <= progress["done"] <= progress["total"], progress)
            done, total = progress["done"], progress["total"]
            answer = peer.answer()
        expect("ok" in answer, answer)
        expect(0 < done == total, f"{done} of {total} bytes")

    @contextlib.contextmanager
    def rom_machine(self, *arguments):
        """A machine with the name "rom"; it never outlives the test."""
        with subprocess.Popen([self.skep, "run", "--name", "rom", "--console", "null", *arguments],
                              stderr=subprocess.DEVNULL) as machine:
            try:
                yield machine
            finally:
                machine.kill()

    def rom(self):
        """A machine in a ROM, with the devices of test programs; another ROM is refused."""
        rom, saved, post = (os.path.join(self.folder, name) for name in ("rom", "rom-saved", "post"))
        # mov ecx, 2000000; 1: dec ecx; jnz 1b; out 80h, al; jmp to the start
        code = bytes.fromhex("66b980841e00 6649 75fc e680 ebf2")
        image = bytearray(4096)
        image[-16:-16 + len(code)] = code
        with open(rom, "wb") as file:
            file.write(image)

        def is_posted():
            return os.path.exists(post) and os.path.getsize(post)

        with self.rom_machine("--rom", rom, "--post", f"file:{post}", "--parallel", "null", "-m",
                              "16M", "--device", "testdev", "--device",
                              "debug-exit,port=0xf5") as machine:
            wait_until("byte from the POST port", is_posted, machine)
            expect_equal(self.verb("save", "--stop", "rom", saved)[0], 0, "status of save")
            wait_until("end", lambda: machine.poll() == 0, machine)
        os.unlink(post)
        for options in (["-c", "2"], ["-m", "32M"], ["--cpu", "x86-64"], ["--vga", "std"],
                        ["--no-rng"], ["--boot", "disk"], ["--device", "debug-exit,port=0xf6"]):
            status, _, errors = self.verb("run", "--restore", saved, *options)
            expect_equal(status, 2, f"status with {options}")
            expect("hint: leave the option out" in errors, errors)
        status, _, errors = self.verb("run", "--restore", saved, "--floppy", "none")
        expect(status == 1 and "0 drives" in errors and "hint: " in errors, errors)
        with self.rom_machine("--restore", saved, "--device", "testdev", "--device",
                              "debug-exit,port=0xf5") as machine:
            wait_until("byte from the restored POST port", is_posted, machine)
            expect_equal(self.verb("stop", "--now", "rom")[0], 0, "status of stop")
            wait_until("end of the restored machine", lambda: machine.poll() == 0, machine)
        for what in ("another", "no"):
            if what == "another":
                with open(rom, "r+b") as file:
                    file.write(b"x")
            else:
                os.unlink(rom)
            status, _, errors = self.verb("run", "--restore", saved)
            expect_equal(status, 1, f"status with {what} ROM")
            expect("ROM" in errors, errors)

    def debugger(self):
        """Who has stopped the guest with a debugger decides when it runs on."""
        def state():
            return json.loads(self.verb("--json", "status", "one")[1])["state"]
        debugger = Debugger(f"{self.folder}/gdb")
        debugger.send("?")
        expect(debugger.answer()[:1] in "ST", "a debugger's first question")
        for stop in range(2):
            expect_equal(state(), "paused", f"state in stop {stop}")
            status, _, errors = self.verb("resume", "one")
            expect_equal(status, 1, "status of resume")
            expect("a debugger has stopped it" in errors, errors)
            expect_equal(self.verb("save", "one", f"{self.folder}/stopped")[0], 0, "save")
            expect_equal(state(), "paused", "state after save")
            debugger.send("c")
            expect("goes-on" in self.guest.run("echo goes''-on")[1], "the guest goes on")
            for verb in ("pause", "resume"):
                expect_equal(self.verb(verb, "one"), (0, "", ""), verb)
            debugger.socket.sendall(b"\x03")
            expect(debugger.answer()[:1] in "ST", "a stop")
        debugger.send("D")
        expect_equal(debugger.answer(), "OK", "answer to a detach")
        expect("still-on" in self.guest.run("echo still''-on")[1], "the guest goes on")

    def no_machine(self):
        for arguments, wanted, cause in (
                (("status", "nobody"), 1, "No such file"),
                (("pause", "../one"), 1, "No such file"),
                (("status", "a name"), 2, "letters that no name has"),
                (("status",), 2, "it takes"), (("save", "one"), 2, "it takes"),
                (("resume", "one", "two"), 2, "it takes"),
                (("status", "x" * 200), 2, "at most 107 bytes")):
            status, _, errors = self.verb(*arguments)
            expect_equal(status, wanted, f"status of {arguments}: {errors}")
            expect(cause in errors, errors)

    def stop(self):
        expect_equal(self.verb("stop", "--now", "one"), (0, "", ""), "stop")
        expect_equal(self.guest.wait_exit(60), 0, "exit status")
        expect(not os.path.exists(self.path), "the socket is gone")

    def close(self):
        if self.guest:
            self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    checks = Checks()
    test = ControlTest(sys.argv[1])
    try:
        checks.case("start", test.start)
        if not checks.failed:
            checks.methods(test, ("second_of_a_name", "status", "pause_and_resume", "balloon", "protocol",
                                  "long_line", "many_peers", "save", "rom", "debugger",
                                  "no_machine", "stop"))
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
