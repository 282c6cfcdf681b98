/**
 * A program that serves a disk in one of the three ways, for io_flusher_test.ts: `NAME WAY [first]`. With "first" it makes
 * all of itself an I/O flusher before it does anything else. Prints a line when the disk is there; runs until it is gone.
 */
import { becomeIoFlusher } from "../../src/command/cli.ts";
import { type Backend, MemoryBackend, type Servable, serve } from "../../src/mod.ts";

const sizeBytes = 2 ** 20;

/** What a Worker of the way "module" makes of this very file. */
export default function make(): Backend {
  const store = new Uint8Array(sizeBytes);
  return {
    sizeBytes,
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write: (buffer, offset) => store.set(buffer, offset),
  };
}

const backends: Readonly<Record<string, () => Servable>> = {
  "event loop": make,
  module: () => ({ module: new URL(import.meta.url) }),
  mapped: () => new MemoryBackend({ sizeBytes }),
};

if (import.meta.main) {
  const [name, way, first] = Deno.args as [string, string, string?];
  if (first === "first") becomeIoFlusher();
  await using device = await serve(backends[way]!(), { name });
  console.log(`${device.queueCount} queues`);
  await device.closed;
}
