// A device's id: never 0, never the same for two devices, also of the same name; and DESTROY, INFO, RESIZE, ATTACH and START
// refuse another one with ESTALE and do nothing. A ring's header says whose it is.
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { call, callAsync, Control, createDevice, destroyDevice, MIB, params, Queue } from "./server.ts";

const { ESTALE } = ERRNO;

Deno.test("no two devices have the same id, and none has 0", async () => {
  using control = new Control();
  const ids = new Set<number>();
  const names = ["ident0", "ident1", "ident0", "ident0"];
  for (const name of names) {
    const { id } = createDevice(params(name));
    assert(Number.isSafeInteger(id) && id > 0, `an id of ${id}`);
    assertEquals(control.info(name)?.id, id);
    ids.add(id);
    if (name === "ident0") assertEquals(await destroyDevice(name), 0);
  }
  assertEquals(control.list().map(({ id }) => ids.has(id)), [true]);
  assertEquals(await destroyDevice("ident1"), 0);
  assertEquals(ids.size, names.length);
});

Deno.test("DESTROY and INFO by name refuse the id of another device", async () => {
  using control = new Control();
  const before = createDevice(params("ident2"));
  assertEquals(await destroyDevice("ident2"), 0);
  const { id } = createDevice(params("ident2"));
  const info = (id: number) => call(control.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name: "ident2", id }).errno;
  const destroy = async (id: number, flags = 0) =>
    (await callAsync(control.fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, { name: "ident2", id, flags })).errno;
  assertNotEquals(before.id, id);
  assertEquals([info(before.id), info(id + 1), info(id), info(0)], [ESTALE, ESTALE, 0, 0]);
  assertEquals(await destroy(before.id), ESTALE);
  assertEquals(await destroy(before.id, abi.DBLOCK_DESTROY_FORCE), ESTALE);
  assertEquals(control.info("ident2")?.id, id);
  assertEquals(await destroy(id), 0);
});

Deno.test("ATTACH, START, RESIZE and INFO of a server's file refuse the id of another device", async () => {
  const created = createDevice(params("ident3"));
  using queue = new Queue(created, 0);
  const wrong = created.id + 1;
  assertEquals(queue.attach({ id: wrong }), ESTALE);
  assertEquals(queue.attach({ id: created.id }), 0);
  const start = { flags: abi.DBLOCK_START_NO_WAIT };
  assertEquals(call(queue.fd, abi.DBLOCK_IOC_START, abi.dblock_start, { ...start, id: wrong }).errno, ESTALE);
  assertEquals(call(queue.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { id: wrong }).errno, ESTALE);
  const { errno, out } = call(queue.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { id: created.id });
  assertEquals([errno, out.id, out.state], [0, created.id, abi.DBLOCK_STATE_CREATED]);
  assertEquals(await destroyDevice("ident3"), 0);

  await using disk = await TestDisk.start({ name: "ident4" });
  const { fd } = disk.queues[0]!;
  const { id } = disk.info();
  const resize = (id: number, size_bytes: number) =>
    call(fd, abi.DBLOCK_IOC_RESIZE, abi.dblock_resize, { id, size_bytes }).errno;
  assertEquals([resize(created.id, 8 * MIB), disk.info().size_bytes], [ESTALE, 16 * MIB]);
  assertEquals([resize(id, 8 * MIB), disk.info().size_bytes], [0, 8 * MIB]);
});

Deno.test("a ring's header says which queue of which device it is", async () => {
  await using disk = await TestDisk.start({ name: "ident5", queue_count: 2 });
  const { id } = disk.info();
  const headers = disk.queues.map((queue) => queue.exchange().header);
  assertEquals(headers.map((header) => [header.queue, header.id]), [[0, id], [1, id]]);
});
