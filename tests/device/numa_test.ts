// kernel: numa_balancing=enable
// time limit: 300 s
// The kernel may take the permissions of a server's pages away for a while, to see which CPU uses them. Requests whose data
// is in such pages are answered all the same: the page is there, and only has to be touched as a program would.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { exists, isOver, requires, sh } from "./harness.ts";
import { MIB } from "./server.ts";
import { Memory, PAGE_BYTES } from "./syscall.ts";

const settingsDir = "/sys/kernel/debug/sched/numa_balancing";
const sizeBytes = 16 * MIB;
const filling = 0x5a;

/** How many pages of all processes have lost their permissions so far. */
function hiddenPages(): number {
  return Number(/^numa_pte_updates (\d+)$/m.exec(Deno.readTextFileSync("/proc/vmstat"))?.[1] ?? 0);
}

/**
 * Scans this process's memory, which happens only while it computes, until so many pages are hidden. The kernel decides how
 * fast, and on a busy machine it scans rarely; it is wrong only if nothing more is hidden.
 */
function hidePages(count: number): void {
  const until = hiddenPages() + count;
  let hidden = 0;
  let since = 0;
  while (hidden < until) {
    const now = performance.now();
    const pages = hiddenPages();
    if (pages !== hidden) [hidden, since] = [pages, now];
    assert(!isOver(20_000, now - since), `${hidden} of ${until} pages, and no more for ${Math.round(now - since)} ms`);
  }
}

Deno.test({
  name: "data in pages that NUMA balancing has hidden is read and written",
  ignore: !requires("NUMA balancing", exists(`${settingsDir}/scan_delay_ms`)),
  async fn() {
    await sh(
      `cd ${settingsDir}; echo 1 >scan_delay_ms; echo 1 >scan_period_min_ms; echo 10 >scan_period_max_ms; ` +
        "head -c 16M /dev/zero | tr '\\0' '\\132' >/tmp/filled",
    );
    using store = new Memory(sizeBytes);
    store.bytes.fill(filling);
    // Direct: a server that looks at its pages itself gets them back by that.
    const options = { name: "numa0", size_bytes: sizeBytes, flags: abi.DBLOCK_DEVICE_DIRECT, store };
    await using disk = await TestDisk.start(options);
    for (
      const command of [
        `cmp <(dd if=${disk.path} bs=128k iflag=direct status=none) /tmp/filled`,
        `dd if=/tmp/filled of=${disk.path} bs=128k oflag=direct status=none`,
      ]
    ) {
      // The kernel goes through all memory before it begins anew.
      hidePages(2 * sizeBytes / PAGE_BYTES);
      await sh(command, { timeoutMs: 60_000 });
    }
    await disk.assertIdle();
    assertEquals([disk.info().error_count, disk.refusedCount], [0, 0]);
    assert(isFilled(store.bytes, filling));
    await sh("rm /tmp/filled");
  },
});
