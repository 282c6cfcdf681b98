// A queue belongs to the process that attached it: others get EPERM, and only CAP_SYS_ADMIN makes, starts and removes.
// Hard cases C12, G1, G3.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { call, createDevice, destroyDevice, params, Queue } from "./server.ts";

const script = "deno run -A --no-check --import-map=src/build/standins/import_map.json tests/device/owner_main.ts";

/** What another process gets for each call on descriptors that it inherits from a shell. */
async function outcomes(name: string, prefix = ""): Promise<Record<string, number>> {
  const { stdout } = await sh(`exec 8<>/dev/dblockctl 9<>/dev/${name}-ctl; exec ${prefix} ${script} ${name}`);
  return JSON.parse(stdout) as Record<string, number>;
}

Deno.test("a process without CAP_SYS_ADMIN can do nothing, even with open files that it was given", async () => {
  const created = createDevice(params("owner0"));
  using queue = new Queue(created, 0);
  assertEquals(await outcomes("owner0", "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin"), {
    VERSION: 0,
    CREATE: 1,
    DESTROY: 1,
    LIST: 1,
    "INFO by name": 1,
    ATTACH: 1,
    START: 1,
    RESIZE: 1,
    INFO: 1,
    EXCHANGE: 107,
    COMMIT: 107,
  });
  assertEquals(queue.attach(), 0);
  assertEquals(await destroyDevice("owner0"), 0);
});

Deno.test("another process cannot answer for a queue, nor take it, with a file of its own", async () => {
  await using disk = await TestDisk.start({ name: "owner1" });
  const { ATTACH, EXCHANGE, COMMIT, START, INFO } = await outcomes("owner1");
  assertEquals({ ATTACH, EXCHANGE, COMMIT, START, INFO }, {
    ATTACH: 16,
    EXCHANGE: 107,
    COMMIT: 107,
    START: 114,
    INFO: 0,
  });
  await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
});

Deno.test("another process that inherited the very file gets EPERM", async () => {
  const created = createDevice(params("owner2"));
  using queue = new Queue(created, 0, { inherited: true });
  assertEquals(queue.attach(), 0);
  const child = new Deno.Command("bash", {
    args: ["-c", `exec 8<>/dev/dblockctl 9<&${queue.fd}; exec ${script} owner2`],
    stdout: "piped",
  });
  const { stdout } = await child.output();
  const { ATTACH, EXCHANGE, COMMIT } = JSON.parse(new TextDecoder().decode(stdout)) as Record<string, number>;
  assertEquals({ ATTACH, EXCHANGE, COMMIT }, { ATTACH: 16, EXCHANGE: 1, COMMIT: 1 });
  // It has come and gone, and this process is the server still: of a disk that is starting by now.
  assertEquals(queue.exchange().result >= 0, true);
  assertEquals(await destroyDevice("owner2"), 0);
});

Deno.test("the nodes are for root alone", async () => {
  await using disk = await TestDisk.start({ name: "owner3" });
  const { stdout } = await sh(`stat --format '%a %u:%g' /dev/dblockctl ${disk.path}-ctl`);
  assertEquals(stdout, "600 0:0\n600 0:0\n");
  const other = `setpriv --reuid=65534 --clear-groups dd if=${disk.path} of=/dev/null count=1`;
  assertEquals((await sh(other, { check: false })).status, 1);
});

Deno.test("a file acts on its own device, whatever name is in its INFO", async () => {
  await using one = await TestDisk.start({ name: "owner4", size_bytes: 2 ** 20 });
  await using two = await TestDisk.start({ name: "owner5", size_bytes: 2 ** 21 });
  const { out } = call(one.queues[0]!.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name: two.name });
  assertEquals([out.name, out.size_bytes], [one.name, 2 ** 20]);
});
