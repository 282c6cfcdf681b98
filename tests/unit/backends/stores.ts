// SPDX-License-Identifier: MIT
/** What the tests of stores share: a folder in memory, a look at a mapping, the space of a file. */
import { assert } from "@std/assert";
import type { Mapping } from "../../../src/disk/servable.ts";

/** A folder on tmpfs where there is one, as a store should be; removed at the end. */
export function folder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ dir: "/dev/shm", prefix: "dblock-unit-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** A mapping's memory itself. */
export function bytesOf({ mapping }: { readonly mapping: Mapping }): Uint8Array {
  const pointer = Deno.UnsafePointer.create(BigInt(mapping.address));
  assert(pointer !== null);
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, mapping.sizeBytes));
}

/** What a file takes on its file system. */
export const spaceOf = (path: string): number => (Deno.statSync(path).blocks ?? 0) * 512;
