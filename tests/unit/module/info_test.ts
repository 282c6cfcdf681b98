// SPDX-License-Identifier: MIT
// What list(), info() and moduleVersion() make of the module's structures, on a fake kernel.
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  DBLOCK_CONTROL_PATH,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_OPERATION_WRITE as WRITE,
  DBLOCK_STATE_HELD,
} from "../../../src/module/abi.ts";
import { Control } from "../../../src/module/control.ts";
import { infoOn, inWords, listOn, moduleVersionOn } from "../../../src/module/info.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { ON_DEATH, STATE, wordOf } from "../../../src/module/words.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const params = {
  size_bytes: 8192,
  logical_block_bytes: 512,
  max_io_bytes: 4096,
  queue_count: 2,
  queue_depth: 3,
  timeout_ms: 1000,
  on_death: ON_DEATH.hold,
};

async function make(...names: string[]): Promise<FakeKernel> {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  for (const name of names) await control.create({ ...params, name });
  return kernel;
}

Deno.test("info() and list() tell of devices in words", async () => {
  const kernel = await make("a", "b");
  kernel.devices.get("b")!.state = DBLOCK_STATE_HELD;
  const a = await infoOn(kernel, "a");
  assertEquals([a.name, a.path, a.state, a.onDeath, a.sizeBytes], ["a", "/dev/a", "created", "hold", 8192]);
  assertEquals([a.queues, a.server, a.diskNumber], [{ count: 2, depth: 3, servedCount: 0 }, undefined, undefined]);
  assertEquals((await listOn(kernel)).map((one) => [one.name, one.state]), [["a", "created"], ["b", "held"]]);
  assertEquals(kernel.files.size, 0);
});

Deno.test("info() counts requests under their names, and tells who serves", async () => {
  const kernel = await make("a");
  using control = await Control.open("Cannot test", kernel);
  const raw = await control.info("a");
  const counted = { ...raw, server_pid: 7, attached_count: 2, disk_major: 259, disk_minor: 0 };
  counted.requests = raw.requests.map((_, operation) => operation === READ ? 5 : operation === WRITE ? 6 : 0);
  counted.bytes = raw.bytes.map((_, operation) => operation === WRITE ? 6144 : 0);
  const { requests, server, diskNumber } = inWords(counted);
  assertEquals(requests, {
    read: { count: 5, bytes: 0 },
    write: { count: 6, bytes: 6144 },
    flush: { count: 0, bytes: 0 },
    discard: { count: 0, bytes: 0 },
    writeZeroes: { count: 0, bytes: 0 },
  });
  assertEquals([server, diskNumber], [{ pid: 7 }, { major: 259, minor: 0 }]);
});

Deno.test("moduleVersion() tells what this machine can have", async () => {
  assertEquals(await moduleVersionOn(new FakeKernel()), { abi: 2, queueCountMax: 8, deviceCountMax: 1024 });
});

Deno.test("info(), list() and moduleVersion() say what is wrong", async () => {
  const kernel = new FakeKernel();
  await assertRejects(() => infoOn(kernel, "a"), DblockError, "Cannot ask about /dev/a: there is no such device");
  kernel.refusedPaths.set(DBLOCK_CONTROL_PATH, ERRNO.ENOENT);
  for (const ask of [() => infoOn(kernel, "a"), () => listOn(kernel), () => moduleVersionOn(kernel)]) {
    await assertRejects(ask, DblockError, "the dblock module is not loaded");
  }
});

Deno.test("wordOf() knows every number of its table, and no other", () => {
  for (const table of [STATE, ON_DEATH]) {
    const words: Readonly<Record<string, number>> = table;
    for (const [word, number] of Object.entries(words)) assertEquals(wordOf(words, number), word);
    assertThrows(() => wordOf(words, 99), RangeError, "the module says 99");
  }
});
