#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a person does wrong: each mistake ends with a message that names the thing and the cause,
with a hint, the right exit code, and nothing left behind.

    errors.py SKEP
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
from check import Checks, expect, expect_equal  # noqa: E402
from guest import guest_folder  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 60


class Errors:
    """The command under test and the files that it is given."""

    def __init__(self, skep):
        self.skep = skep
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        files = guest_folder(ROOT)
        self.kernel = f"{files}/vmlinuz"
        self.initrd = f"{files}/initrd.cpio"

    def path(self, name, content=b""):
        """A file of the test's folder with this content."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def fails(self, arguments, code, *words):
        """Runs skep and expects the exit code, a message with these words, and a hint."""
        before = sorted(os.listdir(self.folder))
        done = subprocess.run([self.skep] + arguments, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
        text = done.stderr
        expect_equal(done.returncode, code, f"exit code ({text.strip()})")
        message = [line for line in text.splitlines() if line.startswith("skep: ")]
        expect(message and ": " in message[-1][6:], f"no message in {text!r}")
        for word in words:
            expect(word.lower() in text.lower(), f"{word!r} is not in {text!r}")
        expect(any(line.startswith("hint: ") for line in text.splitlines()), f"no hint in {text!r}")
        expect_equal(sorted(os.listdir(self.folder)), before, "what is left behind")

    def run_fails(self, arguments, code, *words):
        """The same for `skep run` with a good kernel."""
        self.fails(["run", "--kernel", self.kernel, "--initrd", self.initrd] + arguments, code,
                   *words)

    def usage(self):
        self.fails(["frobnicate"], 2, "frobnicate")
        self.fails(["--frob", "run"], 2, "--frob")
        self.fails(["run", "--frob"], 2, "--frob")
        self.fails(["run", "--kernel"], 2, "--kernel", "argument")
        self.fails(["run"], 2, "kernel")
        self.fails(["run", "--kernel", self.kernel, "stray"], 2, "stray")
        self.run_fails(["--engine", "warp"], 2, "warp")
        self.run_fails(["--net", "carrier-pigeon"], 2, "carrier-pigeon")
        self.run_fails(["-p", "80"], 2, "80")
        self.run_fails(["--net", "none", "-p", "8080:80"], 2, "forward")
        self.run_fails(["--disk", "x.img,rw=maybe"], 2, "rw=maybe")

    def closed_files(self):
        """Without stdin, stdout or stderr: what is opened later does not get their numbers."""
        for number in range(3):
            done = subprocess.run(["sh", "-c", f'exec "$@" {number}>&-', "sh", self.skep, "run",
                                   "--kernel", self.kernel, "--cmdline", "panic=-1", "--no-reboot",
                                   "--net", "none", "-m", "128M"], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=LIMIT_S, check=False)
            expect_equal(done.returncode, 0, f"status without {number} ({done.stderr})")

    def help_and_version(self):
        for arguments in (["--help"], ["run", "--help"], ["doctor", "--help"]):
            done = subprocess.run([self.skep] + arguments, capture_output=True, text=True,
                                  timeout=LIMIT_S, check=True)
            expect("Usage: skep" in done.stdout and not done.stderr, done.stdout + done.stderr)
        done = subprocess.run([self.skep, "--version"], capture_output=True, text=True, check=True)
        expect(done.stdout.startswith("skep "), done.stdout)

    def doctor(self):
        done = subprocess.run([self.skep, "doctor"], capture_output=True, text=True, check=True)
        expect("engine soft" in done.stdout and "engine kvm" in done.stdout, done.stdout)
        expect_equal(done.stdout.count("auto takes it"), 1, "engines that auto takes")
        done = subprocess.run([self.skep, "--json", "doctor"], capture_output=True, text=True,
                              check=True)
        found = json.loads(done.stdout)
        expect(any(f["topic"] == "engine soft" and f["ok"] for f in found), done.stdout)

    def kernels(self):
        missing = os.path.join(self.folder, "missing")
        self.fails(["run", "--kernel", missing], 1, missing, "no such file")
        self.fails(["run", "--kernel", self.folder], 1, "directory")
        self.fails(["run", "--kernel", self.path("empty")], 1, "empty")
        self.fails(["run", "--kernel", self.path("text", b"hello\n" * 5000)], 1, "text")
        with open(self.kernel, "rb") as file:
            whole = file.read()
        for size in (600, 20000, len(whole) // 2):
            cut = self.path("cut", whole[:size])
            self.fails(["run", "--kernel", cut], 1, "cut")
        self.fails(["run", "--kernel", self.kernel, "--initrd", missing], 1, missing)
        self.fails(["run", "--kernel", "/dev/zero"], 1, "/dev/zero", "large")
        self.run_fails(["--cmdline", "x" * 100000], 1, "command line", "100000")

    def memory(self):
        self.run_fails(["-m", "0"], 2, "memory")
        self.run_fails(["-m", "1M"], 2, "memory")
        self.run_fails(["-m", "lots"], 2, "lots")
        self.run_fails(["-m", "-1"], 2, "-1")
        self.run_fails(["-m", "900000G"], 1, "memory")
        large = self.path("large")
        os.truncate(large, 256 << 20)
        self.fails(["run", "--kernel", self.kernel, "--initrd", large, "-m", "128M"], 1, "initrd",
                   "memory")

    def processors(self):
        self.run_fails(["-c", "0"], 2, "processors")
        self.run_fails(["-c", "65"], 2, "processors")
        self.run_fails(["-c", "two"], 2, "two")
        self.run_fails(["-c", "8,sockets=3"], 2, "do not make 8")
        self.run_fails(["-c", "8,cores=0"], 2, "cores")
        self.run_fails(["-c", "8,dies=2"], 2, "dies=2")
        self.run_fails(["-c", "64,sockets=64,cores=64,threads=64"], 2, "do not make 64")
        self.run_fails(["-c", "2", "-c", "2"], 2, "already")
        self.run_fails(["--pin", "0"], 2, "VCPU:HOSTCPU")
        self.run_fails(["--pin", "0:0", "--pin", "0:0"], 2, "already")
        self.run_fails(["--pin", "0:1023"], 1, "pin vCPU")

    def test_devices(self):
        self.run_fails(["--device", "toaster"], 2, "toaster")
        self.run_fails(["--device", "debug-exit,iobase=1"], 2, "iobase")
        self.run_fails(["--device", "testdev,iobase=1"], 2, "iobase")
        self.run_fails(["--device", "debug-exit,port=0x10000"], 2, "0x10000")
        # A port that something else has.
        self.run_fails(["--device", "debug-exit,port=0x3f8"], 1, "exit_port")
        self.run_fails(["--parallel", "carrier:pigeon"], 2, "carrier")
        self.run_fails(["--parallel", "null,strobe=maybe"], 2, "strobe")
        self.run_fails(["--post", "file:/nonexistent/x"], 1, "/nonexistent/x")
        rom = self.path("rom", bytes(100))
        self.fails(["run", "--rom", rom], 1, rom, "4096")
        self.fails(["run", "--rom", os.path.join(self.folder, "missing")], 1, "missing")

    def disks(self):
        self.run_fails(["--disk", os.path.join(self.folder, "missing.img")], 1, "missing.img")
        self.run_fails(["--disk", self.folder], 1, "directory")
        self.run_fails(["--disk", self.path("nothing.img")], 1, "nothing.img", "empty")
        self.run_fails(["--disk", self.path("q.img", b"QFI\xfb" + bytes(65532))], 1, "qcow2")
        locked = self.path("locked.img", bytes(1 << 20))
        self.run_fails(["--disk", locked, "--disk", f"{locked},ro"], 2, "locked.img", "same")
        os.symlink(locked, os.path.join(self.folder, "link.img"))
        self.run_fails(["--disk", locked, "--cdrom", os.path.join(self.folder, "link.img")], 2,
                       "same")
        with open(locked, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # What another skep holds; an advisory lock of any kind counts.
            fcntl.lockf(file, fcntl.LOCK_EX)
            self.run_fails(["--disk", locked], 1, "locked.img", "use")
        if os.getuid() != 0:
            read_only = self.path("ro.img", bytes(1 << 20))
            os.chmod(read_only, 0o444)
            self.run_fails(["--disk", read_only], 1, "ro.img", "permission")

    def drives(self):
        missing, empty = os.path.join(self.folder, "missing.img"), self.path("empty.img")
        image = self.path("disk.img", bytes(1 << 20))
        self.run_fails(["--disk", missing], 1, missing, "truncate -s 10G")
        self.run_fails(["--floppy", missing], 1, missing, "truncate -s 1440K")
        self.run_fails(["--cdrom", missing], 1, missing, "check the path")
        self.run_fails(["--cdrom", empty], 1, empty, "empty", "again")
        self.run_fails(["--cdrom", f"{image},bus=nvme"], 2, "nvme")
        self.run_fails(["--floppy", image], 1, image, "size", "1440")
        self.run_fails(["--floppy", "none"] * 3, 2, "3 floppy")
        self.run_fails(["--disk", f"{image},bus=mfm"], 2, "mfm")
        self.run_fails(["--disk", f"{image},fast"], 2, "fast")
        self.run_fails(["--disk", f"{image},bus=ahci,slot=5"], 2, image, "ahci", "slot")
        self.run_fails(["--disk", f"{image},slot=99"], 2, "99")
        self.run_fails(["--disk", f"{image},slot=5", "--net", "user,slot=5"], 1, "slot 5")
        self.run_fails(["--disk", f"{image},bus=ide"] * 5, 2, "same")
        self.run_fails(["--disk", f"{image},bus=ide,ro"] * 5, 2, image, "ide", "4")
        self.run_fails(["--tpm", f"unix:{missing}"], 1, missing, "swtpm")
        self.run_fails(["--tpm", f"unix:{missing},model=1.2"], 2, "1.2", "crb")

    def firmware(self):
        image = self.path("disk.img", bytes(1 << 20))
        odd = self.path("odd", bytes(1000))
        disk = ["run", "--disk", image]
        self.fails(disk + ["--firmware", odd], 1, odd)
        small = self.path("small.rom", bytes(4096))
        self.fails(disk + ["--firmware", small], 1, small, "16384", "--rom")
        self.fails(disk + ["--firmware", odd, "--rom", odd], 2, odd, "two ways")
        self.fails(disk + ["--nvram", odd, "--firmware", "bios"], 2, odd, "uefi")
        for nvram in odd, self.folder, os.path.join(self.folder, "none", "x"):
            self.fails(disk + ["--nvram", nvram, "--firmware", "uefi"], 1, nvram)
        self.fails(disk + ["--initrd", odd], 2, odd, "--kernel")
        self.fails(disk + ["--boot", "tape"], 2, "tape", "floppy")
        self.fails(disk + ["--boot", "disk,net,disk"], 2, "disk", "twice")
        self.fails(disk + ["--boot", "floppy,cdrom"], 2, "floppy", "--cdrom")
        self.fails(disk + ["--boot", "net", "--net", "none"], 2, "net")
        self.fails(disk + ["--kernel-from-disk"], 1, image, "GRUB", "--kernel")

    def screens(self):
        empty, missing = self.path("empty"), os.path.join(self.folder, "missing")
        self.run_fails(["--display", "vnc=0.0.0.0:0"], 2, "0.0.0.0", "password")
        for password in empty, missing:
            self.run_fails(["--display", f"vnc=0.0.0.0:0,password-file={password}"], 1, password)
        self.run_fails(["--display", "vnc=:99999"], 2, "99999")
        self.run_fails(["--display", "vnc=:1,keymap=klingon"], 2, "klingon")
        self.run_fails(["--display", "vnc=:1", "--vga", "none"], 2, "--vga std")
        self.run_fails(["--vga", "std,memory=3M"], 2, "3072", "256M")
        self.run_fails(["--vga", "std,size=9x9"], 2, "9x9", "64x64")
        self.run_fails(["--vga", "virtio,memory=16M"], 2, "memory")

    def networks(self):
        missing = os.path.join(self.folder, "missing")
        for folder in missing, self.path("file"):
            self.run_fails(["--net", f"user,tftp={folder}"], 1, folder, "folder")
            self.run_fails(["--net", f"user,http={folder}"], 1, folder, "folder")
        self.run_fails(["--net", "user,bootfile=x"], 2, "x", "tftp=")
        self.run_fails(["--net", "user,model=ne2000"], 2, "ne2000", "e1000e")
        self.run_fails(["--net", "none,model=e1000"], 2, "model=e1000", "user")
        self.run_fails(["--net", "none", "--net", "user"], 2, "none")
        self.run_fails(["--net", f"tap=x,tftp={self.folder}"], 2, "tftp", "user")

    def ports(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.run_fails(["-p", f"{port}:80"], 1, str(port), "use")
        self.run_fails(["-p", "70000:80"], 2, "70000")
        self.run_fails(["-p", "nowhere:8080:80"], 2, "nowhere")

    def places(self):
        self.run_fails(["--console", "carrier:pigeon"], 2, "carrier")
        self.run_fails(["--serial", "file:/nonexistent/x"], 1, "/nonexistent/x")
        # A name that the kernel refuses also where a tap may be made.
        self.run_fails(["--net", "tap=a-name-that-is-too-long"], 2, "tap")

    def debuggers(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.run_fails(["--gdb", str(port)], 1, str(port), "use")
        self.run_fails(["--gdb", "nowhere"], 2, "nowhere")
        self.run_fails(["--gdb", "unix:/nonexistent/x"], 1, "/nonexistent/x")
        self.run_fails(["--gdb", "unix:"], 2, "path")
        self.run_fails(["--gdb", "1234,later"], 2, "later")
        self.run_fails(["--gdb", "1234", "--gdb", "1235"], 2, "GDB")

    def saving(self):
        """A place that can't be written is told before the machine runs, not when it is saved."""
        self.run_fails(["--save-on", "lunch:x"], 2, "lunch")
        self.run_fails(["--save-on", "stop:"], 2, "WHEN:FILE")
        self.run_fails(["--save-on", f"stop:{self.folder}"], 1, "directory")
        self.run_fails(["--save-on", "stop:/nonexistent/x"], 1, "/nonexistent/x", "folder")
        self.run_fails(["--save-on", "stop:/dev/null"], 1, "/dev/null", "no file")
        file = self.path("file")
        self.run_fails(["--save-on", f"stop:{file}/x"], 1, "folder")
        self.run_fails(["--save-on", "HUP:a", "--save-on", "SIGHUP:b"], 2, "already")
        self.fails(["run", "--restore", os.path.join(self.folder, "missing")], 1, "missing")
        self.fails(["run", "--restore", self.folder], 1, self.folder, "no file")
        os.mkfifo(os.path.join(self.folder, "pipe"))
        self.fails(["run", "--restore", os.path.join(self.folder, "pipe")], 1, "no file")
        for path in (file, self.path("zeroes", bytes(1 << 16))):
            self.fails(["run", "--restore", path], 1, path, "no saved machine")

    def names(self):
        self.run_fails(["--name", "a/b"], 2, "path")
        self.run_fails(["--name", "with space"], 2, "letters")
        self.run_fails(["--name", "a", "--name", "b"], 2, "control socket")
        self.run_fails(["--control", "unix:" + "x" * 200], 2, "at most")
        self.run_fails(["--control", "unix:/nonexistent/x"], 1, "/nonexistent/x", "folder")
        self.run_fails(["--control", f"unix:{self.path('file')}"], 1, "file")
        self.fails(["status", "nobody"], 1, "nobody")
        self.fails(["save", "nobody"], 2, "FILE")

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    checks = Checks()
    errors = Errors(sys.argv[1])
    try:
        checks.methods(errors, ("usage", "closed_files", "help_and_version", "doctor", "kernels", "memory",
                                "processors", "test_devices", "disks", "drives", "firmware",
                                "screens", "networks", "ports", "places", "debuggers", "saving",
                                "names"))
    finally:
        errors.close()
    checks.finish()


if __name__ == "__main__":
    main()
