#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debugs the Linux guest of `make run` with GDB: breakpoints, steps, registers, memory, watchpoints,
threads, Ctrl-C, detaching and coming again. Symbols come from the guest's own /proc/kallsyms.

    gdb.py SKEP ENGINE PROCESSORS
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CMDLINE = "console=ttyS0 nokaslr"
SKIPPED = 77
LIMIT_S = 300


class Gdb:
    """GDB over pipes: each command's output ends at a mark that is echoed behind it."""

    def __init__(self, symbols, address):
        self.process = subprocess.Popen(
            ["gdb", "-nx", "-q", symbols], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self.seen = b""
        self.marks = 0
        for command in ("set pagination off", "set confirm off", "set width 0",
                        "set remotetimeout 100"):
            self.run(command)
        self.connected = self.run(f"target remote {address}")

    def send(self, command):
        """Sends a command; returns the mark that ends its output."""
        self.marks += 1
        mark = f"<<{self.marks}>>"
        self.process.stdin.write(f"{command}\necho {mark}\\n\n".encode())
        self.process.stdin.flush()
        return mark

    def wait(self, mark):
        """The output up to the mark."""
        end = time.monotonic() + LIMIT_S
        while mark.encode() not in self.seen:
            expect(time.monotonic() < end, f"gdb hangs; it has printed {self.seen.decode()!r}")
            ready, _, _ = select.select([self.process.stdout], [], [], 1)
            if ready:
                data = os.read(self.process.stdout.fileno(), 65536)
                expect(data, f"gdb has ended; it has printed {self.seen.decode()!r}")
                self.seen += data
        text, _, self.seen = self.seen.partition(mark.encode())
        return text.decode(errors="replace").replace("(gdb) ", "").strip()

    def run(self, command):
        """Runs a command; returns what it printed."""
        return self.wait(self.send(command))

    def number(self, expression):
        """The value of an expression."""
        text = self.run(f"printf \"%lu\\n\", (unsigned long)({expression})")
        expect(re.fullmatch(r"\d+", text), f"{expression}: {text}")
        return int(text)

    def close(self):
        """Ends gdb as if it had been killed: the connection breaks."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class GdbTest:
    """One machine that is debugged from its first instruction on."""

    def __init__(self, skep, engine, processors):
        self.skep = skep
        self.engine = engine
        self.processors = processors
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.symbols = os.path.join(self.folder, "vmlinux")
        self.socket = os.path.join(self.folder, "gdb")
        self.guest = None
        self.gdb = None

    def boot(self, engine, *options):
        """A guest with its console here."""
        files = guest_folder(ROOT)
        return Guest([self.skep, "run", "--engine", engine, "-m", "512M", "--net", "none",
                      "--kernel", f"{files}/vmlinuz", "--initrd", f"{files}/initrd.cpio",
                      "--cmdline", CMDLINE, *options])

    def make_symbols(self):
        """From a guest of its own: /proc/kallsyms, through a byte channel."""
        listing = os.path.join(self.folder, "kallsyms")
        with self.boot("soft", "--virtio-console", f"symbols=file:{listing}") as guest:
            guest.wait_prompt()
            guest.run("dmesg -n 1")
            status, text = guest.run("for p in /dev/vport*; do cat /proc/kallsyms >$p; done")
            expect_equal(status, 0, text)
            guest.send("poweroff\n")
            expect_equal(guest.wait_exit(), 0, "status of the guest with the symbols")
        subprocess.run([os.path.join(ROOT, "tools", "symbols"), listing, self.symbols], check=True)

    def attach(self):
        """It waits at its first instruction."""
        self.guest = self.boot(self.engine, "-c", str(self.processors),
                               "--gdb", f"unix:{self.socket},wait")
        end = time.monotonic() + LIMIT_S
        while not os.path.exists(self.socket):
            expect(time.monotonic() < end, "there is no socket")
            self.guest.read_some(0.1)
        self.gdb = Gdb(self.symbols, self.socket)
        expect("0x" in self.gdb.connected, self.gdb.connected)
        expect_equal(self.guest.console(), "", "the console of a guest that waits")

    def hardware_breakpoint(self):
        gdb = self.gdb
        gdb.run("hbreak *&start_kernel")
        expect("start_kernel" in gdb.run("continue"), "the stop")
        expect_equal(gdb.number("$pc"), gdb.number("&start_kernel"), "RIP")
        gdb.run("delete")

    def registers(self):
        gdb = self.gdb
        cr0 = gdb.run("info registers cr0")
        expect("[ PE MP ET NE WP AM PG ]" in cr0, cr0)
        expect("LMA" in gdb.run("info registers efer"), "EFER")
        expect_equal(gdb.number("$cs"), 0x10, "CS")
        expect(gdb.number("$gs_base") >> 63, "the base of GS is a kernel address")
        expect_equal(gdb.number("$cr3") & 0xfff, 0, "CR3")
        before = gdb.number("$r15")
        gdb.run("set var $r15 = 0x123456789abcdef0")
        gdb.run("set var $xmm7.v2_int64[1] = 0x1122334455667788")
        gdb.run("set var $ymm7h = 5") if "ymm7h" in gdb.run("info registers ymm7h") else None
        gdb.run("maintenance flush register-cache")
        expect_equal(gdb.number("$r15"), 0x123456789abcdef0, "R15")
        expect_equal(gdb.number("$xmm7.v2_int64[1]"), 0x1122334455667788, "XMM7")
        gdb.run(f"set var $r15 = {before}")
        gdb.run("set var $xmm7.v2_int64[1] = 0")

    def memory(self):
        """By the page tables, and by physical address; a page that is read-only for the guest."""
        gdb = self.gdb
        expect("Linux version" in gdb.run("x/s &linux_banner"), "the banner")
        gdb.run("set var *(char *)&linux_banner = 'l'")
        expect("linux version" in gdb.run("x/s &linux_banner"), "the banner as it was changed")
        gdb.run("set var *(char *)&linux_banner = 'L'")
        virtual = gdb.run("x/2gx &linux_banner").split(":")[1]
        gdb.run("maintenance packet Qqemu.PhyMemMode:1")
        # nokaslr: the kernel's text is linked at ffffffff80000000H and loaded from 0 on.
        gdb.run("set var $banner = (unsigned long)&linux_banner - 0xffffffff80000000")
        physical = gdb.run("x/2gx $banner").split(":")[1]
        gdb.run("maintenance packet Qqemu.PhyMemMode:0")
        expect_equal(physical, virtual, "the same memory")
        expect("Cannot access memory" in gdb.run("x/gx 0x1234567812345678"), "no memory")

    def single_steps(self):
        """Each goes on by one instruction, calls into what is called, and takes no interrupt."""
        gdb = self.gdb
        places = []
        for _ in range(20):
            places.append(gdb.number("$pc"))
            gdb.run("stepi")
        expect(len(set(places)) > 10, f"steps went to {places}")

    def software_breakpoint(self):
        gdb = self.gdb
        gdb.run("break *&rest_init")
        expect("rest_init" in gdb.run("continue"), "the stop")
        expect_equal(gdb.number("$pc"), gdb.number("&rest_init"), "RIP")
        gdb.run("delete")
        expect("Linux version" in self.guest_console(), "what the kernel has printed by now")

    def guest_console(self):
        """All that has come by now."""
        while select.select([self.guest.process.stdout], [], [], 0.2)[0]:
            if not self.guest.read_some(0):
                break
        return self.guest.console()

    def watchpoint(self):
        """jiffies_64 counts, one by one: as "watch" sees old and new."""
        gdb = self.gdb
        gdb.run("watch *(unsigned long *)&jiffies_64")
        for _ in range(3):
            text = gdb.run("continue")
            old = re.search(r"Old value = (\d+)", text)
            new = re.search(r"New value = (\d+)", text)
            expect(old and new, text)
            expect(0 < int(new.group(1)) - int(old.group(1)) < 100, text)
        gdb.run("delete")
        gdb.run("rwatch *(unsigned long *)&jiffies_64")
        expect("Hardware read watchpoint" in gdb.run("continue"), "a read")
        gdb.run("delete")

    def second_processor(self):
        """It is a thread, and stops all when it comes by a breakpoint."""
        gdb = self.gdb
        gdb.run("hbreak *&start_secondary")
        text = gdb.run("continue")
        expect("start_secondary" in text and "Thread 2" in text, text)
        gdb.run("delete")
        threads = gdb.run("info threads")
        expect("vCPU 0" in threads and "vCPU 1" in threads, threads)
        gdb.run("thread 1")
        first = gdb.number("$pc")
        gdb.run("thread 2")
        expect(gdb.number("$pc") != first, "the two are at one place")

    def one_thread_alone(self):
        """With scheduler-locking the other stands still."""
        gdb = self.gdb
        gdb.run("thread 1")
        before = gdb.number("$pc"), gdb.number("$rsp"), gdb.number("$rax")
        gdb.run("thread 2")
        gdb.run("set scheduler-locking on")
        for _ in range(10):
            gdb.run("stepi")
        gdb.run("set scheduler-locking replay")
        gdb.run("thread 1")
        after = gdb.number("$pc"), gdb.number("$rsp"), gdb.number("$rax")
        expect_equal(after, before, "registers of the thread that stood still")

    def breakpoint_with_condition(self):
        """It is hit many times; GDB steps over it each time."""
        gdb = self.gdb
        gdb.run("set var $hits = 0")
        gdb.run("break *&vfs_read if ++$hits == 30")
        text = gdb.run("continue")
        expect("vfs_read" in text, text)
        expect_equal(gdb.number("$hits"), 30, "hits")
        gdb.run("delete")

    def monitor(self):
        gdb = self.gdb
        expect("physical [on|off]" in gdb.run("monitor help"), "help")
        expect(re.search(rf"vCPUs +{self.processors}\b", gdb.run("monitor info")), "info")
        expect("physical is on" in gdb.run("monitor physical on"), "physical")
        expect("physical is off" in gdb.run("monitor physical off"), "virtual")

    def detach(self):
        """The guest runs on, to its prompt."""
        expect("detached" in self.gdb.run("detach"), "detach")
        self.gdb.close()
        self.guest.wait_prompt()
        self.guest.run("dmesg -n 1")
        _, text = self.guest.run("echo here-$((6 * 7))")
        expect_equal(text, "here-42", "what the guest says")

    def come_again(self):
        """The guest stands still while a debugger is there, and one debugger is enough."""
        self.gdb = Gdb(self.symbols, self.socket)
        with socket.socket(socket.AF_UNIX) as second:
            second.connect(self.socket)
            second.settimeout(LIMIT_S)
            expect_equal(second.recv(16), b"", "what a second debugger is told")
        self.guest.send("echo still-$((6 * 7))\n")
        expect("still-42" not in self.guest_console(), "the guest runs")

    def interrupt(self):
        """Ctrl-C stops a guest that runs."""
        mark = self.gdb.send("continue")
        self.guest.wait_for("still-42")
        self.gdb.process.send_signal(signal.SIGINT)
        expect("SIGINT" in self.gdb.wait(mark), "the stop")
        self.guest.send("echo more-$((6 * 7))\n")
        expect("more-42" not in self.guest_console(), "the guest runs")

    def broken_connection(self):
        """Breakpoints go with a debugger that dies, and the guest runs on."""
        self.gdb.run("break *&vfs_read")
        self.gdb.send("continue")
        self.gdb.close()
        self.guest.wait_for("more-42")
        _, text = self.guest.run("cat /proc/version")
        expect("Linux version" in text, text)

    def garbage(self):
        """What no debugger would send: the server lives, and so does the guest."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(self.socket)
            peer.settimeout(LIMIT_S)
            peer.sendall(bytes(range(256)) * 64 + b"$" + b"m" * 100000 + b"#00")
            peer.sendall(b"$mffffffffffffffff,ffffffffffffffff#00$Z2,0,0#00$vCont;#00")
            peer.sendall(b"\x03\x03$D#44")
            while peer.recv(65536):
                pass
        _, text = self.guest.run("echo alive-$((6 * 7))")
        expect_equal(text, "alive-42", "what the guest says")

    def flood(self):
        """Questions without end from one who reads no answer."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(self.socket)
            peer.setblocking(False)
            blocked = 0
            while blocked < 3:
                try:
                    peer.send(b"$g#67" * 1000)
                    blocked = 0
                except BlockingIOError:
                    blocked += 1
                    time.sleep(0.1)
        with open(f"/proc/{self.guest.process.pid}/status", encoding="ascii") as status:
            resident = int(re.search(r"RssAnon:\s+(\d+) kB", status.read()).group(1))
        expect(resident < 1 << 20, f"skep has grown to {resident} kB")
        _, text = self.guest.run("echo afloat-$((6 * 7))")
        expect_equal(text, "afloat-42", "what the guest says")

    def reset(self):
        """From the debugger; the guest starts again, and breakpoints stay."""
        self.gdb = Gdb(self.symbols, self.socket)
        self.gdb.run("hbreak *&start_kernel")
        self.gdb.run("monitor reset")
        self.gdb.run("maintenance flush register-cache")
        expect("start_kernel" in self.gdb.run("continue"), "the stop")
        self.gdb.run("delete")

    def power_off(self):
        """A debugger that waits is told of the end."""
        mark = self.gdb.send("continue")
        self.guest.wait_for("This is a guest of skep")
        self.guest.wait_prompt()
        self.guest.send("poweroff\n")
        text = self.gdb.wait(mark)
        expect("exited normally" in text, text)
        expect_equal(self.guest.wait_exit(), 0, "status")

    def kill(self):
        """GDB's kill ends the machine."""
        self.attach()
        self.gdb.run("kill")
        expect_equal(self.guest.wait_exit(), 0, "status")

    def make_guest32(self):
        """A kernel of 32 bits, and the same as the loader wants it: an ELF file of 64 bits."""
        source = os.path.join(ROOT, "tests", "boot", "gdb_guest32.S")
        path = os.path.join(self.folder, "guest32")
        for command in (["as", "--32", "-g", "-o", f"{path}.o", source],
                        ["ld", "-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-Ttext",
                         "0x200000", "-o", path, f"{path}.o"],
                        ["objcopy", "-O", "elf64-x86-64", path, f"{path}.elf64"]):
            subprocess.run(command, check=True)
        return path

    def guest_of_32_bits(self):
        """Registers and symbols of 32 bits in a guest that has no long mode."""
        kernel = self.make_guest32()
        place = os.path.join(self.folder, "gdb32")
        self.guest = Guest([self.skep, "run", "--engine", self.engine, "--net", "none", "--console",
                            "null", "--kernel", f"{kernel}.elf64", "--gdb",
                            f"unix:{place},wait,i386"])
        while not os.path.exists(place):
            self.guest.read_some(0.1)
        self.gdb = gdb = Gdb(kernel, place)
        expect_equal(gdb.number("$eip"), 0x200000, "EIP")
        expect("[ PE ET ]" in gdb.run("info registers cr0"), "CR0")
        gdb.run("break twice")
        expect("twice ()" in gdb.run("continue"), "the stop")
        expect_equal(gdb.number("*(int *)($esp + 4)"), 5, "the argument")
        gdb.run("delete")
        gdb.run("tbreak **(int *)$esp")
        expect("again ()" in gdb.run("continue"), "the return")
        expect_equal(gdb.number("$eax"), 10, "what it returned")
        gdb.run("watch *(int *)&counter")
        text = gdb.run("continue") + gdb.run("continue")
        expect("New value = 6" in text and "New value = 7" in text, text)
        expect_equal(gdb.number("$xmm2.v4_int32[0]"), 6, "XMM2")
        gdb.run("set var $eax = 0xfedcba98")
        gdb.run("maintenance flush register-cache")
        expect_equal(gdb.number("(unsigned)$eax"), 0xfedcba98, "EAX")
        self.triple_fault(gdb)
        gdb.run("kill")
        expect_equal(self.guest.wait_exit(), 0, "status")

    def triple_fault(self, gdb):
        """It has no IDT: an undefined instruction is the end, which the debugger sees; then the
        machine resets itself."""
        gdb.run("delete")
        gdb.run("set var *(unsigned short *)&twice = 0x0b0f")
        text = gdb.run("continue")
        expect("SIGABRT" in text and "twice" in text, text)
        expect_equal(gdb.number("$eip"), gdb.number("&twice"), "EIP")
        gdb.run("break *&again")
        expect("again ()" in gdb.run("continue"), "the start after the reset")
        expect_equal(gdb.number("*(int *)&counter"), 5, "the counter after the reset")

    def cases(self):
        """Their names, in their order: each goes on where the one before has ended."""
        names = ["attach", "hardware_breakpoint", "registers", "memory", "single_steps",
                 "software_breakpoint"]
        if self.processors > 1:
            names += ["second_processor", "one_thread_alone"]
        return names + ["watchpoint", "breakpoint_with_condition", "monitor", "detach",
                        "come_again", "interrupt", "broken_connection", "garbage", "flood",
                        "reset", "power_off", "kill", "guest_of_32_bits"]

    def close(self):
        if self.gdb:
            self.gdb.close()
        if self.guest:
            self.guest.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    skep, engine, processors = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if not shutil.which("gdb"):
        print("skipped: there is no gdb")
        sys.exit(SKIPPED)
    checks = Checks()
    test = GdbTest(skep, engine, processors)
    try:
        checks.case("makes symbols", test.make_symbols)
        for name in test.cases():
            if checks.failed:
                break
            checks.case(name.replace("_", " "), getattr(test, name))
    finally:
        test.close()
    checks.finish()


if __name__ == "__main__":
    main()
