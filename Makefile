# SPDX-License-Identifier: MIT
# What people type; `make help` lists it. The work is done by the scripts named below, each of which does nothing when
# nothing changed, so no target here keeps files of its own and nothing goes stale.

DENO := src/build/deno.sh
RUN  := $(DENO) run --allow-all

# A kernel of tests/vm/kernels.ts (6.1, 6.12, ...); empty: the one this machine runs.
KERNEL  ?=
# The machine that `make executable` and `make dist` are for (x86_64, aarch64); empty: this one.
ARCH    ?=
PROGRAM := $(if $(ARCH),.build/dblock-ramdisk-$(ARCH),dblock-ramdisk)
# The kernels whose modules go into `make dist`.
KERNELS ?= $(if $(filter aarch64,$(ARCH)),6.12-arm64,6.1 6.12)

.DEFAULT_GOAL := all
.PHONY: all toolchain executable dblock dblock-ramdisk module load unload dist deb rpm clean distclean help
.PHONY: bench test test-all test-debug soak kernel-debug demo vm-shell doctor sparse

##@ Build

all: executable module ## dblock, dblock-ramdisk and kmod/dblock.ko (the default)

toolchain: ## install what the project needs (Deno under .build/, tools from Debian)
	@src/build/toolchain.sh

executable dblock dblock-ramdisk: toolchain ## one file with two names; ARCH=aarch64: for that machine, under .build/
	@$(RUN) src/build/executable.ts $(if $(ARCH),--arch $(ARCH)) --output $(PROGRAM) \
		--also $(subst -ramdisk,,$(notdir $(PROGRAM))) src/command/program.ts

module: toolchain ## the kernel module; KERNEL=6.12 builds it for another kernel
	@$(RUN) tests/vm/module.ts $(if $(KERNEL),--kernel=$(KERNEL))

sparse: toolchain ## check the module's source with sparse; KERNEL=6.12 as above
	@$(RUN) tests/vm/module.ts --sparse --kernel=$(or $(KERNEL),6.12)

dist: executable ## one tar.gz with executable, licences and modules for KERNELS="6.1 6.12"; ARCH as above
	@src/build/dist.sh $(PROGRAM) $(KERNELS)

deb: executable ## Debian packages in .build/deb: dblock, and dblock-dkms with the module; ARCH as above
	@src/build/deb.sh $(PROGRAM)

rpm: executable ## packages for rpm in .build/rpm: dblock, and akmod-dblock with the module's source; ARCH as above
	@src/build/rpm.sh $(PROGRAM)

##@ This machine

load: ## build the module and load it into the running kernel (as root)
	@src/build/module.sh load

unload: ## remove it again (as root)
	@src/build/module.sh unload

##@ Virtual machine (tests/vm)

test: toolchain ## every test, or ARGS="--help"; ends with "N passed, N failed"
	@$(RUN) tests/run.ts $(if $(KERNEL),--kernel=$(KERNEL)) $(ARGS)

test-all: toolchain ## every device test on every kernel (5.10, 6.1, 6.12, 7.2)
	@$(RUN) tests/run.ts --kernel=all $(ARGS)

test-debug: toolchain ## the device tests on a kernel that checks itself (KASAN, lockdep, leaks); KERNEL=kcsan: data races
	@$(RUN) tests/run.ts --kernel=$(or $(KERNEL),debug) $(or $(ARGS),device)

soak: executable ## the tests that report figures, again and again with fresh seeds, for MINUTES=60
	@$(RUN) tests/soak.ts --minutes=$(or $(MINUTES),60) $(if $(KERNEL),--kernel=$(KERNEL)) $(ARGS)

kernel-debug: toolchain ## build that kernel from Debian's source; 15 to 30 minutes, once
	@$(RUN) tests/vm/debug_kernel.ts $(KERNEL)

bench: toolchain ## measure the disk beside others; QUICK=1 looks for a regression since BASE=COMMIT, ARGS=--help
	@$(RUN) tests/bench/main.ts $(if $(KERNEL),--kernel=$(KERNEL)) $(if $(QUICK),--quick) $(if $(COUNT),--count) $(if $(BASE),--base=$(BASE)) $(if $(SCALING),--scaling=$(SCALING)) \
		$(if $(ROUNDS),--rounds=$(ROUNDS)) $(if $(SECONDS),--seconds=$(SECONDS)) $(if $(FROM),--from="$(FROM)") \
		$(if $(DISKS),--disks="$(DISKS)") $(if $(JOBS),--jobs="$(JOBS)") $(ARGS)

demo: executable ## watch a disk made by TypeScript at work in a VM
	@$(RUN) tests/vm/demo.ts $(if $(KERNEL),--kernel=$(KERNEL))

vm-shell: executable ## a root shell in the VM, the module loaded
	@$(RUN) tests/vm/shell.ts $(if $(KERNEL),--kernel=$(KERNEL)) $(ARGS)

doctor: ## what is missing on this machine and what to type
	@src/build/toolchain.sh deno
	@$(RUN) tests/vm/doctor.ts $(ARGS)

##@ Clean

clean: ## remove what was built, keep what was downloaded
	@rm -rf dblock dblock-ramdisk kmod/dblock.ko .build/executable .build/kmod .build/dist .build/deb .build/rpm .build/installed

distclean: clean ## remove everything that is not in the repository
	@rm -rf .build

help: ## this list
	@awk -F ':.*## ' '/^##@/ { printf "%s\n", substr($$0, 5) } /^[a-z][a-z -]*:.*## / { sub(/ .*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2 }' Makefile
