#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Keys and pointer arrive at a Linux guest's drivers.

    input.py SKEP KIND     KIND is ps2, usb or virtio

Keys come from `skep key`, the pointer from a VNC client of a few lines; the guest's event devices
say what has arrived. Needs skep with VNC.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile

from check import Checks, expect, expect_equal
from guest import Guest, guest_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES = {
    "ps2": ("AT Translated Set 2 keyboard", "ImExPS/2 Generic Explorer Mouse"),
    "usb": ("skep USB keyboard", "skep USB tablet"),
    "virtio": ("skep virtio keyboard", "skep virtio tablet"),
}
# What takes a driver from its device, and gives it back; all of a kind.
AWAY = {
    "ps2": ("for i in 0 1; do printf none > /sys/bus/serio/devices/serio$i/drvctl; done",
            "for i in 0 1; do printf rescan > /sys/bus/serio/devices/serio$i/drvctl; done"),
    "usb": ("cd /sys/bus/pci/drivers/xhci_hcd; N=$(echo 0*); echo $N > unbind",
            "echo $N > bind; cd /"),
    "virtio": ("cd /sys/bus/virtio/drivers/virtio_input; N=$(echo virtio*); "
               "for i in $N; do echo $i > unbind; done", "for i in $N; do echo $i > bind; done; cd /"),
}
EV_KEY, EV_REL, EV_ABS = 1, 2, 3
BTN_LEFT = 0x110


class Viewer:
    """A VNC client that only has a pointer (RFC 6143)."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.socket.sendall(self.take(12))
        types = self.take(self.take(1)[0])
        expect(1 in types, "it asks for a password")
        self.socket.sendall(b"\1")
        expect_equal(self.take(4), b"\0\0\0\0", "result")
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.take(struct.unpack(">I", self.take(4))[0])

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            expect(more, "the server went away")
            data += more
        return data

    def pointer(self, x, y, buttons=0):
        self.socket.sendall(struct.pack(">BBHH", 5, buttons, x, y))


def open_event(guest, name):
    """The number of the event device of this name; what it says goes to a file from now on."""
    guest.run(f"for i in $(seq 60); do F=$(grep -lx '{name}' /sys/class/input/event*/device/name) && "
              "break; sleep 1; done", 300)
    _, found = guest.run("echo $F")
    match = re.search(r"/event(\d+)/", found)
    expect(match, f"no driver made the device '{name}'")
    number = match.group(1)
    guest.run(f"cat /dev/input/event{number} >/tmp/event{number} & sleep 1")
    return number


def events(guest, number):
    """What has come so far: (type, code, value), without time and reports."""
    _, text = guest.run(f"sleep 1; od -An -v -tx2 -w24 /tmp/event{number}")
    out = []
    for line in text.splitlines():
        words = [int(word, 16) for word in line.split()]
        if len(words) == 12 and words[8]:
            value = words[10] | words[11] << 16
            out.append((words[8], words[9], value - (1 << 32) if value >> 31 else value))
    return out


def test_keys(guest, skep, name, number):
    subprocess.run([skep, "key", name, "a", "shift-f12", "right", "kp_enter"], check=True)
    got = [(code, value) for kind, code, value in events(guest, number) if kind == EV_KEY]
    want = [(30, 1), (30, 0), (42, 1), (88, 1), (88, 0), (42, 0), (106, 1), (106, 0), (96, 1),
            (96, 0)]
    expect_equal(got, want, "keys")


def test_pointer(guest, kind, where, number):
    first = Viewer(where)  # nobody has looked before: the next one is told the size of now
    first.pointer(10, 10)
    events(guest, number)  # a mouse adds up what it has not told yet
    viewer = Viewer(where)
    viewer.pointer(viewer.width // 2, viewer.height // 4)
    viewer.pointer(viewer.width // 2, viewer.height // 4, 1)
    viewer.pointer(viewer.width // 2, viewer.height // 4, 0)
    got = events(guest, number)
    buttons = [value for kind_, code, value in got if (kind_, code) == (EV_KEY, BTN_LEFT)]
    expect_equal(buttons, [1, 0], "a click")
    if kind == "ps2":
        # To the left goes what brings it to the first place from where it was.
        moved = sum(max(value, 0) for kind_, code, value in got if (kind_, code) == (EV_REL, 0))
        expect(300 < moved < 800, f"moved to the right by {moved}")
        return
    last = {code: value for kind_, code, value in got if kind_ == EV_ABS}
    expect(abs(last.get(0, 0) - 0x4000) < 100, f"x is not in the middle: {last}")
    expect(abs(last.get(1, 0) - 0x2000) < 100, f"y is not at a quarter: {last}")


def take_drivers_away(guest, skep, name, kind):
    """Three times while keys are typed."""
    with subprocess.Popen([skep, "type", name, "0123456789" * 20]) as typing:
        for command in AWAY[kind] * 3:
            status, text = guest.run(command)
            expect_equal(status, 0, f"{command} ({text})")
        expect_equal(typing.wait(timeout=300), 0, "typing")


def main():
    skep, kind = sys.argv[1:3]
    checks = Checks()
    folder = guest_folder(ROOT, "drivers.sh")
    with tempfile.TemporaryDirectory() as place:
        name = f"unix:{place}/control"
        command = [skep, "run", "-m", "384M", "--kernel", f"{folder}/vmlinuz", "--initrd",
                   f"{folder}/initrd.cpio", "--net", "none", "--control", name, "--display",
                   f"vnc=unix:{place}/vnc", "--input", kind,
                   "--cmdline", "console=ttyS0 quiet net=off"]
        with Guest(command, 600) as guest:
            guest.wait_prompt()
            keyboard, pointer = (open_event(guest, found) for found in NAMES[kind])
            checks.case(f"{kind} keys", test_keys, guest, skep, name, keyboard)
            checks.case(f"{kind} pointer", test_pointer, guest, kind, f"{place}/vnc", pointer)
            checks.case(f"{kind} drivers go and come", take_drivers_away, guest, skep, name, kind)
            keyboard, pointer = (open_event(guest, found) for found in NAMES[kind])
            checks.case(f"{kind} keys again", test_keys, guest, skep, name, keyboard)
            checks.case(f"{kind} pointer again", test_pointer, guest, kind, f"{place}/vnc", pointer)
    checks.finish()


if __name__ == "__main__":
    main()
