// SPDX-License-Identifier: MIT
/**
 * Small programs that the kernel runs at its own tracepoints (eBPF), and the maps in which they keep what they see. This file
 * assembles, loads and attaches; what a program does is its author's business. All of it ends when its files are closed,
 * so a process that is killed leaves nothing behind.
 */
import { linux } from "./libc.ts";
import { libc } from "./library.ts";
import { encode, struct, text, u32, u64 } from "./struct.ts";

const IS_ARM = Deno.build.arch === "aarch64";
const SYS_BPF = IS_ARM ? 280n : 321n;
const SYS_PERF_EVENT_OPEN = IS_ARM ? 241n : 298n;

const BPF_MAP_CREATE = 0;
const BPF_MAP_LOOKUP_ELEM = 1;
const BPF_MAP_UPDATE_ELEM = 2;
const BPF_MAP_DELETE_ELEM = 3;
const BPF_PROG_LOAD = 5;
const BPF_MAP_TYPE_HASH = 1;
const BPF_PROG_TYPE_TRACEPOINT = 5;
const PERF_TYPE_TRACEPOINT = 2;
const PERF_FLAG_FD_CLOEXEC = 8n;
const PERF_EVENT_IOC_SET_BPF = 0x4004_2408;
const RLIMIT_MEMLOCK = 8;
const LICENSE = "Dual MIT/GPL";

// What union bpf_attr is for each command; linux/bpf.h.
const mapAttr = struct("map", 20, { type: u32(0), key_bytes: u32(4), value_bytes: u32(8), entries: u32(12) });
const elementAttr = struct("element", 32, { map: u32(0), key: u64(8), value: u64(16) });
const programAttr = struct("program", 64, {
  type: u32(0),
  count: u32(4),
  instructions: u64(8),
  license: u64(16),
  name: text(48, 16),
});
// struct perf_event_attr, in its first version.
const perfAttr = struct("perf_event_attr", 64, { type: u32(0), size: u32(4), config: u64(8), sample_period: u64(16) });

const addressOf = (bytes: Uint8Array<ArrayBuffer>) => Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));

function bpf(command: number, attr: Uint8Array<ArrayBuffer>): number {
  return Number(libc().bpf(SYS_BPF, command, attr, attr.length));
}

/** A hash table that programs and this process share. */
export class BpfMap implements Disposable {
  readonly fd: number;
  readonly #valueBytes: number;

  private constructor(fd: number, valueBytes: number) {
    this.fd = fd;
    this.#valueBytes = valueBytes;
  }

  /** Makes a table; undefined if the kernel refuses. */
  static open(keyBytes: number, valueBytes: number, entries: number): BpfMap | undefined {
    // Before 5.11 a table counts as locked memory, of which a process has little.
    libc().setrlimit(RLIMIT_MEMLOCK, new Uint8Array(new ArrayBuffer(16)).fill(0xff));
    const attr = encode(mapAttr, { type: BPF_MAP_TYPE_HASH, key_bytes: keyBytes, value_bytes: valueBytes, entries });
    const fd = bpf(BPF_MAP_CREATE, attr);
    return fd < 0 ? undefined : new BpfMap(fd, valueBytes);
  }

  /** The value of a key; undefined if there is none. */
  get(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    const value = new Uint8Array(new ArrayBuffer(this.#valueBytes));
    return this.#element(BPF_MAP_LOOKUP_ELEM, key, value) ? value : undefined;
  }

  /** Sets the value of a key; false if there is no room. */
  set(key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): boolean {
    return this.#element(BPF_MAP_UPDATE_ELEM, key, value);
  }

  /** Removes a key. */
  delete(key: Uint8Array<ArrayBuffer>): boolean {
    return this.#element(BPF_MAP_DELETE_ELEM, key, key);
  }

  #element(command: number, key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): boolean {
    const attr = encode(elementAttr, { map: this.fd, key: addressOf(key), value: addressOf(value) });
    // Asked for their length afterwards, both are still there while the kernel has their addresses.
    return bpf(command, attr) === 0 && key.length + value.length > 0;
  }

  [Symbol.dispose](): void {
    linux.close(this.fd);
  }
}

/** Where a field of a tracepoint is in what a program is given, in bytes. */
export interface Tracepoint {
  readonly id: number;
  readonly offsets: Readonly<Record<string, number>>;
}

/**
 * Looks a tracepoint up in the kernel's own description.
 *
 * @param folder "/sys/kernel/tracing/events/block/block_rq_issue"
 * @throws what Deno throws: NotFound where the tracing file system is not mounted
 */
export function readTracepoint(folder: string): Tracepoint {
  const format = Deno.readTextFileSync(`${folder}/format`);
  const fields = [...format.matchAll(/field:[^;]*?(\w+)(?:\[\d*\])?;\s+offset:(\d+);/g)];
  return {
    id: Number(/^ID: (\d+)$/m.exec(format)?.[1]),
    offsets: Object.fromEntries(fields.map(([, name, offset]) => [name!, Number(offset)])),
  };
}

/** Runs a program at a tracepoint until it is disposed; undefined if the kernel refuses the program or its place. */
export function attachProgram(name: string, code: Uint8Array<ArrayBuffer>, { id }: Tracepoint): Disposable | undefined {
  using stack = new DisposableStack();
  const own = (fd: number) => {
    if (fd >= 0) stack.defer(() => linux.close(fd));
    return fd;
  };
  const license = new Uint8Array(new ArrayBuffer(LICENSE.length + 1));
  new TextEncoder().encodeInto(LICENSE, license);
  const program = own(bpf(
    BPF_PROG_LOAD,
    encode(programAttr, {
      type: BPF_PROG_TYPE_TRACEPOINT,
      count: code.length / 8,
      instructions: addressOf(code),
      license: addressOf(license),
      name,
    }),
  ));
  if (program < 0 || code.length + license.length === 0) return undefined; // they had to be there until here
  const attr = encode(perfAttr, { type: PERF_TYPE_TRACEPOINT, size: perfAttr.size, config: id, sample_period: 1 });
  // The event is opened on one processor; the program runs on all of them.
  const event = own(Number(libc().perf_event_open(SYS_PERF_EVENT_OPEN, attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
  if (event < 0) return undefined;
  if (libc().ioctlNumber(event, PERF_EVENT_IOC_SET_BPF, BigInt(program)) < 0) return undefined;
  return stack.move();
}

/** A register: 0 the result, 1 to 5 the arguments of a call, 6 to 9 kept across calls, 10 the frame's end. */
export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;

/** Functions of the kernel that a program may call. */
export const HELPER = { mapLookup: 1, mapUpdate: 2, mapDelete: 3, now: 5 } as const;

const SIZE = { 1: 0x10, 4: 0x00, 8: 0x18 } as const;
const OPERATION = { add: 0x00, sub: 0x10, divide: 0x30, shift: 0x70, left: 0x60, move: 0xb0 } as const;
const JUMP = { always: 0x00, equal: 0x10, less: 0xa0, greater: 0x20 } as const;

/** Instructions as they are written; a jump names its label, which stands further down. */
export class Assembler {
  readonly #words: { readonly opcode: number; registers: number; offset: number; immediate: number }[] = [];
  readonly #jumps: { readonly at: number; readonly label: string }[] = [];
  readonly #labels = new Map<string, number>();

  /** `to = *(from + offset)`, of 1, 4 or 8 bytes. */
  load(to: Register, from: Register, offset: number, bytes: 1 | 4 | 8): this {
    return this.#add(0x61 | SIZE[bytes], to, from, offset);
  }

  /** `*(to + offset) = from` */
  store(to: Register, offset: number, from: Register, bytes: 4 | 8): this {
    return this.#add(0x63 | SIZE[bytes], to, from, offset);
  }

  /** `*(to + offset) += from`, of 8 bytes, whole whoever else does it. */
  addTo(to: Register, offset: number, from: Register): this {
    return this.#add(0xdb, to, from, offset);
  }

  /** `to = to OPERATION from`, of 64 bits; divided by 0 it is 0. */
  do(operation: keyof typeof OPERATION, to: Register, from: Register): this {
    return this.#add(0x0f | OPERATION[operation], to, from);
  }

  /** The same with a number. */
  doNumber(operation: keyof typeof OPERATION, to: Register, value: number): this {
    return this.#add(0x07 | OPERATION[operation], to, 0, 0, value);
  }

  /** `to = map` */
  map(to: Register, { fd }: BpfMap): this {
    return this.#add(0x18, to, 1, 0, fd).#add(0, 0, 0);
  }

  /** Calls a helper. */
  call(helper: keyof typeof HELPER): this {
    return this.#add(0x85, 0, 0, 0, HELPER[helper]);
  }

  /** Goes on at a label if a register is so, compared with a number without its sign. */
  jump(condition: keyof typeof JUMP, register: Register, value: number, label: string): this {
    this.#jumps.push({ at: this.#words.length, label });
    return this.#add(0x05 | JUMP[condition], register, 0, 0, value);
  }

  /** Where jumps go. */
  label(name: string): this {
    this.#labels.set(name, this.#words.length);
    return this;
  }

  /** `return 0`: the event goes nowhere else. */
  end(): this {
    return this.doNumber("move", 0, 0).#add(0x95, 0, 0);
  }

  /** The program. */
  bytes(): Uint8Array<ArrayBuffer> {
    for (const { at, label } of this.#jumps) {
      const to = this.#labels.get(label);
      if (to === undefined || to <= at) throw new RangeError(`unreachable: no label ${label} further down`);
      this.#words[at]!.offset = to - at - 1;
    }
    const bytes = new Uint8Array(new ArrayBuffer(this.#words.length * 8));
    const view = new DataView(bytes.buffer);
    for (const [i, { opcode, registers, offset, immediate }] of this.#words.entries()) {
      view.setUint8(i * 8, opcode);
      view.setUint8(i * 8 + 1, registers);
      view.setInt16(i * 8 + 2, offset, true);
      view.setInt32(i * 8 + 4, immediate, true);
    }
    return bytes;
  }

  #add(opcode: number, to: Register, from: Register, offset = 0, immediate = 0): this {
    this.#words.push({ opcode, registers: to | from << 4, offset, immediate });
    return this;
  }
}
