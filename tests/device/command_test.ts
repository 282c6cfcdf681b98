// One `dblock serve` has several disks at once (memory, a file, a module of the user's, with a filter); list, info, resize,
// destroy and recover do what they say; a mistake is one line and leaves nothing behind; twenty disks cost one start.
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { list } from "../../src/module/info.ts";
import { fio, fioErrors } from "./fio.ts";
import { assertWithin, exists, figure, sh, waitFor } from "./harness.ts";
import { dblock, Serving } from "./serving.ts";

const MODULE = `
import { DblockError, type Backend } from "@dblock/dblock";
interface Given { sizeBytes: number }
export default function ({ sizeBytes }: Given): Backend {
  let store = new Uint8Array(sizeBytes);
  return {
    get sizeBytes() { return store.length; },
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write(buffer, offset) {
      if (offset === 4096) throw new DblockError("ENOSPC", "Cannot write", "not here");
      store.set(buffer, offset);
    },
    resize(size: number) {
      const grown = new Uint8Array(size);
      grown.set(store.subarray(0, size));
      store = grown;
    },
  };
}`;

/** Writes and reads back. */
async function copies(path: string): Promise<void> {
  await sh(`head -c 1M /dev/urandom >/tmp/in; dd if=/tmp/in of=${path} bs=1M seek=1 oflag=direct status=none`);
  await sh(`dd if=${path} bs=1M skip=1 count=1 iflag=direct status=none | cmp - /tmp/in`);
}

const sizeOf = async (path: string) => Number((await sh(`blockdev --getsize64 ${path}`)).stdout);

Deno.test("one dblock serve has a disk in memory, one in a file and one that a module is", async () => {
  Deno.writeTextFileSync("/tmp/disk.ts", MODULE);
  const words = "serve memory:64MiB --name cmdmem /tmp/disk.img?size=32MiB --name cmdfile " +
    "/tmp/disk.ts?size=8MiB --name cmdmod --with stats=file=/tmp/stats";
  await using serving = await Serving.start(words.split(" "));
  for (const name of ["cmdmem", "cmdfile", "cmdmod"]) await copies(`/dev/${name}`);
  const refused = await sh(`dd if=/dev/zero of=/dev/cmdmod bs=4k count=1 seek=1 oflag=direct`, { check: false });
  assertStringIncludes(refused.stderr, "No space left on device");

  const lines = (await dblock("list")).stdout.split("\n");
  assertMatch(lines[0]!, /^DISK +SIZE +STATE +SERVER +OPEN +SPEC$/);
  assertEquals(lines.slice(1, 4).map((line) => line.split(/ {2,}/)[0]), ["/dev/cmdfile", "/dev/cmdmem", "/dev/cmdmod"]);
  assertMatch(lines[2]!, new RegExp(` 64 MiB +live +${serving.child.pid} +0 +memory:64MiB$`));
  assertStringIncludes((await dblock("info cmdmod")).stdout, "content: /tmp/disk.ts?size=8MiB; in front of it: stats");

  // A module that can is asked; a file is taken over, larger; memory stays as it is.
  assertEquals((await dblock("resize cmdmod 16MiB")).status, 0);
  assertEquals(await dblock("resize cmdfile 64MiB"), {
    status: 0,
    stdout: "/dev/cmdfile has 64 MiB now\n",
    stderr: "",
  });
  assertEquals([await sizeOf("/dev/cmdmod"), await sizeOf("/dev/cmdfile")], [16 * 2 ** 20, 64 * 2 ** 20]);
  await sh(`dd if=/dev/cmdfile bs=1M skip=1 count=1 iflag=direct status=none >/tmp/before`);
  await copies("/dev/cmdmod");
  const stays = await dblock("resize cmdmem 128MiB");
  assertEquals([stays.status, stays.stderr.split("\n").length], [1, 2]);

  assertEquals(await dblock("destroy /dev/cmdmem cmdfile"), {
    status: 0,
    stdout: "/dev/cmdmem is destroyed\n/dev/cmdfile is destroyed\n",
    stderr: "",
  });
  await copies("/dev/cmdmod");
  assertMatch((await dblock("destroy cmdmem")).stderr, /^dblock destroy: .*\(there is: cmdmod\)\n$/);
  assertEquals((await dblock("destroy cmdmod")).status, 0);
  assertEquals((await serving.end()).code, 0);
  assertStringIncludes(Deno.readTextFileSync("/tmp/stats"), "write");
  // Servers that other tests have killed leave theirs.
  const own = `-name 'cmd*' -o -name ${serving.child.pid}.sock`;
  assertEquals((await sh(`find /run/dblock ${own}`)).stdout, "");
});

Deno.test("dblock recover goes on with what a killed server served", async () => {
  Deno.writeTextFileSync(
    "/tmp/recover.disk",
    "/tmp/kept.img?size=32MiB --name kept1\nnull:1GiB --name gone1 --on-death remove",
  );
  await using first = await Serving.start(["serve", "--config", "/tmp/recover.disk"]);
  await copies("/dev/kept1");
  first.child.kill("SIGKILL");
  await first.end();
  await waitFor("the disk that is to go is gone", () => !exists("/dev/gone1"));
  assertEquals((await list()).map(({ name, state }) => [name, state]), [["kept1", "held"]]);
  assertStringIncludes((await dblock("info kept1")).stdout, "to go on with it: dblock recover kept1");
  // Who waits for it is to find what was in it.
  const other = await dblock("serve /tmp/other.img?size=32MiB --name kept1");
  assertEquals([other.status, exists("/tmp/other.img")], [1, false]);
  assertMatch(
    other.stderr,
    /there is nothing in \/tmp\/other\.img, and the disk has had content \(.*recover kept1\)\n$/,
  );
  await using second = await Serving.start(["recover"]);
  assertMatch(second.stdout, /^\/dev\/kept1 is recovered: 32 MiB, /);
  await sh(`dd if=/dev/kept1 bs=1M skip=1 count=1 iflag=direct status=none | cmp - /tmp/in`);
  second.child.kill("SIGTERM"); // leaves it
  assertEquals((await second.end()).code, 0);
  assertStringIncludes(second.stdout, "to go on: dblock recover kept1");
  await using third = await Serving.start(["recover", "kept1"]);
  third.child.kill("SIGINT");
  assertEquals((await third.end()).code, 0);
  assertEquals((await dblock("recover")).stdout, "no disk waits for a server\n");

  // What the killed server left of the other disk is named, with the line that mends it.
  const mend = /left over: \/run\/dblock\/gone1\.\*.*\n +sudo (rm .*)\n/.exec((await dblock("doctor")).stdout)?.[1];
  await sh(mend!);
  assertEquals((await sh("find /run/dblock -name 'gone1*'")).stdout, "");
});

Deno.test("a mistake is one line, and leaves nothing behind, also of disks that were good", async () => {
  Deno.writeTextFileSync("/tmp/nodisk.ts", "export const x: number = 1;");
  const mistakes: readonly [words: string, status: number, said: string][] = [
    ["serve memory:16MiB --name a1 /tmp/none.img --name a2", 1, "to make it: /tmp/none.img?size=4GiB"],
    ["serve memory:16MiB --name a1 /tmp/nodisk.ts --name a2", 1, "it has no default export"],
    ["serve memory:16MiB --name a1 --nbd unix:/nowhere/x.sock", 1, "/nowhere/x.sock"],
    ["serve memory:16MiB --name a1 null:1MiB --name a2 --with checksum", 2, "needs file=FILE"],
    ["destroy nobody", 1, "there is none at all"],
  ];
  for (const [words, status, said] of mistakes) {
    const result = await dblock(words);
    assertEquals([result.status, result.stdout, result.stderr.split("\n").length], [status, "", 2], result.stderr);
    assertStringIncludes(result.stderr, said);
    assertEquals(await list(), [], words);
  }
  const startedMs = performance.now();
  await using serving = await Serving.start(["serve", "memory:16MiB", "--name", "taken"]);
  figure({ "1 disk in one process": [(performance.now() - startedMs) / 1_000, "s"] });
  assertMatch(
    (await dblock("serve null:1MiB --name taken")).stderr,
    /the name is in use \(.*dblock destroy taken/,
  );
  serving.child.kill("SIGINT");
  assertEquals((await serving.end()).code, 0);
});

Deno.test("the executable is what it is called: dblock-ramdisk by a link or a copy", async () => {
  assertMatch((await dblock("--version")).stdout, /^dblock \d+\.\d+\.\d+ \(ABI 2\)\n$/);
  await sh("ln -sf $PWD/dblock /tmp/dblock-ramdisk");
  assertMatch((await sh("/tmp/dblock-ramdisk --version")).stdout, /^dblock-ramdisk \d+\.\d+\.\d+ \(ABI 2\)\n$/);
  assertMatch((await sh("./dblock-ramdisk --help")).stdout, /^dblock-ramdisk: a disk in memory/);
});

Deno.test("twenty disks of one dblock serve cost one start, and go their own ways", async () => {
  const names = Array.from({ length: 20 }, (_, i) => `many${i}`);
  const path = (name: string) => `/dev/${name}`;
  const startedMs = performance.now();
  await using serving = await Serving.start(["serve", ...names.flatMap((name) => ["memory:64MiB", "--name", name])]);
  const seconds = (performance.now() - startedMs) / 1_000;
  assertEquals(names.filter((name) => !exists(path(name))), []);
  figure({ "20 disks in one process": [seconds, "s"] });
  assertWithin(10_000, seconds * 1_000, "20 disks are there");
  // Few threads serve them all: each of them has its own content, under load on all.
  const jobs = names.slice(0, 18).map((name) => `--name=${name} --filename=${path(name)}`).join(" ");
  const verified = fio(
    `--direct=1 --ioengine=libaio --iodepth=4 --rw=randwrite --bs=4k --size=1M --verify=crc32c ${jobs}`,
  );
  verified.catch(() => {}); // it is waited for below
  assertEquals((await dblock("destroy many18 --force")).status, 0);
  assertEquals([exists(path("many18")), exists(path("many19"))], [false, true]);
  await copies(path("many19"));
  const result = await verified;
  assertEquals([result.status, fioErrors(result).filter((errno) => errno !== 0)], [0, []], result.stderr);
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end(60_000)).code, 0);
  assertEquals(names.filter((name) => exists(path(name))), []);
});
