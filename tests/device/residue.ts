/**
 * Memory of the kernel's that is full of a mark, and whether the mark comes out. Free pages get it from a mapping that was
 * written to and given back, the kernel's stack from a poll() of nothing. Where the kernel does not clear what it
 * allocates (init_on_alloc=0), the mark is then in whatever it forgets to write.
 */
import { assertEquals } from "@std/assert";
import type { Struct } from "../../src/system/struct.ts";
import { isFilled } from "./disk.ts";
import { exists, sh } from "./harness.ts";
import { Memory, PAGE_BYTES, pollNow } from "./syscall.ts";

/** Two of them in a row are in no number that a test has to do with. */
export const mark = 0xa5;

/** Fills most of what is free with the mark, and gives it back. Returns how many bytes. */
export async function fillFreeMemory(): Promise<number> {
  await sh("echo 3 >/proc/sys/vm/drop_caches");
  const free = Number(/^MemFree:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/meminfo"))![1]) * 1024;
  // The rest is for the processes that run meanwhile.
  const bytes = Math.floor(free * 0.9 / PAGE_BYTES) * PAGE_BYTES;
  using memory = new Memory(bytes);
  memory.bytes.fill(mark);
  return bytes;
}

/** As many as poll() copies to its own stack; their descriptors are negative, so nothing is polled. */
const pollCount = 30;
const pollMemory = new Memory(pollCount * 8);

/** Leaves the mark on this thread's kernel stack, for the next system call to find. */
export function markStack(): void {
  pollMemory.bytes.fill(mark);
  assertEquals(pollNow(pollMemory.address, pollCount), 0);
}

const widths = { text: 1, u8: 1, u16: 2, u32: 4, u64: 8 } as const;
const gaps = new Map<Struct, readonly number[]>();

/** Where a structure has bytes that belong to no field, or are reserved. */
function gapsOf(layout: Struct): readonly number[] {
  const known = gaps.get(layout);
  if (known !== undefined) return known;
  const found = new Set(Array(layout.size).keys());
  for (const [name, { kind, offset, count }] of Object.entries(layout.fields)) {
    if (name.startsWith("reserved")) continue;
    for (let i = 0; i < widths[kind] * count; i++) found.delete(offset + i);
  }
  gaps.set(layout, [...found]);
  return [...found];
}

/** The bytes of a structure that belong to no field, or to a name after its end, or are reserved. */
export function silentBytes(layout: Struct, bytes: Uint8Array): number[] {
  const silent = gapsOf(layout).map((at) => bytes[at]!);
  for (const { kind, offset, count } of Object.values(layout.fields)) {
    if (kind !== "text") continue;
    const text = bytes.subarray(offset, offset + count);
    silent.push(...text.subarray(text.indexOf(0)));
  }
  return silent;
}

/** Where the mark is twice in a row; -1: nowhere. */
export function findMark(bytes: Uint8Array): number {
  for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 1)) {
    if (bytes[at + 1] === mark) return at;
  }
  return -1;
}

/** Checks what the kernel wrote to a structure: no mark anywhere, and zeroes where the header has nothing. */
export function assertClean(layout: Struct, bytes: Uint8Array, what: string): void {
  assertEquals(findMark(bytes), -1, `${what}: the mark is in ${layout.name}: ${bytes.toHex()}`);
  assertEquals(silentBytes(layout, bytes).filter((byte) => byte !== 0), [], `${what}: ${bytes.toHex()}`);
}

const kcorePath = "/proc/kcore";
const pageFlagsPath = "/proc/kpageflags";
/** KPF_BUDDY of include/uapi/linux/kernel-page-flags.h: the page is free. */
const freeFlag = 1n << 10n;
/** Documentation/arch/x86/x86_64/mm.rst: the direct mapping of all physical memory, with 4 levels and with 5. */
const [directStart, directEnd] = [0xff11_0000_0000_0000n, 0xffff_c900_0000_0000n];
const loadType = 1;

/** Whether this kernel shows its own memory to root. */
export function canSeeKernelMemory(): boolean {
  return exists(kcorePath) && exists(pageFlagsPath);
}

/** The numbers of pages that nobody uses: of `free` ones, and of those without a flag, which CPUs may keep for themselves. */
export function unusedPages(): { readonly free: Set<number>; readonly flagless: Set<number> } {
  const bytes = Deno.readFileSync(pageFlagsPath);
  const flags = new BigUint64Array(bytes.buffer, 0, bytes.length >> 3);
  const [free, flagless] = [new Set<number>(), new Set<number>()];
  flags.forEach((value, page) => {
    if (value & freeFlag) free.add(page);
    else if (value === 0n) flagless.add(page);
  });
  return { free, flagless };
}

/** All of the machine's memory, page by page, as /proc/kcore has it. */
export class KernelPages implements Disposable {
  readonly #file = Deno.openSync(kcorePath);
  readonly #ranges: { readonly firstPage: number; readonly pages: number; readonly offset: number }[] = [];
  readonly #page = new Uint8Array(PAGE_BYTES);

  constructor() {
    const elf = new Uint8Array(64 * 1024);
    this.#file.readSync(elf);
    const view = new DataView(elf.buffer);
    const [headers, headerBytes, count] = [
      view.getBigUint64(32, true),
      view.getUint16(54, true),
      view.getUint16(56, true),
    ];
    for (let i = 0; i < count; i++) {
      const at = Number(headers) + i * headerBytes;
      const [offset, virtual, physical, size] = [8, 16, 24, 32].map((field) => view.getBigUint64(at + field, true)) as [
        bigint,
        bigint,
        bigint,
        bigint,
      ];
      if (view.getUint32(at, true) !== loadType || virtual < directStart || virtual >= directEnd) continue;
      const [firstPage, pages] = [physical, size].map((bytes) => Number(bytes / BigInt(PAGE_BYTES))) as [
        number,
        number,
      ];
      this.#ranges.push({ firstPage, pages, offset: Number(offset) });
    }
  }

  /** The content, until the next call; undefined where there is no memory. */
  read(page: number): Uint8Array | undefined {
    const range = this.#ranges.find(({ firstPage, pages }) => page >= firstPage && page < firstPage + pages);
    if (range === undefined) return undefined;
    this.#file.seekSync(range.offset + (page - range.firstPage) * PAGE_BYTES, Deno.SeekMode.Start);
    return this.#file.readSync(this.#page) === PAGE_BYTES ? this.#page : undefined;
  }

  /** Those of the pages that are full of the mark. */
  marked(pages: Iterable<number>): number[] {
    return [...pages].filter((page) => {
      const content = this.read(page);
      return content !== undefined && isFilled(content, mark);
    });
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
