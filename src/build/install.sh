#!/bin/sh
# Installs what is in this folder on this machine, or removes it again. Packages do the same better: make deb.
#
#   sudo ./install.sh                      below /usr/local
#   sudo ./install.sh --prefix /opt/dblock
#   sudo ./install.sh --uninstall          what was installed (with the same --prefix), if there is no disk; /etc/dblock stays
#   ./install.sh --destdir DIR             into a tree that is not this machine's: nothing is loaded, nobody is told
set -eu

here=$(cd "$(dirname "$0")" && pwd)
prefix=/usr/local
destdir=
uninstall=
release=$(uname -r)
PATH="$PATH:/usr/sbin:/sbin"

die() {
    echo "install.sh: $1" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --destdir)
        [ $# -gt 1 ] || die "$1 needs a folder"
        if [ "$1" = --prefix ]; then prefix=${2%/}; else destdir=${2%/}; fi
        shift 2
        ;;
    --prefix=*) prefix=${1#*=} && shift ;;
    --destdir=*) destdir=${1#*=} && shift ;;
    --uninstall) uninstall=yes && shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
    *) die "there is no option $1; type: ./install.sh --help" ;;
    esac
done
case $prefix in /*) ;; *) die "--prefix is a whole path, such as /usr/local" ;; esac
[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || die "not root; type: sudo ./install.sh"

units=/etc/systemd/system
# Every file that was installed, for --uninstall.
manifest="$destdir$prefix/share/dblock/installed-files"

# What the machine's own programs have to hear after files have come or gone.
tell_machine() {
    [ -z "$destdir" ] || return 0
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
    if [ -d /run/udev ]; then udevadm control --reload || true; fi
    if [ -d "/lib/modules/$release" ]; then depmod "$release" || true; fi
}

# Whether the kernel that runs can have the module: compat.h needs 5.10.
is_new_enough() {
    major=${release%%.*}
    minor=${release#*.}
    minor=${minor%%[!0-9]*}
    [ "$major" -gt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -ge 10 ]; }
}

# The program that destroys disks is about to go: ends here if there is one.
no_disk_is_there() {
    for disk in /sys/block/*/dblock; do
        [ -e "$disk" ] || continue
        disk=${disk%/dblock}
        die "the disk ${disk##*/} is there; type: dblock destroy ${disk##*/}"
    done
    # The kernel's NBD client says who gave it a disk: what another server left in /run is no disk any more.
    for record in /run/dblock/*.json; do
        [ -e "$record" ] || continue
        number=$(sed -n 's/.*"kernelNbd":\([0-9][0-9]*\).*/\1/p' "$record")
        pid=$(sed -n 's/.*"pid":\([0-9][0-9]*\).*/\1/p' "$record")
        [ -n "$number" ] && [ "$(cat "/sys/block/nbd$number/pid" 2>/dev/null)" = "$pid" ] || continue
        disk=${record##*/}
        die "the disk ${disk%.json} (/dev/nbd$number) is there; type: dblock destroy ${disk%.json}"
    done
}

# Services go on with the program that was just installed: it takes their disks over, and those who use them notice nothing.
reload_services() {
    systemctl try-restart dblock-metrics.service || true
    active=$(systemctl list-units --state=active --plain --no-legend 'dblock@*.service' | cut -d' ' -f1 | tr '\n' ' ')
    case $("$prefix/bin/dblock" list 2>&1 >/dev/null) in
    *"the module speaks ABI"*)
        # The new program can serve no disk of the module that is loaded: after a restart the disks would wait for a server.
        [ -z "$active" ] || echo "no disk has the new program, as the module that is loaded is another version's; unmount the" \
            "disks and type: systemctl stop $active&& modprobe -r dblock && modprobe dblock && systemctl start $active(or reboot)" >&2
        ;;
    *)
        for one in $active; do
            systemctl reload "$one" || echo "$one goes on with the version before; to change that: systemctl restart $one" >&2
        done
        ;;
    esac
}

if [ -n "$uninstall" ]; then
    [ -e "$manifest" ] || die "nothing is installed below $prefix (no $manifest)"
    if [ -z "$destdir" ]; then
        no_disk_is_there
        if [ -d /run/systemd/system ]; then systemctl stop dblock-metrics.service || true; fi
        if [ -e /dev/dblockctl ]; then modprobe -r dblock 2>/dev/null || true; fi
    fi
    # What was enabled is a link to a unit that goes. One to a package's unit stays.
    for link in "$destdir$units"/*.wants/dblock@*.service "$destdir$units"/*.wants/dblock-metrics.service; do
        case $(readlink "$link") in "$units"/*) rm -f "$link" ;; esac
    done
    while read -r file; do rm -f "$destdir$file"; done <"$manifest"
    rm -f "$manifest"
    rmdir "$destdir$prefix/share/dblock" 2>/dev/null || true
    tell_machine
    echo "dblock is removed from $prefix"
    exit 0
fi

# put FILE PATH [MODE]: the file has that path from now on.
put() {
    mkdir -p "$destdir$(dirname "$2")"
    # Beside its name and then in its place: a program that runs is not written to.
    cp "$here/$1" "$destdir$2.new"
    chmod "${3:-644}" "$destdir$2.new"
    mv "$destdir$2.new" "$destdir$2"
    echo "$2" >>"$manifest"
}

mkdir -p "$(dirname "$manifest")"
# What an earlier version had and this one has not goes.
upgrade=
if [ -e "$manifest" ]; then
    upgrade=yes
    mv "$manifest" "$manifest.before"
fi
: >"$manifest"

put dblock-ramdisk "$prefix/bin/dblock" 755
ln -sf dblock "$destdir$prefix/bin/dblock-ramdisk"
echo "$prefix/bin/dblock-ramdisk" >>"$manifest"
for page in "$here"/share/man/*; do put "share/man/${page##*/}" "$prefix/share/man/man${page##*.}/${page##*/}"; done
put share/completion/dblock.bash "$prefix/share/bash-completion/completions/dblock"
put share/completion/dblock.bash "$prefix/share/bash-completion/completions/dblock-ramdisk"
put share/completion/_dblock "$prefix/share/zsh/site-functions/_dblock"
put share/completion/dblock.fish "$prefix/share/fish/vendor_completions.d/dblock.fish"
put 60-dblock.rules /etc/udev/rules.d/60-dblock.rules
put share/systemd/dblock-generator /etc/systemd/system-generators/dblock-generator 755
for unit in dblock@.service dblock-metrics.service; do
    put "share/systemd/$unit" "$units/$unit"
    sed -i "s#/usr/bin/dblock#$prefix/bin/dblock#" "$destdir$units/$unit"
done
mkdir -p "$destdir"/etc/dblock

# The module of the kernel that runs: from here, or made here where the kernel's headers are.
install_module() {
    module="dblock-$release.ko"
    if ! is_new_enough; then
        echo "install.sh: this kernel ($release) is too old for the module; boot Linux 5.10 or newer, and type: sudo ./install.sh" >&2
        return
    fi
    if [ ! -e "$here/$module" ] && [ -e "/lib/modules/$release/build" ]; then
        if ! make -s -C "/lib/modules/$release/build" M="$here/kmod" modules; then
            echo "install.sh: the module cannot be built for $release: see above" >&2
            return
        fi
        cp "$here/kmod/dblock.ko" "$here/$module"
    fi
    if [ -e "$here/$module" ]; then
        put "$module" "/lib/modules/$release/updates/dblock.ko"
    else
        echo "install.sh: there is no module for $release here, and no headers to build it: apt-get install linux-headers-$release" >&2
    fi
}
if [ -z "$destdir" ] && [ -e /proc/modules ]; then install_module; fi

if [ -e "$manifest.before" ]; then
    while read -r file; do grep -qxF "$file" "$manifest" || rm -f "$destdir$file"; done <"$manifest.before"
    rm -f "$manifest.before"
fi
tell_machine
if [ -n "$upgrade" ] && [ -z "$destdir" ] && [ -d /run/systemd/system ]; then reload_services; fi
echo "dblock is installed below $prefix; type: dblock doctor"
