// A server that dies takes its write cache along: fsync() fails then, for what was under way and once more, unless everything
// was flushed or the cache is not in the process. Hard case I3.
import { assertEquals } from "@std/assert";
import { type Backend, serve } from "../../src/mod.ts";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";

const { DBLOCK_DEVICE_WRITE_CACHE: CACHE, DBLOCK_DEVICE_CACHE_SURVIVES: SURVIVES } = abi;
const isFlush = ({ operation }: { operation: number }) => operation === abi.DBLOCK_OPERATION_FLUSH;
const written = (path: string, how = "") =>
  sh(`dd if=/dev/zero of=${path} bs=4k count=1 oflag=direct ${how} status=none`, { check: false });
const synced = async (path: string) => (await written(path, "conv=fsync")).status;

/** Kills the server while a FLUSH is with it; what fsync() says of that, and of each of the two that come after. */
async function fsyncsAround(name: string, flags: number): Promise<number[]> {
  const first = await TestDisk.start({ name, flags, on_death: abi.DBLOCK_ON_DEATH_HOLD });
  assertEquals((await written(first.path)).status, 0);
  first.rule = (request) => isFlush(request) ? "hold" : "serve";
  const syncing = synced(first.path);
  await first.untilHeld(1);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  await using second = await TestDisk.start({ name, existing: true });
  const statuses = [await syncing, await synced(second.path), await synced(second.path)];
  await second.assertIdle();
  return statuses;
}

Deno.test("after a death with a volatile cache the FLUSH under way fails, the next one too, and no other", async () => {
  assertEquals(await fsyncsAround("lost0", CACHE), [1, 1, 0]);
});

Deno.test("no FLUSH fails after a death where the cache survives it", async () => {
  assertEquals(await fsyncsAround("lost1", CACHE | SURVIVES), [0, 0, 0]);
});

Deno.test("no FLUSH fails after a death that took nothing along: all was flushed, or written with FUA", async () => {
  const options = { name: "lost2", flags: CACHE | abi.DBLOCK_DEVICE_FUA, on_death: abi.DBLOCK_ON_DEATH_HOLD };
  const first = await TestDisk.start(options);
  assertEquals(await synced(first.path), 0);
  assertEquals((await written(first.path, "oflag=dsync")).status, 0);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  await using second = await TestDisk.start({ name: "lost2", existing: true });
  assertEquals(await synced(second.path), 0);
});

Deno.test("policy fail: the first FLUSH after the recovery fails", async () => {
  const options = { name: "lost3", flags: CACHE, on_death: abi.DBLOCK_ON_DEATH_FAIL };
  const first = await TestDisk.start(options);
  assertEquals((await written(first.path)).status, 0);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_FAILED);
  await using second = await TestDisk.start({ name: "lost3", existing: true });
  assertEquals([await synced(second.path), await synced(second.path)], [1, 0]);
});

Deno.test("what the last queue answers after the first has lost its server is lost with it", async () => {
  const name = "lost8";
  const first = await TestDisk.start({ name, flags: CACHE, on_death: abi.DBLOCK_ON_DEATH_HOLD, queue_count: 2 });
  assertEquals(await synced(first.path), 0);
  first.rule = ({ operation }) => operation === abi.DBLOCK_OPERATION_WRITE ? "hold" : "serve";
  const writing = sh(`taskset -c 1 dd if=/dev/zero of=${first.path} bs=4k count=1 oflag=direct status=none`);
  await first.untilHeld(1);
  assertEquals(first.held[0]!.queue, 1);
  await first.pause();
  first.queues[0]![Symbol.dispose]();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  first.releaseAll();
  await writing;
  await first.abandon();
  await using second = await TestDisk.start({ name, existing: true });
  assertEquals([await synced(second.path), await synced(second.path)], [1, 0]);
});

/** A server that wrote, said FLUSHED or not, wrote again or not, and died; what the next two fsync() say. */
async function fsyncsAfterFlushed(name: string, writesAfter: boolean): Promise<number[]> {
  const first = await TestDisk.start({ name, flags: CACHE, on_death: abi.DBLOCK_ON_DEATH_HOLD });
  assertEquals((await written(first.path)).status, 0);
  await first.pause();
  assertEquals(first.queues[0]!.commit([], { flags: abi.DBLOCK_COMMIT_FLUSHED }).errno, 0);
  if (writesAfter) {
    first.serve();
    assertEquals((await written(first.path)).status, 0);
  }
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  await using second = await TestDisk.start({ name, existing: true });
  return [await synced(second.path), await synced(second.path)];
}

Deno.test("no FLUSH fails after a death whose server had said FLUSHED", async () => {
  assertEquals(await fsyncsAfterFlushed("lost4", false), [0, 0]);
});

Deno.test("FLUSHED covers nothing that is answered after it", async () => {
  assertEquals(await fsyncsAfterFlushed("lost5", true), [1, 0]);
});

/** Serves a disk with a cache, writes to it and leaves it; what fsync() says at the next server. */
async function fsyncAfterLeave(name: string, close: () => void | Promise<void>): Promise<number> {
  const store = new Uint8Array(4 * 2 ** 20);
  const backend: Backend = {
    sizeBytes: store.length,
    read: (buffer, at) => buffer.set(store.subarray(at, at + buffer.length)),
    write: (data, at) => store.set(data, at),
    flush: () => {},
  };
  const options = { name, onDeath: "hold", log: () => {} } as const;
  const first = await serve({ ...backend, close }, options);
  assertEquals((await written(first.path)).status, 0);
  await first.leave();
  await using second = await serve(backend, { ...options, existing: "recover" });
  return await synced(second.path);
}

Deno.test("no FLUSH fails after a server that left, unless its backend could not be closed", async () => {
  assertEquals(await fsyncAfterLeave("lost6", () => {}), 0);
  assertEquals(await fsyncAfterLeave("lost7", () => Promise.reject(new Error("no space"))), 1);
});
