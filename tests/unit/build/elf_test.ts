/**
 * What is changed in the copy of Deno's executable, seen in its ELF headers.
 * Not covered: that it runs (build_executable_test.ts).
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { addProgram, payloadOf, readElf } from "../../../src/build/without_denort/elf.ts";

const PT_LOAD = 1;
const PT_NOTE = 4;
const LAUNCH = {
  options: ["deno", "run"],
  variables: { DENO_DIR: "/nowhere" },
  bundles: [
    { name: "main.ts", source: new TextEncoder().encode("console.log(1);") },
    { name: "worker.ts", source: new Uint8Array(5_000) },
  ],
};

Deno.test({
  name: "addProgram() adds one segment, last in order and in addresses, and moves the entry point into it",
  fn: () => {
    const path = Deno.makeTempFileSync({ prefix: "dblock-elf-" });
    try {
      Deno.copyFileSync(Deno.execPath(), path);
      const before = readElf(Deno.readFileSync(path));
      addProgram(path, new Uint8Array(160), LAUNCH);
      const file = Deno.readFileSync(path);
      const view = new DataView(file.buffer);
      const count = view.getUint16(56, true);
      assertEquals(count, before.segments.length);
      const loads = Array.from({ length: count }, (_, index) => 64 + index * 56)
        .filter((at) => view.getUint32(at, true) === PT_LOAD)
        .map((at) => ({
          flags: view.getUint32(at + 4, true),
          offset: word(view, at + 8),
          address: word(view, at + 16),
        }));
      const addresses = loads.map((load) => load.address);
      assertEquals(addresses, addresses.toSorted((a, b) => a - b));
      const last = loads.at(-1);
      assert(last !== undefined);
      assertEquals(last.flags, 5, "readable and executable, not writable");
      assertEquals(word(view, 24), last.address);
      assertEquals(last.offset % 4096, last.address % 4096);
      const ends = before.segments.map((segment) => segment.address + segment.memoryBytes);
      assert(last.address >= Math.max(...ends));
    } finally {
      Deno.removeSync(path);
    }
  },
});

Deno.test({
  name: "readElf() finds a note to replace and the GOT entry of environ in Deno's executable",
  fn: () => {
    const elf = readElf(Deno.readFileSync(Deno.execPath()));
    assert(elf.segments.some((segment) => segment.type === PT_NOTE));
    assert(elf.environAddress > 0 && elf.environAddress % 8 === 0);
  },
});

Deno.test("payloadOf() puts everything where its table says", () => {
  const elf = { entryAddress: 11, headersOffset: 64, pageBytes: 4096, segments: [], environAddress: 22 };
  const payload = payloadOf(elf, 33, LAUNCH);
  const view = new DataView(payload.buffer);
  const words = Array.from({ length: 13 }, (_, index) => word(view, index * 8));
  assertEquals(words.slice(0, 6), [33, 11, 22, 2, 1, 2]);
  const text = new TextDecoder().decode(payload);
  assert(text.slice(words[6]).startsWith("deno\0run\0DENO_DIR=/nowhere\0main.ts\0worker.ts\0console.log(1);"));
  assert(text.slice(words[7]).startsWith("main.ts\0"));
  assert(text.slice(words[8]).startsWith("console.log(1);"));
  assertEquals([words[9], words[12]], [15, 5_000]);
  assertEquals(payload.length, (words[11] ?? 0) + 5_000);
});

Deno.test("readElf() refuses what is no 64-bit ELF file", () => {
  assertThrows(() => readElf(new Uint8Array(100)), Error, "not a 64-bit little-endian ELF");
  assertThrows(() => readElf(new TextEncoder().encode("#!/bin/sh\n")), Error, "not a 64-bit little-endian ELF");
});

Deno.test("readElf() refuses another machine", () => {
  const file = new Uint8Array(64);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
  file[18] = 243; // RISC-V
  assertThrows(() => readElf(file), Error, "machine 243 is not x86_64 or aarch64");
});

Deno.test("payloadOf() refuses a string with a NUL", () => {
  const elf = { entryAddress: 0, headersOffset: 0, pageBytes: 4096, segments: [], environAddress: 0 };
  assertThrows(() => payloadOf(elf, 0, { ...LAUNCH, options: ["a\0b"] }), Error, "NUL");
});

function word(view: DataView, offset: number): number {
  return Number(view.getBigUint64(offset, true));
}
