# SPDX-License-Identifier: BSD-2-Clause
#
# The ways into the project; Meson and Ninja do the work in $(BUILD).
#
#   make deps     install the Debian packages that are needed (says which)
#   make          build $(BUILD)/skep
#   make run      boot a small Linux to a shell; ARGS="…" adds options of `skep run`
#   make check    all tests that take little time; make check-slow: the long ones
#   make sanitize the tests under ASan and UBSan
#   make bench    speed, beside QEMU when it is installed
#   make fuzz     each fuzz target for FUZZ_SECONDS, from FUZZ_SEED (0: another one each time)
#   make install  DESTDIR= PREFIX=
#   make format   apply .clang-format
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 0
ARGS ?=
BUILD_TYPE ?= debugoptimized

.PHONY: all deps run check check-slow sanitize bench fuzz install format clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

# `meson setup` fails in a readable way without its packages; say first what to do.
$(BUILD)/build.ninja:
	@tools/deps --list
	@meson setup $(BUILD) --buildtype=$(BUILD_TYPE) >/dev/null || \
	  { cat $(BUILD)/meson-logs/meson-log.txt 2>/dev/null | tail -n 5; \
	    echo "hint: run 'make deps' to install what is missing" >&2; rm -rf $(BUILD); exit 1; }

deps:
	@tools/deps

run: deps all
	@guest=$$(guest/build.sh) && exec $(BUILD)/skep run --kernel $$guest/vmlinuz \
	  --initrd $$guest/initrd.cpio --disk $$guest/disk.img $(ARGS)

check: deps all
	@guest/build.sh >/dev/null
	@guest/drivers.sh >/dev/null
	@guest/systems.sh >/dev/null
	@guest/debian.sh >/dev/null
	@tests/run.py $(BUILD)

check-slow: deps all
	@guest/debian.sh >/dev/null
	@guest/debian.sh gcc >/dev/null
	@tests/run.py $(BUILD) --suite slow

sanitize: deps
	@test -e build-sanitize/build.ninja || \
	  meson setup build-sanitize -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
	@ninja -C build-sanitize --quiet
	@guest/build.sh >/dev/null
	@guest/drivers.sh >/dev/null
	@guest/systems.sh >/dev/null
	@tests/run.py build-sanitize --no-suite slow --no-suite debian --no-suite plain

bench: deps all
	@guest/build.sh >/dev/null
	@guest/debian.sh >/dev/null
	@bench/run.py $(BUILD) --debian

fuzz: deps
	@test -e build-fuzz/build.ninja || \
	  CC=clang meson setup build-fuzz -Dfuzz=true -Dtests=false -Db_lundef=false >/dev/null
	@ninja -C build-fuzz --quiet
	@fuzz/run.sh build-fuzz $(FUZZ_SECONDS) $(FUZZ_SEED)

install: all
	@meson configure $(BUILD) --prefix="$(PREFIX)" >/dev/null
	@DESTDIR="$(if $(DESTDIR),$(abspath $(DESTDIR)))" meson install -C $(BUILD) --quiet

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	@rm -rf build build-sanitize build-fuzz
