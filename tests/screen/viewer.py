#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A real VNC viewer (TigerVNC's, in Xvfb) on a Linux guest: it is refused with a wrong password, shows
what skep's own screenshot shows, and types and clicks as xdotool tells it.

    viewer.py SKEP
"""

import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))

from check import Checks, expect, expect_equal  # noqa: E402
from guest import Guest, guest_folder  # noqa: E402
from input import BTN_LEFT, EV_ABS, EV_KEY, NAMES, events, open_event  # noqa: E402
from rfb import des, read_png  # noqa: E402

SKEP = sys.argv[1]
LIMIT_S = 120  # that ends a hang
TOOLS = ("Xvfb", "xdotool", "xtigervncviewer")
WIDTH, HEIGHT = 800, 600
FIXED_KEY = bytes((23, 82, 107, 6, 35, 78, 88, 7))  # what viewers keep passwords under


def until(condition, what):
    """Waits for the condition; gives what it says."""
    end = time.monotonic() + LIMIT_S
    while not (found := condition()):
        expect(time.monotonic() < end, f"no {what}")
        time.sleep(0.2)
    return found


class Display:
    """An X server with its picture in a file (XWD, version 7)."""

    def __init__(self, folder):
        read_end, write_end = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1024x768x24", "-fbdir", folder,
             "-nolisten", "tcp"], pass_fds=[write_end], stderr=subprocess.DEVNULL)
        os.close(write_end)
        with os.fdopen(read_end, encoding="ascii") as pipe:
            self.name = ":" + pipe.readline().strip()
        expect(self.name != ":", "Xvfb does not start")
        self.environment = dict(os.environ, DISPLAY=self.name)
        with open(os.path.join(folder, "Xvfb_screen0"), "rb") as file:
            self.picture = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        words = struct.unpack(">25I", self.picture[:100])
        self.start, self.line_bytes = words[0] + 12 * words[19], words[12]
        expect_equal(words[11], 32, "bits of a pixel")

    def tool(self, *words):
        """Runs xdotool; gives what it says."""
        done = subprocess.run(["xdotool", *map(str, words)], env=self.environment, text=True,
                              capture_output=True, timeout=LIMIT_S, check=False)
        return done.stdout if done.returncode == 0 else ""

    def line(self, x, y, width):
        """Part of a line as red, green and blue."""
        at = self.start + y * self.line_bytes + 4 * x
        raw = self.picture[at:at + 4 * width]
        out = bytearray(3 * width)
        out[0::3], out[1::3], out[2::3] = raw[2::4], raw[1::4], raw[0::4]
        return bytes(out)

    def end(self):
        self.process.terminate()
        self.process.wait()


class Desk:
    """A guest, an X server, and viewers."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="skep-test-")
        self.control = "unix:" + self.path("control")
        self.display = Display(self.folder)
        self.guest = self.viewer = self.port = self.window = None
        self.place = (0, 0)

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        with open(self.path("password"), "w", encoding="ascii") as file:
            file.write("sesame\n")
        files = guest_folder(ROOT, "drivers.sh")
        self.guest = Guest(
            [SKEP, "run", "-m", "384M", "--kernel", f"{files}/vmlinuz", "--initrd",
             f"{files}/initrd.cpio", "--net", "none", "--control", self.control, "--vga",
             f"std,size={WIDTH}x{HEIGHT}", "--input", "usb", "--display",
             f"vnc=127.0.0.1:0,password-file={self.path('password')}", "--cmdline",
             "console=tty0 console=ttyS0 quiet net=off"], 600)
        self.guest.wait_prompt()
        self.guest.run("printf '\\033[?25l' >/dev/tty0; echo 0 >/proc/sys/kernel/printk")
        found = re.search(rb"VNC server at 127\.0\.0\.1:(\d+)", self.guest.errors)
        expect(found, self.guest.errors)
        self.port = int(found.group(1))

    def connect(self, password):
        """Starts the viewer."""
        with open(self.path("viewer-password"), "wb") as file:
            file.write(des(FIXED_KEY, password.encode().ljust(8, b"\0")))
        return subprocess.Popen(
            ["xtigervncviewer", f"-PasswordFile={self.path('viewer-password')}",
             "-AlertOnFatalError=0", "-RemoteResize=0", "-ReconnectOnError=0",
             f"127.0.0.1::{self.port}"], env=dict(self.display.environment, HOME=self.folder),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # ---- cases ----

    def wrong_password(self):
        with self.connect("sesamo") as viewer:
            viewer.wait(LIMIT_S)  # one with the right password stays until it is told to go

    def right_password(self):
        self.viewer = self.connect("sesame")

        def window():
            expect(self.viewer.poll() is None, "the viewer has gone")
            for one in self.display.tool("search", "--onlyvisible", "--name", "VNC").split():
                shape = self.display.tool("getwindowgeometry", "--shell", one)
                size = dict(line.split("=") for line in shape.split())
                if (size.get("WIDTH"), size.get("HEIGHT")) == (str(WIDTH), str(HEIGHT)):
                    return one, int(size["X"]), int(size["Y"])
            return None

        self.window, *self.place = until(window, "window of the guest's size")

    def picture(self):
        """Pixel by pixel what the screenshot has. The pointer is beside the window."""
        self.guest.run("clear >/dev/tty0; (dmesg; ls -l /bin) | head -60 >/dev/tty0")
        x, y = self.place
        self.display.tool("mousemove", WIDTH + 100, HEIGHT + 50)
        shot = self.path("shot.png")

        def is_same():
            subprocess.run([SKEP, "screenshot", self.control, shot], check=True)
            width, height, lines = read_png(shot)
            expect_equal((width, height), (WIDTH, HEIGHT), "size")
            expect(len({bytes(line) for line in lines}) > 20, "nothing is written there")
            return all(self.display.line(x, y + i, width) == bytes(lines[i]) for i in range(height))

        until(is_same, "picture as in the screenshot")

    def keys(self):
        keyboard = open_event(self.guest, NAMES["usb"][0])
        self.display.tool("mousemove", self.place[0] + 50, self.place[1] + 50)
        self.display.tool("windowfocus", self.window)  # what a window manager would do
        for key in ("a", "shift+b", "Return", "Up"):
            self.display.tool("key", key)
        wanted = [(30, 1), (30, 0), (42, 1), (48, 1), (42, 0), (48, 0), (28, 1), (28, 0), (103, 1),
                  (103, 0)]
        got = until(lambda: [(code, value) for kind, code, value in events(self.guest, keyboard)
                             if kind == EV_KEY and value != 2][:len(wanted)], "keys")
        expect_equal(got, wanted, "keys")

    def click(self):
        pointer = open_event(self.guest, NAMES["usb"][1])
        self.display.tool("mousemove", self.place[0] + WIDTH // 2, self.place[1] + HEIGHT // 4)
        self.display.tool("click", 1)

        def clicked():
            got = events(self.guest, pointer)
            last = {code: value for kind, code, value in got if kind == EV_ABS}
            buttons = [value for kind, code, value in got if (kind, code) == (EV_KEY, BTN_LEFT)]
            return (buttons == [1, 0] and abs(last.get(0, 0) - 0x4000) < 100 and
                    abs(last.get(1, 0) - 0x2000) < 100)

        until(clicked, "click where it was")

    def leave(self):
        self.viewer.terminate()
        self.viewer.wait(LIMIT_S)
        self.guest.send("poweroff -f\n")
        expect_equal(self.guest.wait_exit(), 0, "exit status")

    def close(self):
        for process in (self.viewer, ):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        if self.guest:
            self.guest.__exit__()
        self.display.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def main():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        print("not installed:", *missing, "(packages xvfb, xdotool, tigervnc-viewer)")
        sys.exit(77)
    checks = Checks()
    desk = Desk()
    try:
        checks.case("a guest with a screen", desk.start)
        if not checks.failed:
            checks.methods(desk, ("wrong_password", "right_password", "picture", "keys", "click",
                                  "leave"))
    finally:
        desk.close()
    checks.finish()


if __name__ == "__main__":
    main()
