// memory: 560 MiB
// time limit: 180 s
// Swap on a ramdisk works if the server's own memory cannot be swapped, all of the disk's is there before, and what little the
// server still allocates comes out of the kernel's reserve, as it does for real-time threads: without that, V8's next page
// waits for memory, which waits for swap, until requests time out.
import { assert, assertEquals } from "@std/assert";
import { ControlGroup } from "./cgroup.ts";
import { kernelSlowness, requires, sh } from "./harness.ts";
import { runHogs } from "./hogs.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";
import { PAGE_BYTES } from "./syscall.ts";

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
    const { wrong, outMib, inMib } = await runHogs(250, 150_000);
    assertEquals(wrong, wrong.map(() => "0"));
    assert(outMib > 30 && inMib > 30, `${outMib} MiB were swapped out, ${inMib} MiB in`);
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
