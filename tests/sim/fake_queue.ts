// SPDX-License-Identifier: MIT
/**
 * A queue of the fake kernel: requests that wait, slots of those a server is at, as kmod/queue.c and slot.c have them.
 * What it does to a server beyond the contract's happy path is decided by `Mischief`.
 */
import {
  dblock_completion,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  dblock_request,
  DBLOCK_REQUEST_REPLAYED,
  DBLOCK_STATUS_BAD_FIELD,
  DBLOCK_STATUS_BAD_LENGTH,
  DBLOCK_STATUS_FAULT,
  DBLOCK_STATUS_STALE,
  DBLOCK_STATUS_TAKEN,
  DBLOCK_STATUS_UNKNOWN,
} from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { decode, encode } from "../../src/system/struct.ts";
import type { Random } from "./random.ts";

/** How often the kernel does what it may do, each 0 to 1. */
export interface Mischief {
  /** EXCHANGE is interrupted after its completions. */
  readonly interrupt: number;
  /** EXCHANGE is interrupted between two of its completions. */
  readonly partialTake: number;
  /** Fewer requests are handed out than there are. */
  readonly partialBatch: number;
  /** A request is not copied out and comes again in the next call, with another generation. */
  readonly handBack: number;
  /** A good completion is refused; its request stays open. */
  readonly refuse: number;
  /** A good completion's data cannot be copied; its request fails. */
  readonly fault: number;
  /** poll() returns although there is nothing. */
  readonly spuriousWake: number;
}

/** A kernel that only does what everybody expects. */
export const KIND: Mischief = {
  interrupt: 0,
  partialTake: 0,
  partialBatch: 0,
  handBack: 0,
  refuse: 0,
  fault: 0,
  spuriousWake: 0,
};

/** A request of the block layer. */
export interface Io {
  readonly operation: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** What to write, or where what is read goes. */
  readonly data: Uint8Array;
  /** Called exactly once. */
  readonly end: (errno: number) => void;
}

interface Slot {
  state: "free" | "handed" | "quarantined";
  generation: number;
  io: Io | undefined;
  /** Called when the server has answered, however late. */
  answered: (() => void) | undefined;
}

/** Where a server's memory for this queue is. */
export interface Registration {
  readonly ringAddress: number;
  readonly bufferAddress: number;
}

/** The request goes again to the next server. */
const replayed = (io: Io): Io => ({ ...io, flags: io.flags | DBLOCK_REQUEST_REPLAYED });

/** A view of memory at an address: what copy_from_user and copy_to_user are to the kernel. */
export function memoryAt(address: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
  const pointer = Deno.UnsafePointer.create(BigInt(address));
  if (pointer === null) throw new Error("EFAULT: address 0");
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, lengthBytes));
}

export class FakeQueue {
  readonly waiting: Io[] = [];
  readonly slots: Slot[];
  registration: Registration | undefined;
  gone = false;
  /** A successor waits until all that is handed out is answered. */
  isBeingTaken = false;
  readonly #maxIoBytes: number;
  readonly #direct: boolean;
  readonly #mischief: Mischief;
  readonly #random: Random;

  constructor(depth: number, maxIoBytes: number, direct: boolean, mischief: Mischief, random: Random) {
    this.slots = Array.from({ length: depth }, () => ({
      state: "free",
      generation: 0xfffffff0, // so that it wraps
      io: undefined,
      answered: undefined,
    }));
    this.#maxIoBytes = maxIoBytes;
    this.#direct = direct;
    this.#mischief = mischief;
    this.#random = random;
  }

  /** Whether EXCHANGE has something to say. */
  get ready(): boolean {
    return this.gone ||
      (!this.isBeingTaken && this.waiting.length > 0 && this.slots.some((slot) => slot.state === "free"));
  }

  get handedCount(): number {
    return this.slots.filter((slot) => slot.state === "handed").length;
  }

  /** The device goes: everything fails. */
  end(): void {
    this.gone = true;
    for (const io of this.waiting.splice(0)) io.end(ERRNO.EIO);
    for (const slot of this.slots) this.#settle(slot, ERRNO.EIO);
  }

  /** The server is dead or replaced: what it has not answered goes to the next one. */
  lose(): void {
    this.registration = undefined;
    this.isBeingTaken = false;
    for (const slot of this.slots) {
      if (slot.state === "handed" && slot.io !== undefined) this.waiting.unshift(replayed(slot.io));
      slot.state = "free";
      slot.io = undefined;
      slot.answered?.();
      slot.answered = undefined;
    }
  }

  /** Fails all that is there, as under the policy "fail". */
  fail(): void {
    for (const io of this.waiting.splice(0)) io.end(ERRNO.EIO);
  }

  /** A timeout: of a request with the server, whose slot waits for the late answer; or of one that waits for a slot. */
  expire(): boolean {
    const slot = this.slots.find((one) => one.state === "handed");
    if (slot === undefined) {
      const io = this.waiting.shift();
      io?.end(ERRNO.EIO);
      return io !== undefined;
    }
    const io = slot.io;
    slot.state = "quarantined";
    slot.io = undefined;
    io?.end(ERRNO.EIO);
    return true;
  }

  /** Runs something when the late answers have come; at once if none is due. */
  whenAnswered(run: () => void): void {
    const due = this.slots.filter((slot) => slot.state === "quarantined");
    if (due.length === 0) return run();
    let count = due.length;
    for (const slot of due) {
      const before = slot.answered;
      slot.answered = () => {
        before?.();
        if (--count === 0) run();
      };
    }
  }

  #settle(slot: Slot, errno: number): void {
    const io = slot.io;
    const wasHanded = slot.state === "handed";
    slot.state = "free";
    slot.io = undefined;
    slot.answered?.();
    slot.answered = undefined;
    if (wasHanded) io?.end(errno);
  }

  /** Hands out up to `max` requests, written to `address`; returns how many. */
  give(address: number, max: number): number {
    const random = this.#random;
    if (this.isBeingTaken) return 0;
    let most = Math.min(max, this.waiting.length, this.slots.filter((slot) => slot.state === "free").length);
    if (most > 1 && random.chance(this.#mischief.partialBatch)) most = 1 + random.below(most);
    let count = 0;
    for (; count < most; count++) {
      const io = this.waiting.shift();
      const free = this.slots.filter((slot) => slot.state === "free");
      if (io === undefined || free.length === 0) break;
      const slot = random.pick(free);
      const index = this.slots.indexOf(slot);
      slot.generation = (slot.generation + 1) >>> 0 || 1;
      if (random.chance(this.#mischief.handBack)) {
        this.waiting.unshift(io);
        break;
      }
      slot.state = "handed";
      slot.io = io;
      if (io.operation === DBLOCK_OPERATION_WRITE && !this.#direct) this.#slotMemory(index, io).set(io.data);
      memoryAt(address + count * dblock_request.size, dblock_request.size).set(encode(dblock_request, {
        offset_bytes: io.offsetBytes,
        length_bytes: io.lengthBytes,
        generation: slot.generation,
        slot: index,
        operation: io.operation,
        flags: io.flags,
      }));
    }
    return count;
  }

  #slotMemory(index: number, io: Io): Uint8Array {
    return memoryAt((this.registration?.bufferAddress ?? 0) + index * this.#maxIoBytes, io.lengthBytes);
  }

  /** Takes `count` completions at `address`; `interrupted` tells that not all were looked at. */
  take(address: number, count: number): { taken: number; refused: number; interrupted: boolean } {
    let refused = 0;
    for (let i = 0; i < count; i++) {
      if (this.#random.chance(this.#mischief.partialTake)) return { taken: i, refused, interrupted: true };
      const memory = memoryAt(address + i * dblock_completion.size, dblock_completion.size);
      const status = this.#takeOne(decode(dblock_completion, memory));
      if (status === DBLOCK_STATUS_TAKEN) continue;
      refused++;
      new DataView(memory.buffer).setUint16(dblock_completion.fields.status.offset, status, true);
    }
    return { taken: count, refused, interrupted: false };
  }

  #takeOne(completion: ReturnType<typeof decode<typeof dblock_completion>>): number {
    const slot = this.slots[completion.slot];
    if (slot === undefined) return DBLOCK_STATUS_UNKNOWN;
    const io = slot.io;
    if (slot.generation !== completion.generation || slot.state !== "handed" || io === undefined) {
      if (slot.generation === completion.generation && slot.state === "quarantined") this.#settle(slot, 0);
      return DBLOCK_STATUS_STALE;
    }
    if (completion.error > 4095) return DBLOCK_STATUS_BAD_FIELD;
    if (completion.error === 0 && completion.length_bytes > io.lengthBytes) return DBLOCK_STATUS_BAD_LENGTH;
    // An errno is always good enough, or a refused answer could be refused for ever.
    if (completion.error === 0 && this.#random.chance(this.#mischief.refuse)) {
      return this.#random.pick([DBLOCK_STATUS_BAD_FIELD, DBLOCK_STATUS_BAD_LENGTH]);
    }
    if (completion.error === 0 && this.#random.chance(this.#mischief.fault)) {
      this.#settle(slot, ERRNO.EIO);
      return DBLOCK_STATUS_FAULT;
    }
    let errno = completion.error;
    if (errno === 0 && completion.length_bytes < io.lengthBytes) errno = ERRNO.EIO;
    if (errno === 0) this.#copy(completion.address, completion.slot, io);
    this.#settle(slot, errno);
    return DBLOCK_STATUS_TAKEN;
  }

  #copy(address: number, index: number, io: Io): void {
    if (io.operation === DBLOCK_OPERATION_READ) {
      const from = address === 0 ? this.#slotMemory(index, io) : memoryAt(address, io.lengthBytes);
      io.data.set(from);
    } else if (io.operation === DBLOCK_OPERATION_WRITE && this.#direct) {
      memoryAt(address, io.lengthBytes).set(io.data);
    }
  }
}
