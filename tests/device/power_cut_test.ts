// A power cut (WriteCache) under an ext4 that is being written to: after it the file system mounts, fsck has nothing to say,
// and every file whose fsync() had returned is there. Mounted without barriers, files are lost: the cut is a real one.
import { assert, assertEquals } from "@std/assert";
import { type Backend, serve, WriteCache } from "../../src/mod.ts";
import { Random } from "../sim/random.ts";
import { figure, scaled, sh, waitFor } from "./harness.ts";

const sizeBytes = 64 * 2 ** 20;
/** Files that are written before the power may go. */
const filesMin = 15;
/** Writes files of many sizes for ever; prints the number and the sum of each whose fsync() has returned. */
const writer = `n=0; while :; do
    n=$((n + 1)) file=/mnt/file$n
    head -c $((n % 9 * 3000 + 100)) /dev/urandom >$file && sum=$(md5sum <$file) && sync $file || exit 0
    echo $n $sum
  done`;

/** Writes to the disk for ever, with no fsync(): so there is always something to lose. */
const careless = "while dd if=/data/bin/perl of=/mnt/loose bs=16k count=64 oflag=direct conv=notrunc; do :; done";

function memoryDisk(): Backend {
  const store = new Uint8Array(sizeBytes);
  return {
    sizeBytes,
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write: (buffer, offset) => store.set(buffer, offset),
    flush: () => {},
  };
}

/** Cuts the power of a disk that is written to; returns the files that were acknowledged and are not there afterwards. */
async function cutPower(mountOptions: string, survival: number, random: Random): Promise<string[]> {
  const disk = memoryDisk();
  const cache = new WriteCache(disk);
  const first = await serve(cache, { name: "power0" });
  await sh(`mkfs.ext4 -q ${first.path} && mount -o ${mountOptions} ${first.path} /mnt`);
  const writing = sh(writer, { check: false, timeoutMs: 60_000 });
  const spoiling = sh(careless, { check: false, timeoutMs: 60_000 });
  // Not by this thread: it serves the disk that the file is on.
  await sh(`until [ -e /mnt/file${filesMin} ]; do sleep 0.1; done`, { timeoutMs: 60_000 });
  await new Promise((resolve) => setTimeout(resolve, random.below(300)));
  await waitFor("there is something to lose", () => cache.dirtyBytes > 0);
  const { lost, written } = await cache.powerOff({ survival, random: () => random.next() });
  const acknowledged = (await writing).stdout.trimEnd().split("\n");
  await spoiling;
  await sh("umount /mnt", { check: false });
  await first.close({ force: true });
  console.log(`${acknowledged.length} files acknowledged; ${lost} blocks lost, ${written} written`);
  assert(lost + written > 0, "the cache was empty");
  assert(acknowledged.length >= filesMin - 1, `only ${acknowledged.length} files were written`);

  await using second = await serve(disk, { name: "power0" });
  await sh(`mount ${second.path} /mnt`);
  const found = (await sh(`cd /mnt && for file in file*; do echo \${file#file} $(md5sum <$file); done`)).stdout.split(
    "\n",
  );
  await sh("umount /mnt");
  await sh(`e2fsck -fn ${second.path}`);
  return acknowledged.filter((line) => !found.includes(line));
}

for (const survival of [0, 0.5, 0.9]) {
  Deno.test(`what fsync() promised is there after a power cut that ${survival * 100}% of the blocks survive`, async () => {
    const random = new Random(crypto.getRandomValues(new Uint32Array(1))[0]!);
    for (let round = 0; round < scaled(1); round++) {
      const lost = await cutPower("barrier=1", survival, random);
      figure({ "power cuts": 1, "files lost that fsync() promised": lost.length });
      assertEquals(lost, []);
    }
  });
}

Deno.test("a file system that asks for no flush loses what fsync() promised", async () => {
  const lost = await cutPower("barrier=0", 0, new Random(0));
  assert(lost.length > 0, "nothing is lost, so the power was never cut");
});
