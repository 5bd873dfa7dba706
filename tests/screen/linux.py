#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Linux's console on a graphics device, with its own driver: what is on the screen is read by
comparing cells with each other, a command is typed, and its effect seen on the serial console.

    linux.py SKEP std|virtio
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))

from check import Checks, expect, expect_equal  # noqa: E402
from rfb import DESKTOP_SIZE, RAW, Viewer, read_png  # noqa: E402

SKEP, DEVICE = sys.argv[1:3]
LIMIT_S = 400  # that ends a hang
WIDTH, HEIGHT, CELL_WIDTH, CELL_HEIGHT = 1024, 768, 8, 16


def cell(lines, column, row):
    """The pixels of a character's cell."""
    left = 3 * column * CELL_WIDTH
    return b"".join(bytes(lines[y][left:left + 3 * CELL_WIDTH])
                    for y in range(row * CELL_HEIGHT, (row + 1) * CELL_HEIGHT))


def has_text(lines, text):
    """Whether a row begins with this text: equal letters have equal cells, different ones different
    cells, and blanks are empty."""
    for row in range(HEIGHT // CELL_HEIGHT):
        cells = [cell(lines, column, row) for column in range(len(text) + 1)]
        letters = {}
        for letter, picture in zip(text + " ", cells):
            letters.setdefault(letter, set()).add(picture)
        pictures = {picture for group in letters.values() for picture in group}
        if (all(len(group) == 1 for group in letters.values()) and
                len(pictures) == len(letters) and not any(cells[-1])):
            return True
    return False


class Guest:
    def __init__(self, folder):
        drivers = subprocess.run([os.path.join(ROOT, "guest", "drivers.sh")], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout.strip()
        self.control, self.console = os.path.join(folder, "control"), os.path.join(folder, "console")
        self.vnc, self.shot = os.path.join(folder, "vnc"), os.path.join(folder, "shot.png")
        self.process = subprocess.Popen(
            [SKEP, "run", "--engine", "soft", "-m", "512M", "--kernel", drivers + "/vmlinuz",
             "--initrd", drivers + "/initrd.cpio", "--cmdline",
             "quiet net=off console=ttyS0 console=tty0", "--net", "none", "--vga",
             f"{DEVICE},size={WIDTH}x{HEIGHT}", "--display", "vnc=unix:" + self.vnc,
             "--control", "unix:" + self.control, "--console", "file:" + self.console],
            stdin=subprocess.DEVNULL)

    def ask(self, *words):
        done = subprocess.run([SKEP, words[0], "unix:" + self.control, *words[1:]], timeout=LIMIT_S,
                              capture_output=True, text=True, check=False)
        expect_equal((done.returncode, done.stderr), (0, ""), words[0])

    def screen(self):
        self.ask("screenshot", self.shot)
        return read_png(self.shot)

    def wait(self, what, condition):
        end = time.monotonic() + LIMIT_S
        while not condition():
            expect(self.process.poll() is None, f"skep has ended before {what}")
            expect(time.monotonic() < end, f"no {what}")
            time.sleep(1)

    def shows(self, text):
        width, height, lines = self.screen()
        return (width, height) == (WIDTH, HEIGHT) and has_text(lines, text)

    def serial(self):
        with open(self.console, encoding="utf-8", errors="replace") as file:
            return file.read()


def console(guest):
    guest.wait("control socket", lambda: os.path.exists(guest.control))
    guest.wait("prompt", lambda: guest.shows("skep guest:~#"))


def typed(guest):
    guest.ask("type", "clear; echo Twenty-$((4*5)) | tee /dev/ttyS0\\n")
    guest.wait("the command's output", lambda: "Twenty-20" in guest.serial())
    guest.wait("the same on the screen", lambda: guest.shows("Twenty-20"))
    guest.ask("key", "ctrl-l", "shift-a", "b", "ret")
    guest.wait("what keys have made", lambda: guest.shows("-sh: Ab: not found") or
               guest.shows("sh: Ab: not found"))


def sees(one, text):
    """Whether a viewer has the text on its screen; asks for all of it anew."""
    one.update(incremental=False)
    expect_equal((one.width, one.height), (WIDTH, HEIGHT), "size")
    lines = [bytearray(b"".join(bytes((line[4 * x + 2], line[4 * x + 1], line[4 * x]))
                                for x in range(WIDTH))) for line in one.pixels]
    return has_text(lines, text)


def monitor(guest):
    """The driver has read the monitor's EDID (128 bytes), whose first mode is the one asked for."""
    guest.ask("type", "cd /sys/class/drm/card0-*; echo EDID=$(wc -c <edid)=$(head -n1 modes) "
              ">/dev/ttyS0; cd\\n")
    guest.wait("EDID", lambda: f"EDID=128={WIDTH}x{HEIGHT}" in guest.serial())


def driver_again(guest):
    """The driver goes and comes while much is drawn; then the screen is as before."""
    guest.ask("type", "D=$(readlink -f /sys/class/drm/card0/device); cd $D/driver; N=${D##*/}\\n")
    guest.ask("type", "(while [ ! -e /tmp/stop ]; do dmesg >/dev/tty0; done &)\\n")
    guest.ask("type", "for i in 1 2 3; do echo 0 >/sys/class/vtconsole/vtcon1/bind; echo $N >unbind; "
              "echo $N >bind; sleep 1; done; touch /tmp/stop; cd; sleep 1; clear; "
              "echo again-$((6*8)) >/dev/ttyS0\\n")
    guest.wait("the end of the loop", lambda: "again-48" in guest.serial())
    guest.wait("the prompt", lambda: guest.shows("skep guest:~#"))


def viewer(guest):
    """A viewer sees the same as the screenshot."""
    one = Viewer("unix:" + guest.vnc, encodings=(RAW, DESKTOP_SIZE))
    for letter in b"echo by-$((6*7)) >/dev/ttyS0\r":
        one.press(0xFF0D if letter == 13 else letter)
        time.sleep(0.1)
    guest.wait("what the viewer has typed", lambda: "by-42" in guest.serial())
    guest.wait("the prompt in the viewer", lambda: sees(one, "skep guest:~#"))


def main():
    checks = Checks()
    folder = tempfile.mkdtemp()
    guest = Guest(folder)
    try:
        for case in (console, typed, monitor, viewer, driver_again):
            checks.case(case.__name__, case, guest)
    finally:
        guest.process.kill()
        guest.process.wait()
        shutil.rmtree(folder)
    checks.finish()


main()
