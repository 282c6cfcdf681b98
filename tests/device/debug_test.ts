// The module's parameters have descriptions, and "debug", or dynamic debug where the kernel has it, makes it say what a device
// goes through, and not a word without them.
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { exists, kernelLinesSince, markKernelLog, requires, sh } from "./harness.ts";
import { MIB, resizeDevice } from "./server.ts";

const parameter = "/sys/module/dblock/parameters/debug";
const debugFs = "/sys/kernel/debug";
/** Each has its file in /proc, whether or not debugfs is mounted. */
const hasDynamicDebug = exists("/proc/dynamic_debug/control");

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

function lifeOf(): string[] {
  return [
    `queue 0 is served by process ${Deno.pid}`,
    "state created to starting",
    "state starting to live",
    `resized from ${16 * MIB} to ${8 * MIB} bytes`,
    "state live to removing",
    "state removing to gone",
  ];
}

Deno.test("debug=Y tells a device's life, debug=N nothing of it", async () => {
  assertEquals(await Deno.readTextFile(parameter), "N\n");
  assertEquals(await saidOf("quiet0"), []);
  await Deno.writeTextFile(parameter, "Y");
  try {
    assertEquals(await saidOf("chatty0"), lifeOf());
  } finally {
    await Deno.writeTextFile(parameter, "N");
  }
});

Deno.test({
  name: "dynamic debug tells the same, one message at a time or all",
  ignore: !requires("a kernel with dynamic debug", hasDynamicDebug),
  async fn() {
    await sh(`mountpoint -q ${debugFs} || mount -t debugfs none ${debugFs}`);
    // As kmod/README.md has it.
    const set = (query: string) => sh(`echo '${query}' >${debugFs}/dynamic_debug/control`);
    assertEquals(await saidOf("quiet1"), []);
    try {
      await set('module dblock format "state" +p');
      assertEquals(await saidOf("chatty1"), lifeOf().filter((line) => line.startsWith("state ")));
      await set("module dblock +p");
      assertEquals(await saidOf("chatty2"), lifeOf());
      // Both at once say it once.
      await Deno.writeTextFile(parameter, "Y");
      assertEquals(await saidOf("chatty3"), lifeOf());
    } finally {
      await Deno.writeTextFile(parameter, "N");
      await set("module dblock -p");
    }
    assertEquals(await saidOf("quiet2"), []);
  },
});
