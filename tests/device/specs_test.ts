// The SPECs of `dblock serve` that no other device test has: what is written through /dev is where the SPEC says, and what was
// there before is read. Mapped files, mirrors, modules and NBD have tests of their own (`store`, `mirror`, `watch`, `nbd`).
// time limit: 240 s
import { assert, assertEquals, assertMatch } from "@std/assert";
import { DBLOCK_DEVICE_DIRECT } from "../../src/module/abi.ts";
import { PatternBackend } from "../../src/backends/pattern.ts";
import { ext4Folder } from "./ext4_folder.ts";
import { fio, fioErrors } from "./fio.ts";
import { sh, waitFor } from "./harness.ts";
import { infoOf, MIB } from "./server.ts";
import { dblock, Serving } from "./serving.ts";

const IN = "/tmp/specs.in";

/** Random writes, compared with what is read back. */
async function verify(path: string): Promise<void> {
  const load = "--direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=4k-64k --size=4M --verify=crc32c";
  const result = await fio(`${load} --verify_fatal=1 --fsync=32 --name=verify --filename=${path}`);
  assertEquals([result.status, fioErrors(result)], [0, [0]], `${path}: ${result.stderr}`);
}

/** Writes so many MiB of random data, at a place in MiB, and keeps them in {@linkcode IN}. */
async function fill(path: string, atMiB: number, lengthMiB: number): Promise<void> {
  await sh(`head -c ${lengthMiB}M /dev/urandom >${IN}`);
  await sh(`dd if=${IN} of=${path} bs=1M seek=${atMiB} conv=notrunc,fsync status=none`);
}

/** Says whether {@linkcode IN} is at that place, on the disk itself and not in the page cache of the device. */
async function isFilled(path: string, atMiB: number): Promise<void> {
  await sh(`[ ! -b ${path} ] || blockdev --flushbufs ${path}`);
  const lengthMiB = (await Deno.stat(IN)).size / MIB;
  await sh(`dd if=${path} bs=1M skip=${atMiB} count=${lengthMiB} status=none | cmp - ${IN}`);
}

/** Ends the server; its disks have written all they had then. */
async function end(serving: Serving): Promise<void> {
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end(60_000)).code, 0, serving.stderr);
}

Deno.test("a block device is a store, also with O_DIRECT, and nobody else's meanwhile", async () => {
  const names = ["specstore0", "specstore1"];
  await using stores = await Serving.start(["serve", ...names.flatMap((name) => ["memory:32MiB", "--name", name])]);
  for (const name of names) await sh(`head -c 32M /dev/urandom | dd of=/dev/${name} bs=1M conv=fsync status=none`);
  const words = "serve /dev/specstore0 --name specs0 /dev/specstore1?direct --name specs1".split(" ");
  const before = await Promise.all(names.map(async (name) => (await sh(`sha256sum </dev/${name}`)).stdout));
  {
    await using serving = await Serving.start(words);
    for (const [i, store] of names.entries()) {
      assertEquals((await sh(`sha256sum </dev/specs${i}`)).stdout, before[i], "what was there is read");
      const second = await dblock(`serve /dev/${store} --name specs9`);
      assertEquals([second.status, second.stdout], [1, ""]);
      assertMatch(
        second.stderr,
        /^dblock serve: Cannot keep a disk in \/dev\/specstore\d: [^\n]*somebody else's[^\n]*\n$/,
      );
      await verify(`/dev/specs${i}`);
      await fill(`/dev/specs${i}`, 16, 8);
      await isFilled(`/dev/specs${i}`, 16);
      await sh(`cp ${IN} ${IN}${i}`);
    }
    await end(serving);
  }
  for (const [i, name] of names.entries()) {
    await sh(`mv ${IN}${i} ${IN}`);
    await isFilled(`/dev/${name}`, 16);
  }
  await end(stores);
});

Deno.test("a file with O_DIRECT: what was written is in the file", async () => {
  await using folder = await ext4Folder();
  const path = `${folder.path}/specs.img`;
  await using serving = await Serving.start(["serve", `${path}?size=32MiB&direct`, "--name", "specs0"]);
  // The kernel reads and writes it: that the program's Workers have found the file cannot be told from what they answer.
  assertEquals((infoOf("specs0")!.flags & DBLOCK_DEVICE_DIRECT) !== 0, true);
  await verify("/dev/specs0");
  await fill("/dev/specs0", 20, 8);
  await isFilled("/dev/specs0", 20);
  await end(serving);
  await isFilled(path, 20);
  assertEquals((await Deno.stat(path)).size, 32 * MIB);
  await sh(`rm ${path}`);
});

Deno.test("a store with O_DIRECT whose flush fails makes fsync() fail", async () => {
  const bad = "fault=operations=flush,while=/tmp/specs.bad";
  await using folder = await ext4Folder();
  const spec = `${folder.path}/store.img?size=16MiB&raw`;
  await using store = await Serving.start(["serve", spec, "--name", "store0", "--with", bad]);
  await using serving = await Serving.start(["serve", "/dev/store0?direct", "--name", "specs0"]);
  const writes = async () =>
    (await sh("dd if=/dev/zero of=/dev/specs0 bs=4k count=1 conv=fsync", { check: false })).status === 0;
  assertEquals(await writes(), true);
  await sh("touch /tmp/specs.bad");
  await waitFor("fsync() fails", async () => !await writes());
  await sh("rm /tmp/specs.bad");
  await end(serving);
  await end(store);
});

Deno.test("concat: one behind the other, and a write over the border is in both", async () => {
  const [first, second] = ["/tmp/specs.first", "/tmp/specs.second"];
  await sh(`head -c 8M /dev/urandom >${first}; head -c 16M /dev/urandom >${second}`);
  await using serving = await Serving.start(["serve", `concat:${first},${second}`, "--name", "specs0"]);
  await sh(`cat ${first} ${second} | cmp - /dev/specs0`);
  await verify("/dev/specs0");
  await fill("/dev/specs0", 6, 4);
  await end(serving);
  await sh(`cat ${first} ${second} >/tmp/specs.both`);
  await isFilled("/tmp/specs.both", 6);
  await sh(`rm ${first} ${second} /tmp/specs.both`);
});

Deno.test("slice: a partition of a table that sfdisk wrote, and nothing beside it is touched", async () => {
  await using folder = await ext4Folder();
  const path = `${folder.path}/specs.img`;
  await sh(`head -c 40M /dev/urandom >${path}`);
  await sh(`printf 'label: gpt\\nstart=2048,size=16384\\nstart=20480,size=32768\\n' | sfdisk --quiet ${path}`);
  // The second one is 16 MiB, from 10 MiB on.
  const beside = `(head -c 10M ${path}; tail -c +$((26 * 1048576 + 1)) ${path}) | sha256sum`;
  const before = (await sh(beside)).stdout;
  await using serving = await Serving.start(["serve", `slice:[${path}?direct]?partition=2`, "--name", "specs0"]);
  assertEquals((await sh("blockdev --getsize64 /dev/specs0")).stdout.trim(), String(16 * MIB));
  await sh(`dd if=${path} bs=1M skip=10 count=16 status=none | cmp - /dev/specs0`);
  await verify("/dev/specs0");
  // To the last byte, where a mistake would show beside it.
  await fill("/dev/specs0", 0, 16);
  await end(serving);
  await isFilled(path, 10);
  assertEquals((await sh(beside)).stdout, before);
  const missing = await dblock(`serve 'slice:${path}?partition=3' --name specs0`);
  assertEquals([missing.status, missing.stderr.split("\n").length], [2, 2], missing.stderr);
  await sh(`rm ${path}`);
});

Deno.test("pattern: reads are the pattern of the seed, and a write of anything else fails", async () => {
  await using serving = await Serving.start("serve pattern:1TiB?seed=7 --name specs0".split(" "));
  const atMiB = 700_000;
  const expected = new Uint8Array(MIB);
  new PatternBackend({ sizeBytes: 2 ** 40, seed: 7 }).read(expected, atMiB * MIB);
  await Deno.writeFile(IN, expected);
  await isFilled("/dev/specs0", atMiB);
  await sh(`dd if=${IN} of=/dev/specs0 bs=1M seek=${atMiB} oflag=direct status=none`);
  const wrong = await sh(`dd if=${IN} of=/dev/specs0 bs=1M seek=${atMiB + 1} oflag=direct status=none`, {
    check: false,
  });
  assertEquals(wrong.status, 1);
  await end(serving);
});

Deno.test("memory with huge pages keeps what is written, in huge pages where the kernel has some", async () => {
  await using serving = await Serving.start("serve memory:32MiB?hugepages --name specs0".split(" "));
  await verify("/dev/specs0");
  await fill("/dev/specs0", 0, 32);
  await isFilled("/dev/specs0", 0);
  const enabled = await sh("cat /sys/kernel/mm/transparent_hugepage/enabled", { check: false });
  const rollup = (await sh(`cat /proc/${serving.pid}/smaps_rollup`)).stdout;
  const hugeKiB = Number(/^AnonHugePages: +(\d+) kB$/m.exec(rollup)?.[1] ?? 0);
  console.log(`${hugeKiB} KiB of 32 MiB are huge pages`);
  // The kernel may have no 2 MiB in one piece for some of them.
  if (enabled.status === 0 && !enabled.stdout.includes("[never]")) assert(hugeKiB >= 8 * 1024, rollup);
  await end(serving);
});
