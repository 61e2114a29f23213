# libsheepdog. The commands a person needs are targets of this file: `make help` lists them.

PREFIX     ?= /usr/local
libdir     ?= $(PREFIX)/lib
includedir ?= $(PREFIX)/include
bindir     ?= $(PREFIX)/bin
mandir     ?= $(PREFIX)/share/man

CARGO            ?= cargo
PYTHON           ?= python3
JOBS             ?= $(shell nproc)
# Tests that run at the same time.
SIDE_BY_SIDE     ?= $(shell expr 2 '*' $(JOBS))
# For another machine than this one: CARGO_BUILD_TARGET, and these and CC.
OBJCOPY          ?= objcopy
READELF          ?= readelf

version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
soname  := libsheepdog.so.$(firstword $(subst ., ,$(version)))
shared  := build/lib/libsheepdog.so.$(version)

# The file that `make demo` stores and reads back.
FILE ?= $(shared)

# Sessions recorded with the real server that lamb has to answer in the same way, with --mimic-1.0
# entirely. --superset lets it really delete a VDI where the real server only says so (protocol.md
# 4.11, 6.3).
transcripts := dog-basic dog-errors dog-admin tgt dog-geometry qemu
transcript-dog-geometry transcript-qemu: superset := --superset

.DEFAULT_GOAL := build
.NOTPARALLEL: # cargo, cmake and ctest use all processors themselves
.DELETE_ON_ERROR:
.PHONY: help deps deps-demo build demo test test-more lint test-rust test-model test-c test-c-mimic \
        test-valgrind test-asan test-tsan check-symbols test-install test-target test-readme test-tgt \
        transcripts man test-man docs check-docs test-docs soak soak-lamb bench-lamb \
        bench-instructions bench-beside torture sim sim-more \
        abi-check abi-update dist deb deps-deb test-dist test-deb \
        sim-soak sim-mutants sim-model fuzz fuzz-minimise fuzz-coverage install uninstall clean cargo \
        nbdkit-plugin test-nbdkit install-nbdkit crook test-crook bench-crook install-crook \
        install-systemd

help:
	@echo 'make build          the library, build/lib, the server lamb, build/bin, and manual pages, build/man'
	@echo 'make demo           stores a file (FILE=...) in a VDI and reads it back'
	@echo 'make test           finds nearly everything, in some minutes; the parts:'
	@echo '    lint test-rust sim sim-model test-c check-symbols abi-check test-install test-readme'
	@echo '    test-man check-docs'
	@echo 'make test-more      what takes longer; together every test there is; the parts:'
	@echo '    test-model sim-more test-c-mimic test-valgrind test-asan test-tsan test-target test-tgt'
	@echo '    test-nbdkit test-docs transcripts (or one: transcript-qemu) bench-instructions'
	@echo 'make test-c         the C tests (SD_TEST_ADDR=host:port for a server other than lamb,'
	@echo '                    SD_TEST_DOG=path of its dog for the tests of both on one cluster)'
	@echo 'make test-asan      the C tests with the address and undefined behaviour sanitizers'
	@echo 'make nbdkit-plugin  build/nbdkit, for nbdkit; make install-nbdkit, as root'
	@echo 'make crook          build/bin/crook, the command-line tool; make install-crook, as root'
	@echo 'make test-crook     its tests (SD_TEST_DOG and SD_TEST_ADDR: beside dog as well)'
	@echo 'make bench-crook    its copies beside those of nbdcopy'
	@echo 'make test-nbdkit    qemu-io, qemu-img, nbdcopy and fio on the plugin'
	@echo 'make abi-check      the header beside abi/ (docs/abi.md); abi-update writes that anew'
	@echo 'make test-tsan      the C tests with the thread sanitizer'
	@echo 'make test-tgt       a SCSI test suite against tgtd, a Sheepdog client of others, on lamb'
	@echo 'make sim            the library against simulated servers, for SIM_SECONDS; sim-soak: for an hour'
	@echo 'make sim-mutants    whether that tells when the library does without what it takes care of'
	@echo 'make fuzz           what parses, lamb, and the library against servers that do anything, each for'
	@echo '                    FUZZ_SECONDS (FUZZ_TARGETS=...); fuzz-minimise: keeps what it has found;'
	@echo '                    fuzz-coverage: what lines that reaches'
	@echo 'make soak           two random clients against a model (SOAK_SECONDS, SD_TEST_ADDR)'
	@echo 'make soak-lamb      lamb killed again and again, and without power (LAMB_KILLS, LAMB_POWER_LOSSES)'
	@echo 'make bench-lamb     what lamb does in a second (SHEEP=path: beside a real server)'
	@echo 'make bench-beside   asynchronous reads beside threads that wait, as a part of those alone'
	@echo 'make bench-instructions   what a read or write takes in the program, in instructions'
	@echo 'make torture        gateways that stop under writers (SD_TEST_ADDR, SD_TEST_PIDS, TORTURE_SECONDS)'
	@echo 'make install        to PREFIX ($(PREFIX)), below DESTDIR; also libdir includedir bindir mandir'
	@echo 'make uninstall      takes that away again'
	@echo 'make dist           the tarball of a release, with the crates, from what is committed'
	@echo 'make deb            the Debian packages of that, in build/deb, without a network'
	@echo 'make test-dist      whether tarball and build are the same, byte for byte, made elsewhere'
	@echo 'make test-deb       the packages in a bare Debian system, as root; examples built on them'
	@echo 'make docs           the book, build/docs; with a mdbook of its own where there is none'
	@echo 'make deps           installs what demo and test need and is missing (apt-get)'
	@echo 'make clean          removes everything that was built'

deps:
	@tools/deps.sh
deps-demo:
	@tools/deps.sh demo

# --- Building ---

build: build/lib/libsheepdog.so build/lib/$(soname) build/lib/libsheepdog.a build/bin/lamb man

cargo:
	@CARGO='$(CARGO)' CC='$(CC)' tools/cargo-build.sh build/cargo
build/cargo/libsheepdog.a build/cargo/lamb: cargo ;

build/lib/libsheepdog.a: build/cargo/libsheepdog.a tools/one-object.sh
	@mkdir -p $(@D)
	CC='$(CC)' OBJCOPY='$(OBJCOPY)' READELF='$(READELF)' AR='$(AR)' tools/one-object.sh $< $@

# rustc passes a cdylib's linker a version script of its own, beside which GNU ld refuses ours and
# lld ignores it. So the shared object is linked here, from the static library.
#
# glibc's libc.so is a linker script that also names the dynamic loader, for the one symbol that
# thread-local storage needs of it; the loader is there anyway, and not a library to depend on.
# tools/check-symbols.sh makes sure that nothing else is left undefined.
glibc := $(findstring /,$(shell $(CC) -print-file-name=libc_nonshared.a))
libs  := $(if $(glibc),-nodefaultlibs -l:libc.so.6 -lgcc_s -lm -l:libc_nonshared.a -lgcc,-lgcc_s -lm)
$(shared): build/lib/libsheepdog.a src/libsheepdog.map
	@mkdir -p $(@D)
	$(CC) -shared -o $@ -Wl,--as-needed,--gc-sections,--strip-debug \
	    -Wl,--version-script=src/libsheepdog.map,-soname,$(soname) \
	    -Wl,-z,nodelete,-z,relro,-z,now,--build-id \
	    -Wl,--whole-archive $< -Wl,--no-whole-archive $(libs) $(LDFLAGS)

build/lib/$(soname): $(shared)
	ln -sf $(<F) $@
build/lib/libsheepdog.so: build/lib/$(soname)
	ln -sf $(<F) $@
build/bin/lamb: build/cargo/lamb
	@mkdir -p $(@D)
	cp -f $< $@

# The manual pages of the functions, from the headers' comments.
man: build/man/man3/libsheepdog.3
build/man/man3/libsheepdog.3: tools/reference.py man/libsheepdog.3 $(wildcard include/*.h)
	rm -rf $(@D)
	$(PYTHON) tools/reference.py $(@D)

# The command-line tool, and what shells complete of it.
crook: build/bin/crook $(addprefix build/completions/,crook.bash _crook crook.fish)
build/bin/crook: cargo-crook
	@mkdir -p $(@D)
	CARGO='$(CARGO)' CC='$(CC)' tools/cargo-build.sh build/cargo crook
	cmp -s build/cargo/crook $@ || cp -f build/cargo/crook $@
.PHONY: cargo-crook
cargo-crook:
build/completions/crook.bash: completions = bash
build/completions/_crook: completions = zsh
build/completions/crook.fish: completions = fish
build/completions/%: build/bin/crook
	@mkdir -p $(@D)
	$(CROOK) completions $(completions) > $@
# Where that one is of another machine: one that runs here.
CROOK ?= build/bin/crook

# For nbdkit (plugins/nbdkit), where its header is.
nbdkit_plugin := build/nbdkit/nbdkit-sheepdog-plugin.so
nbdkit-plugin: $(nbdkit_plugin)
$(nbdkit_plugin): plugins/nbdkit/sheepdog.c include/sheepdog.h build
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra $(CPPFLAGS) $(CFLAGS) -fPIC -shared -pthread \
	    -DSD_PLUGIN_VERSION='"$(version)"' $(shell pkg-config --cflags nbdkit 2>/dev/null) -Iinclude \
	    $< -o $@ $(LDFLAGS) -Lbuild/lib -lsheepdog

# The book (docs). mdbook is no package of Debian's, and takes a while to build: without it, one of
# cargo's is put below build, once.
MDBOOK ?= $(or $(shell command -v mdbook),build/mdbook/bin/mdbook)
docs: check-docs $(filter build/%,$(MDBOOK))
	rm -rf build/docs
	$(MDBOOK) build docs
	$(PYTHON) tools/book.py check-links build/docs
build/mdbook/bin/mdbook:
	@echo 'docs: mdbook is not installed: building one in build/mdbook, which takes some minutes'
	$(CARGO) install --locked --quiet --version 0.5.4 --no-default-features --features search \
	    --root build/mdbook --target-dir build/mdbook/target mdbook
	rm -rf build/mdbook/target

# --- Trying ---

build/examples/quickstart: examples/quickstart.c include/sheepdog.h build
	@mkdir -p $(@D)
	$(CC) -Wall -Wextra -Iinclude $< -o $@ -Lbuild/lib -lsheepdog -Wl,-rpath,$(CURDIR)/build/lib

demo: deps-demo build build/examples/quickstart
	@echo "demo: starting lamb on a free port, storing $(FILE)"
	@tools/with-lamb.sh build/examples/quickstart {} "$(FILE)"

# --- Testing ---

# What finds nearly everything. Most of it is rustc's time: the library optimized, for clippy, for
# the tests and for the simulation.
test: deps build lint test-rust sim sim-model test-c check-symbols abi-check test-install \
      test-readme test-man check-docs
	@echo 'make test: everything passed (make test-more runs the long tests)'

# The recorded sessions are here as the tests of lamb, in test-rust, play them, too.
test-more: deps build test-model sim-more test-c-mimic test-valgrind test-asan test-tsan test-target \
           test-tgt test-nbdkit test-docs transcripts bench-instructions
	@echo 'make test-more: everything passed'

lint:
	@if $(CARGO) fmt --version >/dev/null 2>&1; then set -x; $(CARGO) fmt --all --check && \
	    $(CARGO) fmt --manifest-path fuzz/Cargo.toml --check; \
	else echo 'lint: rustfmt is not installed, skipped'; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then set -x; \
	    $(CARGO) clippy --workspace --all-targets -- -D warnings; \
	else echo 'lint: clippy is not installed, skipped'; fi

# Tests wait for servers and deadlines rather than that they compute: several run on a processor.
# The steps of the model are those that fit in here, test-model plays all.
test-rust: build
	LAMB=$(CURDIR)/build/bin/lamb SD_SOAK_STEPS=300 RUST_TEST_THREADS=$(SIDE_BY_SIDE) \
	    tools/test-rust.py $(SIDE_BY_SIDE) '$(CARGO)'
test-model: build
	LAMB=$(CURDIR)/build/bin/lamb $(CARGO) test --test model

# The core of the library against simulated servers, time and faults: tests/sim. A failure prints the
# line that shows it again (target/sim/sim replay 'LINE' --trace). Through cargo run, as cargo alone
# knows where it puts programs.
sim          = $(CARGO) run --profile sim --package sim-tests --bin sim --
#
# In the tests these are the same schedules each time, as many as there is time for; the soak takes
# others.
SIM_SECONDS ?= 30
SIM_FROM    ?= 1
SIM_COUNT   ?= 40000
sim:
	$(sim) run --jobs $(JOBS) --seconds $(SIM_SECONDS) --from $(SIM_FROM) --count $(SIM_COUNT)
sim-more: SIM_SECONDS = 90
sim-more: sim
sim-soak: SIM_SECONDS = 3600
sim-soak: SIM_FROM    = $(shell date +%s)000
sim-soak:
	$(sim) run --all --jobs $(JOBS) --seconds $(SIM_SECONDS) --from $(SIM_FROM)

# The library without one of its cares after the other (tests/sim/mutants; MUTANTS=... for some of
# them): the simulator must tell each time.
sim-mutants:
	tests/sim/mutants.sh $(MUTANTS)

# The simulated servers answer recorded sessions as the real one did.
sim-model: $(addprefix sim-model-,dog-basic dog-errors dog-geometry qemu tgt)
sim-model-%:
	CARGO='$(CARGO)' tests/sim/with-model.sh \
	    python3 tests/transcripts/replay.py {} tests/transcripts/$*.jsonl

# The fuzzing targets (fuzz), or those of them in FUZZ_TARGETS, for so long each. They begin with what
# earlier runs have found.
FUZZ_SECONDS ?= 20
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) CARGO='$(CARGO)' tools/fuzz.sh run build/fuzz $(FUZZ_TARGETS)
fuzz-minimise fuzz-coverage: fuzz-%:
	CARGO='$(CARGO)' tools/fuzz.sh $* build/fuzz $(FUZZ_TARGETS)

# The model test for a while on a lamb, or on the cluster at SD_TEST_ADDR (host:port, several with
# commas between). SD_TEST_STORE_DIR: the directory of its nodes' stores, to look for lost objects.
SOAK_SECONDS ?= 600
SOAK_SEED    ?= $(shell date +%s)
soak: build
	LAMB=$(CURDIR)/build/bin/lamb SD_SOAK_SECONDS=$(SOAK_SECONDS) SD_SEED=$(SOAK_SEED) \
	    $(if $(SD_TEST_ADDR),SD_TEST_ADDR=$(SD_TEST_ADDR)) \
	    $(if $(SD_TEST_STORE_DIR),SD_TEST_STORE_DIR=$(SD_TEST_STORE_DIR)) \
	    $(CARGO) test --test model -- --nocapture

# lamb killed under load, with and without --no-sync, so often each; and the image of its disk cut
# off from it, which takes root. Every store is opened and looked through, object by object.
LAMB_KILLS        ?= 100
LAMB_POWER_LOSSES ?= 50
soak-lamb: build
	LAMB_PROGRAM=$(CURDIR)/build/bin/lamb LAMB_KILLS=$(LAMB_KILLS) \
	    LAMB_POWER_LOSSES=$(LAMB_POWER_LOSSES) LAMB_SNAPSHOTS=100 \
	    $(CARGO) test --package lamb --test crash --test power --test start -- \
	    --nocapture --test-threads 1

bench-lamb: build
	$(CARGO) build --release --package lamb --example bench-lamb
	CARGO='$(CARGO)' tools/bench-lamb.sh $(SHEEP)

# Instructions for a small read or write, against those in bench/instructions.json (UPDATE=1 writes
# them anew): the same on every machine, whatever else it does.
build/bench/%: bench/%.c include/sheepdog.h build
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -pthread -Iinclude $< -o $@ \
	    -Lbuild/lib -lsheepdog -Wl,-rpath,$(CURDIR)/build/lib
bench-instructions: build/bench/hot
	tools/with-lamb.sh bench/instructions.py {} $< bench/instructions.json

# What threads that read and wait cost the asynchronous reads of the same handle.
bench-beside: build/bench/beside
	tools/with-lamb.sh $< {}

# Gateways that are stopped and go on under verified writers, on the cluster at SD_TEST_ADDR whose
# gateways have the process ids SD_TEST_PIDS; see tests/torture.rs for what else can be said.
TORTURE_SECONDS ?= 600
torture: build
	LAMB=$(CURDIR)/build/bin/lamb SD_TORTURE_SECONDS=$(TORTURE_SECONDS) \
	    $(CARGO) test --test torture -- --nocapture --test-threads 1

comma := ,
# $(call c-tests,BUILD DIRECTORY,OPTIONS OF c-tests/CMakeLists.txt)
define c-tests
	cmake -S c-tests -B build/$(1) -DSHEEPDOG_LIBRARY=$(CURDIR)/build/lib/libsheepdog.so \
	    -DLAMB=$(CURDIR)/build/bin/lamb $(2)
	cmake --build build/$(1) --parallel $(JOBS)
	cd build/$(1) && ctest --parallel $(SIDE_BY_SIDE) --output-on-failure --no-tests=error
endef

# On a recycling cluster of real servers (dog cluster format -R) one after the other, with
# SIDE_BY_SIDE=1: once an id below those of a VDI is free again, such servers take its snapshot for
# it (protocol.md 3.4).
test-c: build
	$(call c-tests,c-tests)

# The same on a lamb with the hazards of real servers.
test-c-mimic: export LAMB_OPTION := --mimic-1.0
test-c-mimic: build
	$(call c-tests,c-tests)

# Which computes rather than waits.
test-valgrind: SIDE_BY_SIDE = $(JOBS)
test-valgrind: build
	$(call c-tests,c-tests-valgrind,-DVALGRIND=ON)

test-asan: build
	$(call c-tests,c-tests-asan,-DSANITIZE=address$(comma)undefined)

# With rustc's own sanitizer; takes Linux on x86-64 or AArch64, where it is.
test-tsan: export TSAN_OPTIONS := suppressions=$(CURDIR)/tests/tsan/suppressions
test-tsan: build
	@mkdir -p build/tsan
	CC='$(CC)' CARGO='$(CARGO)' tools/tsan.sh build/tsan > build/tsan/runtime
	$(call c-tests,c-tests-tsan,-DSANITIZE=thread \
	    -DSHEEPDOG_LIBRARY=$(CURDIR)/build/tsan/libsheepdog.so \
	    -DSANITIZER_RUNTIME=$$(cat build/tsan/runtime))

check-symbols: build
	tools/check-symbols.sh $(shared)
abi-check: build
	tools/abi.sh $(shared)
abi-update: build
	tools/check-symbols.sh --update $(shared)
	tools/abi.sh --update $(shared)

test-install: build
	tools/test-install.sh

# Builds anew where cargo puts what it makes elsewhere.
test-target:
	tools/test-target.sh

test-man: man
	$(PYTHON) tools/test-man.py build/man/man3

# Whether the book's sources go together; `make docs` also looks at the links of what it builds. The
# recipes in C are among the C tests, test-docs runs the others.
check-docs:
	$(PYTHON) tools/book.py check
test-docs: crook $(nbdkit_plugin)
	tools/test-docs.sh $(CURDIR)/build/bin/crook $(CURDIR)/$(nbdkit_plugin) '$(CARGO)'

test-readme: build
	tools/test-readme.sh

test-tgt: build
	tools/test-tgt.sh

# What `make test-rust` runs of it, alone.
test-crook: build
	LAMB=$(CURDIR)/build/bin/lamb $(CARGO) test --package crook

# crook cp and nbdcopy, in turn, between the same file and VDIs of the same lamb.
bench-crook: build crook $(nbdkit_plugin)
	LD_LIBRARY_PATH=$(CURDIR)/build/lib LAMB_OPTION=--no-sync tools/with-lamb.sh \
	    tools/bench-crook.sh {} $(CURDIR)/build/bin/crook $(CURDIR)/$(nbdkit_plugin)

# Clients of other people on the plugin, which finds the library as it would where it is installed.
test-nbdkit: export LD_LIBRARY_PATH := $(CURDIR)/build/lib
test-nbdkit: $(nbdkit_plugin)
	plugins/nbdkit/test.sh $(CURDIR)/$(nbdkit_plugin) $(CURDIR)/build/bin/lamb

transcripts: $(addprefix transcript-,$(transcripts))
transcript-%: build
	tools/with-lamb.sh python3 tests/transcripts/replay.py {} tests/transcripts/$*.jsonl $(superset)
	LAMB_OPTION=--mimic-1.0 \
	    tools/with-lamb.sh python3 tests/transcripts/replay.py {} tests/transcripts/$*.jsonl

# --- Packaging ---

dist := build/dist/libsheepdog-$(version).tar.gz
dist:
	CARGO='$(CARGO)' tools/dist.sh $(dist)

# The Debian packages, from the tarball, as there is no network in its build.
deb_source := build/deb/libsheepdog-$(version)
deps-deb:
	@tools/deps.sh deb
deb: deps-deb dist
	rm -rf build/deb
	mkdir -p build/deb
	ln $(dist) build/deb/libsheepdog_$(version).orig.tar.gz
	tar -C build/deb -xf $(dist)
	cd $(deb_source) && $(without_make) dpkg-buildpackage --build=binary --no-sign --no-pre-clean
# Not our variables, which this make gives to what it runs.
without_make := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL

# In a Debian system of their own that has nothing else, as root.
test-deb: deb
	tools/test-deb.sh build/deb

# What was built from the tarball, for the packages, beside what was built here.
test-dist: deb build
	tools/test-dist.sh $(dist) $(deb_source)

# --- Installing: what `make build` made, so that root needs no cargo ---

# What a shell makes one word of, whatever is in it.
quote = '$(subst ','\'',$(1))'
# $(call below,DIRECTORY): where it is installed, below DESTDIR.
below = $(call quote,$(DESTDIR)$(1))
# $(call in-pc,DIRECTORY): as a pkg-config file has it, where a space ends a word, and as sed puts
# it there.
empty :=
space := $(empty) $(empty)
in-pc = $(subst &,\&,$(subst |,\|,$(subst $(space),\\ ,$(1))))

# Fills in what a file says of where others are.
fill-in = sed -e $(call quote,s|@PREFIX@|$(call in-pc,$(PREFIX))|) \
    -e $(call quote,s|@libdir@|$(call in-pc,$(libdir))|) \
    -e $(call quote,s|@includedir@|$(call in-pc,$(includedir))|) \
    -e 's|@version@|$(version)|' -e 's|@soname@|$(soname)|' \
    -e "s|@include@|$$(realpath -ms --relative-to=$(call quote,$(cmakedir)) $(call quote,$(includedir)))|"
cmakedir = $(libdir)/cmake/libsheepdog
cmake_files := libsheepdogConfig.cmake libsheepdogConfigVersion.cmake

# The modes are those said here, whatever umask the installer has.
install:
	@test -e $(shared) -a -e build/man/man3/libsheepdog.3 || \
	    { echo 'install: run make build first' >&2; exit 1; }
	install -d -m 755 $(call below,$(libdir)/pkgconfig) $(call below,$(libdir)/cmake) \
	    $(call below,$(cmakedir)) $(call below,$(includedir)) \
	    $(call below,$(bindir)) $(call below,$(mandir)/man3) $(call below,$(mandir)/man8)
	install -m 755 $(shared) $(call below,$(libdir))
	ln -sf $(notdir $(shared)) $(call below,$(libdir)/$(soname))
	ln -sf $(soname) $(call below,$(libdir)/libsheepdog.so)
	install -m 644 build/lib/libsheepdog.a $(call below,$(libdir))
	install -m 644 include/*.h $(call below,$(includedir))
	install -m 755 build/bin/lamb $(call below,$(bindir))
	install -m 644 build/man/man3/*.3 $(call below,$(mandir)/man3)
	install -m 644 man/lamb.8 $(call below,$(mandir)/man8)
	$(fill-in) pkgconfig/libsheepdog.pc.in > $(call below,$(libdir)/pkgconfig/libsheepdog.pc)
	for file in $(cmake_files); do \
	    $(fill-in) cmake/$$file.in > $(call below,$(cmakedir))/$$file || exit; \
	done
	chmod 644 $(foreach file,pkgconfig/libsheepdog.pc $(addprefix cmake/libsheepdog/,$(cmake_files)),\
	    $(call below,$(libdir)/$(file)))

# What make nbdkit-plugin made, where nbdkit looks for it.
install-nbdkit: plugindir ?= $(shell pkg-config --variable=plugindir nbdkit)
install-nbdkit:
	@test -e $(nbdkit_plugin) || { echo 'install-nbdkit: run make nbdkit-plugin first' >&2; exit 1; }
	install -d -m 755 $(call below,$(plugindir)) $(call below,$(mandir)/man1)
	install -m 755 $(nbdkit_plugin) $(call below,$(plugindir))
	install -m 644 plugins/nbdkit/nbdkit-sheepdog-plugin.1 $(call below,$(mandir)/man1)

# What make crook made.
datadir ?= $(PREFIX)/share
zshdir  ?= $(datadir)/zsh/site-functions
install-crook:
	@test -e build/bin/crook || { echo 'install-crook: run make crook first' >&2; exit 1; }
	install -d -m 755 $(call below,$(bindir)) $(call below,$(mandir)/man1) \
	    $(call below,$(datadir)/bash-completion/completions) \
	    $(call below,$(zshdir)) \
	    $(call below,$(datadir)/fish/vendor_completions.d)
	install -m 755 build/bin/crook $(call below,$(bindir))
	install -m 644 man/crook.1 $(call below,$(mandir)/man1)
	install -m 644 build/completions/crook.bash \
	    $(call below,$(datadir)/bash-completion/completions/crook)
	install -m 644 build/completions/_crook $(call below,$(zshdir))
	install -m 644 build/completions/crook.fish $(call below,$(datadir)/fish/vendor_completions.d)

# lamb as a service: systemctl enable --now lamb.socket.
unitdir ?= $(PREFIX)/lib/systemd/system
install-systemd:
	install -d -m 755 $(call below,$(patsubst %/,%,$(dir $(unitdir)))) $(call below,$(unitdir))
	install -m 644 lamb/systemd/lamb.socket $(call below,$(unitdir))
	sed $(call quote,s|@bindir@|$(call in-pc,$(bindir))|) lamb/systemd/lamb.service.in \
	    > $(call below,$(unitdir)/lamb.service)
	chmod 644 $(call below,$(unitdir)/lamb.service)

uninstall:
	rm -f $(foreach file,$(notdir $(shared)) $(soname) libsheepdog.so libsheepdog.a \
	    pkgconfig/libsheepdog.pc $(addprefix cmake/libsheepdog/,$(cmake_files)), \
	    $(call below,$(libdir)/$(file)))
	rm -f $(foreach file,lamb.socket lamb.service,$(call below,$(unitdir)/$(file)))
	rm -f $(foreach file,$(notdir $(wildcard include/*.h)),$(call below,$(includedir)/$(file)))
	rm -f $(call below,$(bindir)/lamb) $(call below,$(mandir)/man8/lamb.8)
	rm -f $(foreach page,libsheepdog $(shell sed 's/@.*//' abi/symbols),\
	    $(call below,$(mandir)/man3/$(page).3))
	rm -f $(call below,$(bindir)/crook) $(call below,$(mandir)/man1/crook.1) \
	    $(call below,$(datadir)/bash-completion/completions/crook) \
	    $(call below,$(zshdir)/_crook) \
	    $(call below,$(datadir)/fish/vendor_completions.d/crook.fish)

clean:
	rm -rf build
	$(CARGO) clean
