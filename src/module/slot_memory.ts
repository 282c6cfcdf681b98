// SPDX-License-Identifier: MIT
import { addressOf } from "./control.ts";
import { adviseMemory, MADV_NOHUGEPAGE, PAGE_BYTES } from "../system/pages.ts";

const WASM_PAGE_BYTES = 65_536;
const WASM_PAGES_MAX = 65_536;

/**
 * Zeroed memory that starts on a page, as ATTACH wants a buffer to, for the slots of a queue.
 *
 * A slot takes the pages that its requests have touched: with huge pages the first request of 4 KiB would take 2 MiB. A
 * backend cannot transfer the memory to another thread, which would free it while the kernel copies to its address; only
 * what is too large for a WebAssembly.Memory can be.
 */
export function slotMemory(lengthBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = pageAligned(lengthBytes);
  if (lengthBytes > 0) adviseMemory(addressOf(bytes), lengthBytes, MADV_NOHUGEPAGE);
  return bytes;
}

function pageAligned(lengthBytes: number): Uint8Array<ArrayBuffer> {
  if (lengthBytes > 0 && lengthBytes <= WASM_PAGES_MAX * WASM_PAGE_BYTES) {
    const pages = Math.ceil(lengthBytes / WASM_PAGE_BYTES);
    try {
      const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
      return new Uint8Array(buffer as ArrayBuffer, 0, lengthBytes);
    } catch {
      // It takes more addresses than its size; there may be a limit on those (ulimit -v).
    }
  }
  const bytes = new Uint8Array(new ArrayBuffer(lengthBytes === 0 ? 0 : lengthBytes + PAGE_BYTES));
  if (lengthBytes === 0) return bytes;
  const past = addressOf(bytes) % PAGE_BYTES;
  const start = past === 0 ? 0 : PAGE_BYTES - past;
  return bytes.subarray(start, start + lengthBytes);
}
