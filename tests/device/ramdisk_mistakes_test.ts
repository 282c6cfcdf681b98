// Each mistake with dblock-ramdisk gets one clear line on stderr and leaves nothing behind: exit status 2 for what cannot be
// meant, 1 for what cannot be done.
// How options are parsed in detail is the unit tests' business.
// time limit: 240 s
import { assertEquals, assertMatch } from "@std/assert";
import { DBLOCK_STATE_HELD } from "../../src/module/abi.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";
import { infoOf, MIB } from "./server.ts";

/** One line, which names --help if the options are wrong. */
async function refused(args: string, says: RegExp, options: { prefix?: string; usage?: boolean } = {}): Promise<void> {
  const { status, stdout, stderr } = await runRamdisk(args, options);
  assertEquals({ args, status, stdout }, { args, status: options.usage ? 2 : 1, stdout: "" });
  assertMatch(stderr, says, args);
  const lines = stderr.trimEnd().split("\n");
  assertEquals([lines.length, stderr.includes("--help")], [1, options.usage ?? false], `${args}: ${stderr}`);
  assertMatch(lines[0]!, /^dblock-ramdisk: /);
}

Deno.test("dblock-ramdisk refuses options that cannot be meant", async () => {
  const cases: [string, RegExp][] = [
    ["--bogus", /there is no option --bogus/],
    ["--size", /--size needs a value/],
    ["--queues many", /"many" is not a number of queues/],
    ["--size 4097", /size 4097 is 4097 bytes, not a multiple of 4096/],
    ["--name a/b", /"a\/b" cannot be a disk's name/],
  ];
  for (const [args, says] of cases) await refused(args, says, { usage: true });
  assertEquals(exists("/dev/dblockramdisk"), false);
});

Deno.test("dblock-ramdisk refuses what the machine does not allow", async () => {
  await refused("--size 4PiB", /Cannot map|Cannot create/);
  await refused("", /is for root only \(try again with sudo\)/, { prefix: "setpriv --reuid=65534 --clear-groups" });
  await refused("-d", /is for root only/, { prefix: "setpriv --reuid=65534 --clear-groups" });
  await refused("--name tty", /Cannot create \/dev\/tty: the name is in use/);
  await refused("-d --name absent", /Cannot destroy \/dev\/absent: there is no such device \(there is none at all\)/);
});

Deno.test("dblock-ramdisk refuses a name that is taken, and says what there is", async () => {
  await using disk = await Ramdisk.start({ name: "taken", args: ["--size", "16M"] });
  await refused("--name taken", /Cannot create \/dev\/taken: the name is in use \(.*-d --name taken/);
  await refused("-d --name other", /there is no such device \(there is: taken; name it with --name\)/);
  assertEquals(disk.ended, undefined);
  assertEquals((await runRamdisk("-d --name taken")).status, 0);
  await disk.end();
});

Deno.test("dblock-ramdisk without the module says who knows which command loads it", async () => {
  await sh("rmmod dblock");
  try {
    await refused("", /module is not loaded.*dblock doctor/);
    await refused("-d", /module is not loaded.*dblock doctor/);
  } finally {
    await sh("insmod kmod/dblock.ko");
  }
});

Deno.test("dblock-ramdisk --help and --version need neither root nor the module", async () => {
  const prefix = "setpriv --reuid=65534 --clear-groups";
  const help = await runRamdisk("--help", { prefix });
  assertEquals([help.status, help.stderr], [0, ""]);
  assertMatch(help.stdout, /--destroy/);
  assertMatch((await runRamdisk("--version", { prefix })).stdout, /^dblock-ramdisk \d+\.\d+\.\d+ \(ABI 2\)\n$/);
});

Deno.test("a store that grew, and its disk did not: the same command says how to go on", async () => {
  const store = "/dev/shm/half-grown";
  const args = ["--store", store, "--on-death", "hold"];
  const first = await Ramdisk.start({ name: "grown0", args: [...args, "--size", "64M"] });
  first.child.kill("SIGKILL");
  await first.end();
  await waitFor("the disk is held", () => infoOf("grown0")?.state === DBLOCK_STATE_HELD);
  await sh(`truncate -s 128M ${store}`);
  const again = await runRamdisk(`--name grown0 ${args.join(" ")}`);
  assertEquals(again.status, 1);
  assertMatch(again.stderr, /half-grown has 134217728 bytes, and the disk 67108864 .*add --grow --size 134217728/);
  await using disk = await Ramdisk.start({ name: "grown0", args: [...args, "--grow", "--size", "134217728"] });
  assertEquals(infoOf("grown0")!.size_bytes, 128 * MIB);
  assertEquals((await runRamdisk("-d --name grown0")).status, 0);
  await disk.end();
  await sh(`rm ${store}`);
});
