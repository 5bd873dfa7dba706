#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Saves and restores the guest of `make run` at the worst moments: in the middle of its boot, of
writes to its disk, of transfers over its network; from translator to interpreter and back.

    snapshot.py SKEP ROUNDS
"""

import hashlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINES = ["soft", "soft,translator=off"]
COMPLAINTS = ("unstable", "soft lockup", "rcu_sched", "rcu_preempt", "BUG:", "Oops", "EXT4-fs error",
              "I/O error")
# What the console shows as a boot goes on: a save comes a moment after one of these.
STAGES = [b"Linux version", b"Memory:", b"clocksource: hpet", b"smpboot: CPU0", b"PCI: Using",
          b"Trying to unpack", b"Serial: 8250", b"Freeing initrd", b"input: AT", b"skep guest:"]


def free_port():
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """A guest that is saved and restored, each time in another process."""

    def __init__(self, skep, engine, processors=2, disk=True, port=None):
        self.skep = skep
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.socket = os.path.join(self.folder, "control")
        self.file = os.path.join(self.folder, "saved")
        self.disk = os.path.join(self.folder, "disk.img")
        files = guest_folder(ROOT)
        command = [skep, "run", "--engine", engine, "-c", str(processors), "-m", "256M",
                   "--kernel", f"{files}/vmlinuz", "--initrd", f"{files}/initrd.cpio",
                   "--control", f"unix:{self.socket}"]
        if disk:
            with open(self.disk, "wb") as image:
                image.truncate(96 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", self.disk], check=True, env=host_tools())
            command += ["--disk", self.disk]
        if port:
            command += ["-p", f"{port}:5000"]
        self.guest = Guest(command)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def verb(self, *arguments):
        """A verb of skep; its output."""
        done = subprocess.run([self.skep, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
        expect_equal(done.returncode, 0, f"status of {arguments[0]} ({done.stdout.strip()})")
        return done.stdout

    def save(self):
        """Saves and ends it; its process may have only just begun."""
        while not os.path.exists(self.socket) and self.guest.process.poll() is None:
            self.guest.read_some(0.01)
        self.verb("save", "--stop", self.socket, self.file)
        expect_equal(self.guest.wait_exit(60), 0, "status of the saved machine")

    def restore(self, engine):
        """Goes on in another process; what was on the console and not waited for stays."""
        before = self.guest
        self.guest = Guest([self.skep, "run", "--restore", self.file, "--engine", engine,
                            "--control", f"unix:{self.socket}"])
        self.guest.seen, self.guest.position = before.seen, before.position
        before.__exit__()

    def ready(self):
        """Waits for the shell, and keeps the kernel's messages out of what commands print."""
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")

    def end(self):
        """Nothing that the kernel complained of; then off."""
        _, log = self.guest.run("dmesg")
        for complaint in COMPLAINTS:
            lines = [line for line in log.splitlines() if complaint in line
                     and "EXT4-fs (vda): mounted" not in line]
            expect(not lines, f"the guest's kernel complains: {lines}")
        self.guest.send("poweroff\n")
        expect_equal(self.guest.wait_exit(60), 0, "exit status")


def host_tools():
    """mkfs and e2fsck are for root on some hosts."""
    return dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")


class SnapshotTest:
    """The cases; a saved machine each."""

    def __init__(self, skep, rounds):
        self.skep = skep
        self.rounds = rounds
        self.random = random.Random(20261127)

    def boot(self):
        """Each round a boot of its own, saved at another moment, for a while on the interpreter,
        saved again, and from there to the prompt."""
        for number in range(self.rounds):
            stage = STAGES[number % len(STAGES)]
            processors = 1 + number % 2
            print(f"  {processors} processors, at {stage.decode()}", flush=True)
            with Machine(self.skep, ENGINES[0], processors) as machine:
                machine.guest.wait_for(re.compile(re.escape(stage)))
                time.sleep(self.random.random() / 10)
                machine.save()
                machine.restore(ENGINES[1])
                time.sleep(self.random.random())
                machine.save()
                machine.restore(ENGINES[0])
                machine.guest.position = 0  # the prompt may have come before
                machine.ready()
                _, text = machine.guest.run("grep -c ^processor /proc/cpuinfo")
                expect_equal(text, str(processors), "processors")
                machine.end()

    def disk_write(self):
        """One machine, saved time and again while it writes."""
        with Machine(self.skep, ENGINES[0]) as machine:
            machine.ready()
            guest = machine.guest
            _, made = guest.run("dd if=/dev/urandom of=/tmp/source bs=1M count=20 2>/dev/null; "
                                "md5sum </tmp/source")
            digest = made.split()[0]
            guest.send("(while [ ! -e /tmp/enough ]; do for i in 1 2 3; do "
                       "dd if=/tmp/source of=/mnt/copy$i bs=64k conv=fsync 2>/dev/null || "
                       "echo write''-failed; done; done; echo all''-written) & echo begun''-now\n")
            guest.wait_for("begun-now")  # what is typed and not taken yet is not saved
            for number in range(self.rounds):
                time.sleep(self.random.random() / 2)
                machine.save()
                machine.restore(ENGINES[(number + 1) % 2])
            guest = machine.guest
            guest.send("touch /tmp/enough\n")
            guest.wait_for("all-written", 240)
            expect("write-failed" not in guest.console(), "a write failed")
            guest.run("dmesg -n 1; sync; echo 3 >/proc/sys/vm/drop_caches")
            _, sums = guest.run("md5sum /mnt/copy1 /mnt/copy2 /mnt/copy3 /tmp/source")
            found = re.findall(r"\b[0-9a-f]{32}\b", sums)
            expect_equal(found, [digest] * 4, "checksums after all")
            guest.run("umount /mnt")
            machine.end()
            checked = subprocess.run(["e2fsck", "-fn", machine.disk], env=host_tools(), text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            expect_equal(checked.returncode, 0, f"status of e2fsck: {checked.stdout}")

    def connections(self):
        """Of two transfers both sides see a reset, each time; then new connections work."""
        port = free_port()
        with Machine(self.skep, ENGINES[0], port=port, disk=False) as machine, \
                socket.create_server(("127.0.0.1", 0)) as server:
            machine.ready()
            for number in range(self.rounds if self.rounds > 10 else 3):
                self.broken_transfers(machine, port, server, ENGINES[(number + 1) % 2])
            self.transfer(machine, port)
            machine.end()

    def broken_transfers(self, machine, port, server, engine):
        """Saves and restores in the middle of one from the guest's listener and one of its own."""
        guest = machine.guest
        back = server.getsockname()[1]
        guest.send("(nc -l -p 5000 </dev/zero; echo listener''-ended) &\n")
        guest.send(f"(nc 10.0.2.2 {back} </dev/zero; echo client''-ended) &\n")
        server.settimeout(60)
        outgoing, _ = server.accept()
        forwarded = self.connect_retrying(port)
        for connection in (outgoing, forwarded):
            connection.settimeout(60)
            expect(len(connection.recv(65536)) > 0, "nothing came before the save")
        machine.save()
        for connection in (outgoing, forwarded):
            self.expect_reset(connection)
        machine.restore(engine)
        for _ in range(2):
            machine.guest.wait_for(re.compile(rb"(listener|client)-ended"), 60)

    def connect_retrying(self, port):
        """The guest's listener may not be there yet: the user network then closes at once."""
        for _ in range(100):
            connection = socket.create_connection(("127.0.0.1", port), timeout=60)
            try:
                if connection.recv(1):
                    return connection
            except OSError:
                pass
            connection.close()
            threading.Event().wait(0.1)
        raise AssertionError("the guest took no connection")

    def expect_reset(self, connection):
        """Not an end that looks as if all had come."""
        try:
            while connection.recv(1 << 20):
                pass
        except ConnectionResetError:
            connection.close()
            return
        raise AssertionError("the connection ended as if it was complete")

    def transfer(self, machine, port):
        """Some data over a new connection to the forwarded port."""
        guest = machine.guest
        _, made = guest.run("dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null; "
                            "md5sum </tmp/data")
        guest.send("nc -l -p 5000 </tmp/data; echo sent''-all\n")
        connection = None
        for _ in range(100):
            connection = socket.create_connection(("127.0.0.1", port), timeout=60)
            parts = []
            try:
                while data := connection.recv(1 << 20):
                    parts.append(data)
            except OSError:
                pass
            connection.close()
            if parts:
                break
            threading.Event().wait(0.1)
        expect_equal(hashlib.md5(b"".join(parts)).hexdigest(), made.split()[0], "what came")
        guest.wait_for("sent-all", 60)

    def pause(self):
        """The guest's time stands still, the wall clock chip's follows the host's."""
        with Machine(self.skep, ENGINES[0], disk=False) as machine:
            machine.ready()
            start = time.monotonic()
            _, before = machine.guest.run("cat /proc/uptime")
            paused_s = 0
            for _ in range(3):
                machine.verb("pause", machine.socket)
                expect("paused" in machine.verb("status", machine.socket), "it is not paused")
                asleep = time.monotonic()
                time.sleep(1)
                paused_s += time.monotonic() - asleep
                machine.verb("resume", machine.socket)
            _, after = machine.guest.run("cat /proc/uptime")
            passed_s = time.monotonic() - start
            guest_s = float(after.split()[0]) - float(before.split()[0])
            expect(0 <= guest_s <= passed_s - paused_s + 0.02,
                   f"{guest_s} s passed for the guest, {passed_s} s here, {paused_s} s of a pause")
            early = int(time.time()) - 1
            _, chip = machine.guest.run("cat /sys/class/rtc/rtc0/since_epoch")
            expect(early <= int(chip) <= time.time() + 1, f"the RTC says {chip}, not {early}")
            # The kernel compares its clock sources every half second.
            machine.guest.run("sleep 2")
            machine.end()

    def signals(self):
        """SIGUSR1 saves and the machine goes on; stop saves instead of pressing the button."""
        with Machine(self.skep, ENGINES[0], disk=False) as machine:
            machine.ready()
            machine.guest.run("echo before >/tmp/when")
            machine.save()
            other = machine.file + "2"
            before = machine.guest
            machine.guest = Guest([self.skep, "run", "--restore", machine.file, "--save-on",
                                   f"USR1:{other}", "--save-on", f"stop:{machine.file}"])
            before.__exit__()
            machine.guest.send("\n")
            machine.guest.wait_prompt()
            machine.guest.run("echo between >/tmp/when")
            machine.guest.process.send_signal(10)
            while not os.path.exists(other):
                machine.guest.read_some(0.1)
            machine.guest.run("echo after >/tmp/when")
            machine.guest.terminate()
            expect_equal(machine.guest.wait_exit(60), 0, "status after SIGTERM")
            for file, text in ((other, "between"), (machine.file, "after")):
                with Guest([self.skep, "run", "--restore", file]) as guest:
                    guest.send("\n")
                    guest.wait_prompt()
                    expect_equal(guest.run("cat /tmp/when")[1], text, f"of {file}")

    def damage(self):
        """Anywhere: a message and status 1, and nothing runs. Undamaged again, the guest can even
        reboot."""
        with Machine(self.skep, ENGINES[0], disk=False) as machine:
            machine.ready()
            machine.save()
            size = os.path.getsize(machine.file)
            for _ in range(self.rounds):
                place = self.random.randrange(size)
                with open(machine.file, "r+b") as file:
                    file.seek(place)
                    byte = file.read(1)
                    file.seek(place)
                    file.write(bytes([byte[0] ^ (1 << self.random.randrange(8))]))
                tried = subprocess.run([self.skep, "run", "--restore", machine.file], text=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, check=False, timeout=60)
                expect_equal((tried.returncode, tried.stdout), (1, ""), f"byte {place}")
                expect("cannot restore the machine from" in tried.stderr, tried.stderr)
                with open(machine.file, "r+b") as file:
                    file.seek(place)
                    file.write(byte)
            machine.restore(ENGINES[0])
            machine.guest.send("reboot\n")
            machine.guest.wait_for("This is a guest of skep")
            machine.ready()
            machine.end()


def main():
    checks = Checks()
    test = SnapshotTest(sys.argv[1], int(sys.argv[2]))
    checks.methods(test, sys.argv[3:] or ("pause", "signals", "damage", "connections",
                                          "disk_write", "boot"))
    checks.finish()


if __name__ == "__main__":
    main()
