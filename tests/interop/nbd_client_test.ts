// SPDX-License-Identifier: MIT
// Our NBD client against servers of others and our own: content, errors, and twenty kills under a writer that checks itself.
import { assert, assertEquals, assertRejects } from "@std/assert";
import { DblockError, NbdBackend, requestOptions } from "../../src/mod.ts";
import { Random } from "../sim/random.ts";
import { makeCertificates } from "../unit/nbd/certificates.ts";
import { prepare, type ServerKind, serverKinds, start } from "./servers.ts";
import { SparseDisk } from "./sparse.ts";
import { Background } from "./tools.ts";

const MIB = 2 ** 20;
const KILLS = 20;
const plain = requestOptions();

const dir = await Deno.makeTempDir();
await makeCertificates(dir);
Deno.test.afterAll(() => Deno.remove(dir, { recursive: true }));
let folders = 0;
const contents = new Map<string, string>();
const kills = new Map<string, string>();

async function folderFor(sizeBytes: number): Promise<string> {
  const folder = `${dir}/${folders++}`;
  await prepare(folder, sizeBytes);
  return folder;
}

function fill(random: Random, bytes: Uint8Array): void {
  new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).fill(random.below(2 ** 32));
}

/** Random requests, many at a time, each on blocks that no other one has; then the whole disk is compared. */
async function exercise(disk: NbdBackend, random: Random): Promise<void> {
  const model = new SparseDisk(disk.sizeBytes);
  const regions = 16;
  const regionBytes = Math.floor(disk.sizeBytes / regions / 4096) * 4096;
  const work = async (region: number) => {
    for (let n = 0; n < 12; n++) {
      const length = 4096 * (1 + random.below(random.chance(0.2) ? 64 : 4));
      const at = region * regionBytes + 4096 * random.below(Math.floor((regionBytes - length) / 4096));
      const buffer = new Uint8Array(length);
      const kind = random.below(4);
      if (kind === 3 && disk.writeZeroes !== undefined) {
        const options = requestOptions({ keepAllocated: random.chance(0.5) });
        await disk.writeZeroes(at, length, options);
        model.writeZeroes(at, length, options);
      } else if (kind >= 1) {
        fill(random, buffer);
        await disk.write(buffer, at, requestOptions({ fua: random.chance(0.2) }));
        model.write(buffer, at);
      } else {
        await disk.read(buffer, at);
        const expected = new Uint8Array(length);
        model.read(expected, at);
        assertEquals(buffer, expected);
      }
    }
    await disk.flush?.(plain);
  };
  await Promise.all(Array.from({ length: regions }, (_, region) => work(region)));
  const [got, expected] = [new Uint8Array(MIB), new Uint8Array(MIB)];
  for (let at = 0; at < disk.sizeBytes; at += MIB) {
    const length = Math.min(MIB, disk.sizeBytes - at);
    await disk.read(got.subarray(0, length), at);
    model.read(expected.subarray(0, length), at);
    assert(got.subarray(0, length).every((byte, i) => byte === expected[i]), `the MiB at ${at} differs`);
  }
  for (let at = 0; disk.extents !== undefined && at < disk.sizeBytes;) {
    for (const { lengthBytes, kind } of await disk.extents(at, disk.sizeBytes - at, plain)) {
      const bytes = new Uint8Array(Math.min(lengthBytes, MIB));
      model.read(bytes, at);
      if (kind !== "data") assert(bytes.every((byte) => byte === 0), `${kind} at ${at}, where there is data`);
      at += lengthBytes;
    }
  }
}

for (const kind of serverKinds(dir)) {
  for (const [size, sizeBytes] of [["4M", 4 * MIB], ["33M+512", 33 * MIB + 512]] as const) {
    Deno.test(`our client with ${kind.name}, ${size}: what is written is read`, async () => {
      contents.set(`${kind.name} ${size}`, "FAILED");
      const folder = await folderFor(sizeBytes);
      await using _server = await start(kind, folder, sizeBytes);
      const disk = await NbdBackend.open(kind.uri(folder));
      assertEquals(disk.sizeBytes, sizeBytes);
      await exercise(disk, new Random(1));
      await disk.close();
      contents.set(`${kind.name} ${size}`, "ok");
    });
  }
}

/** Writes and checks blocks of its own region until `isOver`; returns what it did. Throws at the first wrong byte or error. */
async function verify(
  disk: NbdBackend,
  from: number,
  blocks: number,
  random: Random,
  course: { isOver: boolean; requests: number },
): Promise<{ readonly writes: number; readonly longestMs: number }> {
  const versions = new Uint32Array(blocks);
  const buffer = new Uint8Array(4096);
  const words = new Uint32Array(buffer.buffer);
  let [writes, longestMs] = [0, 0];
  const check = async (block: number) => {
    await disk.read(buffer, from + block * 4096);
    const wrong = words.findIndex((word) => word !== versions[block]);
    assert(wrong < 0, `block ${block}: ${words[wrong]} where ${versions[block]} was acknowledged`);
  };
  while (!course.isOver) {
    const block = random.below(blocks);
    const startMs = performance.now();
    if (random.chance(0.3)) await check(block);
    else {
      words.fill(versions[block]! + 1);
      await disk.write(buffer, from + block * 4096, plain);
      versions[block]!++;
      writes++;
    }
    course.requests++;
    longestMs = Math.max(longestMs, performance.now() - startMs);
    // Between requests, others have their turn.
    if (random.chance(0.05)) await disk.flush?.(plain);
  }
  for (let block = 0; block < blocks; block++) await check(block);
  return { writes, longestMs };
}

async function killAgainAndAgain(kind: ServerKind): Promise<string> {
  const sizeBytes = 16 * MIB;
  const folder = await folderFor(sizeBytes);
  let server = await start(kind, folder, sizeBytes);
  const said: string[] = [];
  const disk = await NbdBackend.open(kind.uri(folder), { log: (line) => said.push(line) });
  const course = { isOver: false, requests: 0 };
  const random = new Random(7);
  const writers = 16;
  const bytes = sizeBytes / writers;
  const writing = Promise.all(
    Array.from({ length: writers }, (_, n) => verify(disk, n * bytes, 32, new Random(n), course)),
  );
  const killing = (async () => {
    for (let n = 0; n < KILLS; n++) {
      // Amid the work, wherever it is: never before the client is back.
      const enough = course.requests + 20 + random.below(200);
      while (course.requests < enough && !course.isOver) await new Promise((resolve) => setTimeout(resolve, 1));
      await server.kill("KILL");
      server = await start(kind, folder, sizeBytes);
    }
    course.isOver = true;
  })();
  try {
    await Promise.race([killing, writing]); // a writer that fails ends the test at once
    const results = await writing;
    // More than that: a further connection can come to be with what a server had said before it was killed.
    assert(said.filter((line) => line.includes("requests wait")).length >= KILLS, said.join("\n"));
    const writes = results.reduce((sum, result) => sum + result.writes, 0);
    const longestMs = Math.max(...results.map((result) => result.longestMs));
    return `${KILLS} kills, ${writes} writes, 0 errors, longest stall ${(longestMs / 1000).toFixed(1)} s`;
  } finally {
    course.isOver = true;
    await killing;
    await disk.close();
    await server.kill("KILL");
  }
}

for (
  const kind of serverKinds(dir).filter(({ name }) =>
    ["nbdkit file", "nbdkit TLS", "qemu-nbd", "our server"].includes(name)
  )
) {
  Deno.test(`our client with ${kind.name}: ${KILLS} kills under a writer that checks what it wrote`, async () => {
    kills.set(kind.name, "FAILED");
    kills.set(kind.name, await killAgainAndAgain(kind));
  });
}

Deno.test("our client passes on the errors that nbdkit's filter makes", async () => {
  for (
    const [code, operation] of [["ENOSPC", "pwrite"], ["EIO", "pread"], ["EPERM", "zero"], ["ENOMEM", "trim"]] as const
  ) {
    const folder = await folderFor(MIB);
    const socket = `${folder}/nbd.sock`;
    const args = [
      "-f",
      "-U",
      socket,
      "--filter=error",
      "memory",
      "1M",
      `error=${code}`,
      `error-${operation}-rate=100%`,
    ];
    await using server = new Background("nbdkit", args);
    await server.listens(socket);
    const disk = await NbdBackend.open(`nbd+unix:///?socket=${socket}`);
    const calls = {
      pread: () => disk.read(new Uint8Array(4096), 0),
      pwrite: () => disk.write(new Uint8Array(4096), 0, plain),
      zero: () => disk.writeZeroes!(0, 4096, plain),
      trim: () => disk.discard!(0, 4096, plain),
    };
    for (const [name, call] of Object.entries(calls)) {
      if (name !== operation) await call();
      else assertEquals((await assertRejects(async () => void await call(), DblockError)).code, code);
    }
    await disk.close();
  }
});

Deno.test("our client keeps to the block sizes that a server asks for", async () => {
  const folder = await folderFor(MIB);
  const socket = `${folder}/nbd.sock`;
  const policy = ["blocksize-minimum=4096", "blocksize-preferred=65536", "blocksize-maximum=256K"];
  const args = [
    "-f",
    "-U",
    socket,
    "--filter=blocksize-policy",
    "memory",
    "1M",
    ...policy,
    "blocksize-error-policy=error",
  ];
  await using server = new Background("nbdkit", args);
  await server.listens(socket);
  const disk = await NbdBackend.open(`nbd+unix:///?socket=${socket}`);
  const { blockBytes, physicalBlockBytes, maxIoBytes } = disk.limits;
  assertEquals([blockBytes, physicalBlockBytes, maxIoBytes], [4096, 65_536, 262_144]);
  await disk.close();
});

Deno.test("the table of our client's servers is green", () => {
  console.log("| our client with | 4M 33M+512 | killed |");
  console.log("| --- | --- | --- |");
  for (const { name } of serverKinds(dir)) {
    const cells = ["4M", "33M+512"].map((size) => contents.get(`${name} ${size}`) ?? "-").join(" ");
    console.log(`| ${name} | ${cells} | ${kills.get(name) ?? ""} |`);
  }
  assertEquals([...contents, ...kills].filter(([, result]) => result === "FAILED"), []);
});
