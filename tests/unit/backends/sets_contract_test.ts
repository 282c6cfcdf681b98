// SPDX-License-Identifier: MIT
/**
 * Every set keeps the contract, over disks of several kinds. The disks are watched: what they must not be asked fails the
 * test.
 */
import { concat } from "../../../src/backends/concat.ts";
import { MirrorBackend } from "../../../src/backends/mirror.ts";
import { slice } from "../../../src/backends/slice.ts";
import { stripe } from "../../../src/backends/stripe.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { PlayedDisk, type PlayedDiskOptions } from "../../../src/disk/testing.ts";
import { checkBackend } from "../conformance.ts";

const KIB = 2 ** 10;
const folder = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "dblock-contract-" });
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
let files = 0;

/** Opens a set over disks; `record` is a file that stays with them. */
type Join = (disks: readonly Backend[], record: string) => Backend | Promise<Backend>;

const sets: [name: string, join: Join][] = [
  ["slice()", (disks) => slice(disks[0]!, { offsetBytes: 8 * KIB, sizeBytes: 88 * KIB })],
  ["concat()", (disks) => concat(disks)],
  ["stripe()", (disks) => stripe(disks, { chunkBytes: 4 * KIB })],
  ["MirrorBackend", (disks, bitmapPath) => {
    const halves = disks.map((disk, i) => ({ name: `${i}`, open: () => disk }));
    if (halves.length < 2) throw new TypeError("a mirror of one disk");
    return MirrorBackend.open(halves, { bitmapPath, regionBytes: 4096, retryMs: 0, log: () => {} });
  }],
];

const block4096 = { blockBytes: 4096 };
const kinds: [what: string, disks: readonly PlayedDiskOptions[]][] = [
  ["that answer at once", [{}, { sizeBytes: 150 * KIB }]],
  ["that answer later", [{ laterSeed: 1 }, { laterSeed: 2 }, { laterSeed: 3, sizeBytes: 160 * KIB }]],
  ["with FUA", [{ fua: true, laterSeed: 4 }, { fua: true }]],
  ["of different kinds", [
    { limits: { blockBytes: 4096, maxIoBytes: 32768, maxWriteZeroesBytes: 16384, maxDiscardBytes: 8192 }, fua: true },
    { sizeBytes: 144 * KIB, without: ["flush", "writeZeroes", "extents", "close"], laterSeed: 5, limits: block4096 },
    { without: ["discard"], limits: { ...block4096, maxIoBytes: 65536 } },
  ]],
  // The largest block is the set's. A disk with smaller ones may lose a part of it with the power: not tested.
  ["with blocks of different sizes", [{ limits: block4096 }, { sizeBytes: 141 * KIB + 512 }, {
    limits: { blockBytes: 1024 },
  }]],
  ["without anything that is optional", [
    { without: ["flush", "discard", "writeZeroes", "resize", "extents", "close"] },
    { without: ["flush", "discard", "writeZeroes", "resize", "extents", "close"], laterSeed: 6 },
  ]],
  ["that are read-only", [{ readOnly: true }, {}]],
];

/** A set, its disks, and the file that stays with them. */
interface Made {
  readonly disks: readonly PlayedDisk[];
  readonly record: string;
}

for (const [name, join] of sets) {
  for (const [what, options] of kinds) {
    const made = new Map<Backend, Made>();
    const open = async ({ disks, record }: Made): Promise<Backend> => {
      const set = await join(disks, record);
      made.set(set, { disks, record });
      const { close } = set;
      const closeAndLook = async (reason: Parameters<NonNullable<Backend["close"]>>[0]) => {
        await close?.call(set, reason);
        const wrong = disks.flatMap(({ violations }) => violations)[0];
        if (wrong !== undefined) throw new Error(`a disk was asked what it must not be asked: ${wrong}`);
      };
      return Object.defineProperty(set, "close", { value: closeAndLook });
    };
    const make = () => open({ disks: options.map((one) => new PlayedDisk(one)), record: `${folder}/${files++}` });
    if (what === "with blocks of different sizes") {
      checkBackend(`${name} of disks ${what}`, make, { rounds: 80 });
      continue;
    }
    checkBackend(`${name} of disks ${what}`, make, {
      rounds: 80,
      reopen: async (set, how) => {
        const { disks, record } = made.get(set)!;
        let crashes = 1;
        const chance = () => (crashes = (crashes * 5 + 3) % 8) / 8;
        const next = disks.map((disk) => how === "left" ? disk.reopened() : disk.crashed(chance));
        const copy = `${folder}/${files++}`;
        // The program that is dead in this play has the file open, and its lock.
        await Deno.copyFile(record, copy).catch(() => {});
        // Its disks do nothing any more; what it does beside requests, such as copying, ends here and not in the next test.
        if (how === "died") await Promise.resolve(set.close?.("left")).catch(() => {});
        return await open({ disks: next, record: copy });
      },
    });
  }
}
