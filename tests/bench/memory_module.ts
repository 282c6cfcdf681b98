/** A disk in shared memory as a module for Workers: the data is delivered to TypeScript, which copies it. */
import { type Backend, type Mapping, MemoryBackend } from "../../src/mod.ts";

/** What its Workers share. */
export interface MemoryModuleData {
  readonly mapping: Mapping;
}

/** A BackendFactory. */
export default function memoryModule(data: unknown): Backend {
  const store = new MemoryBackend((data as MemoryModuleData).mapping).bytes();
  return {
    sizeBytes: store.length,
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write: (buffer, offset) => store.set(buffer, offset),
  };
}
