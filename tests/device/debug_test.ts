// The module's parameters have descriptions, and "debug" makes it say what a device goes through, and not a word without it.
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { kernelLinesSince, markKernelLog, sh } from "./harness.ts";
import { MIB, resizeDevice } from "./server.ts";

const parameter = "/sys/module/dblock/parameters/debug";

/** What the kernel says of a disk that is created, resized and destroyed. */
async function saidOf(name: string): Promise<string[]> {
  const mark = markKernelLog();
  {
    await using disk = await TestDisk.start({ name });
    assertEquals(resizeDevice(disk.queues[0]!.fd, 8 * MIB), 0);
  }
  return kernelLinesSince(mark).filter((line) => line.startsWith(`dblock: ${name}: `))
    .map((line) => line.replace(`dblock: ${name}: `, ""));
}

Deno.test("every parameter has a description", async () => {
  const { stdout } = await sh("modinfo --field parm kmod/dblock.ko");
  const described = stdout.trim().split("\n").map((line) => line.split(":")[0]!).sort();
  const present = [...Deno.readDirSync("/sys/module/dblock/parameters")].map((entry) => entry.name).sort();
  assertEquals(described, present);
  for (const line of stdout.trim().split("\n")) assert(/^\w+:\S.{20,}\(\w+\)$/.test(line), line);
});

Deno.test("debug=Y tells a device's life, debug=N nothing of it", async () => {
  assertEquals(await Deno.readTextFile(parameter), "N\n");
  assertEquals(await saidOf("quiet0"), []);
  await Deno.writeTextFile(parameter, "Y");
  try {
    assertEquals(await saidOf("chatty0"), [
      `queue 0 is served by process ${Deno.pid}`,
      "state created to starting",
      "state starting to live",
      `resized from ${16 * MIB} to ${8 * MIB} bytes`,
      "state live to removing",
      "state removing to gone",
    ]);
  } finally {
    await Deno.writeTextFile(parameter, "N");
  }
});
