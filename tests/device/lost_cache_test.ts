// A server that dies takes its write cache along: fsync() fails then, for what was under way and once more, unless everything
// was flushed or the cache is not in the process. Hard case I3.
import { assertEquals } from "@std/assert";
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
