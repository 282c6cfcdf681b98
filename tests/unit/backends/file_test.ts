// SPDX-License-Identifier: MIT
import { statfsSync } from "node:fs";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { profileOf } from "../../../src/disk/profile.ts";
import { FileBackend } from "../../../src/backends/file.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { fileSystemOf, systemPageBytes } from "../../../src/system/libc.ts";
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

/** In a mount namespace of its own, where this machine lets an ordinary user have one. */
async function onTinyFileSystem(program: string): Promise<string> {
  const { stdout, stderr } = await new Deno.Command("unshare", {
    args: ["--user", "--map-root-user", "--mount", "bash", "-c", `mount -t tmpfs -o size=64k none /mnt && ${program}`],
  }).output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

Deno.test({
  name: "a full file system is a false answer, and the process lives",
  ignore: await onTinyFileSystem("echo possible") !== "possible\n",
  fn: async () => {
    const root = new URL("../../../", import.meta.url);
    const code = `
      import { FileBackend } from "${new URL("src/backends/file.ts", root).href}";
      import { discardMapped, zeroMapped } from "${new URL("src/system/mapping.ts", root).href}";
      const { mapping } = await FileBackend.open({ path: "/mnt/a", sizeBytes: 2 ** 20 });
      const { fd: _, ...noFile } = mapping;
      console.log(
        zeroMapped(mapping, 0, 2 ** 20, { keepAllocated: true }),
        zeroMapped(noFile, 512, 512 * 1024, { keepAllocated: false }),
        discardMapped({ ...mapping, pageBytes: 2 ** 21 }, 0, 2 ** 20),
        zeroMapped(mapping, 512, 1024, { keepAllocated: false }),
        discardMapped(mapping, 0, 2 ** 20),
      );`;
    const deno = new URL("src/build/deno.sh", root).pathname;
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(file, code);
    try {
      assertEquals(await onTinyFileSystem(`${deno} run -A --no-check ${file}`), "false true false true true\n");
    } finally {
      await Deno.remove(file);
    }
  },
});
