// time limit: 240 s
// EXCHANGE looks for the next request for a while before it sleeps (module parameter poll_us): one reader is served
// right either way and without putting the server to sleep, an idle server uses no CPU, and neither SIGKILL nor force destroy
// has to wait for a poll to end.
import { assert, assertEquals } from "@std/assert";
import { fio, fioErrors } from "./fio.ts";
import { assertWithin, figure, kernelSlowness, requires, sh, waitFor } from "./harness.ts";
import { pacedMs } from "../vm/pace.ts";
import { Ramdisk } from "./ramdisk.ts";
import { destroyDevice, infoOf } from "./server.ts";

const parameter = "/sys/module/dblock/parameters/poll_us";
/** Of /proc/PID/stat, in clock ticks of 10 ms. */
const tickMs = 10;
/** The VM waits for its processors for so much of the time that polling may not pay: a guess. */
const contendedFrom = 1.3;

/** CPU time of a process so far, user and system, in ms. */
async function cpuMs(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}

/** How often each thread of a process went to sleep so far. */
async function sleepCounts(pid: number): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for await (const { name } of Deno.readDir(`/proc/${pid}/task`)) {
    try {
      const status = await Deno.readTextFile(`/proc/${pid}/task/${name}/status`);
      counts.set(name, Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)?.[1]));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended
    }
  }
  return counts;
}

Deno.test("one reader and writer at a time, with every length of the poll", async () => {
  await using disk = await Ramdisk.start({ name: "poll0", args: ["--size", "64M"] });
  const before = (await Deno.readTextFile(parameter)).trim();
  try {
    for (const pollUs of [0, 200, 10_000, 4_000_000_000]) {
      await Deno.writeTextFile(parameter, `${pollUs}`);
      const result = await fio(
        `--name=one --filename=${disk.path} --direct=1 --ioengine=psync --rw=randwrite --bs=4k --size=4M --verify=crc32c`,
      );
      assertEquals([result.status, ...fioErrors(result)], [0, 0], `poll_us=${pollUs}: ${result.stderr}`);
    }
    // No reader is left, and the longest poll is still set.
    let used = Infinity;
    // What the load has left to do (V8's memory, threads that end) may take a while.
    for (let round = 0; round < 5 && used >= 150; round++) {
      const started = await cpuMs(disk.pid);
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      used = await cpuMs(disk.pid) - started;
    }
    figure({ "CPU time of an idle server in 3 s": [used, "ms"] });
    assert(used < 150, `an idle server used ${used} ms of CPU in 3 s`);
  } finally {
    await Deno.writeTextFile(parameter, before);
  }
  for (const wrong of ["-1", "soon"]) {
    assertEquals((await sh(`echo ${wrong} > ${parameter}`, { check: false })).status, 1, wrong);
  }
});

Deno.test({
  name: "where polling is on, one reader's requests find the server awake",
  ignore: !requires(
    "a second CPU, and a reader as fast as the poll is long",
    navigator.hardwareConcurrency > 1 && kernelSlowness === 1,
  ),
  async fn() {
    const before = (await Deno.readTextFile(parameter)).trim();
    await using disk = await Ramdisk.start({ name: "poll2", args: ["--size", "64M"] });
    // The reader's CPU is not the server's: polling gives way to any other task.
    await sh(`taskset --all-tasks --cpu-list --pid 0 ${disk.pid}`);
    const requests = 5_000;
    const sleepsPerRequest = async (pollUs: number): Promise<number> => {
      await Deno.writeTextFile(parameter, `${pollUs}`);
      const before = await sleepCounts(disk.pid);
      await sh(`taskset --cpu-list 1 dd if=${disk.path} of=/dev/null bs=4k count=${requests} iflag=direct status=none`);
      const after = await sleepCounts(disk.pid);
      return [...after].reduce((sum, [tid, count]) => sum + count - (before.get(tid) ?? 0), 0) / requests;
    };
    try {
      const asleep = await sleepsPerRequest(0);
      assert(asleep > 0.8, `without polling the server slept ${asleep} times per request`);
      // On a host that others share polling may not pay, and then it is right that the server sleeps: only rounds for which
      // the VM had its processors count.
      let [awake, isJudged] = [Infinity, false];
      for (let round = 0; round < 5 && awake >= 0.5; round++) {
        const started = performance.now();
        awake = Math.min(awake, await sleepsPerRequest(1_000));
        const tookMs = performance.now() - started;
        isJudged ||= tookMs / pacedMs(tookMs) < contendedFrom;
      }
      figure({ "sleeps without polling": [asleep, "/request"], "with polling": [awake, "/request"] });
      assert(awake < 0.5 || !isJudged, `with polling the server slept ${awake} times per request`);
    } finally {
      await Deno.writeTextFile(parameter, before);
    }
  },
});

Deno.test("a polling server is killed, and its device destroyed by force, at once", async () => {
  const before = (await Deno.readTextFile(parameter)).trim();
  await Deno.writeTextFile(parameter, "10000");
  try {
    for (const ending of ["kill", "destroy"] as const) {
      await using disk = await Ramdisk.start({ name: "poll1", args: ["--size", "64M"] });
      const reading = sh(`while dd if=${disk.path} of=/dev/null bs=4k count=500 iflag=direct; do :; done`, {
        check: false,
      });
      await waitFor("a reader is at it", () => infoOf("poll1")!.requests[0]! > 200);
      const started = performance.now();
      if (ending === "kill") disk.child.kill("SIGKILL");
      else assertEquals(await destroyDevice("poll1"), 0);
      await reading;
      await waitFor("the device is gone", () => infoOf("poll1") === undefined);
      assertWithin(5_000, performance.now() - started, `gone after ${ending}`);
    }
  } finally {
    await Deno.writeTextFile(parameter, before);
  }
});
