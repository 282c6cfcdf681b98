// time limit: 240 s
// A thousand devices at once: each is ready as fast as the first, each has its own data, and all of them go.
import { assert, assertEquals } from "@std/assert";
import { DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { DiskSet } from "./disk_set.ts";
import { assertWithin, exists, figure, sh, waitFor } from "./harness.ts";

const count = 1_000;
/** For CREATE, ATTACH, START and the partition scan together; ten times that is no accident of the machine any more. */
const readyGoalMs = 20;
const atOnce = 50;
const nameOf = (index: number) => `many${index}`;

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

Deno.test("1,000 devices are created, listed, read and destroyed", async () => {
  using set = new DiskSet(count);
  for (let index = 0; index < count; index++) set.add(nameOf(index));
  const readyMs = set.disks.map((disk) => disk.readyMs);
  const [all, first, last] = [readyMs, readyMs.slice(0, 100), readyMs.slice(-100)].map(median) as [
    number,
    number,
    number,
  ];
  console.log(`ready after ${first.toFixed(1)} ms (median of the first 100), ${last.toFixed(1)} ms (of the last 100)`);
  figure({ "most devices at once": count, "longest median time from CREATE to ready": [all, "ms"] });
  assertWithin(10 * readyGoalMs, all, "half of the devices were ready");
  assert(last <= 3 * first + readyGoalMs, `the last 100 took ${last} ms each, the first 100 ${first} ms`);

  const listed = set.control.list(2 * count);
  assertEquals(listed.length, count);
  assertEquals(new Set(listed.map((info) => info.name)).size, count);
  assert(listed.every((info) => info.state === DBLOCK_STATE_LIVE && info.attached_count === 1));

  // Every 37th is read by another process, all of them served by this thread.
  const readers = Array.from({ length: Math.ceil(count / 37) }, (_, i) => i * 37);
  const { stdout } = await set.serveWhile(sh(
    readers.map((index) => `head -c 4 /dev/${nameOf(index)} | od -An -t u4`).join("\n"),
  ));
  assertEquals(stdout.trim().split(/\s+/).map(Number), readers);

  const destroyed = performance.now();
  while (set.disks.length > count / 2) await set.destroyLast(atOnce);
  const destroyMs = (performance.now() - destroyed) / (count / 2);
  assertEquals(set.control.list(2 * count).length, count / 2);

  // The death of the server of all others.
  const abandoned = performance.now();
  set.abandonLast(count / 2);
  await waitFor("the devices without a server go", () => set.control.list().length === 0, 60_000);
  const goneMs = (performance.now() - abandoned) / (count / 2);
  console.log(
    `each destroyed in ${destroyMs.toFixed(1)} ms, ${atOnce} at once; each gone ${
      goneMs.toFixed(1)
    } ms after its server`,
  );
  assert(!exists(`/dev/${nameOf(0)}`) && !exists(`/dev/${nameOf(0)}-ctl`));
});
