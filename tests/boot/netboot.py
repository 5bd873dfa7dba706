#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Network boot: SeaBIOS starts iPXE from the 82574L's expansion ROM, which fetches its script by TFTP
or HTTP from the user network's folder and runs it.

    netboot.py SKEP
"""

import os
import sys
import tempfile

from check import Checks
from guest import Guest


def boot(skep, folder, where):
    """The script tells what is not in its text as such, and ends the machine."""
    with open(os.path.join(folder, "start.ipxe"), "w", encoding="ascii") as file:
        file.write("#!ipxe\nset half skep\necho script-of-${half}-on-${net0/ip}\npoweroff\n")
    with Guest([skep, "run", "--engine", "soft", "-m", "128M", "--firmware", "bios", "--boot", "net",
                "--net", f"user,model=e1000e,{where}"]) as guest:
        guest.wait_for("Booting from ROM")
        guest.wait_for("82574l")
        guest.wait_for("script-of-skep-on-10.0.2.15")


def main():
    """Runs the case; without Debian's package it is skipped."""
    if not os.path.exists("/usr/lib/ipxe/qemu/efi-e1000e.rom"):
        print("the package ipxe-qemu is not installed")
        sys.exit(77)
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="skep-test-") as folder:
        checks.case("a script by TFTP", boot, sys.argv[1], folder,
                    f"tftp={folder},bootfile=start.ipxe")
        checks.case("a script by HTTP", boot, sys.argv[1], folder,
                    f"http={folder},bootfile=http://10.0.2.2/start.ipxe")
    checks.finish()


if __name__ == "__main__":
    main()
