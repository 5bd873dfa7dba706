# SPDX-License-Identifier: BSD-2-Clause
"""What tests/boot/compile.py compiles: skep's sources, the programs in compile/, generated programs;
a folder that is the same on the host and in the guest."""

import os
import random
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests", "boot", "compile")
# Same bytes come out only of the same versions of these.
PACKAGES = ("gcc-12", "cpp-12", "binutils", "libgcc-12-dev", "libc6-dev", "libc6", "linux-libc-dev")
HEADER_PACKAGES = ("libc6-dev", "linux-libc-dev")
LANGUAGE = ["-std=gnu17", "-D_GNU_SOURCE", "-fno-strict-aliasing", '-DSKEP_VERSION="0"']
GENERATED = 8
VECTOR_FLAGS = {"avx2", "fma", "bmi1", "bmi2"}
# A word of each group, so that every function is its own.
OPERATORS = ("+", "-", "*", "^", "&", "|", "<<", ">>", "/", "%")


def package_versions():
    """The versions of PACKAGES on this host, as dpkg-query prints them; "" where it does not."""
    done = subprocess.run(["dpkg-query", "-W", "-f", "${binary:Package} ${Version}\\n", *PACKAGES],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, text=True)
    return done.stdout.strip()


def own_headers():
    """The headers of the C library's and the kernel's packages."""
    listed = subprocess.run(["dpkg", "-L", *HEADER_PACKAGES], stdout=subprocess.PIPE, check=True,
                            text=True).stdout
    return {os.path.realpath(line) for line in listed.splitlines() if line.endswith(".h")}


def is_self_contained(source, folder, headers):
    """Whether a source needs no header but ours, the compiler's and `headers`."""
    made = subprocess.run(["gcc", "-M", *LANGUAGE, "-Isrc", source], cwd=folder, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if made.returncode:
        return False
    needed = made.stdout.replace("\\\n", " ").split()[1:]
    return all(not path.startswith("/") or path.startswith("/usr/lib/gcc/") or
               os.path.realpath(path) in headers for path in needed)


def expression(chance, depth):
    """An expression over a, b, c of unsigned 64-bit type, without undefined behaviour."""
    if depth == 0:
        return chance.choice(("a", "b", "c", f"{chance.getrandbits(64):#x}ULL",
                              f"(uint64_t)(int32_t)(a ^ {chance.getrandbits(31)})",
                              "(uint64_t)(int8_t)b", "(uint64_t)(uint16_t)c",
                              "(uint64_t)__builtin_popcountll(a)", "__builtin_bswap64(c)"))
    left, right = expression(chance, depth - 1), expression(chance, depth - 1)
    operator = chance.choice(OPERATORS)
    if operator in ("<<", ">>"):
        right = f"({right} & 63)"
    elif operator in ("/", "%"):
        right = f"({right} | 1)"
    if chance.random() < 0.15:
        return f"({left} < {right} ? {expression(chance, depth - 1)} : a)" \
            if operator not in ("<<", ">>") else f"rotate({left}, {right})"
    return f"({left} {operator} {right})"


def function(chance, number):
    """A function with a loop, a switch, an array and a call of the one before."""
    cases = "".join(f"        case {case}: b ^= {expression(chance, 3)}; break;\n"
                    for case in range(chance.randrange(3, 12)))
    called = f"f{number - 1}(a & 15, b, c)" if number else "a + b"
    return f"""static NOINLINE uint64_t f{number}(uint64_t a, uint64_t b, uint64_t c)
{{
    uint32_t t[{chance.choice((8, 16, 32))}];
    enum {{ N = sizeof(t) / sizeof(t[0]) }};
    for (unsigned i = 0; i < N; i++)
        t[i] = (uint32_t)(a * i + (b >> (i & 31)));
    for (unsigned round = 0; round < {chance.randrange(3, 9)}; round++) {{
        for (unsigned i = 0; i < N; i++)
            t[i] = t[i] * {chance.getrandbits(32) | 1}u + (t[i] >> {chance.randrange(1, 31)});
        switch ((a ^ t[round % N]) % 13) {{
{cases}        default: c += {expression(chance, 4)};
        }}
        a = {expression(chance, 4)} + t[(a + round) % N];
    }}
    if ((a & 7) == {chance.randrange(8)})
        c ^= {called};
    return a ^ b ^ c;
}}
"""


def generated_program(seed):
    """A C program that prints what its functions make of numbers."""
    chance = random.Random(seed)
    count = chance.randrange(20, 40)
    calls = "".join(f"    h = h * 31 + f{n}(h, i, {n});\n" for n in range(count))
    return "#include <stdint.h>\n#include <stdio.h>\n" \
        "#define NOINLINE __attribute__((noinline))\n" \
        "static inline uint64_t rotate(uint64_t v, uint64_t n)\n" \
        "{ return v << n | v >> (-n & 63); }\n" \
        + "\n".join(function(chance, number) for number in range(count)) + \
        "int main(void)\n{\n    uint64_t h = 1;\n    for (uint64_t i = 0; i < 400; i++) {\n" + \
        calls + '    if (i % 40 == 0) printf("%016llx\\n", (unsigned long long)h);\n    }\n' \
        '    printf("%016llx\\n", (unsigned long long)h);\n    return 0;\n}\n'


def write_units(folder, processor_flags):
    """Fills `folder`; returns how many units there are. `processor_flags` are what host and guest
    both have: programs for AVX2 are built when they are among them."""
    shutil.copytree(os.path.join(ROOT, "src"), os.path.join(folder, "src"))
    shutil.copytree(HERE, os.path.join(folder, "programs"))
    shutil.move(os.path.join(folder, "programs", "job.sh"), folder)
    vector = "-mavx2 -mfma -mbmi -mbmi2" if VECTOR_FLAGS <= processor_flags else ""
    headers = own_headers()
    objects, programs = [], []
    for place, _, names in sorted(os.walk(os.path.join(folder, "src"))):
        for name in sorted(names):
            source = os.path.relpath(os.path.join(place, name), folder)
            if name.endswith(".c") and is_self_contained(source, folder, headers):
                unit = source[len("src/"):-len(".c")].replace("/", "-")
                objects.append(f"object {unit} {source} -O2 {' '.join(LANGUAGE)}")
    for name, flags in (("sort", "-O2"), ("checksum", "-O2"), ("floating", "-O2"),
                        ("floating-x87", "-O2 -mfpmath=387 -DX87"),
                        ("floating-avx2", f"-O3 {vector}"), ("sort-avx2", f"-O3 {vector}"),
                        ("checksum-avx2", f"-O3 {vector}")):
        if vector or not name.endswith("-avx2"):
            programs.append(f"program {name} programs/{name.split('-')[0]}.c {flags}")
    for seed in range(GENERATED):
        path = f"generated-{seed}.c"
        with open(os.path.join(folder, path), "w", encoding="ascii") as file:
            file.write(generated_program(seed))
        flags = ("-O1", "-O2", "-Os", f"-O3 {vector}")[seed % 4]
        programs.append(f"program generated-{seed} {path} {flags}")
    # Programs stand among the objects, so that each round has some.
    random.Random(0).shuffle(objects)
    step = max(1, len(objects) // len(programs))
    units = []
    for index, program in enumerate(programs):
        units += objects[index * step:(index + 1) * step] + [program]
    units += objects[len(programs) * step:]
    with open(os.path.join(folder, "units"), "w", encoding="ascii") as file:
        file.write("\n".join(units) + "\n")
    return len(units)
