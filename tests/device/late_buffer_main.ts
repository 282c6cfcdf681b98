/**
 * A server of late_buffer_test.ts, by serve() on an event loop. It answers what lies past `trapOffset` only when it is told
 * to, and keeps the buffers until then. Each line of its input is a command, each line of its output the answer:
 *
 *     look       only tells
 *     scribble   writes over the kept READ buffers from now on, and collects garbage
 *     outlive    waits for the device's end, fills memory that may have become free, serves another disk, and scribbles
 *     answer     ends scribbling, looks whether the kept WRITE buffers are as they came, writes to all, and answers all
 *
 * Run with --v8-flags=--expose-gc.
 */
import { type Backend, serve } from "../../src/mod.ts";
import { isFilled } from "./disk.ts";
import { TextLineStream } from "./lines.ts";

const sizeBytes = 16 * 2 ** 20;
export const trapOffset = 12 * 2 ** 20;
const depth = 16;

/** A request that is not answered. */
interface Kept {
  readonly buffer: Uint8Array;
  /** What a WRITE had in its buffer when it came. */
  readonly original: Uint8Array | undefined;
  readonly answer: () => void;
}

const { gc } = globalThis as unknown as { readonly gc: () => void };
const kept: Kept[] = [];
/** Memory that is not the backend's. */
const neighbours: Uint8Array[] = [];
const untouched = 0x55;
let scribbler: ReturnType<typeof setInterval> | undefined;
let scribbles = 0;

function keep(buffer: Uint8Array, original?: Uint8Array): Promise<void> {
  return new Promise((answer) => {
    kept.push({ buffer, original, answer });
  });
}

function makeBackend(): Backend {
  const store = new Uint8Array(sizeBytes);
  return {
    sizeBytes,
    async read(buffer, offset) {
      if (offset >= trapOffset) return await keep(buffer);
      await Promise.resolve();
      buffer.set(store.subarray(offset, offset + buffer.length));
    },
    async write(buffer, offset) {
      if (offset >= trapOffset) return await keep(buffer, buffer.slice());
      await Promise.resolve();
      store.set(buffer, offset);
    },
  };
}

function scribble(): void {
  scribbles++;
  if (scribbles % 20 === 0) gc();
  for (const { buffer, original } of kept) if (original === undefined) buffer.fill(scribbles);
}

/** How many WRITE buffers are not as they came. */
function changedCount(): number {
  return kept.filter(({ buffer, original }) => original?.some((byte, i) => byte !== buffer[i])).length;
}

/** Writes to every kept buffer, answers every request, and lets what follows from that happen. */
async function answerAll(): Promise<void> {
  clearInterval(scribbler);
  gc();
  for (const { buffer } of kept) buffer.fill(0xaa);
  for (const { answer } of kept.splice(0)) answer();
  await new Promise((resolve) => setTimeout(resolve, 50));
  gc();
}

/** Takes memory of every size that a queue's buffer may have had, to be where it was if that is free. */
function fillFreeMemory(slotBytes: number): void {
  gc();
  for (const size of [slotBytes, depth * slotBytes, depth * slotBytes + 4096]) {
    for (let i = 0; i < 4; i++) neighbours.push(new Uint8Array(size).fill(untouched));
  }
}

function startScribbling(): void {
  scribbles = 0;
  scribbler = setInterval(scribble, 1);
}

if (import.meta.main) {
  const [name, timeoutMs] = Deno.args as [string, string];
  const options = { depth, maxIoBytes: 2 ** 18, timeoutMs: Number(timeoutMs) };
  const device = await serve(makeBackend(), { name, ...options });
  console.log("served");
  for await (const line of Deno.stdin.readable.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())) {
    if (line === "scribble") startScribbling();
    if (line === "outlive") {
      const { reason } = await device.closed;
      if (reason !== "destroyed") throw new Error(reason);
      fillFreeMemory(options.maxIoBytes);
      await serve(makeBackend(), { name: `${name}-next`, ...options });
      startScribbling();
    }
    const state = { kept: kept.length, changed: changedCount(), scribbles };
    if (line === "answer") await answerAll();
    const damaged = neighbours.filter((bytes) => !isFilled(bytes, untouched)).length;
    console.log(JSON.stringify({ ...state, damaged }));
  }
  Deno.exit(0);
}
