// SPDX-License-Identifier: MIT
/**
 * The other two things that `serve()` takes besides a `Backend` object: a disk that is memory, and a backend in a module of
 * its own, for Workers.
 */
import type { Backend, CloseReason } from "./backend.ts";

/** Memory of this process that is a disk's content. */
export interface Mapping {
  /** Its address, a multiple of 4096. */
  readonly address: number;
  /** Its size in bytes, a multiple of 4096. */
  readonly sizeBytes: number;
  /**
   * `anonymous`: private memory; a discarded page is given back and reads as zeroes, and there is nothing to flush.
   * `file`: a shared mapping of a file; a discard punches a hole, a flush waits until the file has everything.
   */
  readonly kind: "anonymous" | "file";
  /** The file that is mapped, from its beginning: holes are punched in it. Without it, the memory is asked to. */
  readonly fd?: number;
  /** What can be given back at once: a power of two, larger than usual on hugetlbfs. @default 4096 */
  readonly pageBytes?: number;
  /** One word that all queues share: how often a flush has failed, so that each of them reports it. */
  readonly flushFailures?: Int32Array<SharedArrayBuffer>;
}

/**
 * A disk that is memory. dblock.ko copies between a request's pages and `mapping` by itself, and one Worker a queue only
 * names addresses. To NBD clients, anonymous memory is sent and received where it is. Everybody else (a filter, NBD with TLS)
 * uses its callbacks, as of any backend.
 */
export interface MappedBackend extends Backend {
  /** Where the content is. */
  readonly mapping: Mapping;
  /**
   * Called instead of `close()` where a thread is still in the kernel with the memory: let go of everything but the
   * memory, such as the lock of a file, so that another server can go on. Without it, everything is kept until the program
   * ends.
   */
  abandon?(): void;
}

/**
 * A `Backend` in a module of its own, served by one Worker per queue. The module's default export is a `BackendFactory`.
 * Each Worker calls the factory and has a backend of its own: what they share goes through `data` (the `mapping` of a
 * `MemoryBackend`, a path).
 *
 * - What the module throws outside of a callback ends its Worker, and so do `self.close()` and `Deno.exit()`: that is the
 *   disk's death (`onDeath`). The backends of the other Workers are closed; that of the dead one cannot be.
 * - While the backend answers at once, its thread waits in the kernel and nowhere else: timers, ports and intervals of the
 *   module do not run. From the first promise that a callback returns, the Worker is an event loop and they do; with
 *   `eventLoop` it is one from the start.
 */
export interface BackendModule<Data = unknown> {
  /** The module: `new URL("./my-backend.ts", import.meta.url)`, or `import.meta.resolve("./my-backend.ts")`. */
  readonly module: URL | string;
  /** Given to the factory; anything `structuredClone` can copy. */
  readonly data?: Data;
  /**
   * Each Worker is an event loop from the start and never waits in the kernel: timers, ports and intervals of the module
   * run, and a request costs some more system calls. @default false
   */
  readonly eventLoop?: boolean;
}

/**
 * What a `BackendModule` exports as its default, and so does a module that `dblock serve` serves, whose `data` are the
 * parameters of the SPEC.
 *
 * @param handedOver what `handOver()` of the version before gave; undefined for the first version, and without `--watch`
 */
export type BackendFactory<Data = unknown, State = unknown> = (
  data: Data,
  handedOver?: State,
) => Backend | Promise<Backend>;

/** Everything that can be served. */
export type Servable = Backend | MappedBackend | BackendModule;

/** True for a disk that is memory: its `mapping` says where. A backend may have another field of that name. */
export function isMapped(backend: Servable): backend is MappedBackend {
  if (!("mapping" in backend)) return false;
  const mapping: unknown = backend.mapping;
  return typeof mapping === "object" && mapping !== null && "address" in mapping && "sizeBytes" in mapping &&
    typeof mapping.address === "number" && typeof mapping.sizeBytes === "number";
}

/** True for a disk that is a module: it cannot be read, and names a module. */
export function isModule(backend: Servable): backend is BackendModule {
  return !("read" in backend) && "module" in backend &&
    (typeof backend.module === "string" || backend.module instanceof URL);
}

/**
 * Closes a backend. One whose disk goes on with another server, and whose cache does not, flushes before.
 *
 * @throws what `flush()` or `close()` throws; `close()` is called in any case
 */
export async function closeBackend(backend: Backend, reason: CloseReason): Promise<void> {
  try {
    if (reason === "left" && backend.cacheSurvives !== true) {
      await backend.flush?.({ replayed: false, signal: new AbortController().signal });
    }
  } finally {
    await backend.close?.(reason);
  }
}
