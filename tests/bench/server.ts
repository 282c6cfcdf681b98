/**
 * A program that serves a disk for the bench, as a user of the SDK would write it. Its argument is a ServerOptions as
 * JSON; it prints a line when the disk is there.
 */
import { MemoryBackend, type Servable, serve } from "../../src/mod.ts";
import type { OwnKind } from "./disks.ts";
import type { MemoryModuleData } from "./memory_module.ts";

/** What to serve. */
export interface ServerOptions {
  readonly kind: OwnKind;
  readonly name: string;
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
  const { name, queues } = options;
  await using device = await serve(makeBackend(options), { name, ...(queues === undefined ? {} : { queues }) });
  console.log("ready");
  await device.closed;
}

if (import.meta.main) await main();
