// SPDX-License-Identifier: MIT
/** A disk in an array that notes what it was asked, and a place for a server's socket. */
import type { Backend, Extent, RequestOptions } from "../../../src/disk/backend.ts";
import { type NbdServer, type NbdServerOptions, serveNbd } from "../../../src/nbd/server.ts";

/** A disk whose `calls` tell what it was asked: `write 0+4096 fua`. */
export interface Recorder extends Backend {
  readonly store: Uint8Array<ArrayBuffer>;
  readonly calls: string[];
}

/** A `Recorder` with every callback. */
export function recorder(sizeBytes: number = 2 ** 20, changes: Partial<Backend> = {}): Recorder {
  const store = new Uint8Array(sizeBytes);
  const calls: string[] = [];
  const note = (what: string, at: number, length: number, { fua, keepAllocated, readAhead }: RequestOptions) => {
    calls.push(
      `${what} ${at}+${length}${fua ? " fua" : ""}${keepAllocated ? " keep" : ""}${readAhead ? " ahead" : ""}`,
    );
  };
  return {
    store,
    calls,
    sizeBytes,
    read(buffer, offset, options) {
      note("read", offset, buffer.length, options);
      buffer.set(store.subarray(offset, offset + buffer.length));
    },
    write(buffer, offset, options) {
      note("write", offset, buffer.length, options);
      store.set(buffer, offset);
    },
    flush: () => void calls.push("flush"),
    discard: (offset, length, options) => note("discard", offset, length, options),
    writeZeroes(offset, length, options) {
      note("zero", offset, length, options);
      store.fill(0, offset, offset + length);
    },
    close: (reason) => void calls.push(`close ${reason}`),
    ...changes,
  };
}

/** A server of one disk on a unix socket of its own, and what it has said. */
export async function serveOne(
  backend: Backend,
  options: NbdServerOptions = {},
): Promise<{ server: NbdServer; path: string; said: string[] } & AsyncDisposable> {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/nbd.sock`;
  const said: string[] = [];
  const server = await serveNbd({ disk: backend }, {
    address: `unix:${path}`,
    log: (line) => said.push(line),
    ...options,
  });
  return {
    server,
    path,
    said,
    async [Symbol.asyncDispose]() {
      await server.close();
      await Deno.remove(dir, { recursive: true });
    },
  };
}

/** A hole, then data, then zeroes, and again, `grain` bytes each. */
export function striped(grain: number, sizeBytes: number): NonNullable<Backend["extents"]> {
  const kinds: readonly Extent["kind"][] = ["hole", "data", "zero"];
  return (offset, length) => {
    const found: Extent[] = [];
    for (let at = offset; at < Math.min(offset + length, sizeBytes);) {
      const end = (Math.floor(at / grain) + 1) * grain;
      found.push({ lengthBytes: end - at, kind: kinds[Math.floor(at / grain) % 3]! });
      at = end;
    }
    return found;
  };
}
