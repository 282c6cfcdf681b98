// SPDX-License-Identifier: MIT
// RawBackend on files. On a block device, served by Workers: tests/device/raw_test.ts.
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RawBackend, type RawData } from "../../../src/backends/raw.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { FileBackend } from "../../../src/backends/file.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { extentsOf } from "../../../src/system/file.ts";
import { folder, spaceOf } from "./stores.ts";

const MIB = 2 ** 20;
const plain = requestOptions();

function filled(value: number, length = 4096): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).fill(value);
}

async function read(disk: Backend, at: number, length = 4096): Promise<Uint8Array> {
  const buffer = filled(0xee, length);
  await disk.read(buffer, at, plain);
  return buffer;
}

Deno.test("RawBackend makes a sparse file, keeps what is written, and finds it again", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const made = await RawBackend.open({ path, sizeBytes: 64 * MIB });
  assertEquals([Deno.statSync(path).size, spaceOf(path), made.sizeBytes], [64 * MIB, 0, 64 * MIB]);
  await made.write(filled(7, 8192), 4096);
  await made.flush();
  assertEquals(made.extents(0, MIB), [
    { lengthBytes: 4096, kind: "hole" },
    { lengthBytes: 8192, kind: "data" },
    { lengthBytes: MIB - 12288, kind: "hole" },
  ]);
  made.close();
  made.close(); // once more does no harm
  using found = await RawBackend.open({ path });
  assertEquals([found.sizeBytes, await read(found, 4096, 8192), await read(found, 0)], [
    64 * MIB,
    filled(7, 8192),
    filled(0),
  ]);
});

Deno.test("RawBackend zeroes exactly a range, gives its space back, or keeps it", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  using disk = await RawBackend.open({ path, sizeBytes: MIB });
  const clearings = [
    (at: number, length: number) => disk.writeZeroes(at, length),
    (at: number, length: number) => disk.writeZeroes(at, length, { keepAllocated: true }),
    (at: number, length: number) => disk.discard?.(at, length, plain),
  ];
  for (const clear of clearings) {
    for (const [at, length] of [[0, 65536], [512, 512], [512, 8192], [3584, 1024], [MIB - 512, 512]] as const) {
      await disk.write(filled(7, MIB), 0);
      await clear(at, length);
      const bytes = await read(disk, 0, MIB);
      assertEquals([bytes.indexOf(0), bytes.lastIndexOf(0)], [at, at + length - 1]);
    }
  }
  await disk.writeZeroes(0, MIB, { keepAllocated: true });
  assertEquals(spaceOf(path), MIB);
  await disk.writeZeroes(0, MIB);
  assertEquals(spaceOf(path), 0);
});

Deno.test("RawBackend reads at once what the page cache has, and nothing beyond the end", async () => {
  const path = Deno.makeTempFileSync({ dir: ".", prefix: ".dblock-unit-" });
  try {
    using disk = await RawBackend.open({ path, sizeBytes: MIB });
    await disk.write(filled(7), 4096);
    const buffer = new Uint8Array(4096);
    assertEquals([disk.read(buffer, 4096), buffer], [undefined, filled(7)]);
    Deno.truncateSync(path, 6 * 1024);
    await assertRejects(async () => await disk.read(buffer, 4096), DblockError, "the file ends before");
    disk[Symbol.dispose]();
    await assertRejects(async () => await disk.read(buffer, 4096), DblockError, "the disk is closed");
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("RawBackend grows and shrinks its file", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  using disk = await RawBackend.open({ path, sizeBytes: MIB });
  disk.resize?.(2 * MIB);
  await disk.write(filled(3), 2 * MIB - 4096);
  assertEquals([disk.sizeBytes, Deno.statSync(path).size, await read(disk, 2 * MIB - 4096)], [
    2 * MIB,
    2 * MIB,
    filled(3),
  ]);
  disk.resize?.(MIB);
  assertEquals([disk.sizeBytes, Deno.statSync(path).size], [MIB, MIB]);
  await assertRejects(() => read(disk, MIB), DblockError, "the file ends before");
});

Deno.test("RawBackend makes a file longer when it may, and shorter never", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  Deno.writeFileSync(path, filled(9));
  (await RawBackend.open({ path, sizeBytes: MIB, grow: true })).close();
  assertEquals(Deno.statSync(path).size, MIB);
  for (const options of [{ sizeBytes: 4096, grow: true }, { sizeBytes: 2 * MIB }, { sizeBytes: MIB, readOnly: true }]) {
    const open = () => RawBackend.open({ path, ...options });
    if (options.sizeBytes === MIB) (await open()).close();
    else await assertRejects(open, DblockError, `it has ${MIB} bytes, not ${options.sizeBytes}`);
  }
  assertEquals(Deno.statSync(path).size, MIB);
});

Deno.test("RawBackend serves a file that may only be read, with others that read, and never writes it", async () => {
  using dir = folder();
  const path = `${dir.path}/golden`;
  Deno.writeFileSync(path, filled(6, MIB));
  Deno.chmodSync(path, 0o444);
  using first = await RawBackend.open({ path, readOnly: true });
  using second = await RawBackend.open({ path, readOnly: true });
  assertEquals([await read(second, 0), first.discard, first.resize], [filled(6), undefined, undefined]);
  assertEquals(profileOf(first).readOnly, true);
  assertThrows(() => first.write(filled(1), 0), DblockError, "the disk is read-only");
  await assertRejects(() => RawBackend.open({ path }), DblockError, "it is served already");
});

Deno.test("RawBackend with O_DIRECT has the blocks of its device, and what it is given comes back", async () => {
  const path = Deno.makeTempFileSync({ dir: ".", prefix: ".dblock-unit-" });
  try {
    using disk = await RawBackend.open({ path, sizeBytes: MIB, direct: true });
    assertEquals([512, 4096].includes(disk.limits.blockBytes ?? 0), true);
    const memory = new WebAssembly.Memory({ initial: 1 });
    const page = new Uint8Array(memory.buffer as ArrayBuffer, 0, 4096).fill(5);
    await disk.write(page, 8192);
    page.fill(0);
    await disk.read(page, 8192);
    assertEquals(page, filled(5));
    // Memory that is not aligned is copied to some that is.
    await disk.write(filled(6, 4097).subarray(1), 0);
    assertEquals(await read(disk, 0), filled(6));
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("RawBackend refuses what is no disk, and leaves what was there as it was", async () => {
  using dir = folder();
  Deno.writeFileSync(`${dir.path}/odd`, new Uint8Array(5));
  const mistakes = [
    [{ path: `${dir.path}/none` }, "ENOENT", "it is not there"],
    [{ path: `${dir.path}/none`, sizeBytes: 513 }, "EINVAL", "a positive multiple of 512 there, not 513"],
    [{ path: `${dir.path}/odd` }, "EINVAL", "not 5"],
    [{ path: "/dev/null" }, "EINVAL", "it is no file and no block device"],
    [{ path: `${dir.path}/none/a`, sizeBytes: 512 }, "ENOENT", "it is not there"],
  ] as const;
  for (const [options, code, message] of mistakes) {
    const error = await assertRejects(() => RawBackend.open(options), DblockError, message);
    assertEquals([error.code, error.attempted], [code, `Cannot keep a disk in ${options.path}`]);
  }
  assertEquals([...Deno.readDirSync(dir.path)].map(({ name }) => name), ["odd"]);
});

Deno.test("RawBackend.workers(): Workers use the open file of the main program, and each reports a failed flush", async () => {
  using dir = folder();
  using disk = await RawBackend.open({ path: `${dir.path}/a`, sizeBytes: MIB });
  const { module, data } = disk.workers();
  assertEquals(String(module), import.meta.resolve("../../../src/backends/raw_worker.ts"));
  const { default: open } = await import(String(module));
  const copy: RawData = structuredClone(data!);
  const [first, second] = [open(copy), open(structuredClone(data!))];
  await first.write(filled(4), 0);
  assertEquals([await read(second, 0), await read(disk, 0)], [filled(4), filled(4)]);
  assertEquals([first.flush(), second.flush(), first.resize], [undefined, undefined, undefined], "its thread waits");
  // A store that fails once, for whoever asks first: this has no file at all.
  const broken = open({ ...copy, fd: -1 });
  assertThrows(() => broken.flush(), DblockError, "its store has failed");
  assertThrows(() => second.flush(), DblockError, "its store has failed");
  assertEquals(second.flush(), undefined);
  await assertRejects(async () => await disk.flush(), DblockError, "its store has failed");
  await disk.flush();
  first.close();
  assertEquals(await read(disk, 0), filled(4), "the file is the main program's to close");
});

Deno.test("RawBackend.close() waits for what is under way, and nothing begins after it", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const disk = await RawBackend.open({ path, sizeBytes: 64 * MIB });
  // More than may be waited for at once: some of them have not begun when the disk is closed.
  const writes = Array.from({ length: 64 }, (_, i) => disk.write(filled(i + 1, MIB), i * MIB));
  const closed = disk.close();
  assertEquals(closed instanceof Promise, true);
  await assertRejects(async () => await disk.write(filled(1), 0), DblockError, "the disk is closed");
  await assertRejects(async () => await disk.flush(), DblockError, "the disk is closed");
  await closed;
  await Promise.all(writes);
  using again = await RawBackend.open({ path });
  for (let i = 0; i < 64; i++) assertEquals((await read(again, (i + 1) * MIB - 512, 512)).at(-1), i + 1);
});

Deno.test("RawBackend lets nobody else serve the file, except for a take-over, which waits for its turn", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const first = await RawBackend.open({ path, sizeBytes: MIB });
  const error = await assertRejects(() => RawBackend.open({ path }), DblockError, "it is served already");
  assertEquals(error.code, "EBUSY");
  await assertRejects(() => FileBackend.open({ path }), DblockError, "it is served already");
  using second = await RawBackend.open({ path, shared: true });
  assertEquals([first.locked, second.locked], [true, false]);
  await first.write(filled(9), 0);
  assertEquals(await read(second, 0), filled(9));
  first.close();
  for (let waitedMs = 0; !second.locked && waitedMs < 10_000; waitedMs += 20) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assertEquals(second.locked, true);
});

Deno.test("what cannot say where its data is, is data", () => {
  // A pipe and a character device know no holes; nor does a file that is not open.
  for (const fd of [-1, 1_000_000]) assertEquals(extentsOf(fd, 0, MIB, 512), [{ lengthBytes: MIB, kind: "data" }]);
});
