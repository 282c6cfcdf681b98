// Swap on the disk of dblock@NAME, with the drop-in that the manual names for it: the server's threads are real-time ones, nothing
// of it is swapped out, and nobody kills it; programs whose memory is on the disk find it there again.
// machine: debian
// memory: 800 MiB
// time limit: 300 s
import { assert, assertEquals, assertMatch } from "@std/assert";
import { configure, installUnit, isDebian, journalOf, override, shown, stateOf } from "./debian.ts";
import { figure, sh, waitFor } from "./harness.ts";
import { runHogs } from "./hogs.ts";
import { infoOf } from "./server.ts";

const ignore = !isDebian();
const name = "swap0";
/** Requests that a healthy server never leaves waiting for so long: one that waits for memory is seen, and fails the test. */
const timeoutSeconds = 10;

/** What the kernel says of a process, such as "VmSwap". */
function status(pid: string, field: string): string {
  return new RegExp(`^${field}:\\s+(.*)$`, "m").exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]!;
}

Deno.test({
  name: "swap on the disk of dblock@NAME, while memory is short",
  ignore,
  async fn() {
    await using _installed = await installUnit();
    await override(name, "CPUSchedulingPolicy=rr", "OOMScoreAdjust=-1000");
    await configure(name, `memory:320MiB --timeout ${timeoutSeconds}`);
    await sh(`systemctl start dblock@${name}`, { timeoutMs: 60_000 });
    const pid = await shown(name, "MainPID");
    const classes = (await sh(`ps -L -o cls= -p ${pid}`)).stdout.trim().split(/\s+/);
    assertEquals(
      classes,
      classes.map(() => "RR"),
      "the unit forbids its threads to become real-time ones, not to be such",
    );
    assertEquals(Deno.readTextFileSync(`/proc/${pid}/oom_score_adj`), "-1000\n");

    // Every block is there before it is needed.
    assertMatch(
      (await sh(`dd if=/dev/zero of=/dev/${name} bs=1M oflag=direct 2>&1`, { check: false })).stdout,
      /No space left/,
    );
    await sh(`mkswap /dev/${name} && swapon /dev/${name}`);
    // swapoff brings everything back: it is looked at before.
    const swapped = new Set<string>();
    const looking = setInterval(() => swapped.add(status(pid, "VmSwap")), 200);
    let hogged;
    try {
      hogged = await runHogs(250, 200_000);
    } catch (error) {
      // At once: if the swap cannot be taken off, the machine ends with the disk.
      console.log(error, await journalOf(`dblock@${name}`));
      throw error;
    } finally {
      clearInterval(looking);
      await sh(`swapoff /dev/${name}`, { timeoutMs: 60_000 });
    }
    const { wrong, outMib, inMib } = hogged;
    assertEquals(wrong, wrong.map(() => "0"));
    assert(outMib > 30 && inMib > 30, `${outMib} MiB were swapped out, ${inMib} MiB in`);
    assertEquals([await shown(name, "MainPID"), await shown(name, "NRestarts")], [pid, "0"]);
    assertEquals([...swapped], ["0 kB"]);
    const { timeout_count, error_count } = infoOf(name)!;
    assertEquals([timeout_count, error_count], [0, 0]);
    figure({ "memory that was swapped out to dblock@NAME": [outMib, "MiB"], "and came back": [inMib, "MiB"] });
    await sh(`systemctl stop dblock@${name}`);
    await waitFor("the service has ended", async () => await stateOf(`dblock@${name}`) === "inactive");
  },
});
