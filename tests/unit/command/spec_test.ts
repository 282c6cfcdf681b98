// SPDX-License-Identifier: MIT
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../src/command/cli.ts";
import { readSpec } from "../../../src/command/schemes.ts";
import { membersOf, parseSpec } from "../../../src/command/spec.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { serveOne } from "../nbd/recorder.ts";

const open = { readOnly: false, shared: false };

Deno.test("parseSpec() takes scheme, place and parameters apart", () => {
  const parse = (text: string) => {
    const { scheme, place, parameters } = parseSpec(text);
    return [scheme, place, Object.fromEntries(parameters)];
  };
  assertEquals(parse("memory:4GiB"), ["memory", "4GiB", {}]);
  assertEquals(parse("./a.img?size=1GiB&direct"), [undefined, "./a.img", { size: "1GiB", direct: "" }]);
  assertEquals(parse("file:/a%3Fb%20c?x=1%262"), ["file", "/a?b c", { x: "1&2" }]);
  assertEquals(parse("100%.img"), [undefined, "100%.img", {}]);
  assertEquals(parse("stripe:[a?raw],b?chunk=1"), ["stripe", "[a?raw],b", { chunk: "1" }]);
});

Deno.test("membersOf() divides a set by its commas, and leaves those in brackets", () => {
  const members = (text: string) => membersOf(parseSpec(text)).map((spec) => spec.text);
  assertEquals(members("concat:a,memory:1MiB,[stripe:b,c?chunk=4KiB]"), ["a", "memory:1MiB", "stripe:b,c?chunk=4KiB"]);
  assertThrows(() => members("concat:a,,b"), UsageError, "between two commas");
});

/** What is typed wrongly, and what is said. */
const WRONG: readonly [spec: string, said: string][] = [
  ["", "a SPEC is empty"],
  ["memroy:4GiB", "there is no scheme memroy; did you mean memory? (a file of that name: ./memroy:4GiB)"],
  ["memory", "it is typed memory:SIZE (a file of that name: ./memory)"],
  ["memory:", "the size is missing (write it like memory:4GiB)"],
  ["memory:4097", "not a multiple of 4096 (near it: 4096 or 8192)"],
  ["memory:much", '"much" is not a size'],
  ["null:1", "not a multiple of 512 (near it: 512)"],
  ["./a.img?sise=1GiB", "there is no parameter sise; did you mean size?"],
  ["./a.img?size", "size needs a value: size=SIZE"],
  ["./a.img?direct=yes", "direct takes no value"],
  ["./a.img?size=1GiB&size=2GiB", "size is there twice"],
  ["file:", "the path is missing"],
  ["pattern:1MiB?seed=x", '"x" is not a number of seed'],
  ["stripe:[a,b", "a [ or ] has no partner"],
  ["slice:null:1MiB?partition=1&offset=512", "not both"],
  [
    "mirror:a?size=1GiB,b?size=1GiB",
    "no parameter size; there is: bitmap, late (one of its disks': mirror:[./a.img?size=…])",
  ],
  ["nbd:host", "nbd://HOST:PORT/EXPORT"],
  ["rbd:image", "it is typed rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT]"],
];

for (const [spec, said] of WRONG) {
  Deno.test(`readSpec() refuses "${spec}" and says what to type`, () => {
    const { message } = assertThrows(() => readSpec(spec), UsageError);
    assertStringIncludes(message, said);
    assertEquals(message.includes("\n"), false);
  });
}

const SIZES: readonly [spec: string, sizeBytes: number, survives: boolean][] = [
  ["memory:1MiB", 2 ** 20, false],
  ["null:1PiB", 2 ** 50, true],
  ["pattern:1MiB?seed=7", 2 ** 20, true],
  ["concat:null:1MiB,null:2MiB", 3 * 2 ** 20, true],
  ["stripe:null:1MiB,[memory:1MiB]?chunk=4KiB", 2 ** 21, false],
  ["slice:concat:null:1MiB,null:1MiB?offset=4096&size=8KiB", 8192, true],
];

for (const [spec, sizeBytes, survives] of SIZES) {
  Deno.test(`readSpec() opens "${spec}"`, async () => {
    const source = readSpec(spec);
    const disk = await source.open(open);
    assertEquals([disk.sizeBytes, source.survives], [sizeBytes, survives]);
    await disk.close?.("unused");
  });
}

Deno.test("a file that nobody may write names --read-only", async () => {
  const path = "/sys/kernel/uevent_seqnum"; // not even root may
  for (const query of ["", "?raw"]) {
    const refused = await assertRejects(() => readSpec(path + query).open(open), DblockError);
    assertStringIncludes(refused.message, "(to serve it as it is: --read-only)");
  }
});

Deno.test("a file is made only if a size is given, and told from a raw one by its size", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/disk.img`;
  const missing = await assertRejects(() => readSpec(path).open(open), DblockError);
  assertStringIncludes(missing.message, `there is no such file (to make it: ${path}?size=4GiB)`);
  for (const path of ["/dev/dblock-none", "/dev/dblock-none?size=1MiB"]) {
    const none = await assertRejects(() => readSpec(path).open(open), DblockError);
    assertEquals(none.message, "Cannot open /dev/dblock-none: there is no such device");
  }
  await assertRejects(
    () => readSpec(`${path}?size=1MiB`).open({ ...open, readOnly: true }),
    DblockError,
    "is not made",
  );
  assertEquals([...Deno.readDirSync(dir)], []);
  for (const [query, mapped] of [["?size=1MiB", true], ["", true], ["?raw", false]] as const) {
    const disk = await readSpec(path + query).open(open);
    assertEquals([disk.sizeBytes, "mapping" in disk], [2 ** 20, mapped]);
    await disk.close?.("left");
  }
  await Deno.truncate(path, 2 ** 20 + 512);
  const odd = await readSpec(path).open(open);
  assertEquals([odd.sizeBytes, "mapping" in odd], [2 ** 20 + 512, false]);
  await odd.close?.("unused");
  const empty = `${dir}/empty`;
  await Deno.writeTextFile(empty, "");
  await assertRejects(() => readSpec(empty).open(open), DblockError, "the file is empty (to make it larger:");
  await Deno.remove(dir, { recursive: true });
});

/** What is wrong with a disk that was typed rightly. */
const REFUSED: readonly [spec: string, said: string][] = [
  ["/tmp", "Cannot keep a disk in /tmp: it is a folder"],
  ["/dev/null", "Cannot keep a disk in /dev/null: it is no file and no block device"],
];

for (const [spec, said] of REFUSED) {
  Deno.test(`"${spec}" is not opened, and one line says why`, async () => {
    const { message } = await assertRejects(() => readSpec(spec).open(open), DblockError);
    assertStringIncludes(message, said);
  });
}

/** Parts that a disk does not have, and what is said. */
const NOT_THERE: readonly [spec: string, said: string][] = [
  ["slice:memory:1MiB?offset=2MiB", "Cannot take what is at 2 MiB of a disk: the disk has 1 MiB"],
  ["slice:memory:1MiB?offset=4KiB&size=1MiB", "Cannot take 1 MiB at 4 KiB of a disk: the disk has 1 MiB"],
  ["slice:null:1049088?size=2MiB", "Cannot take 2 MiB at 0 bytes of a disk: the disk has 1049088 bytes"],
  ["slice:memory:1MiB?partition=1", "there is neither a GPT nor an MBR"],
];

for (const [spec, said] of NOT_THERE) {
  Deno.test(`"${spec}" is a mistake of the words, and one line says so`, async () => {
    const { message } = await assertRejects(() => readSpec(spec).open(open), UsageError);
    assertStringIncludes(message, `${spec}: `);
    assertStringIncludes(message, said);
  });
}

Deno.test("disks of different sizes: one line says what a stripe or a mirror does not use of which", async () => {
  const said: string[] = [];
  const linesOf = async (spec: string) => {
    said.length = 0;
    const disk = await readSpec(spec).open({ ...open, log: (line) => said.push(line) });
    await disk.close?.("unused");
    return said.filter((line) => line.includes("not used"));
  };
  assertEquals(await linesOf("stripe:null:1MiB,null:2MiB,null:1048064"), [
    "The stripe uses 960 KiB of each disk, the most that the smallest allows; not used: 65536 bytes (64 KiB) of null:1MiB, " +
    "1114112 bytes (1.06 MiB) of null:2MiB",
  ]);
  assertEquals(await linesOf("mirror:null:1048064,null:1MiB"), [
    "The mirror uses 1048064 bytes of each disk, the most that the smallest allows; not used: 512 bytes of null:1MiB",
  ]);
  for (
    const spec of ["stripe:null:1048064,[null:1048064]", "concat:null:1MiB,null:2MiB", "mirror:null:1MiB,null:1024KiB"]
  ) {
    assertEquals(await linesOf(spec), [], spec);
  }
});

Deno.test("a set of which one disk cannot be opened closes the others", async () => {
  const dir = await Deno.makeTempDir();
  await Deno.writeFile(`${dir}/a`, new Uint8Array(2 ** 20));
  const spec = readSpec(`concat:${dir}/a,${dir}/missing`);
  await assertRejects(() => spec.open(open), DblockError, "there is no such file");
  const again = await readSpec(`${dir}/a`).open(open); // nobody holds its lock
  await again.close?.("unused");
  await Deno.remove(dir, { recursive: true });
});

Deno.test("a size that a file has not is refused with what can be typed", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/a.img`;
  await Deno.writeFile(path, new Uint8Array(2 ** 20));
  const refused = async (spec: string) => (await assertRejects(() => readSpec(spec).open(open), DblockError)).message;
  const larger = "to make it larger once it is served: dblock resize NAME SIZE";
  for (const [parameters, rest] of [["size=2MiB", ""], ["raw&size=2MiB", "?raw"], ["size=2MiB&raw", "?raw"]]) {
    const wrong = "it has 1048576 bytes, not 2097152";
    const said = `Cannot open ${path}: ${wrong} (give no size: ${path}${rest}; ${larger})`;
    assertEquals(await refused(`${path}?${parameters}`), said);
  }
  assertEquals(
    await refused(`${path}?size=512KiB`),
    `Cannot open ${path}: it has 1048576 bytes, not 524288 (give no size: ${path})`,
  );
  await Deno.remove(dir, { recursive: true });
});

Deno.test("a mirror is not taken over, as two servers would copy over what the other one has written", async () => {
  const dir = await Deno.makeTempDir();
  for (const bitmap of ["", `?bitmap=${dir}/bitmap`]) {
    const text = `mirror:[${dir}/a.img?size=1MiB],[${dir}/b.img?size=1MiB]${bitmap}`;
    const { message } = await assertRejects(() => readSpec(text).open({ ...open, shared: true }), DblockError);
    assertEquals(message.startsWith(`Cannot take over ${text}: only its server knows`), true, message);
  }
  assertEquals([...Deno.readDirSync(dir)], []);
  await Deno.remove(dir, { recursive: true });
});

Deno.test("a number that a disk cannot be made of is a mistake of the words", async () => {
  await assertRejects(() => readSpec("stripe:null:1MiB?chunk=512").open(open), UsageError, "chunkBytes");
});

/** Waits of so many ms end at once, and are counted, until it is disposed. */
function hurry(ms: number): Disposable & { count: number } {
  const { setTimeout } = globalThis;
  const hurried = {
    count: 0,
    [Symbol.dispose]: () => void (globalThis.setTimeout = setTimeout),
  };
  globalThis.setTimeout = ((work: () => void, waitMs?: number) => {
    if (waitMs === ms) hurried.count++;
    return setTimeout(work, waitMs === ms ? 0 : waitMs);
  }) as typeof setTimeout;
  return hurried;
}

for (const [late, ms] of [["", 10_000], ["?late=2500", 2_500]] as const) {
  Deno.test(`a half of a mirror${late} that does not answer is left after ${ms} ms, and is not waited for`, async () => {
    const scope = globalThis as { silentDisk?: Promise<void> };
    const awake = Promise.withResolvers<void>();
    const dir = await Deno.makeTempDir();
    await Deno.writeTextFile(
      `${dir}/silent.ts`,
      "export default ({ sizeBytes }) => ({ sizeBytes, read: () => globalThis.silentDisk, write: () => globalThis.silentDisk });",
    );
    const source = readSpec(`mirror:memory:1MiB,[${dir}/silent.ts?size=1MiB]${late}`);
    const disk = await source.open(open);
    const said = () => source.describe!().join("\n");
    for (let turn = 0; said().includes("syncing"); turn++) {
      assertEquals(turn < 4_000, true, said());
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    scope.silentDisk = awake.promise;
    {
      using hurried = hurry(ms);
      await disk.write(new Uint8Array(4096), 0, requestOptions());
      assertEquals(hurried.count, 1);
    }
    assertStringIncludes(said(), `silent.ts?size=1MiB: left, because: Cannot use`);
    assertStringIncludes(said(), `it has not answered for ${ms / 1_000} s`);
    awake.resolve();
    await disk.close?.("unused");
    delete scope.silentDisk;
    await Deno.remove(dir, { recursive: true });
  });
}

Deno.test("a mirror and an NBD disk say what happens to them where they are told to", async () => {
  const dir = await Deno.makeTempDir();
  const said: string[] = [];
  let told = Promise.withResolvers<void>();
  const log = (line: string) => {
    said.push(line);
    told.resolve();
  };
  const mirror = await readSpec(`mirror:null:1MiB,${dir}/b.img?size=1MiB`.replace(/,(.*)/, ",[$1]")).open({
    ...open,
    log,
  });
  await told.promise;
  await mirror.close?.("destroyed");
  assertEquals(said.splice(0), [`${dir}/b.img?size=1MiB has everything`]);
  const server = await serveOne({ sizeBytes: 4096, read: () => {}, write: () => {} });
  const nbd = await readSpec(`nbd+unix:///disk?socket=${server.path}`).open({ ...open, log });
  told = Promise.withResolvers<void>();
  await server.server.close();
  const lost = assertRejects(async () => await nbd.read(new Uint8Array(512), 0, requestOptions()));
  await told.promise;
  await nbd.close?.("destroyed");
  await lost;
  assertStringIncludes(said.join("\n"), "requests wait");
  await server[Symbol.asyncDispose]();
  await Deno.remove(dir, { recursive: true });
});
