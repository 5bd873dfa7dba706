#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks which files include what, and that every source file names its licence.

    layers.py [ROOT]      checks the repository; prints FILE:LINE: MESSAGE and exits 1 on a mistake
    layers.py --self-test shows on made-up repositories that each rule can fail; then checks ROOT

Includes are read as text, so that a mistake behind an #if is found too.
"""

import os
import re
import sys
import tempfile

# Whose headers a layer may include, besides its own. The order is that of the link.
LAYERS = {
    "base": set(),
    "bus": {"base"},
    "cpu": {"base", "bus"},
    "dev": {"base", "bus"},
    "host": {"base", "bus"},
    "machine": {"base", "bus", "cpu", "dev", "host"},
    "vm": {"base", "bus", "host", "machine"},
    "cli": {"base", "vm"},
}

# Headers of libraries, each hidden in one place: pattern of the header, where it may be included.
HIDDEN = [
    (re.compile(r"^uv(/|\.h$)"), re.compile(r"^src/base/loop\.c$"), "src/base/loop.c"),
    (re.compile(r"^Zy(dis|core)/"), re.compile(r"^src/cpu/soft/"), "src/cpu/soft"),
    (re.compile(r"^(slirp/|libslirp)"), re.compile(r"^src/host/"), "src/host"),
    (re.compile(r"^linux/kvm\.h$"), re.compile(r"^src/cpu/kvm/"), "src/cpu/kvm"),
]

# Calls that only the program itself may make: libraries return errors. Names end at "(".
FORBIDDEN_CALL = re.compile(
    r"(?<![\w.>])(printf|vprintf|fprintf|vfprintf|dprintf|puts|putchar|fputs|fputc|putc|fwrite|perror"
    r"|exit|_exit|_Exit|quick_exit|abort)\s*\("
)
# Streams into memory or files a caller gave are not printing.
STREAM_CALLS = {"fprintf", "vfprintf", "fputs", "fputc", "putc", "fwrite"}
STANDARD_STREAM = re.compile(r"\b(stdout|stderr)\b")

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
SPDX = re.compile(r"SPDX-License-Identifier: \S")
SPDX_LINES = 5
SOURCE_SUFFIXES = (".c", ".h", ".py", ".sh", ".S")
SKIPPED_DIRS = re.compile(r"^(\..*|build.*|__pycache__|subprojects)$")


def source_files(root):
    """Paths, relative to root, of all source files; build and hidden folders are left out."""
    for folder, dirs, names in os.walk(root):
        dirs[:] = sorted(d for d in dirs if not SKIPPED_DIRS.match(d))
        for name in sorted(names):
            if name.endswith(SOURCE_SUFFIXES):
                yield os.path.relpath(os.path.join(folder, name), root)


def without_comments_and_strings(text):
    """The same text, line for line, with comments and literals blanked."""
    token = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
    return token.sub(lambda found: "\n" * found.group().count("\n") or '""', text)


def check_include(path, kind, header):
    """The mistake in one #include of the file `path`, or None."""
    for pattern, allowed, place in HIDDEN:
        if pattern.match(header) and not allowed.match(path):
            return f"<{header}> is hidden in {place}"
    layer = path.split("/")[1]
    target = header.split("/")[0]
    if target in LAYERS and "/" in header:
        if kind == "<":
            return f"<{header}> is ours: write it with quotes"
        if target != layer and target not in LAYERS[layer]:
            allowed = " ".join(sorted(LAYERS[layer] | {layer}))
            return f'{layer} may not include "{header}" (it may use: {allowed})'
        return None
    if kind == '"':
        return f'"{header}" is not written from src/ (LAYER/HEADER.h)'
    return None


def check_calls(path, line):
    """The mistake in the calls of one line of a library's code, or None."""
    for found in FORBIDDEN_CALL.finditer(line):
        name = found.group(1)
        if name in STREAM_CALLS and not STANDARD_STREAM.search(line):
            continue
        return f"{name}() is for src/cli only: return an error or log"
    return None


def check_source(path, text):
    """Mistakes (line number, message) in one C file under src/."""
    layer = path.split("/")[1]
    if layer not in LAYERS:
        yield 1, f"src/{layer} is no layer that tests/layers.py knows"
        return
    # An include's name is a string, so includes are read from the raw text.
    code = without_comments_and_strings(text).split("\n")
    for number, (raw, line) in enumerate(zip(text.split("\n"), code), 1):
        include = INCLUDE.match(raw)
        if include and line.lstrip().startswith("#"):
            message = check_include(path, include.group(1), include.group(2))
        elif include or layer == "cli":
            message = None
        else:
            message = check_calls(path, line)
        if message:
            yield number, message


def check(root):
    """All mistakes of a repository, as lines of text, and how many files were read."""
    mistakes = []
    count = 0
    for path in source_files(root):
        count += 1
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            text = file.read()
        if not any(SPDX.search(line) for line in text.split("\n")[:SPDX_LINES]):
            mistakes.append(f"{path}:1: no SPDX-License-Identifier in the first {SPDX_LINES} lines")
        if re.match(r"^src/[^/]+/.*\.[ch]$", path):
            mistakes += [f"{path}:{number}: {what}" for number, what in check_source(path, text)]
    return mistakes, count


SPDX_COMMENT = "/* SPDX-License-Identifier: BSD-2-Clause */\n"

# Made-up files: path, what follows the SPDX line, and whether it is a mistake.
SELF_TESTS = [
    ("src/base/a.c", '#include "base/a.h"', False),
    ("src/base/a.c", '#include "bus/bus.h"', True),
    ("src/bus/a.c", '#include "base/error.h"', False),
    ("src/bus/a.c", '#include "dev/i8259.h"', True),
    ("src/cpu/soft/a.c", '#include "cpu/engine.h"', False),
    ("src/cpu/soft/a.c", '#include "cpu/soft/run.h"', False),
    ("src/cpu/soft/a.c", '#include "dev/lapic.h"', True),
    ("src/cpu/engine.h", '#  include   "host/raw.h"', True),
    ("src/dev/a.c", '#include "cpu/engine.h"', True),
    ("src/dev/virtio/a.c", '#include "host/slirp.h"', True),
    ("src/dev/virtio/a.c", '#include "dev/virtio/queue.h"', False),
    ("src/dev/a.c", '#include "machine/q35.h"', True),
    ("src/host/a.c", '#include "dev/uart16550.h"', True),
    ("src/host/a.c", '#include "bus/char.h"', False),
    ("src/machine/a.c", '#include "dev/i8259.h"', False),
    ("src/machine/a.c", '#include "cpu/engine.h"', False),
    ("src/machine/a.c", '#include "vm/vm.h"', True),
    ("src/vm/a.c", '#include "machine/machine.h"', False),
    ("src/vm/a.c", '#include "cpu/engine.h"', True),
    ("src/vm/a.c", '#include "host/listener.h"', False),
    ("src/vm/a.c", '#include "dev/pci.h"', True),
    ("src/cli/a.c", '#include "vm/vm.h"', False),
    ("src/cli/a.c", '#include "machine/machine.h"', True),
    ("src/other/a.c", "int a;", True),
    ("src/dev/a.c", '#include "i8259.h"', True),
    ("src/dev/a.c", '#include "../cpu/engine.h"', True),
    ("src/dev/a.c", "#include <cpu/engine.h>", True),
    ("src/dev/a.c", '#if 0\n#include "cpu/engine.h"\n#endif', True),
    ("src/dev/a.c", '/* #include "cpu/engine.h" */', False),
    ("src/dev/a.c", '/*\n#include "cpu/engine.h"\n*/', False),
    ("src/base/loop.c", "#include <uv.h>", False),
    ("src/base/wake.c", "#include <uv.h>", True),
    ("src/host/a.c", "#include <uv.h>", True),
    ("src/cpu/soft/a.c", "#include <Zydis/Zydis.h>", False),
    ("src/cpu/kvm/a.c", "#include <Zydis/Zydis.h>", True),
    ("src/host/a.c", "#include <slirp/libslirp.h>", False),
    ("src/dev/a.c", "#include <slirp/libslirp.h>", True),
    ("src/cpu/kvm/a.c", "#include <linux/kvm.h>", False),
    ("src/machine/a.c", "#include <linux/kvm.h>", True),
    ("src/dev/a.c", 'void f(void) { printf("x"); }', True),
    ("src/dev/a.c", 'void f(void) { puts ("x"); }', True),
    ("src/dev/a.c", 'void f(void) { fprintf(stderr, "x"); }', True),
    ("src/host/a.c", 'void f(FILE *file) { fprintf(file, "x"); }', False),
    ("src/dev/a.c", "void f(void) { exit(1); }", True),
    ("src/dev/a.c", "void f(void) { abort(); }", True),
    ("src/dev/a.c", "void f(void) { vm_exit(1); queue->abort(1); s.exit(0); }", False),
    ("src/dev/a.c", 'const char *f = "exit(1)"; /* abort() */ // puts()', False),
    ("src/dev/a.c", 'void f(char *s) { snprintf(s, 2, "x"); }', False),
    ("src/cli/a.c", 'void f(void) { printf("x"); exit(1); }', False),
]


def self_test():
    """Mistakes of this script itself: rules that do not fail where they must, or fail elsewhere."""
    wrong = []

    def run(path, text, is_mistake):
        with tempfile.TemporaryDirectory() as root:
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
            mistakes, count = check(root)
        if count != 1 or bool(mistakes) != is_mistake:
            wrong.append(f"self-test: {path}: {text!r}: gave {mistakes}")
        elif is_mistake and not re.match(re.escape(path) + r":\d+: ", mistakes[0]):
            wrong.append(f"self-test: {path}: does not name the place: {mistakes[0]}")

    for path, body, is_mistake in SELF_TESTS:
        run(path, SPDX_COMMENT + body + "\n", is_mistake)
    for path in ("src/base/a.c", "src/base/a.h", "tests/a.py", "tools/a.sh"):
        run(path, "\n", True)
        run(path, "\n" * SPDX_LINES + SPDX_COMMENT, True)
        run(path, "\n" + SPDX_COMMENT, False)
    return wrong


def main(arguments):
    wrong = self_test() if "--self-test" in arguments else []
    roots = [argument for argument in arguments if not argument.startswith("-")]
    default = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    mistakes, count = check(roots[0] if roots else default)
    for line in wrong + mistakes:
        print(line)
    if count < 10:
        print(f"only {count} source files found: is this the repository?")
        return 1
    print(f"{count} files read, {len(mistakes)} mistakes")
    return 1 if wrong or mistakes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
