// memory: 256 MiB
// time limit: 240 s
// dmesg may have: invoked oom-killer|Call Trace:
// On a machine of 256 MB, of which the kernel leaves 212, somebody takes what memory there is again and again: ext4 on a ramdisk
// stalls nobody for 30 s. Hard cases E1 and E2. `--scale 10` makes minutes of it.
import { assert, assertEquals } from "@std/assert";
import { fio, fioErrors, slowestMs } from "./fio.ts";
import { assertWithin, figure, kernelSlowness, requires, scaled, sh } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { PAGE_BYTES } from "./syscall.ts";
import { ioFlushers } from "./threads.ts";

const runSeconds = scaled(20);
const stallMs = 30_000;

/** Takes seven tenths of what is left, gives it back, and begins anew. If it is too much, it is the hog that dies. */
const hog = `
  while [ -e /tmp/hungry ]; do
    mib=$(awk '/^MemAvailable/ { print int($2 * 0.7 / 1024) }' /proc/meminfo)
    head -c "$mib"M /dev/zero | tail -n 1 >/dev/null
    echo "$mib"
  done`;

function vmstat(pattern: RegExp): number {
  return [...Deno.readTextFileSync("/proc/vmstat").matchAll(pattern)].reduce((sum, match) => sum + Number(match[1]), 0);
}
/** How often somebody had to free memory before there was some for him. */
const directReclaims = () => vmstat(/^allocstall_\w+ (\d+)$/gm);

const ignore = !requires("a kernel that does not take the memory itself, for its checks", kernelSlowness === 1) ||
  !requires("pages of 4 KiB: larger ones take more memory than this machine has", PAGE_BYTES === 4096);

Deno.test("ext4 on a ramdisk goes on while memory is short", { ignore }, async () => {
  const totalMib = Number(/^MemTotal:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/meminfo"))![1]) / 1024;
  assert(totalMib < 256, `this VM has ${totalMib} MiB`);
  await using disk = await Ramdisk.start({ name: "pressure", args: ["--size", "48M"] });
  assert(ioFlushers(disk.pid).every((isFlusher) => isFlusher));
  await sh(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt && touch /tmp/hungry`);
  await Deno.writeTextFile("/tmp/hog.sh", hog);
  try {
    const reclaims = directReclaims();
    const eating = sh("choom -n 1000 -- bash /tmp/hog.sh", { timeoutMs: (runSeconds + 60) * 1000 });
    const result = await fio(
      `--name=pressure --directory=/mnt --rw=randrw --bs=4k --size=12M --numjobs=2 --ioengine=psync --fsync=16 ` +
        `--time_based --runtime=${runSeconds} --verify=crc32c --verify_fatal=1 --verify_backlog=256`,
      { timeoutMs: (runSeconds + 60) * 1000 },
    );
    await Deno.remove("/tmp/hungry");
    const meals = (await eating).stdout.trim().split("\n").map(Number);
    assertEquals([result.status, ...fioErrors(result)], [0, 0, 0], result.stderr);
    const stalls = directReclaims() - reclaims;
    console.log(`memory was taken ${meals.length} times, ${Math.max(...meals)} MiB at most`);
    figure({
      "seconds under memory pressure": runSeconds,
      "memory": [totalMib, "MB"],
      "longest stall": [slowestMs(result) / 1000, "s"],
      "direct reclaims": stalls,
      "times memory was taken": meals.length,
    });
    assertWithin(stallMs, slowestMs(result), "the slowest request was answered");
    assert(stalls > 0, "memory was never short");
    assert(ioFlushers(disk.pid).every((isFlusher) => isFlusher));
  } finally {
    await sh("rm -f /tmp/hungry; umount /mnt");
  }
  await sh(`e2fsck -fn ${disk.path}`);
  // Not with -d: one program more of this size, and the machine is busy with reading programs from disk for minutes.
  disk.child.kill("SIGTERM");
  assertEquals((await disk.end(60_000)).code, 0);
});
