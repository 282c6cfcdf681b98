// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import {
  dblock_completion,
  DBLOCK_OPERATION_DISCARD as DISCARD,
  DBLOCK_OPERATION_FLUSH as FLUSH,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_OPERATION_WRITE as WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES as WRITE_ZEROES,
  dblock_request,
  DBLOCK_REQUEST_FUA as FUA,
  DBLOCK_REQUEST_META as META,
  DBLOCK_REQUEST_NO_UNMAP as NO_UNMAP,
  DBLOCK_REQUEST_READ_AHEAD as READ_AHEAD,
  DBLOCK_REQUEST_REPLAYED as REPLAYED,
  DBLOCK_REQUEST_SWAP as SWAP,
  DBLOCK_RING_BYTES,
  dblock_ring_header,
} from "../../../src/module/abi.ts";
import {
  PRIORITIES,
  REQUEST_FUA,
  REQUEST_KEEP_ALLOCATED,
  REQUEST_METADATA,
  REQUEST_PRIORITY_SHIFT,
  REQUEST_READ_AHEAD,
  REQUEST_REPLAYED,
  REQUEST_SWAP,
} from "../../../src/disk/operation.ts";
import { Ring, UNKNOWN } from "../../../src/module/request.ts";
import { decode, encode } from "../../../src/system/struct.ts";

const requestsAt = dblock_ring_header.size;

function completionAt(ring: Ring, index: number) {
  return decode(dblock_completion, ring.bytes.subarray(ring.completionsOffset + index * dblock_completion.size));
}

Deno.test("Ring reads requests as the header lays them out, past 4 GiB too", () => {
  const ring = new Ring(3);
  const request = {
    offset_bytes: 2 ** 52 + 512,
    length_bytes: 2 ** 31,
    generation: 2 ** 32 - 1,
    slot: 2,
    operation: 4,
    priority: 0xff,
    flags: 0xffff_0005,
  };
  ring.bytes.set(encode(dblock_request, request), requestsAt + 2 * dblock_request.size);
  assertEquals(
    {
      ...request,
      offset_bytes: ring.offsetBytes(2),
      length_bytes: ring.lengthBytes(2),
      generation: ring.generation(2),
      slot: ring.slot(2),
    },
    request,
  );
  const hints = REQUEST_METADATA | REQUEST_READ_AHEAD | REQUEST_SWAP;
  assertEquals([ring.operation(2), ring.flags(2)], ["writeZeroes", REQUEST_FUA | REQUEST_KEEP_ALLOCATED | hints]);
});

Deno.test("Ring has a disk's words for every operation and flag, and none for what it does not know", () => {
  const ring = new Ring(1);
  const ask = (operation: number, flags: number) => {
    ring.bytes.set(encode(dblock_request, { operation, flags }), requestsAt);
    return [ring.operation(0), ring.flags(0)];
  };
  const operations = [READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES].map((operation) => ask(operation, 0)[0]);
  assertEquals(operations, ["read", "write", "flush", "discard", "writeZeroes"]);
  const flags = [0, FUA, REPLAYED, NO_UNMAP].map((flag) => ask(READ, flag)[1]);
  assertEquals(flags, [0, REQUEST_FUA, REQUEST_REPLAYED, REQUEST_KEEP_ALLOCATED]);
  assertEquals([ask(5, 0), ask(255, 8), ask(READ, 128)], [[undefined, 0], [undefined, UNKNOWN], ["read", UNKNOWN]]);
  assertEquals(ask(READ, 2 ** 15), ["read", UNKNOWN]);
  assertEquals(ask(READ, 2 ** 31), ["read", 0], "a hint that is not known is ignored");
});

Deno.test("Ring tells a request's hints and the class of its priority, and none for a class that it does not know", () => {
  const ring = new Ring(1);
  const ask = (flags: number, priority: number) => {
    ring.bytes.set(encode(dblock_request, { operation: READ, flags, priority }), requestsAt);
    return ring.flags(0);
  };
  assertEquals([META, READ_AHEAD, SWAP].map((hint) => ask(hint, 0)), [
    REQUEST_METADATA,
    REQUEST_READ_AHEAD,
    REQUEST_SWAP,
  ]);
  const classes = [1 << 3, 1 << 3 | 7, 2 << 3 | 4, 3 << 3, 4 << 3, 31 << 3].map((priority) =>
    PRIORITIES[ask(META, priority) >>> REQUEST_PRIORITY_SHIFT]
  );
  assertEquals(classes, ["realtime", "realtime", "best-effort", "idle", "none", "none"]);
});

Deno.test("Ring writes completions as the header lays them out", () => {
  const ring = new Ring(2);
  ring.complete(0, 1, 4096, 0, 0);
  ring.complete(1023, 2 ** 32 - 1, 2 ** 31, 0x7fff_ffff_f000, 28);
  assertEquals(completionAt(ring, 0), {
    address: 0,
    length_bytes: 4096,
    generation: 1,
    slot: 0,
    status: 0,
    error: 0,
    reserved: 0,
  });
  assertEquals(completionAt(ring, 1), {
    address: 0x7fff_ffff_f000,
    length_bytes: 2 ** 31,
    generation: 2 ** 32 - 1,
    slot: 1023,
    status: 0,
    error: 28,
    reserved: 0,
  });
});

Deno.test("Ring has room for depth completions, and not for one more", () => {
  const ring = new Ring(2);
  ring.complete(0, 1, 0, 0, 0);
  ring.complete(1, 1, 0, 0, 0);
  assertThrows(() => ring.complete(0, 2, 0, 0, 0), Error, "too many completions");
});

Deno.test("Ring keeps the completions that were not taken, in order", () => {
  const ring = new Ring(4);
  for (let slot = 0; slot < 4; slot++) ring.complete(slot, slot + 10, 0, 0, 0);
  ring.drop(3);
  assertEquals([ring.pending, ring.completionSlot(0), ring.completionGeneration(0)], [1, 3, 13]);
  ring.drop(1);
  assertEquals(ring.pending, 0);
});

Deno.test("Ring says why a completion was refused", () => {
  const ring = new Ring(1);
  ring.complete(0, 7, 0, 0, 0);
  ring.bytes[ring.completionsOffset + dblock_completion.fields.status.offset] = 3;
  assertEquals([ring.completionStatus(0), ring.completionSlot(0), ring.completionGeneration(0)], [3, 0, 7]);
});

Deno.test("Ring reads the header of an EXCHANGE, and clears what the next one reports", () => {
  const ring = new Ring(1);
  const header = { error: 19, request_count: 1, completion_count: 2, refused_count: 3, state: 6 };
  ring.bytes.set(encode(dblock_ring_header, header));
  assertEquals([ring.error, ring.requestCount, ring.takenCount, ring.refusedCount, ring.state], [19, 1, 2, 3, 6]);
  ring.clearHeader();
  assertEquals([ring.error, ring.requestCount, ring.takenCount, ring.refusedCount, ring.state], [0, 0, 0, 0, 6]);
});

Deno.test("Ring takes DBLOCK_RING_BYTES at an address that is a multiple of 8", () => {
  for (const depth of [1, 2, 1024]) {
    const { bytes } = new Ring(depth);
    assertEquals(bytes.byteLength, DBLOCK_RING_BYTES(depth));
    assertEquals(Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes))) % 8, 0);
  }
});
