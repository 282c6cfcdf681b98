/**
 * A program that serves disks for the bench, as a user of the SDK would write it. Its argument is a ServerOptions as
 * JSON; it prints a line when the disks are there.
 */
import { MemoryBackend, type Servable, serve, WorkerPool } from "../../src/mod.ts";
import type { OwnKind } from "./disks.ts";
import type { MemoryModuleData } from "./memory_module.ts";

/** What to serve. */
export interface ServerOptions {
  readonly kind: OwnKind;
  /** Of each disk. */
  readonly names: readonly string[];
  readonly sizeBytes: number;
  readonly queues?: number;
}

function makeBackend({ kind, sizeBytes }: ServerOptions): Servable {
  switch (kind) {
    case "delivered": {
      const data: MemoryModuleData = { mapping: new MemoryBackend({ sizeBytes }).mapping };
      return { module: new URL("./memory_module.ts", import.meta.url), data };
    }
    case "sync": {
      const store = new Uint8Array(sizeBytes);
      return {
        sizeBytes,
        read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
        write: (buffer, offset) => store.set(buffer, offset),
      };
    }
    case "async": {
      const store = new Uint8Array(sizeBytes);
      return {
        sizeBytes,
        read: async (buffer, offset) => {
          await Promise.resolve();
          buffer.set(store.subarray(offset, offset + buffer.length));
        },
        write: async (buffer, offset) => {
          await Promise.resolve();
          store.set(buffer, offset);
        },
      };
    }
    case "direct":
    case "file":
    case "mapped-disk":
    case "file-disk":
      throw new Error("the commands serve these");
  }
}

async function main(): Promise<void> {
  const options = JSON.parse(Deno.args[0]!) as ServerOptions;
  const { names, queues } = options;
  // Of one disk, each queue has a Worker of its own.
  using workers = names.length > 1 ? new WorkerPool() : undefined;
  await using devices = new AsyncDisposableStack();
  const closed: Promise<unknown>[] = [];
  for (const name of names) {
    const device = await serve(makeBackend(options), { name, workers, ...(queues === undefined ? {} : { queues }) });
    devices.use(device);
    closed.push(device.closed);
  }
  console.log("ready");
  await Promise.all(closed);
}

if (import.meta.main) await main();
