#!/bin/bash
# A disk's life with server.c as its server, step by step, on any machine that has bash, mke2fs and mount. The module is
# loaded already. Each step's verdict is a line, "ok - STEP" or "not ok - STEP"; the exit status is 1 if one is not ok.
server=tests/portable/server
chmod 755 $server
work=$(mktemp -d)
failed=0

step() {
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    echo "ok - $name"
  else
    echo "not ok - $name"
    sed 's/^/    /' "$work/log"
    failed=1
  fi
}

# Starts a server and waits until its disk is there: serve NAME [direct] [hold]
serve() {
  local name=$1 i
  shift
  [ -e "$work/$name.store" ] || truncate -s "${STORE:-32M}" "$work/$name.store"
  "$server" serve "$name" "$work/$name.store" "$@" >"$work/$name.out" 2>&1 &
  pid=$!
  for ((i = 0; i < 600; i++)); do
    grep -q ready "$work/$name.out" && [ -b "/dev/$name" ] && return 0
    kill -0 $pid || break
    sleep 0.1
  done
  cat "$work/$name.out"
  return 1
}

# The server has ended by itself, and well.
ended() {
  wait "$pid" && return 0
  cat "$work/$1.out"
  return 1
}

gone() {
  local i
  for ((i = 0; i < 100; i++)); do
    [ -e "/dev/$1" ] || [ -e "/dev/$1-ctl" ] || return 0
    sleep 0.1
  done
  return 1
}

fails() {
  ! "$@"
}

filesystem() {
  local files
  files=$(find /usr/bin -type f -size +100k | head -n 30)
  mkfs.ext4 -q "/dev/$1" && mount "/dev/$1" /mnt || return 1
  cp $files /mnt && sync -f /mnt || return 1
  (cd /mnt && sha256sum ./*) >"$work/before" 2>&1
  umount /mnt && mount "/dev/$1" /mnt || return 1
  grep -v 'lost+found' "$work/before" >"$work/sums"
  [ "$(wc -l <"$work/sums")" -ge 10 ] && (cd /mnt && sha256sum --quiet -c "$work/sums")
}

# Writes and reads while the server is killed and another takes its place.
recovery() {
  local verifying
  serve "$1" hold || return 1
  "$server" verify "/dev/$1" 3 on &
  verifying=$!
  sleep 0.5
  kill -0 $verifying || return 1
  kill -KILL "$pid"
  wait "$pid"
  "$server" info "$1" 3 || return 1
  sleep 0.5
  kill -0 $verifying || return 1
  serve "$1" || return 1
  "$server" info "$1" 2 && kill -TERM $verifying && wait $verifying
}

# Everything fails at once when the server is killed, and the disk goes.
removal() {
  serve "$1" || return 1
  kill -KILL "$pid"
  wait "$pid"
  gone "$1" && fails "$server" info "$1"
}

force() {
  serve "$1" || return 1
  exec 7<"/dev/$1"
  fails "$server" destroy "$1" && "$server" destroy "$1" force && ended "$1"
  local result=$?
  exec 7<&-
  return $result
}

for way in delivered direct; do
  name=c$way
  step "a disk with $way data appears" serve "$name" "$way"
  step "$way: what is written is read" "$server" verify "/dev/$name" 1
  step "$way: a file system keeps its files over a remount" filesystem "$name"
  step "$way: a mounted disk is not destroyed" fails "$server" destroy "$name"
  umount /mnt
  step "$way: destroyed" "$server" destroy "$name"
  step "$way: the server ends" ended "$name"
  step "$way: the nodes are gone" gone "$name"
done
step "a killed server is replaced under I/O" recovery chold
step "the disk that was held is destroyed" "$server" destroy chold
step "its server ends" ended chold
step "a killed server's disk is removed" removal cremove
step "an open disk is destroyed by force" force cforce
rm -rf "$work"
exit $failed
