// Partition tables made of noise, and of real ones with bytes changed, bring no more than partitions; START comes back.
// Hard case D6. The seed is printed; FUZZ_SEED replays it.
import { assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh } from "./harness.ts";
import { MIB } from "./server.ts";
import { Memory } from "./syscall.ts";

const rounds = 24;
const sizeBytes = 4 * MIB;
const startMs = 10_000;

/** mulberry32. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Real tables, as sfdisk makes them. */
async function realTables(): Promise<Uint8Array[]> {
  const scripts = [
    "label: dos\\nsize=1M\\nsize=1M,type=5\\nsize=512K\\n",
    "label: gpt\\nsize=1M\\nsize=1M\\n",
    "label: sun\\n",
  ];
  return await Promise.all(scripts.map(async (script, i) => {
    await sh(`truncate -s ${sizeBytes} /tmp/table${i}; printf '${script}' | sfdisk --quiet /tmp/table${i}`);
    const bytes = await Deno.readFile(`/tmp/table${i}`);
    await Deno.remove(`/tmp/table${i}`);
    return bytes;
  }));
}

Deno.test("START survives hostile partition tables", async () => {
  const seed = Number(Deno.env.get("FUZZ_SEED") ?? crypto.getRandomValues(new Uint16Array(1))[0]);
  console.log(`seed ${seed}; replay with FUZZ_SEED=${seed}`);
  const random = generator(seed);
  const tables = await realTables();
  const store = new Memory(sizeBytes);
  for (let round = 0; round < rounds; round++) {
    const table = tables[round % (tables.length + 1)];
    if (table === undefined) {
      for (let i = 0; i < 64 * 512; i++) store.bytes[i] = random() * 256;
      store.bytes.set([0x55, 0xaa], 510);
    } else {
      store.bytes.set(table);
      // Where tables are: the first sectors, and GPT's copy at the end.
      for (let i = 0; i < 1 + random() * 12; i++) {
        const at = random() < 0.8 ? random() * 4096 : sizeBytes - 1 - random() * 17_000;
        store.bytes[Math.floor(at)] = random() < 0.5 ? 255 : random() * 256;
      }
    }
    const started = performance.now();
    const disk = await TestDisk.start({ name: "hostile0", size_bytes: sizeBytes, store });
    assertWithin(startMs, performance.now() - started, "live");
    await disk[Symbol.asyncDispose]();
  }
  assertEquals((await sh("ls /dev | grep -c hostile || true")).stdout.trim(), "0");
});
