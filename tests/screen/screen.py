#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The screen of a machine that runs a ROM of its own (rom.S): VNC by a small viewer, screenshots,
typing. No guest system: seconds.

    screen.py SKEP ROM
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "boot"))

from check import Checks, expect, expect_equal  # noqa: E402
from rfb import DESKTOP_SIZE, QEMU_KEYS, RAW, Refused, Viewer, read_png  # noqa: E402

SKEP, ROM = sys.argv[1:3]
LIMIT_S = 60  # that ends a hang

# Make codes of set 1, as the ROM sees them.
A, B, SHIFT, SHIFT_R, ALTGR, ENTER, ONE, F1, F2, SLASH, Q, Z, Y = (
    0x1E, 0x30, 0x2A, 0x36, 0x38, 0x1C, 0x02, 0x3B, 0x3C, 0x35, 0x10, 0x2C, 0x15)
UP = 0x80


class Machine:
    """One that runs the ROM; `where` is its VNC server's address."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.control = "unix:" + os.path.join(folder, "control")
        self.bytes = os.path.join(folder, "debugcon")
        self.process = subprocess.Popen(
            [SKEP, "run", "--engine", "soft", "-m", "16M", "--rom", ROM, "--net", "none", "--console",
             "none", "--control", self.control, "--debugcon", "file:" + self.bytes, *options],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.where = None
        for line in self.process.stderr:
            match = re.match(r"skep: VNC server at (\S+)", line)
            if match:
                self.where = match[1]
                break
            if "--display" not in " ".join(options) and "engine" in line:
                break

    def seen(self):
        """What the ROM has written, without its mark."""
        with open(self.bytes, "rb") as file:
            return file.read()

    def wait_seen(self, condition, what):
        end = time.monotonic() + LIMIT_S
        while not condition(self.seen()):
            expect(self.process.poll() is None, "skep has ended")
            expect(time.monotonic() < end, f"no {what}: {self.seen().hex(' ')}")
            time.sleep(0.01)

    def wait_keys(self, *codes):
        """Waits until these are the keys since the last call."""
        wanted = bytes(codes)
        start = getattr(self, "taken", 0)
        self.wait_seen(lambda seen: len(seen.replace(b"!", b"")) - start >= len(wanted), "keys")
        got = self.seen().replace(b"!", b"")[start:]
        expect_equal(got.hex(" "), wanted.hex(" "), "keys")
        self.taken = start + len(wanted)

    def wait_drawn(self, times):
        self.wait_seen(lambda seen: seen.count(b"!") >= times, "picture")

    def ask(self, *words):
        return subprocess.run([SKEP, *words[:1], self.control, *words[1:]], capture_output=True,
                              text=True, timeout=LIMIT_S, check=False)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@contextlib.contextmanager
def machine(*options):
    folder = tempfile.mkdtemp()
    one = Machine(folder, *options)
    try:
        yield one
    finally:
        one.end()
        shutil.rmtree(folder)


def expected(x, y, mode):
    return 0x40 + mode, y & 255, x & 255


def update_until(viewer, condition):
    """Takes updates until the condition holds; the server sends what it has."""
    end = time.monotonic() + LIMIT_S
    viewer.update(incremental=False)
    while not condition():
        expect(time.monotonic() < end, "the screen does not come")
        viewer.update()


def check_picture(viewer, width, height, mode):
    update_until(viewer, lambda: (viewer.width, viewer.height) == (width, height) and
                 viewer.pixel(width - 1, height - 1) == expected(width - 1, height - 1, mode))
    for y in range(0, height, 17):
        for x in range(0, width, 13):
            expect_equal(viewer.pixel(x, y), expected(x, y, mode), f"pixel {x}, {y}")


def picture_and_sizes():
    with machine("--display", "vnc=127.0.0.1:0") as m:
        viewer = Viewer(m.where)
        check_picture(viewer, 320, 200, 0)
        viewer.press(0xFFBE)
        m.wait_keys(F1, F1 | UP)
        check_picture(viewer, 640, 480, 1)
        viewer.press(0xFFBF)
        m.wait_keys(F2, F2 | UP)
        check_picture(viewer, 404, 300, 2)
        expect(viewer.size_replies, "no ExtendedDesktopSize")
        # This device takes no wishes.
        viewer.set_size(800, 600)
        update_until(viewer, lambda: viewer.size_replies[-1][1] == 1)
        expect_equal((viewer.width, viewer.height), (404, 300), "size after the refusal")
        viewer.close()


def several_viewers():
    with machine("--display", "vnc=127.0.0.1:0") as m:
        viewers = [Viewer(m.where) for _ in range(3)]
        viewers.append(Viewer(m.where, encodings=(RAW, DESKTOP_SIZE)))
        for viewer in viewers:
            check_picture(viewer, 320, 200, 0)
        # One goes in the middle of a message, with a key down: that comes up.
        viewers[0].key(ord("a"), True)
        m.wait_keys(A)
        viewers[0].send(b"\4\1")
        viewers[0].close()
        m.wait_keys(A | UP)
        viewers[1].press(0xFFBE)
        for viewer in viewers[1:]:
            check_picture(viewer, 640, 480, 1)
        # Nonsense ends only its own viewer.
        viewers[1].send(b"\xfe" * 100)
        viewers[2].press(0xFFBF)
        check_picture(viewers[2], 404, 300, 2)


def slow_viewer():
    """One that never reads holds up neither the guest nor, for long, another viewer."""
    with machine("--display", "vnc=127.0.0.1:0") as m:
        slow, other = Viewer(m.where), Viewer(m.where)
        check_picture(other, 320, 200, 0)
        for turn in range(6):
            for _ in range(20):
                slow.request(incremental=False)
            other.press(0xFFBE if turn % 2 == 0 else 0xFFBF)
            m.wait_drawn(turn + 2)
        check_picture(other, 404, 300, 2)


def keysyms():
    with machine("--display", "vnc=127.0.0.1:0") as m:
        viewer = Viewer(m.where)
        m.wait_drawn(1)
        viewer.press(ord("a"))
        m.wait_keys(A, A | UP)
        viewer.press(0xFF0D)
        m.wait_keys(ENTER, ENTER | UP)
        # Shift as the viewer holds it; and added where it does not.
        viewer.key(0xFFE1, True)
        viewer.press(ord("A"))
        viewer.key(0xFFE1, False)
        m.wait_keys(SHIFT, A, A | UP, SHIFT | UP)
        viewer.press(ord("!"))
        m.wait_keys(SHIFT, ONE, SHIFT | UP, ONE | UP)
        # What XKB also has on keys of its own.
        for letter, code in (("$", 0x05), ("(", 0x0A), (")", 0x0B), ("=", 0x0D), (",", 0x33)):
            viewer.press(ord(letter))
            shift = () if letter in "=," else (SHIFT, )
            m.wait_keys(*shift, code, *(UP | one for one in shift), code | UP)
        # A slash with shift, as on a German keyboard.
        viewer.key(0xFFE2, True)
        viewer.press(ord("/"))
        viewer.key(0xFFE2, False)
        m.wait_keys(SHIFT_R, SHIFT_R | UP, SLASH, SHIFT_R, SLASH | UP, SHIFT_R | UP)
        # The cursor keys have a prefix; one that no keyboard has does nothing.
        viewer.press(0xFF52)
        viewer.press(0x1234567)
        viewer.press(ord("b"))
        m.wait_keys(0xE0, 0x48, 0xE0, 0xC8, B, B | UP)


def key_map():
    with machine("--display", "vnc=127.0.0.1:0,keymap=de") as m:
        viewer = Viewer(m.where)
        m.wait_drawn(1)
        viewer.press(ord("z"))
        viewer.press(ord("Y"))
        m.wait_keys(Y, Y | UP, SHIFT, Z, SHIFT | UP, Z | UP)
        viewer.press(ord("@"))
        m.wait_keys(0xE0, ALTGR, Q, 0xE0, ALTGR | UP, Q | UP)
        viewer.press(0xE4)  # a umlaut
        m.wait_keys(0x28, 0xA8)
    for name, keysym, codes in (("fr", "a", (Q, Q | UP)), ("uk", "#", (0x2B, 0xAB))):
        with machine("--display", "vnc=127.0.0.1:0,keymap=" + name) as m:
            viewer = Viewer(m.where)
            m.wait_drawn(1)
            viewer.press(ord(keysym))
            m.wait_keys(*codes)


def qemu_keys():
    with machine("--display", "vnc=127.0.0.1:0") as m:
        viewer = Viewer(m.where, encodings=(RAW, DESKTOP_SIZE, QEMU_KEYS))
        m.wait_drawn(1)
        viewer.update(incremental=False)
        while not viewer.accepts_qemu_keys:
            viewer.update(incremental=False)
        viewer.qemu_key(A, True, ord("q"))
        viewer.qemu_key(A, False, ord("q"))
        viewer.qemu_key(0xC8, True)
        viewer.qemu_key(0xC8, False)
        m.wait_keys(A, A | UP, 0xE0, 0x48, 0xE0, 0xC8)
        viewer.pointer(1, 10, 10)  # does no harm to the keyboard
        viewer.pointer(0, 1000, 1000)
        viewer.press(ord("b"))
        m.wait_keys(B, B | UP)


def password():
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "password")
    with open(path, "w", encoding="ascii") as file:
        file.write("sesame\n")
    try:
        with machine("--display", f"vnc=0.0.0.0:0,password-file={path}") as m:
            where = "127.0.0.1:" + m.where.rpartition(":")[2]
            viewer = Viewer(where, password="sesame")
            check_picture(viewer, 320, 200, 0)
            for wrong in ("sesamo", "", None):
                try:
                    Viewer(where, password=wrong)
                except Refused:
                    continue
                raise AssertionError(f"the password {wrong!r} was taken")
        check_refusals(folder, path)
    finally:
        shutil.rmtree(folder)


def refusal(*options):
    done = subprocess.run([SKEP, "run", "--engine", "soft", "-m", "16M", "--rom", ROM, "--net", "none",
                           "--console", "none", *options], capture_output=True, text=True,
                          timeout=LIMIT_S, check=False)
    return done.returncode, done.stderr


def check_refusals(folder, path):
    status, text = refusal("--display", "vnc=0.0.0.0:0")
    expect_equal(status, 2, "status of an open server without a password")
    expect("password-file=FILE" in text and "without a password" in text, text)
    with open(path, "w", encoding="ascii") as file:
        file.write("much too long for this\n")
    status, text = refusal("--display", f"vnc=:77,password-file={path}")
    expect(status == 1 and "first 8" in text, text)
    status, text = refusal("--display", "vnc=:77,keymap=klingon")
    expect(status == 2 and "klingon" in text, text)
    status, text = refusal("--display", "vnc=:77", "--vga", "none")
    expect(status == 2 and "--vga std" in text, text)
    status, text = refusal("--display", "window")
    expect(status == 2 and "the kinds are" in text, text)
    status, text = refusal("--vga", "std,memory=3M")
    expect(status == 2 and "power of two" in text, text)
    status, text = refusal("--vga", "std,size=1x1")
    expect(status == 2 and "no size" in text, text)
    status, text = refusal("--display", f"vnc=unix:{folder}/none/socket")
    expect(status == 1 and "make its folder first" in text, text)


def unix_socket():
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "vnc")
    try:
        with machine("--display", "vnc=unix:" + path) as m:
            expect_equal(m.where, "unix:" + path, "address")
            expect_equal(os.stat(path).st_mode & 0o777, 0o600, "mode of the socket")
            check_picture(Viewer(m.where), 320, 200, 0)
    finally:
        shutil.rmtree(folder)


def screenshot():
    with machine("--vga", "std") as m:
        m.wait_drawn(1)
        path = os.path.join(m.folder, "shot.png")
        for mode, (width, height) in ((0, (320, 200)), (2, (404, 300))):
            if mode == 2:
                expect_equal(m.ask("key", "f2").returncode, 0, "status of key")
                m.wait_keys(F2, F2 | UP)
                m.wait_drawn(2)
            done = m.ask("screenshot", path)
            expect_equal((done.returncode, done.stderr), (0, ""), "screenshot")
            got_width, got_height, lines = read_png(path)
            expect_equal((got_width, got_height), (width, height), "size")
            for y in range(height):
                for x in range(width):
                    if tuple(lines[y][3 * x:3 * x + 3]) != expected(x, y, mode):
                        raise AssertionError(f"pixel {x}, {y}: {lines[y][3 * x:3 * x + 3].hex()}")
        done = m.ask("screenshot", os.path.join(m.folder, "none", "shot.png"))
        expect(done.returncode == 1 and "No such file" in done.stderr, done.stderr)
        expect_equal(os.listdir(m.folder).count("shot.png"), 1, "files")
    with machine() as m:
        done = m.ask("screenshot", "x.png")
        expect(done.returncode == 1 and "--vga std" in done.stderr, done.stderr)


def typing():
    with machine("--vga", "std") as m:
        m.wait_drawn(1)
        text = "ab" * 20
        expect_equal(m.ask("type", text + "\\nA").returncode, 0, "status of type")
        m.wait_keys(*[A, A | UP, B, B | UP] * 20, ENTER, ENTER | UP, SHIFT, A, A | UP, SHIFT | UP)
        expect_equal(m.ask("key", "ctrl-alt-delete", "q").returncode, 0, "status of key")
        m.wait_keys(0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D, Q, Q | UP)
        for words, hint in ((("type", "\u00e4"), "US keyboard"), (("type", "\\x"), "backslash"),
                            (("key", "ctrl-nokey"), "'nokey'"), (("key", "a-"), "no key")):
            done = m.ask(*words)
            expect(done.returncode != 0 and hint in done.stderr, (words, done.stderr))
        # Nothing of what was refused has come.
        expect_equal(m.ask("type", "q").returncode, 0, "status of type")
        m.wait_keys(Q, Q | UP)


def saved():
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "saved")
    try:
        with machine("--vga", "std,size=1024x768") as m:
            m.wait_drawn(1)
            m.ask("key", "f2")
            m.wait_drawn(2)
            expect_equal(m.ask("save", path).returncode, 0, "status of save")
        control = "unix:" + os.path.join(folder, "again")
        process = subprocess.Popen([SKEP, "run", "--restore", path, "--control", control,
                                    "--debugcon", "file:" + os.path.join(folder, "bytes"),
                                    "--display", f"vnc=unix:{folder}/vnc"],
                                   stderr=subprocess.PIPE, text=True)
        try:
            for line in process.stderr:
                if "VNC server" in line:
                    break
            check_picture(Viewer(f"unix:{folder}/vnc"), 404, 300, 2)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
    finally:
        shutil.rmtree(folder)


def main():
    checks = Checks()
    for case in (picture_and_sizes, several_viewers, slow_viewer, keysyms, key_map, qemu_keys,
                 password, unix_socket, screenshot, typing, saved):
        checks.case(case.__name__, case)
    checks.finish()


main()
