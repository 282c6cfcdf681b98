// time limit: 180 s
// Partition tables made of noise, of real ones with bytes changed, and of ten formats' magic numbers with noise behind them
// bring no more than partitions; START comes back. Hard case D6. The seed is printed; FUZZ_SEED replays it. Debian's kernels
// parse DOS and GPT alone: what comes of the others, the debug kernel says.
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { assertWithin, exists, figure, scaled, sh } from "./harness.ts";
import { Random } from "../sim/random.ts";
import { type TableFormat, tableFormats } from "./partition_tables.ts";
import { MIB } from "./server.ts";
import { Memory } from "./syscall.ts";

const rounds = scaled(24);
const roundsPerFormat = scaled(2);
const sizeBytes = 4 * MIB;
const startMs = 10_000;
/** Formats whose tables here lead their parsers deep inside, and then nowhere: a table that is right in all is long. */
const needsMore = ["aix", "ldm"];

/** Real tables, as sfdisk makes them. */
async function realTables(): Promise<Uint8Array[]> {
  const scripts = [
    "label: dos\\nsize=1M\\nsize=1M,type=5\\nsize=512K\\n",
    "label: gpt\\nsize=1M\\nsize=1M\\n",
  ];
  return await Promise.all(scripts.map(async (script, i) => {
    await sh(`truncate -s ${sizeBytes} /tmp/table${i}; printf '${script}' | sfdisk --quiet /tmp/table${i}`);
    const bytes = await Deno.readFile(`/tmp/table${i}`);
    await Deno.remove(`/tmp/table${i}`);
    return bytes;
  }));
}

const seed = Number(Deno.env.get("FUZZ_SEED") ?? crypto.getRandomValues(new Uint16Array(1))[0]);
const replay = `seed ${seed}; replay with FUZZ_SEED=${seed}`;

/** Starts a disk with this content, and destroys it. Returns how many partitions it had. */
async function start(store: Memory): Promise<number> {
  const started = performance.now();
  const disk = await TestDisk.start({ name: "hostile0", size_bytes: sizeBytes, store });
  assertWithin(startMs, performance.now() - started, "live");
  const partitions =
    [...Deno.readDirSync("/sys/block/hostile0")].filter(({ name }) => /^hostile0p\d+$/.test(name)).length;
  await disk[Symbol.asyncDispose]();
  return partitions;
}

Deno.test("START survives hostile partition tables", async () => {
  console.log(replay);
  const random = new Random(seed);
  const tables = await realTables();
  using store = new Memory(sizeBytes);
  for (const table of tables) {
    store.bytes.set(table);
    assert(await start(store) > 0, "a table as sfdisk makes it brings no partition");
  }
  let partitions = 0;
  for (let round = 0; round < rounds; round++) {
    const table = tables[round % (tables.length + 1)];
    if (table === undefined) {
      random.fill(store.bytes.subarray(0, 64 * 512));
      store.bytes.set([0x55, 0xaa], 510);
    } else {
      store.bytes.set(table);
      // Where tables are: the first sectors, and GPT's copy at the end.
      for (let changes = 1 + random.below(12); changes > 0; changes--) {
        const at = random.chance(0.8) ? random.below(4096) : sizeBytes - 1 - random.below(17_000);
        store.bytes[at] = random.chance(0.5) ? 255 : random.below(256);
      }
    }
    partitions += await start(store);
  }
  figure({ "hostile partition tables": rounds, "partitions they brought": partitions });
  assertEquals((await sh("ls /dev | grep -c hostile || true")).stdout.trim(), "0");
});

/** A kernel without kallsyms, or a format that it does not know: nothing is expected of it. */
function hasParser({ parser }: TableFormat): boolean {
  const symbols = exists("/proc/kallsyms") ? Deno.readTextFileSync("/proc/kallsyms") : "";
  return new RegExp(` ${parser}(?:\\.\\S+)?$`, "m").test(symbols);
}

Deno.test("START survives hostile tables of formats that few kernels have parsers for", async () => {
  console.log(replay);
  const random = new Random(seed);
  const brought: string[] = [];
  let [partitions, hostile] = [0, 0];
  for (const format of tableFormats) {
    using store = new Memory(sizeBytes);
    // First a good one, which shows that the parser gets past its first checks where there is one.
    format.write(new DataView(store.bytes.buffer), () => 0.5);
    const good = await start(store) - (format.dosPartitions ?? 0);
    if (good > 0) brought.push(format.name);
    const isParsed = hasParser(format);
    if (isParsed && !needsMore.includes(format.name)) assert(good > 0, `${format.name}: no partition`);
    // Where there is no parser, noise is for nobody.
    for (let round = 0; isParsed && round < roundsPerFormat; round++, hostile++) {
      random.fill(store.bytes.subarray(0, 256 * 512));
      format.write(new DataView(store.bytes.buffer), () => random.next());
      partitions += await start(store);
    }
  }
  console.log(`good tables of ${brought.join(", ") || "none"} brought partitions`);
  figure({
    "hostile tables of ten formats": hostile,
    "formats this kernel parses": tableFormats.filter(hasParser).length,
    "partitions they brought": partitions,
  });
});
