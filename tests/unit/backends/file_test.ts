// SPDX-License-Identifier: MIT
import { statfsSync } from "node:fs";
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { requestOptions } from "../../../src/disk/request.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { FileBackend } from "../../../src/backends/file.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { fileSystemOf } from "../../../src/system/libc.ts";
import { systemPageBytes } from "../../../src/system/pages.ts";
import { bytesOf, folder, spaceOf } from "./stores.ts";

const MIB = 2 ** 20;

Deno.test("FileBackend makes a sparse file, keeps what is written, and finds it again", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const made = await FileBackend.open({ path, sizeBytes: 64 * MIB });
  assertEquals([Deno.statSync(path).size, spaceOf(path), made.locked], [64 * MIB, 0, true]);
  assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  bytesOf(made).fill(7, 8192, 16384);
  made.close();
  made.close(); // once more does no harm

  const found = await FileBackend.open({ path }); // with the size that it has
  assertEquals(found.mapping.sizeBytes, 64 * MIB);
  assertEquals([bytesOf(found).indexOf(7), bytesOf(found).lastIndexOf(7)], [8192, 16383]);
  found.close();
  assertEquals((await FileBackend.open({ path, sizeBytes: 64 * MIB })).close(), undefined);
});

Deno.test("FileBackend has a write cache where its file has a disk, and none on tmpfs", async () => {
  using memory = folder();
  const onDisk = Deno.makeTempDirSync({ dir: ".", prefix: ".dblock-unit-" });
  try {
    for (const path of [memory.path, onDisk]) {
      const backend = await FileBackend.open({ path: `${path}/a`, sizeBytes: MIB });
      const { type, bsize } = statfsSync(path);
      assertEquals(fileSystemOf(backend.mapping.fd), { type, blockBytes: bsize });
      assertEquals(profileOf(backend).writeCache, type !== 0x01021994);
      backend.close();
    }
  } finally {
    Deno.removeSync(onDisk, { recursive: true });
  }
});

Deno.test("FileBackend makes a file longer when it may, and shorter never", async () => {
  using dir = folder();
  const path = `${dir.path}/grown`;
  Deno.writeFileSync(path, new Uint8Array(4096).fill(9));
  const grown = await FileBackend.open({ path, sizeBytes: MIB, grow: true });
  assertEquals([grown.mapping.sizeBytes, Deno.statSync(path).size], [MIB, MIB]);
  assertEquals([bytesOf(grown)[4095], bytesOf(grown)[4096], bytesOf(grown)[MIB - 1]], [9, 0, 0]);
  grown.close();
  (await FileBackend.open({ path, sizeBytes: MIB, grow: true })).close();
  const smaller = () => FileBackend.open({ path, sizeBytes: 4096, grow: true });
  await assertRejects(smaller, DblockError, `it has ${MIB} bytes, not 4096 (give no size, or take`);
  assertEquals(Deno.statSync(path).size, MIB);
});

Deno.test("FileBackend takes an empty file as one that is not there", async () => {
  using dir = folder();
  const path = `${dir.path}/empty`;
  Deno.writeTextFileSync(path, "");
  (await FileBackend.open({ path, sizeBytes: MIB })).close();
  assertEquals(Deno.statSync(path).size, MIB);
});

const mistakes: [what: string, path: string, sizeBytes: number | undefined, code: string, message: string][] = [
  ["another size than the file's", "file", 8192, "EINVAL", "it has 4096 bytes, not 8192 (let it grow, give no"],
  ["a size that is no disk's", "new", 4097, "EINVAL", "a positive multiple of 4096 there, not 4097"],
  ["a new file without a size", "new", undefined, "EINVAL", "a positive multiple of 4096 there, not 0"],
  ["a file of a length that is no disk's", "odd", undefined, "EINVAL", "not 5"],
  ["a folder that is not there", "none/file", 4096, "ENOENT", "there is no such folder"],
  ["a folder", ".", 4096, "EISDIR", "directory"],
  ["a device", "/dev/null", 4096, "EINVAL", "it is not a regular file"],
];
for (const [what, name, sizeBytes, code, message] of mistakes) {
  Deno.test(`FileBackend refuses ${what}`, async () => {
    using dir = folder();
    Deno.writeFileSync(`${dir.path}/file`, new Uint8Array(4096));
    Deno.writeFileSync(`${dir.path}/odd`, new Uint8Array(5));
    const path = name.startsWith("/") ? name : `${dir.path}/${name}`;
    const error = await assertRejects(
      () => FileBackend.open({ path, ...(sizeBytes === undefined ? {} : { sizeBytes }) }),
      DblockError,
    );
    assertEquals(error.code, code);
    assertStringIncludes(error.message, `Cannot keep a disk in ${path}: `);
    assertStringIncludes(error.message, message);
    // What was made for it is removed; what was there is as it was.
    assertEquals([...Deno.readDirSync(dir.path)].map((entry) => entry.name).toSorted(), ["file", "odd"]);
    assertEquals(Deno.statSync(`${dir.path}/file`).size, 4096);
  });
}

Deno.test("FileBackend lets nobody else serve the file, except for a take-over, which waits for its turn", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const first = await FileBackend.open({ path, sizeBytes: MIB });
  const error = await assertRejects(() => FileBackend.open({ path }), DblockError, "it is served already");
  assertEquals(error.code, "EBUSY");
  const second = await FileBackend.open({ path, shared: true });
  assertEquals(second.locked, false);
  bytesOf(first)[0] = 9;
  assertEquals(bytesOf(second)[0], 9);
  first.close();
  for (let waitedMs = 0; !second.locked && waitedMs < 10_000; waitedMs += 20) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assertEquals(second.locked, true);
  second.close();
});

Deno.test("FileBackend does not serve a file that lost its name while it waited for the lock", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const first = await FileBackend.open({ path, sizeBytes: MIB });
  const second = FileBackend.open({ path }); // has it open at once, and tries for 2 s
  Deno.removeSync(path);
  Deno.writeFileSync(path, new Uint8Array(4096).fill(3));
  first.close();
  await assertRejects(() => second, DblockError, "another file has taken its place (try again)");
  assertEquals(Deno.readFileSync(path)[4095], 3);
});

Deno.test("FileBackend leaves a file as long as it was when it cannot be mapped", async () => {
  using dir = folder();
  for (const before of [0, 4096]) {
    const path = `${dir.path}/${before}`;
    Deno.writeFileSync(path, new Uint8Array(before));
    const open = () => FileBackend.open({ path, sizeBytes: 2 ** 50, grow: true });
    assertEquals((await assertRejects(open, DblockError)).code, "ENOMEM");
    assertEquals(Deno.statSync(path).size, before);
  }
});

Deno.test("FileBackend makes a file short again while it is still locked: another server may grow it after that", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  Deno.writeFileSync(path, new Uint8Array(4096));
  using other = Deno.openSync(path, { read: true, write: true });
  const truncate = Deno.FsFile.prototype.truncateSync;
  const seen: [sizeBytes: number | undefined, isLocked: boolean][] = [];
  Deno.FsFile.prototype.truncateSync = function (sizeBytes) {
    const isFree = other.tryLockSync(true);
    if (isFree) other.unlockSync();
    seen.push([sizeBytes, !isFree]);
    truncate.call(this, sizeBytes);
  };
  try {
    await assertRejects(
      () => FileBackend.open({ path, sizeBytes: 2 ** 50, grow: true }),
      DblockError,
      "cannot be mapped",
    );
  } finally {
    Deno.FsFile.prototype.truncateSync = truncate;
  }
  assertEquals(seen, [[2 ** 50, true], [4096, true]]);
});

Deno.test("FileBackend says that a file system cannot map files", async () => {
  // sysfs has files of a page that anybody may read and nobody can map.
  const open = () => FileBackend.open({ path: "/sys/kernel/mm/transparent_hugepage/enabled", readOnly: true });
  const error = await assertRejects(open, DblockError, "its file system cannot map files (take a file on another");
  assertEquals(error.code, "ENODEV");
});

Deno.test("FileBackend says at once that a file system cannot lock files", async () => {
  using dir = folder();
  // The kernel refuses flock(2) to this thread with an errno, as some network file systems do.
  const code = `
    import { FileBackend } from "${new URL("../../../src/backends/file.ts", import.meta.url)}";
    const [NO_NEW_PRIVS, SET_SECCOMP, FILTER] = [38, 22, 2n];
    const [LOAD, UNLESS_EQUAL, RETURN] = [0x20, 0x15, 0x06];
    const FLOCK = Deno.build.arch === "aarch64" ? 32 : 73;
    const filter = new DataView(new ArrayBuffer(4 * 8));
    [[LOAD, 0, 0, 0], [UNLESS_EQUAL, 0, 1, FLOCK], [RETURN, 0, 0, 0x50000 + Number(Deno.args[0])], [RETURN, 0, 0, 0x7fff0000]]
      .forEach(([code, yes, no, value], i) => {
        filter.setUint16(i * 8, code, true);
        filter.setUint8(i * 8 + 2, yes);
        filter.setUint8(i * 8 + 3, no);
        filter.setUint32(i * 8 + 4, value, true);
      });
    const address = (view) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(view));
    const program = new BigUint64Array([4n, address(filter)]);
    const libc = Deno.dlopen("libc.so.6", {
      prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
    });
    libc.symbols.prctl(NO_NEW_PRIVS, 1n, 0n, 0n, 0n);
    if (libc.symbols.prctl(SET_SECCOMP, FILTER, address(program), 0n, 0n) !== 0) throw new Error("no seccomp");
    const begunMs = performance.now();
    const error = await FileBackend.open({ path: "${dir.path}/a", sizeBytes: 4096 }).catch((error) => error);
    console.log(error.code, error.message.split(": ")[1], performance.now() - begunMs < 1_500);`;
  for (const [errno, name] of [[37, "ENOLCK"], [95, "EOPNOTSUPP"]] as const) {
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", `data:text/javascript,${encodeURIComponent(code)}`, String(errno)],
    }).output();
    const said = `${name} its file system cannot lock files (take a file on another file system) true\n`;
    assertEquals(new TextDecoder().decode(stdout), said, new TextDecoder().decode(stderr));
  }
});

Deno.test("systemPageBytes() is what getconf says", () => {
  const { stdout } = new Deno.Command("getconf", { args: ["PAGESIZE"] }).outputSync();
  assertEquals(systemPageBytes(), Number(new TextDecoder().decode(stdout)));
});

Deno.test("FileBackend waits for a server that is about to end", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const first = await FileBackend.open({ path, sizeBytes: MIB });
  setTimeout(() => first.close(), 300);
  (await FileBackend.open({ path })).close();
});

Deno.test("FileBackend reads and writes as any backend does, by system calls, and knows its holes", async () => {
  using dir = folder();
  using disk = await FileBackend.open({ path: `${dir.path}/a`, sizeBytes: MIB });
  const data = new Uint8Array(8192).fill(5);
  disk.write(data, 4096);
  const back = new Uint8Array(8192);
  disk.read(back, 4096);
  assertEquals(back, data);
  assertEquals(disk.extents(0, MIB), [
    { lengthBytes: 4096, kind: "hole" },
    { lengthBytes: 8192, kind: "data" },
    { lengthBytes: MIB - 12288, kind: "hole" },
  ]);
  assertEquals(disk.extents(4608, 512), [{ lengthBytes: 512, kind: "data" }]);
  // To look at the memory is to fill the holes, on tmpfs.
  assertEquals([bytesOf(disk).indexOf(5), bytesOf(disk).lastIndexOf(5)], [4096, 12287]);
  disk.writeZeroes(4096, 4096);
  disk.discard?.(8192, 512, requestOptions());
  assertEquals([bytesOf(disk).indexOf(5), bytesOf(disk).lastIndexOf(5)], [8704, 12287]);
  assertThrows(() => disk.read(new Uint8Array(512), MIB), DblockError, "the file ends before");
});

Deno.test("FileBackend serves a file that may only be read, with others that read, and never writes it", async () => {
  using dir = folder();
  const path = `${dir.path}/golden`;
  Deno.writeFileSync(path, new Uint8Array(MIB).fill(6));
  Deno.chmodSync(path, 0o444);
  using first = await FileBackend.open({ path, readOnly: true });
  using second = await FileBackend.open({ path, readOnly: true });
  assertEquals([first.readOnly, first.locked, second.locked, bytesOf(second)[MIB - 1]], [true, true, true, 6]);
  const { readOnly, discard, writeCache } = profileOf(first);
  assertEquals([readOnly, discard, writeCache], [true, false, false]);
  assertThrows(() => first.write(new Uint8Array(512), 0), DblockError, "the disk is read-only");
  await assertRejects(() => FileBackend.open({ path }), DblockError, "it is served already");
  await assertRejects(
    () => FileBackend.open({ path: `${dir.path}/none`, readOnly: true }),
    DblockError,
    "no such file",
  );
});

/** In a mount namespace of its own, where this machine lets an ordinary user have one. */
async function onFileSystem(mount: string, program: string): Promise<string> {
  const { stdout, stderr } = await new Deno.Command("unshare", {
    args: ["--user", "--map-root-user", "--mount", "bash", "-c", `mount ${mount} none /mnt && ${program}`],
  }).output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

const TINY = "-t tmpfs -o size=64k";
/** A file system without holes, which an ordinary user can have. */
const WITHOUT_HOLES = "-t ramfs";
const root = new URL("../../../", import.meta.url);

/** What a program says there. */
async function run(mount: string, code: string): Promise<string> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  const imports = `
    import { FileBackend } from "${new URL("src/backends/file.ts", root).href}";
    import { profileOf } from "${new URL("src/disk/profile.ts", root).href}";
    import { discardMapped, zeroMapped } from "${new URL("src/system/mapping.ts", root).href}";`;
  await Deno.writeTextFile(file, imports + code);
  try {
    return await onFileSystem(mount, `${new URL("src/build/deno.sh", root).pathname} run -A --no-check ${file}`);
  } finally {
    await Deno.remove(file);
  }
}

const isPossible = await onFileSystem(TINY, "echo possible") === "possible\n";

Deno.test({
  name: "a full file system is a false answer, an error that names it, and not the end of the process",
  ignore: !isPossible,
  fn: async () => {
    const said = await run(
      TINY,
      `
      const disk = await FileBackend.open({ path: "/mnt/a", sizeBytes: 2 ** 20 });
      const { mapping } = disk;
      const { fd: _, ...noFile } = mapping;
      console.log(
        zeroMapped(mapping, 0, 2 ** 20, { keepAllocated: true }),
        zeroMapped(noFile, 512, 512 * 1024, { keepAllocated: false }),
        discardMapped({ ...mapping, pageBytes: 2 ** 21 }, 0, 2 ** 20),
        zeroMapped(mapping, 512, 1024, { keepAllocated: false }),
        discardMapped(mapping, 0, 2 ** 20),
      );
      try {
        disk.write(new Uint8Array(2 ** 17).fill(1), 0);
      } catch (error) {
        console.log(error.code);
      }`,
    );
    assertEquals(said, "false true false true true\nENOSPC\n");
  },
});

Deno.test({
  name: "FileBackend offers no discard where the file system has no holes: that would fill it with zeroes",
  ignore: !isPossible,
  fn: async () => {
    const said = await run(
      WITHOUT_HOLES,
      `
      const disk = await FileBackend.open({ path: "/mnt/a", sizeBytes: 64 * 2 ** 20 });
      const { discard, writeZeroes, limits } = profileOf(disk);
      console.log(discard, writeZeroes, limits.maxWriteZeroesBytes, Deno.statSync("/mnt/a").blocks);`,
    );
    assertEquals(said, `false true ${4 * MIB} 0\n`);
    const other = await run(
      TINY,
      `
      const disk = await FileBackend.open({ path: "/mnt/a", sizeBytes: 64 * 2 ** 20 });
      console.log(profileOf(disk).discard, profileOf(disk).limits.maxWriteZeroesBytes);`,
    );
    assertEquals(other, "true undefined\n");
  },
});
