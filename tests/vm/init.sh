#!/busybox sh
# The first process of a test VM: mounts what a Linux system has, runs /command, reports its exit status, and powers off.
# What the command is and whether it did well is the host's business (vm.ts).

/busybox mkdir -p /proc /sys /dev /base /tmp /run /root /data /mnt /program /var/tmp
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs devtmpfs /dev
for module in /boot-modules/*.ko; do
    [ -e "$module" ] && /busybox insmod "$module"
done

/busybox ifconfig lo 127.0.0.1 up
# QEMU's network gives the VM this address, and this way out.
if [ -e /sys/class/net/eth0 ]; then
    /busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
    /busybox route add default gw 10.0.2.2
fi

# Disks and ports are known by their names; there is no udev that would make links of them.
for disk in /sys/block/vd*; do
    /busybox mkdir -p /disks
    /busybox ln -sf "/dev/${disk##*/}" "/disks/$(/busybox cat "$disk/serial")"
done
/busybox mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
    /busybox ln -sf "../${port##*/}" "/dev/virtio-ports/$(/busybox cat "$port/name")"
done

/busybox mount -t ext4 -o ro /disks/userland /base
for dir in usr bin sbin lib lib64 etc; do
    /busybox ln -s "/base/$dir" "/$dir"
done
[ -e /disks/modules ] && /busybox mount -t ext4 -o ro /disks/modules "/base/usr/lib/modules"
[ -e /disks/program ] && /busybox mount -t ext4 -o ro /disks/program /program &&
    /busybox ln -s /program/dblock-ramdisk /program/dblock /project/

# A whole Debian. What is written to that of the tests stays in memory; the disk "machine" keeps it, has a kernel's modules, and
# gets dblock from packages. systemd takes over, and runs the command as a service.
if [ -e /disks/system ] || [ -e /disks/machine ]; then
    /busybox mkdir /system
    if [ -e /disks/machine ]; then
        # By its own name: what makes initial ramdisks looks for the device of /.
        /busybox mount -t ext4 "$(/busybox readlink /disks/machine)" /system
        /busybox mkdir -p /system/var/log/journal
    else
        /busybox mkdir /lower /upper
        /busybox mount -t ext4 -o ro /disks/system /lower
        /busybox mount -t tmpfs tmpfs /upper
        /busybox mkdir /upper/tree /upper/work
        /busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/tree,workdir=/upper/work overlay /system
        /busybox mkdir -p /system/usr/lib/modules /system/etc/udev/rules.d
        /busybox mount --bind /base/usr/lib/modules /system/usr/lib/modules
        /busybox cp /project/kmod/60-dblock.rules /system/etc/udev/rules.d
    fi
    for dir in proc sys dev base program project; do
        /busybox mkdir -p "/system/$dir"
        /busybox mount --bind "/$dir" "/system/$dir"
    done
    /busybox ln -sfn /base/usr /system/data
    /busybox ln -sf /base/usr/local/bin/deno /system/usr/local/bin/deno
    /busybox cp /command /plan.json /system
    /busybox cp /project/tests/vm/runner.service /system/etc/systemd/system
    # A machine that keeps its disk ends as anybody's.
    [ -e /disks/machine ] && /busybox sed -i 's/reboot --force --force/systemctl reboot --no-block/' /system/etc/systemd/system/runner.service
    /busybox ln -sf ../runner.service /system/etc/systemd/system/multi-user.target.wants
    # With a name of its own it is not at its first boot, at which it would ask for a password.
    /busybox grep -qs '^[0-9a-f]*$' /system/etc/machine-id ||
        /busybox tr -d - </proc/sys/kernel/random/uuid >/system/etc/machine-id
    # Nobody logs in, and nothing is to be done at a time of the day.
    for unit in getty.target timers.target; do
        /busybox ln -sf /dev/null "/system/etc/systemd/system/$unit"
    done
    cd /system || exit
    /busybox mount --move . /
    exec /busybox chroot . /sbin/init
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
export HOME=/root TERM="${TERM:-linux}" LC_ALL=C.UTF-8 NO_COLOR=1 DENO_NO_UPDATE_CHECK=1 DENO_DIR=/run/deno
mount --bind /base/usr /data
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr

cd /project || exit
if [ -e /interactive ]; then
    /busybox setsid /busybox cttyhack /bin/bash /command
else
    bash /command </dev/null >/dev/virtio-ports/output 2>&1
    status=$?
    echo "$status" >/dev/virtio-ports/exit
fi
sync
/busybox reboot -f
