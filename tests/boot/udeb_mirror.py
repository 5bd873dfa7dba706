# SPDX-License-Identifier: BSD-2-Clause
"""The components (udebs) of Debian's installer where the mirror's pool lacks some of its index.

A mirror that fetches what is asked for may never have been asked for these. UdebMirror makes an
index of the installer's components in which each lacking one is the nearest that is to be had:
made of the release's own package of the same program, or another release's component whose
programs run with this release's C library. The guest uses it as its HTTP proxy: it answers what it
made itself, and passes on all else as it is.
"""

import functools
import glob
import hashlib
import http.server
import io
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

from host_apt import apt_mirror, as_guest, open_url, output

INDEX = "main/debian-installer/binary-amd64/Packages"
# What partman loads by name.
PARTMAN_LOADS = ("partman-auto-lvm", "partman-auto-crypto")
# Components that are loaded without being asked for, or because others depend on them, and that an
# installation to one ext4 on a plain disk does without. They are not looked for elsewhere.
LEFT_OUT = {
    "depthcharge-tools-installer", "dmidecode-udeb", "libpcre3-udeb", "live-installer", "mdadm-udeb",
    "nobootloader", "ntfs-3g-udeb", "os-prober-udeb", "partman-auto-crypto", "partman-auto-lvm",
    "partman-auto-raid", "partman-btrfs", "partman-cros", "partman-iscsi", "partman-jfs",
    "partman-md", "partman-xfs"}
# Debian's packages with the same program, and with the libraries that only the package needs.
PACKAGES = {
    "dosfstools-udeb": ("dosfstools",),
    "e2fsprogs-udeb": ("e2fsprogs", "libext2fs2", "libcom-err2"),
    "libbsd0-udeb": ("libbsd0",),
    "libdevmapper1.02.1-udeb": ("libdevmapper1.02.1",),
    "libmd0-udeb": ("libmd0",),
    "libparted-fs-resize0-udeb": ("libparted-fs-resize0",),
    "libparted2-udeb": ("libparted2",)}
OTHER_RELEASES = ("trixie", "sid", "bullseye")
# Headers of a request that have to reach the mirror, and of its answer the guest.
PASSED_ON = ("Range", "If-Range", "If-Modified-Since", "Accept", "Cache-Control")
PASSED_BACK = ("Content-Length", "Content-Range", "Content-Type", "Last-Modified", "Accept-Ranges")


class Component:
    """One entry of an index."""

    def __init__(self, text):
        self.text = text.strip()
        self.fields = dict(re.findall(r"^([\w-]+): *(.*)$", self.text, re.MULTILINE))
        self.name = self.fields["Package"]
        self.version = self.fields["Version"]
        self.path = self.fields["Filename"]

    def names(self, field):
        """The packages of a field, each a list of alternatives, without versions."""
        return [[re.split(r"[ (:]", name.strip())[0] for name in one.split("|")]
                for one in self.fields.get(field, "").split(",") if one.strip()]

    def there(self):
        """Whether the mirror has it."""
        try:
            open_url(urllib.request.Request(f"{apt_mirror()}/{self.path}", method="HEAD")).close()
        except urllib.error.HTTPError:
            return False
        return True

    def elsewhere(self, path, content):
        """The same component as another file."""
        text = re.sub(r"^(MD5sum|SHA1|SHA256|Size|Filename):.*\n?", "", self.text, flags=re.MULTILINE)
        return Component(f"{text.strip()}\nFilename: {path}\nSize: {len(content)}\n"
                         f"SHA256: {hashlib.sha256(content).hexdigest()}\n")


@functools.cache
def components(release, kernel):
    """A release's components by name, of modules those of this kernel; none of an unknown release."""
    url = f"{apt_mirror()}/dists/{release}/{INDEX}.xz"
    try:
        with open_url(url) as answer:
            index = lzma.decompress(answer.read()).decode()
    except urllib.error.HTTPError:
        return {}
    every = [Component(entry) for entry in index.split("\n\n") if entry.strip()]
    return {one.name: one for one in every
            if one.fields.get("Kernel-Version", kernel) == kernel}


def in_initrd(initrd):
    """The names of the components that the installer's initrd holds."""
    unpacked = subprocess.run(["zcat", initrd], stdout=subprocess.PIPE, check=True).stdout
    status = subprocess.run(["cpio", "-i", "--quiet", "--to-stdout", "*var/lib/dpkg/status"],
                            input=unpacked, stdout=subprocess.PIPE, check=True).stdout.decode()
    return set(re.findall(r"^Package: (.*)$", status, re.MULTILINE))


def needed(index, present):
    """What the installer downloads without being asked, and what that depends on."""
    found = {}
    providers = {}
    for one in index.values():
        for (name,) in one.names("Provides"):
            providers.setdefault(name, []).append(one.name)
    waiting = [one.name for one in index.values()
               if one.fields.get("Priority") in ("required", "important", "standard")]
    waiting += PARTMAN_LOADS
    while waiting:
        name = waiting.pop()
        if name in found or name in present or name not in index:
            continue
        found[name] = index[name]
        for alternatives in index[name].names("Depends"):
            choices = [[one] if one in index else providers.get(one, []) for one in alternatives]
            if not any(present.intersection(some) for some in choices):
                waiting += choices[0]
    return found


def c_library_version(folder):
    """The newest version of the C library that a program in a folder wants."""
    files = [name for name in glob.glob(f"{folder}/**", recursive=True) if os.path.isfile(name)]
    told = subprocess.run(["readelf", "-V", *files], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout
    return max((tuple(map(int, one.split("."))) for one in re.findall(r"GLIBC_([\d.]+)", told)),
               default=(0,))


class Handler(http.server.BaseHTTPRequestHandler):
    """One request of a guest."""

    def do_GET(self):
        """What was made here, or the mirror's answer."""
        made = self.server.made.get(self.path)
        if made is not None:
            self.give(200, {"Content-Length": len(made)}, io.BytesIO(made))
        elif not self.path.startswith("http://"):
            self.send_error(400)
        else:
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            try:
                answer = open_url(urllib.request.Request(self.path, headers=headers,
                                                         method=self.command))
            except urllib.error.HTTPError as error:
                answer = error
            except OSError:
                self.send_error(502)
                return
            with answer:
                self.give(answer.code, answer.headers, answer)

    do_HEAD = do_GET

    def give(self, code, headers, file):
        self.send_response(code)
        for name in PASSED_BACK:
            if name in headers:
                self.send_header(name, str(headers[name]))
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(file, self.wfile)

    def log_message(self, format, *args):
        """The test's output is for its own steps."""


class UdebMirror:
    """What of a release's components is lacking, and a complete set beside the release."""

    def __init__(self, release, kernel, initrd):
        self.kernel = kernel
        self.suite = f"{release}-complete"
        self.index = dict(components(release, kernel))
        self.present = in_initrd(initrd)
        wanted = needed(self.index, self.present)
        self.lacking = sorted(name for name, one in wanted.items() if not one.there())
        self.sources = {}       # of the lacking ones that are to be had
        self.made = {}          # content by URL
        self.server = None

    def complete(self):
        """Looks for what is lacking and not left out; returns the names of what is not to be had."""
        for name in LEFT_OUT:
            self.index.pop(name, None)
        wanted = needed(self.index, self.present)
        lacking = [name for name in self.lacking if name in wanted]
        for name in lacking:
            found = self.of_package(name) or self.of_other_release(name)
            if found:
                self.index[name], self.sources[name] = found
        return [name for name in lacking if name not in self.sources]

    def of_package(self, name):
        """The component made of the release's packages: their files but for documentation."""
        packages = PACKAGES.get(name)
        if not packages:
            return None
        with tempfile.TemporaryDirectory(prefix="skep-udeb-") as folder:
            os.chmod(folder, 0o755)     # of the component's root
            try:
                subprocess.run(["apt-get", "download", "-q", *packages], cwd=folder, check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except subprocess.CalledProcessError:
                return None
            versions = []
            for file in glob.glob(f"{folder}/*.deb"):
                versions.append(output("dpkg-deb", "-W", "--showformat=${Package} ${Version}", file))
                subprocess.run(["dpkg-deb", "-x", file, f"{folder}/root"], check=True)
            shutil.rmtree(f"{folder}/root/usr/share", ignore_errors=True)
            os.mkdir(f"{folder}/root/DEBIAN")
            with open(f"{folder}/root/DEBIAN/control", "w", encoding="utf-8") as file:
                told = self.index[name].fields
                file.writelines(f"{field}: {told[field]}\n" for field in (
                    "Package", "Version", "Architecture", "Maintainer", "Depends", "Section",
                    "Priority", "Description") if field in told)
            subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "-b", f"{folder}/root",
                            f"{folder}/made.udeb"], check=True, stdout=subprocess.DEVNULL)
            with open(f"{folder}/made.udeb", "rb") as file:
                content = file.read()
        path = f"pool/made/{name}.udeb"
        self.made[f"{apt_mirror()}/{path}"] = content
        return self.index[name].elsewhere(path, content), "made of " + ", ".join(sorted(versions))

    def of_other_release(self, name):
        """Another release's component, when the mirror has it and it runs with this C library."""
        library = tuple(map(int, re.match(r"([\d.]+)", self.index["libc6-udeb"].version)
                            .group(1).split(".")))
        for release in OTHER_RELEASES:
            one = components(release, self.kernel).get(name)
            if not one or not one.there():
                continue
            with tempfile.TemporaryDirectory(prefix="skep-udeb-") as folder:
                with open_url(f"{apt_mirror()}/{one.path}") as answer, \
                        open(f"{folder}/udeb", "wb") as file:
                    shutil.copyfileobj(answer, file)
                subprocess.run(["dpkg-deb", "-x", file.name, f"{folder}/root"], check=True)
                if c_library_version(f"{folder}/root") <= library:
                    return one, f"{one.version} of {release}"
        return None

    def serve(self):
        """Starts to answer guests; returns the URL of the proxy as a guest sees it."""
        index = "\n\n".join(one.text for one in self.index.values()).encode() + b"\n"
        release = (f"Suite: {self.suite}\nCodename: {self.suite}\nArchitectures: amd64\n"
                   f"Components: main\nSHA256:\n"
                   f" {hashlib.sha256(index).hexdigest()} {len(index)} {INDEX}\n").encode()
        base = f"{apt_mirror()}/dists/{self.suite}"
        self.made.update({f"{base}/Release": release, f"{base}/{INDEX}": index})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.made = self.made
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return as_guest(f"http://127.0.0.1:{self.server.server_port}")

    def close(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
