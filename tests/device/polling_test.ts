// EXCHANGE looks for the next request for a while before it sleeps (module parameter poll_us): one reader is served
// right either way, an idle server uses no CPU, and neither SIGKILL nor force destroy has to wait for a poll to end.
import { assert, assertEquals } from "@std/assert";
import { fio, fioErrors } from "./fio.ts";
import { assertWithin, figure, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { destroyDevice, infoOf } from "./server.ts";

const parameter = "/sys/module/dblock/parameters/poll_us";
/** Of /proc/PID/stat, in clock ticks of 10 ms. */
const tickMs = 10;

/** CPU time of a process so far, user and system, in ms. */
async function cpuMs(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
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
    const started = await cpuMs(disk.pid);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const used = await cpuMs(disk.pid) - started;
    figure({ "CPU time of an idle server in 3 s": [used, "ms"] });
    assert(used < 150, `an idle server used ${used} ms of CPU in 3 s`);
  } finally {
    await Deno.writeTextFile(parameter, before);
  }
  for (const wrong of ["-1", "soon"]) {
    assertEquals((await sh(`echo ${wrong} > ${parameter}`, { check: false })).status, 1, wrong);
  }
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
