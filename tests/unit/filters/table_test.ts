// SPDX-License-Identifier: MIT
/** Filters as people write them: every example works, every filter does what its line says, and mistakes are one line. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { requestOptions } from "../../../src/disk/request.ts";
import { nearest, parseDuration, parseShare, UsageError } from "../../../src/disk/words.ts";
import { filters, parseFilter } from "../../../src/filters/table.ts";

const block = 512;
const plain = requestOptions();

/** A disk of 1 MiB, and what it was asked. */
function disk(): { asked: string[]; store: Uint8Array<ArrayBuffer>; backend: Backend } {
  const store = new Uint8Array(2 ** 20);
  const asked: string[] = [];
  const backend: Backend = {
    sizeBytes: store.length,
    read: (buffer, offset) => {
      asked.push(`read ${offset} ${buffer.length}`);
      buffer.set(store.subarray(offset, offset + buffer.length));
    },
    write: (buffer, offset) => {
      asked.push(`write ${offset} ${buffer.length}`);
      store.set(buffer, offset);
    },
    flush: () => void asked.push("flush"),
  };
  return { asked, store, backend };
}

const bytes = (length: number, value = 0) => new Uint8Array(length).fill(value);

/** Runs with a folder that is gone afterwards. */
async function inFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "dblock-filters-" });
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("every filter's example works as it stands, and names only options that there are", async () => {
  await inFolder(async (folder) => {
    for (const [name, spec] of Object.entries(filters)) {
      const words = spec.example.replace(/=(\.|\/\S+)\//, `=${folder}/`);
      const { backend } = disk();
      const filter = await parseFilter(words).wrap(backend);
      assertEquals(filter.sizeBytes, backend.sizeBytes, name);
      await filter.close?.("unused");
      for (const option of Object.values(spec.options)) assert(option.help.length > 0 && option.value.length > 0);
    }
  });
});

Deno.test("src/filters/README.md has a line for each filter, with its example", async () => {
  const text = await Deno.readTextFile(new URL("../../../src/filters/README.md", import.meta.url));
  const missing = Object.entries(filters).filter(([name, { summary, example }]) =>
    !text.includes(`| \`${name}\` | ${summary} | \`--with ${example}\` |`)
  );
  assertEquals(missing.map(([name]) => name), []);
});

Deno.test("a mistake in a filter's words is one line that says what to type", async () => {
  const cases: [string, RegExp][] = [
    ["faul", /^there is no filter "faul" \(log, .*\); did you mean fault\?$/],
    ["delay=reed=5ms", /^the filter "delay" has no option "reed" \(read, write, .*\); did you mean read\?$/],
    ["delay=read", /^the option "read" of the filter "delay" takes a value: read=TIME$/],
    ["delay=read=soon", /"soon" is not a time \(write it like 5ms/],
    ["delay=read=5", /^filter "delay", option "read": "5" has no unit \(write it like 5ms, 5s or 5us\)$/],
    ["fault=share=2", /"2" is not a share \(0 to 1/],
    ["fault=errno=EWHAT", /"EWHAT" is not an errno/],
    ["fault=kind=sudden", /there is no kind of fault "sudden" \(error, late/],
    ["fault=operations=read+right", /there is no operation "right" .*/],
    ["read-only=yes=1", /^the filter "read-only" has no options: --with read-only$/],
    ["delay=read=1ms,read=2ms", /^the option "read" of the filter "delay" is given twice$/],
    ["rate=operations=0", /"0" is not a number of requests \(1 to \d+\)/],
    ["fault=seed=-1", /"-1" is not a seed \(0 to 4294967295\)/],
    ["checksum", /the filter "checksum" needs file=FILE: --with checksum=file=/],
  ];
  for (const [words, message] of cases) {
    const error = assertThrows(() => parseFilter(words), UsageError);
    assertMatch(error.message, message);
    assert(!error.message.includes("\n"));
  }
  const { backend } = disk();
  assertMatch((await assertRejects(() => parseFilter("rate").wrap(backend), UsageError)).message, /takes bytes=SIZE/);
  const bad = await assertRejects(() => parseFilter("cache=block=1000").wrap(backend), UsageError);
  assertMatch(bad.message, /^filter "cache": .*1000/);
});

Deno.test("times and shares are what people write; slips are guessed", () => {
  assertEquals(["0", "5ms", "1.5s", "200us", "2min"].map((text) => parseDuration(text)), [0, 5, 1500, 0.2, 120_000]);
  assertEquals(["0", ".5", "1%", "100%"].map((text) => parseShare(text)), [0, 0.5, 0.01, 1]);
  assertThrows(() => parseShare("101%"), UsageError);
  assertEquals(nearest("statz", ["stats", "log"]), "stats");
  assertEquals(nearest("elephant", ["stats", "log"]), undefined);
});

Deno.test("fault: its share of requests fails, at its place, after its count, the same for the same seed", async () => {
  const errors = async (words: string) => {
    const filter = await parseFilter(words).wrap(disk().backend);
    const failed: number[] = [];
    for (let i = 0; i < 1000; i++) {
      await Promise.resolve().then(() => filter.read(bytes(block), i * block, plain)).catch((error) => {
        assertEquals((error as DblockError).code, "ENOSPC");
        failed.push(i);
      });
    }
    return failed;
  };
  const some = await errors("fault=operations=read,share=10%,errno=ENOSPC,seed=3");
  assert(some.length > 60 && some.length < 140, `${some.length} of 1000 for a share of 10 %`);
  assertEquals(await errors("fault=operations=read,share=10%,errno=ENOSPC,seed=3"), some);
  assertEquals(await errors("fault=operations=read,errno=ENOSPC,offset=1KiB,length=1KiB"), [2, 3]);
  assertEquals(await errors("fault=operations=read,errno=ENOSPC,after=100,times=2"), [100, 101]);
  assertEquals(await errors("fault=operations=write,errno=ENOSPC"), []);
});

Deno.test("fault=while=FILE: requests fail while there is the file, and what hangs goes on when it is gone", async () => {
  await inFolder(async (folder) => {
    const filter = await parseFilter(`fault=while=${folder}/bad`).wrap(disk().backend);
    const hanging = await parseFilter(`fault=while=${folder}/bad,kind=hang`).wrap(disk().backend);
    const fails = () => Promise.resolve().then(() => filter.read(bytes(block), 0, plain)).then(() => false, () => true);
    const until = async (expected: boolean) => {
      for (let i = 0; await fails() !== expected; i++) {
        assert(i < 500, `faults are not ${expected ? "on" : "off"} after 5 s`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    assertEquals(await fails(), false);
    await Deno.writeTextFile(`${folder}/bad`, "");
    await until(true);
    // It looks at another moment than the other one.
    await new Promise((resolve) => setTimeout(resolve, 300));
    let isDone = false;
    const waiting = Promise.resolve(hanging.read(bytes(block), 0, plain)).then(() => isDone = true);
    await fails();
    assertEquals(isDone, false);
    await Deno.remove(`${folder}/bad`);
    await until(false);
    await waiting;
    for (const one of [filter, hanging]) await one.close?.("destroyed");
  });
});

Deno.test("delay: a request begins as much later as it says", async () => {
  const { asked, backend } = disk();
  const filter = await parseFilter("delay=read=40ms").wrap(backend);
  const started = performance.now();
  await filter.read(bytes(block), 0, plain);
  assert(performance.now() - started >= 38);
  asked.length = 0;
  const writing = filter.write(bytes(block), 0, plain);
  assertEquals(asked, [`write 0 ${block}`]); // at once
  await writing;
});

Deno.test("rate: what comes in a time is bounded, whatever many ask at once", async () => {
  const filter = await parseFilter("rate=bytes=1MiB,burst=64KiB").wrap(disk().backend);
  const started = performance.now();
  await Promise.all(Array.from({ length: 64 }, (_, i) => filter.read(bytes(4096), i * 4096, plain)));
  const seconds = (performance.now() - started) / 1000;
  // 256 KiB at 1 MiB/s, but for a burst of 64 KiB.
  assert(seconds >= 0.17, `256 KiB took ${seconds} s at 1 MiB/s`);
});

Deno.test("rate: so many requests a second, and a burst of them at once", async () => {
  const { asked, backend } = disk();
  const filter = await parseFilter("rate=operations=50,burstOperations=8").wrap(backend);
  const started = performance.now();
  const reads = Array.from({ length: 20 }, (_, i) => filter.read(bytes(block), i * block, plain));
  assertEquals(asked.length, 8, "the burst goes at once, and no more");
  await Promise.all(reads);
  // The other 12 come at 50 a second. A timer may be a millisecond early.
  const ms = performance.now() - started;
  assert(ms >= 238, `20 requests took ${ms} ms at 50 a second`);
  assertEquals(asked.length, 20);
});

Deno.test("retry: what fails is tried again, as often as it says", async () => {
  const { backend } = disk();
  let left = 3;
  const failing: Backend = {
    sizeBytes: backend.sizeBytes,
    read: (...range) => {
      if (left-- > 0) throw new DblockError("ETIMEDOUT");
      return backend.read(...range);
    },
    write: () => {},
  };
  const filter = await parseFilter("retry=times=3,delay=1ms").wrap(failing);
  await filter.read(bytes(block), 0, plain);
  left = 4;
  await assertRejects(async () => await filter.read(bytes(block), 0, plain), DblockError);
});

Deno.test("cache: what was read is not asked for again; write-back keeps writes until a flush", async () => {
  const { asked, store, backend } = disk();
  const through = await parseFilter("cache").wrap(backend);
  await through.read(bytes(4096), 0, plain);
  await through.read(bytes(4096), 0, plain);
  assertEquals(asked.filter((line) => line.startsWith("read")).length, 1);
  const back = await parseFilter("cache=mode=write-back,size=64KiB").wrap(backend);
  await back.write(bytes(4096, 9), 8192, plain);
  assertEquals(store[8192], 0);
  const seen = bytes(4096);
  await back.read(seen, 8192, plain);
  assertEquals(seen[0], 9);
  await back.flush!(plain);
  assertEquals([store[8192], asked.at(-1)], [9, "flush"]);
  // Bounded: 1 MiB does not stay in 64 KiB.
  for (let at = 0; at < 2 ** 20; at += 4096) await back.write(bytes(4096, 5), at, plain);
  assert(store.filter((byte) => byte === 5).length >= 2 ** 20 - 2 ** 16);
});

Deno.test("readahead: who reads in order is ahead of the disk", async () => {
  const { asked, backend } = disk();
  const filter = await parseFilter("readahead=window=64KiB").wrap(backend);
  for (let at = 0; at < 2 ** 19; at += 4096) await filter.read(bytes(4096), at, plain);
  assert(asked.length < 40, `${asked.length} reads for 128 requests in order`);
});

Deno.test("read-only refuses writes, and write-cache loses no flushed block and no room", async () => {
  const { store, backend } = disk();
  assertEquals((await parseFilter("read-only").wrap(backend)).readOnly, true);
  const cache = await parseFilter("write-cache=size=4KiB").wrap(backend);
  await cache.write(bytes(block, 1), 0, plain);
  assertEquals(store[0], 0);
  for (let i = 0; i < 16; i++) await cache.write(bytes(block, 2), i * block, plain);
  assert(store.some((byte) => byte === 2), "it is bounded");
  await cache.flush!(plain);
  assert(store.subarray(0, 16 * block).every((byte) => byte === 2));
});

Deno.test("checksum finds a flipped bit, with EILSEQ", async () => {
  await inFolder(async (folder) => {
    const { store, backend } = disk();
    const filter = await parseFilter(`checksum=file=${folder}/sums`).wrap(backend);
    await filter.write(bytes(4096, 3), 4096, plain);
    await filter.read(bytes(4096), 4096, plain);
    store[5000]! ^= 1;
    const complaints: unknown[] = [];
    const log = console.error;
    console.error = (line: unknown) => complaints.push(line);
    try {
      const error = await assertRejects(async () => await filter.read(bytes(4096), 4096, plain), DblockError);
      assertEquals(error.code, "EILSEQ");
    } finally {
      console.error = log;
    }
    assertEquals(complaints.length, 1);
    await filter.close?.("destroyed");
  });
});

Deno.test("log writes a line a request, stats a report at the end, each to its file", async () => {
  await inFolder(async (folder) => {
    const logged = await parseFilter(`log=file=${folder}/log`).wrap(disk().backend);
    const counted = await parseFilter(`stats=file=${folder}/stats`).wrap(logged);
    await counted.write(bytes(block), 1024, plain);
    await counted.read(bytes(block), 1024, plain);
    await counted.close?.("destroyed");
    const lines = (await Deno.readTextFile(`${folder}/log`)).trim().split("\n");
    assertEquals(lines.length, 2);
    assertMatch(lines[0]!, /^write offset=1024 length=512 us=\d+ errno=0$/);
    assertMatch(await Deno.readTextFile(`${folder}/stats`), /read: 1 request, 512 bytes[^]*write: 1 request,/);
  });
});

Deno.test("log and stats leave no file behind that they have made for a disk that was never used, unless somebody else has written to it", async () => {
  await inFolder(async (folder) => {
    const closeUnused = async (meanwhile: () => Promise<void>) => {
      const logged = await parseFilter(`log=file=${folder}/log`).wrap(disk().backend);
      const counted = await parseFilter(`stats=file=${folder}/stats`).wrap(logged);
      await meanwhile();
      await counted.close?.("unused");
      return [...Deno.readDirSync(folder)].map(({ name, isFile }) => {
        return isFile ? `${name}: ${Deno.readTextFileSync(`${folder}/${name}`)}` : name;
      }).sort();
    };
    assertEquals(await closeUnused(() => Promise.resolve()), []);
    const writeBoth = async () => {
      for (const name of ["log", "stats"]) await Deno.writeTextFile(`${folder}/${name}`, "another's", { append: true });
    };
    assertEquals(await closeUnused(writeBoth), ["log: another's", "stats: another's"]);
    await Deno.writeTextFile(`${folder}/log`, "");
    await Deno.writeTextFile(`${folder}/stats`, "");
    assertEquals(await closeUnused(() => Promise.resolve()), ["log: ", "stats: "], "they were there");
  });
});

Deno.test("log and stats say which disk it is, if it has a name", async () => {
  await inFolder(async (folder) => {
    for (const name of ["left", "right"]) {
      const logged = await parseFilter(`log=file=${folder}/log`).wrap(disk().backend, { disk: name });
      const counted = await parseFilter(`stats=file=${folder}/stats`).wrap(logged, { disk: name });
      await counted.read(bytes(block), 0, plain);
      await counted.close?.("destroyed");
    }
    assertMatch(await Deno.readTextFile(`${folder}/log`), /^read .* errno=0 disk=left\nread .* errno=0 disk=right\n$/);
    assertMatch(await Deno.readTextFile(`${folder}/stats`), /^left: [\d.]+ s, at most [^]*\nright: [\d.]+ s, at most /);
  });
});
