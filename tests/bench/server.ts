/**
 * A program that serves disks for the bench, as a user of the SDK would write it. Its argument is a ServerOptions as
 * JSON; it prints a line when the disks are there.
 */
import { MemoryBackend, type Servable, serve } from "../../src/mod.ts";
import type { OwnKind } from "./disks.ts";
import type { MemoryModuleData } from "./memory_module.ts";

/** What to serve. */
export interface ServerOptions {
  readonly kind: OwnKind;
  readonly names: readonly string[];
  /** Of each disk. */
  readonly sizeBytes: number;
  readonly queues?: number;
}

function makeBackend({ kind, sizeBytes }: ServerOptions): Servable {
  switch (kind) {
    case "direct":
      return new MemoryBackend({ sizeBytes });
    case "delivered": {
      const data: MemoryModuleData = { store: new SharedArrayBuffer(sizeBytes) };
      return { module: new URL("./memory_module.ts", import.meta.url), data };
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
    case "file":
      throw new Error("dblock-ramdisk --store serves files");
  }
}

async function main(): Promise<void> {
  const options = JSON.parse(Deno.args[0]!) as ServerOptions;
  const queues = options.queues === undefined ? {} : { queues: options.queues };
  const devices = [];
  for (const name of options.names) devices.push(await serve(makeBackend(options), { name, ...queues }));
  console.log("ready");
  await Promise.all(devices.map((device) => device.closed));
}

if (import.meta.main) await main();
