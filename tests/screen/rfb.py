# SPDX-License-Identifier: BSD-2-Clause
"""A small VNC viewer for tests (RFC 6143), and a reader of PNG files."""

import socket
import struct
import subprocess
import zlib

RAW, COPY_RECT = 0, 1
CURSOR, DESKTOP_SIZE, QEMU_KEYS, EXTENDED_DESKTOP_SIZE = -239, -223, -258, -308


class Refused(Exception):
    """The server has said no, with its reason."""


def des(key, data):
    """DES-ECB by the openssl program; VNC's keys have their bits the other way round."""
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key.ljust(8, b"\0")[:8])
    command = ["openssl", "enc", "-des-ecb", "-nopad", "-nosalt", "-K", turned.hex(),
               "-provider", "legacy", "-provider", "default"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


class Viewer:
    """Keeps the screen in `pixels`, a list of lines of (red, green, blue)."""

    def __init__(self, where, password=None,
                 encodings=(RAW, DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE, CURSOR)):
        if where.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where[5:])
        else:
            host, _, port = where.rpartition(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(60)
        self.accepts_qemu_keys = False
        self.cursor = None
        self.size_replies = []
        self.handshake(password)
        self.send(struct.pack(">BxH", 2, len(encodings)) +
                  b"".join(struct.pack(">i", encoding) for encoding in encodings))
        # 32 bits, little-endian, red in bits 16 to 23
        self.send(struct.pack(">Bxxx", 0) +
                  struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))

    def send(self, data):
        self.socket.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError("the server has closed the connection")
            data += piece
        return data

    def unpack(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))

    def handshake(self, password):
        version = self.take(12)
        if not version.startswith(b"RFB 003.008"):
            raise Refused(f"version {version!r}")
        self.send(version)
        (count,) = self.unpack("B")
        if not count:
            raise Refused(self.reason())
        kinds = self.take(count)
        kind = 2 if password is not None else 1
        if kind not in kinds:
            raise Refused(f"security types {list(kinds)}")
        self.send(bytes([kind]))
        if kind == 2:
            self.send(des(password.encode(), self.take(16)))
        (result,) = self.unpack("I")
        if result:
            raise Refused(self.reason())
        self.send(b"\1")
        self.width, self.height = self.unpack("HH")
        self.take(16)
        (length,) = self.unpack("I")
        self.name = self.take(length).decode()
        self.clear()

    def reason(self):
        (length,) = self.unpack("I")
        return self.take(length).decode()

    def clear(self):
        self.pixels = [bytearray(4 * self.width) for _ in range(self.height)]

    def request(self, incremental=True):
        self.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self, incremental=True):
        """Asks for an update and takes one; gives the rectangles (x, y, width, height)."""
        self.request(incremental)
        return self.take_update()

    def take_update(self):
        while True:
            (kind,) = self.unpack("B")
            if kind == 0:
                break
            if kind == 2:  # a bell
                continue
            if kind != 3:
                raise ValueError(f"message {kind}")
            self.take(3)
            (length,) = self.unpack("I")
            self.take(length)
        (count,) = self.unpack("xH")
        rectangles = []
        for _ in range(count):
            x, y, width, height, encoding = self.unpack("HHHHi")
            if encoding == RAW:
                for line in range(y, y + height):
                    self.pixels[line][4 * x:4 * (x + width)] = self.take(4 * width)
                rectangles.append((x, y, width, height))
            elif encoding in (DESKTOP_SIZE, EXTENDED_DESKTOP_SIZE):
                if encoding == EXTENDED_DESKTOP_SIZE:
                    (screens,) = self.unpack("Bxxx")
                    self.take(16 * screens)
                    self.size_replies.append((x, y, width, height))
                if y == 0 and (width, height) != (self.width, self.height):
                    self.width, self.height = width, height
                    self.clear()
            elif encoding == CURSOR:
                self.cursor = (x, y, width, height, self.take(4 * width * height),
                               self.take((width + 7) // 8 * height))
            elif encoding == QEMU_KEYS:
                self.accepts_qemu_keys = True
            else:
                raise ValueError(f"encoding {encoding}")
        return rectangles

    def pixel(self, x, y):
        blue, green, red = self.pixels[y][4 * x:4 * x + 3]
        return red, green, blue

    def key(self, keysym, is_down):
        self.send(struct.pack(">BBxxI", 4, is_down, keysym))

    def press(self, keysym):
        self.key(keysym, True)
        self.key(keysym, False)

    def qemu_key(self, scancode, is_down, keysym=0):
        self.send(struct.pack(">BBHII", 255, 0, is_down, keysym, scancode))

    def pointer(self, buttons, x, y):
        self.send(struct.pack(">BBHH", 5, buttons, x, y))

    def set_size(self, width, height):
        self.send(struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 1, 0, 0, width, height, 0))

    def close(self):
        self.socket.close()


def unfilter(kind, line, before, step):
    """One line of a PNG (PNG specification, chapter 9), in place."""
    for i, value in enumerate(line):
        left = line[i - step] if i >= step else 0
        up = before[i]
        corner = before[i - step] if i >= step else 0
        if kind == 1:
            value += left
        elif kind == 2:
            value += up
        elif kind == 3:
            value += (left + up) // 2
        elif kind == 4:
            guess = left + up - corner
            value += min((left, up, corner), key=lambda part: abs(guess - part))
        line[i] = value & 255


def read_png(path):
    """Width, height and lines of a PNG of 8 bits, RGB."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("no PNG")
    at, packed, shape = 8, b"", None
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if zlib.crc32(kind + body) != struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]:
            raise ValueError("a chunk's sum is wrong")
        if kind == b"IHDR":
            shape = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    width, height = shape[:2]
    if shape[2:] != (8, 2, 0, 0, 0):
        raise ValueError(f"another kind of PNG: {shape}")
    raw, lines, before = zlib.decompress(packed), [], bytearray(3 * width)
    for y in range(height):
        start = y * (3 * width + 1)
        line = bytearray(raw[start + 1:start + 1 + 3 * width])
        unfilter(raw[start], line, before, 3)
        lines.append(line)
        before = line
    return width, height, lines
