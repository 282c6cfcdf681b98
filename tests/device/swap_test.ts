// memory: 560 MiB
// time limit: 180 s
// Swap on a ramdisk works if the server's own memory cannot be swapped, all of the disk's is there before, and what little the
// server still allocates comes out of the kernel's reserve, as it does for real-time threads: without that, V8's next page
// waits for memory, which waits for swap, until requests time out.
import { assert, assertEquals } from "@std/assert";
import { ControlGroup } from "./cgroup.ts";
import { kernelSlowness, requires, sh } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";
import { PAGE_BYTES } from "./syscall.ts";

function meminfoMib(name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(Deno.readTextFileSync("/proc/meminfo"))![1]) / 1024;
}

/** What was swapped out or in since the machine started. */
function swappedMib(direction: "out" | "in"): number {
  const pages = new RegExp(`^pswp${direction} (\\d+)$`, "m").exec(Deno.readTextFileSync("/proc/vmstat"))![1];
  return Number(pages) * PAGE_BYTES / 2 ** 20;
}

/** Fills so many MiB with a pattern, and looks at all of it again, twice. Prints how many were not as they should be. */
const hog = (mib: number) => `
  my @memory;
  push @memory, chr($_ % 251) x 2**20 for 1..${mib};
  my $wrong = 0;
  for my $round (1..2) { for (1..${mib}) { $wrong++ if $memory[$_ - 1] ne chr($_ % 251) x 2**20 } }
  print $wrong;`;
/** So many at once: several threads that want memory are what leaves a server without. */
const HOGS = 3;
/** Requests that a healthy server never leaves waiting for so long: one that waits for memory is seen, and fails the test. */
const TIMEOUT_SECONDS = 10;

const ignore = !requires("a kernel that does not take the memory itself, for its checks", kernelSlowness === 1) ||
  !requires("pages of 4 KiB: larger ones take more memory than this machine has", PAGE_BYTES === 4096);

Deno.test("programs whose memory is on a ramdisk find it there again", { ignore }, async () => {
  await using group = await ControlGroup.make("swap", { "memory.swap.max": "0" });
  await using disk = await Ramdisk.start({
    name: "swap0",
    args: ["--size", "320M", "--timeout", `${TIMEOUT_SECONDS}`],
    cgroup: group.path,
    prefix: ["chrt", "--rr", "1"],
  });
  await sh(`dd if=/dev/zero of=${disk.path} bs=1M count=320 oflag=direct status=none`);
  await sh(`mkswap ${disk.path} && swapon ${disk.path}`);
  try {
    const each = Math.round((meminfoMib("MemAvailable") + 250) / HOGS);
    const started = performance.now();
    const hogs = Array.from(
      { length: HOGS },
      () => sh(`choom -n 1000 -- perl -e '${hog(each)}'`, { timeoutMs: 150_000 }),
    );
    const wrong = (await Promise.all(hogs)).map(({ stdout }) => stdout);
    const [out, back] = [swappedMib("out"), swappedMib("in")];
    console.log(`${HOGS} times ${each} MiB in ${performance.now() - started} ms: ${out} MiB out, ${back} MiB in`);
    assertEquals(wrong, wrong.map(() => "0"));
    assert(out > 30 && back > 30, `${out} MiB were swapped out, ${back} MiB in`);
  } catch (error) {
    // At once: if the swap cannot be taken off, the machine ends with the disk.
    console.log(error);
    throw error;
  } finally {
    await sh(`swapoff ${disk.path}`);
  }
  assertEquals(infoOf("swap0")!.timeout_count, 0);
  assertEquals((await runRamdisk("-d --name swap0")).status, 0);
  assertEquals((await disk.end()).code, 0);
});
