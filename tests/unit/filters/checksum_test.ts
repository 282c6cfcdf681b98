// SPDX-License-Identifier: MIT
/** What `Checksum` finds, what it does not take for a flipped bit, and what its files outlive. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { Checksum } from "../../../src/filters/checksum.ts";

const BLOCK = 4096;
const plain = requestOptions();
const filled = (value: number, length = BLOCK) => new Uint8Array(length).fill(value);

/** A disk of 64 KiB, the files of its sums, and the mismatches that were told. */
async function withSums(
  run: (setup: {
    readonly path: string;
    readonly told: string[];
    readonly open: (disk: PlayedDisk) => Promise<Checksum>;
  }) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "dblock-checksum-" });
  const path = `${folder}/sums`;
  const told: string[] = [];
  const onMismatch = (offsetBytes: number, lengthBytes: number) => void told.push(`${offsetBytes}+${lengthBytes}`);
  try {
    await run({ path, told, open: (disk) => Checksum.open(disk, { path, onMismatch }) });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const newDisk = () => new PlayedDisk({ sizeBytes: 65536 });

async function failure(work: () => void | number | Promise<void | number>): Promise<string> {
  return (await assertRejects(async () => await work(), DblockError)).code;
}

Deno.test("Checksum: a bit that flips is found by the disk's next server, too, and only where it is", async () => {
  await withSums(async ({ told, open }) => {
    const disk = newDisk();
    const first = await open(disk);
    for (let block = 0; block < 16; block++) await first.write(filled(block), block * BLOCK, plain);
    await first.close("left");
    const next = disk.reopened();
    next.content[5 * BLOCK + 99]! ^= 0x10;
    const checked = await open(next);
    for (let block = 0; block < 16; block++) {
      const read = () => checked.read(filled(0), block * BLOCK, plain);
      if (block === 5) assertEquals(await failure(read), "EILSEQ");
      else await read();
    }
    assertEquals([told, checked.mismatches], [[`${5 * BLOCK}+${BLOCK}`], 1]);
    // A part of the block cannot be written: its other parts are not known. All of it can.
    assertEquals(await failure(() => checked.write(filled(1, 512), 5 * BLOCK, plain)), "EILSEQ");
    await checked.write(filled(6), 5 * BLOCK, plain);
    await checked.read(filled(0), 5 * BLOCK, plain);
    await checked.close("destroyed");
  });
});

Deno.test("Checksum: a lost write is found: what is read is not what was written last", async () => {
  await withSums(async ({ open }) => {
    const disk = newDisk();
    const checked = await open(disk);
    await checked.write(filled(1), 0, plain);
    const before = disk.content.slice();
    await checked.write(filled(2), 0, plain);
    disk.content = before;
    assertEquals(await failure(() => checked.read(filled(0, 512), 1024, plain)), "EILSEQ");
    await checked.close("destroyed");
  });
});

Deno.test("Checksum: what a power cut does to writes that were not flushed is no flipped bit", async () => {
  for (const survival of [0, 1]) {
    await withSums(async ({ told, open }) => {
      const disk = newDisk();
      const first = await open(disk);
      await first.write(filled(1), 0, plain);
      await first.flush!(plain);
      await first.write(filled(2), 0, plain);
      await first.write(filled(3, 512), 9 * BLOCK, plain);
      const next = disk.crashed(() => survival);
      // Its files are closed, as the kernel closes those of a dead process; the disk takes nothing any more.
      await assertRejects(async () => await first.close("left"));
      const checked = await open(next);
      const buffer = filled(0);
      await checked.read(buffer, 0, plain);
      assert(buffer[0] === 1 || buffer[0] === 2);
      await checked.read(buffer, 9 * BLOCK, plain);
      assertEquals(told, []);
      await checked.close("destroyed");
    });
  }
});

Deno.test("Checksum: zeroes have sums, discarded blocks have none", async () => {
  await withSums(async ({ open }) => {
    const disk = newDisk();
    const checked = await open(disk);
    await checked.write(filled(1, 4 * BLOCK), 0, plain);
    await checked.writeZeroes!(BLOCK, BLOCK + 512, plain);
    await checked.discard!(3 * BLOCK, BLOCK, plain);
    await checked.read(filled(0, 4 * BLOCK), 0, plain);
    disk.content[BLOCK] = 1;
    assertEquals(await failure(() => checked.read(filled(0), BLOCK, plain)), "EILSEQ");
    await checked.close("destroyed");
  });
});

Deno.test("Checksum: a write that failed leaves no sum behind that could be wrong", async () => {
  await withSums(async ({ told, open }) => {
    const disk = newDisk();
    const checked = await open(disk);
    await checked.write(filled(1), 0, plain);
    disk.failure = { operation: "write", errno: "short" };
    await checked.write(filled(2), 0, plain);
    disk.failure = undefined;
    await checked.read(filled(0), 0, plain);
    assertEquals(told, []);
    await checked.close("destroyed");
  });
});

Deno.test("Checksum: files of another disk, of another kind, or in a folder that is not there are one line", async () => {
  await withSums(async ({ path, open }) => {
    await (await open(newDisk())).close("left");
    const other = await assertRejects(() => open(new PlayedDisk({ sizeBytes: 131072 })), DblockError);
    assertEquals(
      other.message,
      `Cannot use ${path} for checksums: it belongs to a disk of 65536 bytes in blocks of 4096 (take another file)`,
    );
    await Deno.writeTextFile(path, "something else");
    assertMatch((await assertRejects(() => open(newDisk()), DblockError)).message, /it is another kind of file/);
    const nowhere = Checksum.open(newDisk(), { path: `${path}-no/sums` });
    assertMatch(
      (await assertRejects(() => nowhere, DblockError)).message,
      /its folder is not there \(mkdir -p .*sums-no\)$/,
    );
  });
});

Deno.test("Checksum: files that were made for a disk that was never used are gone; those that were there, or are another server's, stay", async () => {
  await withSums(async ({ path, open }) => {
    const files = () => [...Deno.readDirSync(path.replace(/\/sums$/, ""))].map(({ name }) => name).sort().join();
    await (await open(newDisk())).close("unused");
    assertEquals(files(), "");
    // The marks are another kind of file: the sums were made before that was seen.
    await Deno.writeTextFile(`${path}-intent`, "something else");
    assertEquals([await failure(async () => void await open(newDisk())), files()], ["EINVAL", "sums-intent"]);
    await Deno.remove(`${path}-intent`);
    {
      // Another server that has begun at the same moment, and has just lost the race for who makes the sums.
      using marks = Deno.openSync(`${path}-intent`, { write: true, createNew: true });
      await marks.lock(true);
      assertEquals([await failure(async () => void await open(newDisk())), files()], ["EBUSY", "sums,sums-intent"]);
    }
    for (const file of [path, `${path}-intent`]) await Deno.remove(file);
    const disk = newDisk();
    const first = await open(disk);
    await first.write(filled(1), 0, plain);
    await first.close("left");
    const next = disk.reopened();
    await (await open(next)).close("unused");
    const last = next.reopened();
    last.content[99]! ^= 1;
    const checked = await open(last);
    assertEquals(await failure(() => checked.read(filled(0), 0, plain)), "EILSEQ");
    await checked.close("destroyed");
  });
});

Deno.test("Checksum: a mismatch is EILSEQ although onMismatch throws", async () => {
  await withSums(async ({ path }) => {
    const disk = newDisk();
    const onMismatch = () => {
      throw new Error("nobody to tell");
    };
    const checked = await Checksum.open(disk, { path, onMismatch });
    await checked.write(filled(1), 0, plain);
    disk.content[99]! ^= 1;
    assertEquals(await failure(() => checked.read(filled(0), 0, plain)), "EILSEQ");
    assertEquals(checked.mismatches, 1);
    await checked.close("destroyed");
  });
});

Deno.test("Checksum: a thousand mismatches are two lines: the first, and at the end how many there were", async () => {
  await withSums(async ({ path }) => {
    const disk = newDisk();
    const said: string[] = [];
    const checked = await Checksum.open(disk, { path, log: (line) => said.push(line) });
    await checked.write(filled(1), BLOCK, plain);
    disk.content[BLOCK]! ^= 1;
    for (let i = 0; i < 1_000; i++) assertEquals(await failure(() => checked.read(filled(0), BLOCK, plain)), "EILSEQ");
    assertEquals(said.splice(0), ["checksum: 4096 bytes at 4096 are not what was written"]);
    await checked.close("destroyed");
    assertEquals(said.length, 1);
    assertMatch(said[0]!, /are not what was written; 999 more in the last \d+ s$/);
  });
});

Deno.test("Checksum: a second server, as of a take-over, is refused in one line, and the first one goes on", async () => {
  await withSums(async ({ path, told, open }) => {
    const disk = newDisk();
    const first = await open(disk);
    await first.write(filled(1), 0, plain);
    const refused = await assertRejects(() => open(disk), DblockError);
    assertEquals(
      [refused.code, refused.message],
      [
        "EBUSY",
        `Cannot use ${path} for checksums: another server has it ` +
        "(end that server first; a disk with checksums is not taken over or reloaded)",
      ],
    );
    await first.write(filled(2), 0, plain);
    await first.close("left");
    const next = await open(disk.reopened());
    await next.read(filled(0), 0, plain);
    assertEquals(told, []);
    await next.close("destroyed");
  });
});
