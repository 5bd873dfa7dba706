# SPDX-License-Identifier: BSD-2-Clause
"""What a guest shows before it has an operating system: on a terminal at its serial console, and as
text on its VGA."""

import os
import re
import sys
import time

from guest import Guest, Machine

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "screen"))

from rfb import read_png  # noqa: E402

LIMIT_S = 280
VGA_BIOS = "/usr/share/seabios/vgabios-stdvga.bin"


class Screen(Guest):
    """What SeaBIOS' serial console draws: cells that have changed, wherever they are."""

    COLUMNS, ROWS = 80, 25
    TOKEN = re.compile(rb"\x1b\[([0-9;?]*)([a-zA-Z])|\x1b[^\[]|[^\x1b]|\x1b\Z|\x1b\[[0-9;?]*\Z")

    def __init__(self, command, limit_s=LIMIT_S):
        super().__init__(command, limit_s)
        self.drawn = 0
        self.clear()

    def clear(self):
        self.cells = [[" "] * self.COLUMNS for _ in range(self.ROWS)]
        self.row = self.column = 0

    def put(self, byte):
        if byte == b"\r":
            self.column = 0
        elif byte == b"\n":
            self.row += 1
        elif byte == b"\b":
            self.column = max(0, self.column - 1)
        elif byte >= b" " and self.column < self.COLUMNS:
            self.cells[self.row][self.column] = byte.decode("latin-1")
            self.column += 1
        while self.row >= self.ROWS:
            self.cells = self.cells[1:] + [[" "] * self.COLUMNS]
            self.row -= 1

    def draw(self):
        """All that has come since, but for the start of a sequence that is not whole."""
        for token in self.TOKEN.finditer(self.seen, self.drawn):
            text = token.group()
            if text[:1] == b"\x1b" and token.end() == len(self.seen) and not token.group(2):
                break
            self.drawn = token.end()
            if text == b"\x1bc" or (token.group(2) == b"J" and token.group(1) == b"2"):
                self.clear()
            elif token.group(2) == b"H":
                place = [int(n or 1) for n in (token.group(1) + b";").split(b";")[:2]]
                self.row, self.column = min(place[0], self.ROWS) - 1, place[1] - 1
            elif text[:1] != b"\x1b":
                self.put(text)

    def wait(self, text):
        """Until the text, or a compiled pattern, is on the screen."""
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
        end = time.monotonic() + self.limit_s
        while True:
            self.draw()
            lines = ["".join(line) for line in self.cells]
            if any(pattern.search(line) for line in lines):
                return
            if time.monotonic() > end or not self.read_some(0.2):
                self.fail(f"no '{pattern.pattern}' on the screen:\n" + "\n".join(lines))

    def type(self, command, prompt="grub> "):
        """A command at a prompt: each character when the last one is there, since the BIOS keeps
        few."""
        for i, character in enumerate(command):
            self.send(character)
            self.wait(prompt + command[:i + 1])
        self.send("\r")


def to_prompt(screen):
    """From GRUB's menu to its prompt."""
    screen.wait("GNU GRUB")
    screen.send("c")
    screen.wait("grub>")


def says(screen, word):
    """GRUB does what it is told."""
    screen.type(f"echo said-\"{word}\"")
    screen.wait(f"said-{word}")


class Vga(Machine):
    """A machine whose VGA is read: screenshots of text modes, by the font of the VGA's BIOS."""

    CELL_WIDTH, CELL_HEIGHT = 9, 16  # the ninth column of dots is the eighth's, or empty

    def __init__(self, skep, folder, engine, options, limit_s=LIMIT_S):
        super().__init__(skep, folder, engine, ["--vga", "std", "--net", "none", *options], limit_s)
        self.font = self.read_font()

    def read_font(self):
        """Which character a cell's dots are. The font is found by the shape of its A."""
        with open(VGA_BIOS, "rb") as file:
            data = file.read()
        start = data.index(bytes.fromhex("000010386cc6c6fec6c6c6c600000000")) - 16 * ord("A")
        glyphs = [data[start + 16 * i:start + 16 * i + 16] for i in range(256)]
        font = {glyph: "#" for glyph in glyphs}
        font.update((glyphs[i], chr(i)) for i in range(126, 31, -1))
        return font

    def cell(self, lines, column, row):
        """The character there: its dots are those whose colour differs from the corner's, or the
        others."""
        left, top = 3 * self.CELL_WIDTH * column, self.CELL_HEIGHT * row
        corner, glyph = lines[top][left:left + 3], bytearray()
        for line in lines[top:top + self.CELL_HEIGHT]:
            dots = 0
            for x in range(left, left + 24, 3):
                dots = dots << 1 | (line[x:x + 3] != corner)
            glyph.append(dots)
        inverse = bytes(dots ^ 255 for dots in glyph)
        return self.font.get(bytes(glyph)) or self.font.get(inverse, "?")

    def text(self):
        """The lines of the screen; none unless it is in a text mode of 80 columns and 25 rows."""
        path = os.path.join(self.folder, "shot.png")
        self.verb("screenshot", path)
        width, height, lines = read_png(path)
        if (width, height) != (80 * self.CELL_WIDTH, 25 * self.CELL_HEIGHT):
            return []
        return ["".join(self.cell(lines, column, row) for column in range(80)) for row in range(25)]

    def wait_text(self, text):
        """Until it is on the screen; gives the lines."""
        end = time.monotonic() + self.limit_s
        while True:
            lines = self.text()
            if any(text in line for line in lines):
                return lines
            if time.monotonic() > end or not self.read_some(0.2):
                self.fail(f"no '{text}' on the screen:\n" + "\n".join(lines))
