/**
 * A program that uses a disk and knows what the disk owes it. It writes blocks with O_DIRECT, several at once, logs every
 * write that was acknowledged to a file, and at the end of its input waits for the last ones, then reads every block back
 * and compares it with the log. Arguments: disk, log file, number of blocks, seed. Prints an OracleReport as JSON.
 * Knows nothing of servers. Not covered: two writes of one block at once.
 */
import { close, Memory, NR, O_DIRECT, O_RDWR, open, syscallAsync } from "./syscall.ts";

/** What the oracle found. */
export interface OracleReport {
  readonly acknowledged: number;
  /** Writes and reads that ended with an error. */
  readonly errors: number;
  /** Blocks whose last acknowledged write is not what is there. */
  readonly lost: number;
  /** How many blocks were looked at. */
  readonly checked: number;
  readonly longestMs: number;
}

const blockBytes = 4096;
const writersCount = 8;

/** Fills a block with words that belong to this block, this write and this run. */
export function fillBlock(words: Uint32Array, block: number, sequence: number, seed: number): void {
  let state = (seed ^ Math.imul(block + 1, 0x9e3779b1) ^ Math.imul(sequence + 1, 0x85ebca6b)) >>> 0;
  words[0] = block;
  words[1] = sequence;
  words[2] = seed;
  for (let i = 3; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = state;
  }
}

async function main(): Promise<void> {
  const [disk, logFile] = Deno.args as [string, string];
  const [blocks, seed] = Deno.args.slice(2).map(Number) as [number, number];
  const fd = open(disk, O_RDWR | O_DIRECT);
  if (fd < 0) throw new Error(`open ${disk}: errno ${-fd}`);
  const log = Deno.openSync(logFile, { create: true, truncate: true, write: true });
  const counts = { acknowledged: 0, errors: 0, longestMs: 0 };
  let isOver = false;
  Deno.stdin.readable.pipeTo(new WritableStream()).then(() => isOver = true);

  /** Writes to every 8th block, so that no two writers ever have the same one. */
  const write = async (writer: number): Promise<void> => {
    const memory = new Memory(blockBytes);
    const words = new Uint32Array(memory.bytes.buffer);
    for (let sequence = 0; !isOver; sequence++) {
      const block = Math.floor(Math.random() * blocks / writersCount) * writersCount + writer;
      fillBlock(words, block, sequence, seed);
      const started = performance.now();
      const result = await syscallAsync(NR.pwrite64, fd, memory.address, blockBytes, block * blockBytes);
      counts.longestMs = Math.max(counts.longestMs, performance.now() - started);
      if (result !== blockBytes) {
        counts.errors++;
        continue;
      }
      log.writeSync(new Uint8Array(new Uint32Array([block, sequence]).buffer));
      counts.acknowledged++;
    }
  };
  await Promise.all(Array.from({ length: writersCount }, (_, writer) => write(writer)));
  log.close();

  const memory = new Memory(blockBytes);
  const found = new Uint32Array(memory.bytes.buffer);
  const expected = new Uint32Array(blockBytes / 4);
  const last = lastWrites(await Deno.readFile(logFile));
  let lost = 0;
  for (const [block, sequence] of last) {
    const result = await syscallAsync(NR.pread64, fd, memory.address, blockBytes, block * blockBytes);
    if (result !== blockBytes) counts.errors++;
    fillBlock(expected, block, sequence, seed);
    if (!expected.every((word, i) => word === found[i])) lost++;
  }
  close(fd);
  const report: OracleReport = { ...counts, lost, checked: last.size };
  console.log(JSON.stringify(report));
}

/** The number of each block's last acknowledged write. */
export function lastWrites(log: Uint8Array<ArrayBuffer>): Map<number, number> {
  const words = new Uint32Array(log.buffer, 0, Math.floor(log.length / 4));
  const last = new Map<number, number>();
  for (let i = 0; i + 1 < words.length; i += 2) last.set(words[i]!, words[i + 1]!);
  return last;
}

if (import.meta.main) await main();
