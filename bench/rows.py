# SPDX-License-Identifier: BSD-2-Clause
"""What the benchmark measures: the rows of its table, and the floor that each has beside QEMU."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measure. `program` is that of bench/guest which prints it, or None where the run itself
    gives it; `floor` is how many times as fast as QEMU it shall be, None where that says nothing."""
    key: str
    title: str
    unit: str
    program: str = None
    floor: float = 1.0
    minimum_cpus: int = 1
    native: bool = True

    @property
    def less_is_better(self):
        """Times and sizes, as against rates."""
        return self.unit in ("s", "ns", "us", "MiB")


@dataclass(frozen=True)
class Mean:
    """The geometric mean of how many times as fast its rows are."""
    title: str
    keys: tuple
    floor: float


BOOT = [
    Row("boot_to_init", "start to init", "s", floor=3, native=False),
    Row("kernel_to_init", "kernel start to init (its clock)", "s", floor=3, native=False),
    Row("boot_to_prompt", "start to prompt", "s", native=False),
    Row("power_off", "power off", "s", native=False),
    Row("boot_to_poweroff", "start to power off, all", "s", native=False),
]

PROGRAMS = [
    Row("loop", "instructions of the loop", "M/s", "loop"),
    Row("crc", "crc", "MB/s", "integer"),
    Row("sort", "sort", "M/s", "integer"),
    Row("sieve", "sieve", "M/s", "integer"),
    Row("calls", "recursive calls", "M/s", "integer"),
    Row("indirect", "indirect calls", "M/s", "integer"),
    Row("bytecode", "bytecode loop", "M/s", "integer"),
    Row("matrix", "matrix product, scalar", "M/s", "float"),
    Row("bodies", "five bodies", "M/s", "float"),
    Row("mandelbrot", "mandelbrot", "M/s", "float"),
    Row("x87", "polynomial, x87", "M/s", "float"),
    Row("matrix_sse2", "matrix product, SSE2", "M/s", "vector"),
    Row("samples_sse2", "16-bit product, SSE2", "M/s", "vector"),
    Row("matrix_avx2", "matrix product, AVX2 FMA", "M/s", "vector"),
    Row("samples_avx2", "16-bit product, AVX2", "M/s", "vector"),
    Row("memcpy", "memcpy 64 KiB", "MB/s", "memory", floor=6),
    Row("memset", "memset 64 KiB", "MB/s", "memory", floor=6),
    Row("rep_movsb", "rep movsb 64 KiB", "MB/s", "memory", floor=6),
    Row("rep_stosb", "rep stosb 64 KiB", "MB/s", "memory"),
    Row("memcpy_large", "memcpy 32 MiB", "MB/s", "memory"),
    Row("chase_small", "pointer chase 32 KiB", "ns", "memory"),
    Row("chase_large", "pointer chase 16 MiB", "ns", "memory"),
    Row("getppid", "getppid", "ns", "kernel", floor=2),
    Row("page_fault", "page fault", "ns", "kernel", floor=4),
    Row("mmap_touch", "mmap + touch 64 KiB + munmap", "us", "kernel", floor=6),
    Row("fork_exit", "fork + exit + wait", "us", "kernel", floor=5),
    Row("exec", "exec of a static program", "us", "kernel"),
    Row("pipe", "pipe ping-pong, one vCPU", "us", "kernel", floor=8),
    Row("pipe_across", "pipe ping-pong, across vCPUs", "us", "kernel", minimum_cpus=2),
    Row("sha256", "busybox sha256", "MB/s", "busybox", floor=2),
    Row("gzip", "busybox gzip", "MB/s", "busybox", floor=2),
    Row("awk", "busybox awk loop", "M/s", "busybox", floor=4),
    Row("shell", "busybox shell loop", "M/s", "busybox", floor=4),
]

MEMORY = [Row("memory_beyond_guest", "memory beyond the guest's", "MiB", floor=None, native=False)]

UEFI = [Row("uefi_to_shell", "OVMF, start to its shell", "s", native=False)]

DEBIAN = [Row("debian_to_login", "Debian, start to login", "s", floor=2.5, native=False)]

MEANS = [
    Mean("integer, geometric mean",
         ("crc", "sort", "sieve", "calls", "indirect", "bytecode"), 2.2),
    Mean("scalar float, geometric mean", ("matrix", "bodies", "mandelbrot"), 8),
    Mean("vector, geometric mean",
         ("matrix_sse2", "samples_sse2", "matrix_avx2", "samples_avx2"), 15),
]


def chosen(pattern, cpus, debian):
    """The rows of a run with so many processors whose key or title `pattern` (compiled) finds."""
    every = BOOT + PROGRAMS + MEMORY + UEFI + (DEBIAN if debian else [])
    return [row for row in every if cpus >= row.minimum_cpus and
            (pattern.search(row.key) or pattern.search(row.title))]
