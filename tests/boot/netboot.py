#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Network boot: firmware starts iPXE from the card's expansion ROM, which fetches its script by TFTP or
HTTP from the user network's folder and runs it; and OVMF by itself fetches GRUB by either.

    netboot.py SKEP bios|uefi
"""

import os
import subprocess
import sys
import tempfile

from check import Checks, expect_equal
from guest import Guest

ROMS = "/usr/lib/ipxe/qemu"
TFTP, HTTP = "bootfile=start.ipxe,tftp=", "bootfile=http://10.0.2.2/start.ipxe,http="
GRUB_CONFIG = """serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo grub-on-$grub_platform-from-$net_default_server
halt
"""


def machine(skep, firmware, net):
    return [skep, "run", "--engine", "soft", "-m", "256M", "--firmware", firmware, "--boot", "net",
            "--net", net]


def ipxe(skep, folder, firmware, model, where):
    """The script tells what is not in its text as such."""
    with open(os.path.join(folder, "start.ipxe"), "w", encoding="ascii") as file:
        file.write("#!ipxe\nset half skep\necho script-of-${half}-on-${net0/ip}\n"
                   "echo card-${net0/chip}-on-${platform}\n")
    net = f"user,model={model},{where}{folder}"
    limit_s = 300 if firmware == "bios" else 1500
    with Guest(machine(skep, firmware, net), limit_s) as guest:
        guest.wait_for("script-of-skep-on-10.0.2.15")
        guest.wait_for({"virtio": "card-virtio-net", "e1000": "card-82545em",
                        "e1000e": "card-82574l"}[model] +
                       {"bios": "-on-pcbios", "uefi": "-on-efi"}[firmware])


def make_grub(folder):
    """A program that is larger than a packet or two."""
    config = os.path.join(folder, "grub.cfg")
    with open(config, "w", encoding="ascii") as file:
        file.write(GRUB_CONFIG)
    modules = "normal echo halt serial terminal efinet net tftp"
    subprocess.run(["grub-mkstandalone", "-O", "x86_64-efi", "-o", os.path.join(folder, "boot.efi"),
                    "--fonts=", "--themes=", "--locales=", f"--install-modules={modules}",
                    f"--modules={modules}", f"boot/grub/grub.cfg={config}"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def grub(skep, folder, service, what):
    """OVMF's own virtio driver, with PXE or HTTP boot; GRUB knows only of PXE where it is from."""
    net = f"user,bootfile=boot.efi,{service}={folder}"
    with Guest(machine(skep, "uefi", net), 1500) as guest:
        guest.wait_for(what)
        guest.wait_for("grub-on-efi-from-10.0.2.2" if service == "tftp" else "grub-on-efi-from-")
        expect_equal(guest.wait_exit(), 0, "the status")


def main():
    """Without Debian's package the cases are skipped."""
    skep, firmware = sys.argv[1:3]
    if not os.path.exists(f"{ROMS}/efi-e1000e.rom"):
        print("the package ipxe-qemu is not installed")
        sys.exit(77)
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="skep-test-") as folder:
        if firmware == "bios":
            for model, where in (("virtio", TFTP), ("virtio", HTTP), ("e1000", HTTP),
                                 ("e1000e", TFTP)):
                checks.case(f"iPXE on {model}, {where}", ipxe, skep, folder, firmware, model, where)
        else:
            make_grub(folder)
            for service, what in (("tftp", '"UEFI PXEv4'), ("http", '"UEFI HTTPv4')):
                checks.case(f"GRUB by OVMF, {service}", grub, skep, folder, service, what)
            for model, where in (("e1000e", HTTP), ("e1000", TFTP)):
                checks.case(f"iPXE on {model}, {where}", ipxe, skep, folder, firmware, model, where)
    checks.finish()


if __name__ == "__main__":
    main()
