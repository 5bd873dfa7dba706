# SPDX-License-Identifier: BSD-2-Clause
"""How the host's apt reaches its mirror, so that a guest's does the same."""

import functools
import os
import re
import subprocess
import urllib.request

DEBIAN = "http://deb.debian.org/debian"
# What a guest reaches at the host's loopback address, by the user network.
HOST = "10.0.2.2"


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


@functools.cache
def apt_mirror(release="bookworm"):
    """The host's mirror of the release over HTTP; Debian's when it has none."""
    found = output("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)",
                   "Created-By: Packages", "Origin: Debian", "Component: main")
    for line in found.splitlines():
        uri, codename = line.split()
        if codename == release and uri.startswith("http://"):
            return uri.rstrip("/")
    return DEBIAN


@functools.cache
def apt_proxy():
    """The proxy of the host's apt for HTTP, or an empty text."""
    told = re.match(r"proxy='(.*)'", output("apt-config", "shell", "proxy", "Acquire::http::Proxy"))
    proxy = told.group(1) if told else os.environ.get("http_proxy", "")
    return "" if proxy == "DIRECT" else proxy


def as_guest(url):
    """A URL of the host's as a guest in the user network reaches it."""
    return re.sub(r"(//|@)(localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)", rf"\g<1>{HOST}", url)


def open_url(url):
    """What is at a URL of the mirror, by the host's way; as urllib's urlopen()."""
    proxy = apt_proxy()
    handler = urllib.request.ProxyHandler({"http": proxy} if proxy else {})
    return urllib.request.build_opener(handler).open(url)
