#!/bin/sh
# Loads dblock.ko into the running kernel, or removes it: `module.sh load`, `module.sh unload`.
# Whatever stands in the way is said in one line, with what to type next.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
module="$root/kmod/dblock.ko"
rules=60-dblock.rules
release=$(uname -r)
PATH="$PATH:/usr/sbin:/sbin"

die() {
    echo "$1" >&2
    exit 1
}

require_modules() {
    [ -e /proc/modules ] ||
        die "Cannot $1 dblock.ko: this kernel ($release) has no module support; type: make demo (a VM, which leaves this kernel alone), or serve disks over NBD, without the module: ./dblock serve --help"
    [ "$(id -u)" = 0 ] || die "Cannot $1 dblock.ko: not root; type: sudo make $1"
}

# As compat.h says it, but before a compiler is asked, and in one line.
require_new_kernel() {
    major=${release%%.*}
    minor=${release#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -ge 10 ]; } ||
        die "Cannot build dblock.ko: this kernel ($release) is too old; boot Linux 5.10 or newer, or type: make demo (a VM)"
}

is_loaded() {
    grep -q '^dblock ' /proc/modules
}

# As the owner of the checkout, so that `sudo make load` leaves no file behind that a later `make` cannot replace.
build() {
    "$root/src/build/toolchain.sh"
    owner=$(stat -c %U "$root")
    if [ "$owner" = root ]; then
        make -s -C "$root" module
    else
        # What was made as root just now is the owner's, too.
        chown -R "$owner" "$root/.build"
        runuser -u "$owner" -- make -s -C "$root" module
    fi
}

load() {
    require_modules load
    require_new_kernel
    if is_loaded; then
        echo "dblock is loaded already; to load a new build type: make unload load"
        return
    fi
    [ -e "/lib/modules/$release/build" ] || [ -e "$module" ] ||
        die "Cannot build dblock.ko: no headers for this kernel ($release); type: apt-get install linux-headers-$release"
    [ ! -e "/lib/modules/$release/build" ] || build
    built_for=$(modinfo -F vermagic "$module" | cut -d' ' -f1)
    [ "$built_for" = "$release" ] ||
        die "Cannot load kmod/dblock.ko: it is for $built_for, this is $release; type: apt-get install linux-headers-$release"
    lockdown=$(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/security/lockdown 2>/dev/null || true)
    if ! reason=$(insmod "$module" 2>&1); then
        case "$reason" in
        *"Key was rejected"* | *"Required key not available"*)
            die "Cannot load dblock.ko: Secure Boot wants signed modules; sign kmod/dblock.ko with a key of yours that the machine has (sudo mokutil --import KEY.der, then reboot), or turn Secure Boot off" ;;
        # Without Secure Boot an unsigned module is refused like somebody who is not root.
        *"not permitted"*)
            case "$lockdown" in
            integrity | confidentiality)
                die "Cannot load dblock.ko: lockdown ($lockdown) wants signed modules; boot without lockdown=$lockdown, or sign kmod/dblock.ko" ;;
            esac
            die "Cannot load dblock.ko: ${reason##*: }; type: dmesg | tail" ;;
        *) die "Cannot load dblock.ko: ${reason##*: }; type: dmesg | tail" ;;
        esac
    fi
    load_rules
    echo "dblock is loaded; type: ./dblock-ramdisk"
}

# udev's rules in /run last as long as the module does: until it is removed, or the machine starts anew.
load_rules() {
    [ -d /run/udev ] || return 0
    mkdir -p /run/udev/rules.d
    cp "$root/kmod/$rules" "/run/udev/rules.d/$rules"
    udevadm control --reload || echo "udev does not take $rules; there will be no links in /dev/disk, and no mount by UUID" >&2
}

unload_rules() {
    [ -e "/run/udev/rules.d/$rules" ] || return 0
    rm "/run/udev/rules.d/$rules"
    udevadm control --reload || true
}

unload() {
    require_modules unload
    if ! is_loaded; then
        echo "dblock is not loaded"
        return
    fi
    reason=$(rmmod dblock 2>&1) ||
        die "Cannot unload dblock: ${reason##*: }; destroy its disks first: ./dblock-ramdisk -d"
    unload_rules
    echo "dblock is unloaded"
}

case "${1:-}" in
load) load ;;
unload) unload ;;
*) die "Usage: module.sh load|unload" ;;
esac
