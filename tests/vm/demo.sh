# What `make demo` does inside the VM, in order. Each command is printed as typed, then what it says, then the time it took.
# The first thing that is not as it should be ends the demonstration with status 1.

mountpoint=/mnt
failed() {
    printf '\nFAILED: %s\n' "$1"
    exit 1
}

seconds_since() {
    awk -v now="$EPOCHREALTIME" -v then="$1" 'BEGIN { printf "%.1f s", now - then }'
}

# Prints a command and runs it, with its output indented.
show() {
    printf '\n$ %s\n' "$1"
    local started=$EPOCHREALTIME
    if ! eval "$1" >/tmp/said 2>&1; then
        sed 's/^/    /' /tmp/said
        failed "$1"
    fi
    # Programs that draw progress on a terminal rub it out with backspaces; what stays is what a person would see.
    sed -e ':again' -e 's/[^\x08]\x08//' -e 't again' -e 's/\x08//g' -e 's/ *$//' -e '/^$/d' -e 's/^/    /' /tmp/said
    printf '    (%s)\n' "$(seconds_since "$started")"
}

begun=$EPOCHREALTIME
show 'uname -sr'
show 'insmod kmod/dblock.ko'

printf '\n$ ./dblock-ramdisk &\n'
started=$EPOCHREALTIME
./dblock-ramdisk >/tmp/server.log 2>&1 &
server=$!
until [ -b /dev/dblockramdisk ] && [ -s /tmp/server.log ]; do
    kill -0 "$server" 2>/dev/null || { sed 's/^/    /' /tmp/server.log; failed './dblock-ramdisk ended'; }
    sleep 0.05
done
sed 's/^/    /' /tmp/server.log
printf '    (%s)\n' "$(seconds_since "$started")"
said=$(wc -l </tmp/server.log)

show 'lsblk /dev/dblockramdisk'
show 'mkfs.ext4 /dev/dblockramdisk'
show "mount /dev/dblockramdisk $mountpoint"

folders='bin lib local'
files=$(cd /data && find $folders -type f | wc -l)
megabytes=$(cd /data && du -smc --apparent-size $folders | tail -n1 | cut -f1)
printf '\n# %s real files, %s MB: the programs and libraries of a Debian system\n' "$files" "$megabytes"
show "cd /data && find $folders -type f -print0 | sort -z | xargs -0 sha256sum >/tmp/checksums"
show "cp --archive $folders $mountpoint && sync"
show "df -h $mountpoint"

printf '\n# unmounted and mounted again: every byte now comes from the process\n'
show "cd / && umount $mountpoint"
show 'fsck.ext4 -fn /dev/dblockramdisk'
show "mount -o ro /dev/dblockramdisk $mountpoint"
show "cd $mountpoint && sha256sum --check /tmp/checksums >/tmp/checked && tail -n 1 /tmp/checked"
[ "$(grep -c ': OK$' /tmp/checked)" = "$files" ] || failed 'files are missing'
show "cd / && umount $mountpoint"
cd /project || exit

show './dblock-ramdisk -d'
printf '\n# and the first process:\n'
for _ in $(seq 100); do kill -0 "$server" 2>/dev/null || break; sleep 0.05; done
kill -0 "$server" 2>/dev/null && failed 'the server did not end'
wait "$server"
status=$?
tail -n "+$((said + 1))" /tmp/server.log | sed 's/^/    /'
printf '    (exit status %s)\n' "$status"
[ "$status" = 0 ] || failed "the server ended with $status"
[ "$(wc -l </tmp/server.log)" -gt "$said" ] || failed 'the server did not say that it ended'
[ -e /dev/dblockramdisk ] && failed '/dev/dblockramdisk is still there'
show 'rmmod dblock'
if dmesg | grep -E 'WARNING:|BUG:|Call Trace|I/O error'; then failed 'the kernel complained'; fi

printf '\nIt works: %s files, %s MB, written to a disk that is a TypeScript program and read back unchanged, in %s.\n' \
    "$files" "$megabytes" "$(seconds_since "$begun")"
