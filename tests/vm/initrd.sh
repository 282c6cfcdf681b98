#!/busybox sh
# Runs in a machine's own initial ramdisk (initramfs-tools), beside what that does, when the machine's file systems are mounted: puts
# there what the command of a VM needs (vm.ts), as init.sh does where the VM boots by an initramfs of its own. That has made
# the command a service before.

for module in /boot-modules/*.ko; do
    /busybox insmod "$module" 2>/dev/null # many are there
done
for disk in /sys/block/vd*; do
    [ "$(/busybox cat "$disk/serial")" = userland ] || continue
    /busybox mkdir -p "$rootmnt/base"
    /busybox mount -t ext4 -o ro "/dev/${disk##*/}" "$rootmnt/base"
done
# The initial ramdisk is emptied, and so the sources are copied.
/busybox mkdir -p "$rootmnt/project"
/busybox mount -t tmpfs tmpfs "$rootmnt/project"
/busybox cp -a /project/. "$rootmnt/project/"
/busybox cp /command /plan.json "$rootmnt/"
