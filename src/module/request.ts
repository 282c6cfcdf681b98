// SPDX-License-Identifier: MIT
/**
 * A queue's ring as plain words: what the kernel asks and what is answered.
 * Nothing here allocates per request; nothing here checks or decides.
 */
import {
  dblock_completion,
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_FLUSH,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
  DBLOCK_PRIORITY_CLASS_SHIFT,
  dblock_request,
  DBLOCK_REQUEST_FUA,
  DBLOCK_REQUEST_META,
  DBLOCK_REQUEST_NO_UNMAP,
  DBLOCK_REQUEST_READ_AHEAD,
  DBLOCK_REQUEST_REPLAYED,
  DBLOCK_REQUEST_SWAP,
  DBLOCK_RING_BYTES,
  dblock_ring_header,
} from "./abi.ts";
import {
  type Operation,
  PRIORITIES,
  REQUEST_FUA,
  REQUEST_KEEP_ALLOCATED,
  REQUEST_METADATA,
  REQUEST_PRIORITY_SHIFT,
  REQUEST_READ_AHEAD,
  REQUEST_REPLAYED,
  REQUEST_SWAP,
} from "../disk/operation.ts";

const WORD_BYTES = 4;
const HEADER = dblock_ring_header.fields;
const REQUEST = dblock_request.fields;
const COMPLETION = dblock_completion.fields;

/** Positions in 32-bit words, from the start of the ring or of an entry. */
const ERROR = HEADER.error.offset / WORD_BYTES;
const REQUEST_COUNT = HEADER.request_count.offset / WORD_BYTES;
const COMPLETION_COUNT = HEADER.completion_count.offset / WORD_BYTES;
const REFUSED_COUNT = HEADER.refused_count.offset / WORD_BYTES;
const STATE = HEADER.state.offset / WORD_BYTES;
const HEADER_WORDS = dblock_ring_header.size / WORD_BYTES;
const REQUEST_WORDS = dblock_request.size / WORD_BYTES;
const COMPLETION_WORDS = dblock_completion.size / WORD_BYTES;
const REQUEST_OFFSET = REQUEST.offset_bytes.offset / WORD_BYTES;
const REQUEST_LENGTH = REQUEST.length_bytes.offset / WORD_BYTES;
const REQUEST_GENERATION = REQUEST.generation.offset / WORD_BYTES;
/** slot in the low half, then operation and priority, a byte each. */
const REQUEST_SLOT = REQUEST.slot.offset / WORD_BYTES;
const REQUEST_FLAGS = REQUEST.flags.offset / WORD_BYTES;
/** The flags that are part of what is asked for; those above are hints. */
const ORDERS = 0xffff;
const COMPLETION_ADDRESS = COMPLETION.address.offset / WORD_BYTES;
const COMPLETION_LENGTH = COMPLETION.length_bytes.offset / WORD_BYTES;
const COMPLETION_GENERATION = COMPLETION.generation.offset / WORD_BYTES;
/** slot in the low half, status in the high half. */
const COMPLETION_SLOT = COMPLETION.slot.offset / WORD_BYTES;
const COMPLETION_ERROR = COMPLETION.error.offset / WORD_BYTES;
const TWO_32 = 2 ** 32;

/** A request's operation or flags are none that this server knows: to be answered with EOPNOTSUPP. */
export const UNKNOWN = -1;

/** A disk's words by the numbers of enum dblock_operation. */
const OPERATIONS: readonly (Operation | undefined)[] = Array.from({ length: 256 }, (_, number) => operationOf(number));

function operationOf(number: number): Operation | undefined {
  switch (number) {
    case DBLOCK_OPERATION_READ:
      return "read";
    case DBLOCK_OPERATION_WRITE:
      return "write";
    case DBLOCK_OPERATION_FLUSH:
      return "flush";
    case DBLOCK_OPERATION_DISCARD:
      return "discard";
    case DBLOCK_OPERATION_WRITE_ZEROES:
      return "writeZeroes";
    default:
      return undefined;
  }
}

/** A disk's flags by those of DBLOCK_REQUEST_*; hints that are not among them are ignored. */
const FLAGS: readonly (readonly [theirs: number, ours: number])[] = [
  [DBLOCK_REQUEST_FUA, REQUEST_FUA],
  [DBLOCK_REQUEST_REPLAYED, REQUEST_REPLAYED],
  [DBLOCK_REQUEST_NO_UNMAP, REQUEST_KEEP_ALLOCATED],
  [DBLOCK_REQUEST_META, REQUEST_METADATA],
  [DBLOCK_REQUEST_READ_AHEAD, REQUEST_READ_AHEAD],
  [DBLOCK_REQUEST_SWAP, REQUEST_SWAP],
];
const KNOWN_ORDERS = DBLOCK_REQUEST_FUA | DBLOCK_REQUEST_REPLAYED | DBLOCK_REQUEST_NO_UNMAP;

/** Where {@linkcode FLAGS_AT} has the orders, in the low half of a request's flags, and the hints, in the high half. */
const LOW_BITS = 3;
const LOW_MASK = (1 << LOW_BITS) - 1;
const HIGH_MASK = 0xf;
/**
 * Every request is looked up here rather than taken apart: a loop over FLAGS costs 5,000 instructions in code that V8 has not
 * optimized yet.
 */
const FLAGS_AT = Uint8Array.from({ length: 1 << LOW_BITS + 4 }, (_, at) => {
  const flags = at & LOW_MASK | at >>> LOW_BITS << 16;
  return FLAGS.reduce((result, [theirs, ours]) => result | ((flags & theirs) === 0 ? 0 : ours), 0);
});
/** The same for a priority. A class that nobody has heard of is no hint. */
const PRIORITY_AT = Uint8Array.from({ length: 256 }, (_, priority) => {
  const priorityClass = priority >>> DBLOCK_PRIORITY_CLASS_SHIFT;
  return priorityClass < PRIORITIES.length ? priorityClass << REQUEST_PRIORITY_SHIFT : 0;
});

/**
 * The ring of one queue: header, requests, completions, in memory of ours that
 * the kernel reads and writes during EXCHANGE and COMMIT and at no other time.
 */
export class Ring {
  /** Requests and completions it has room for, 1 to 1,024. */
  readonly depth: number;
  /** Completions written and not yet taken by the kernel, 0 to `depth`. */
  pending = 0;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #words: Uint32Array;
  readonly #completions: number;

  constructor(depth: number) {
    this.depth = depth;
    // An ArrayBuffer of its own: never on V8's heap, so it never moves.
    this.#bytes = new Uint8Array(new ArrayBuffer(DBLOCK_RING_BYTES(depth)));
    this.#words = new Uint32Array(this.#bytes.buffer);
    this.#completions = HEADER_WORDS + depth * REQUEST_WORDS;
  }

  /** The memory, for ATTACH. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }
  /** Where the completions start, in bytes. */
  get completionsOffset(): number {
    return this.#completions * WORD_BYTES;
  }

  /** Clears what the next call reports, in case it cannot report. */
  clearHeader(): void {
    this.#words[ERROR] = 0;
    this.#words[REQUEST_COUNT] = 0;
    this.#words[COMPLETION_COUNT] = 0;
    this.#words[REFUSED_COUNT] = 0;
  }
  /** errno of the last EXCHANGE; 0 if it had none. */
  get error(): number {
    return this.#words[ERROR];
  }
  get requestCount(): number {
    return this.#words[REQUEST_COUNT];
  }
  get takenCount(): number {
    return this.#words[COMPLETION_COUNT];
  }
  get refusedCount(): number {
    return this.#words[REFUSED_COUNT];
  }
  /** enum dblock_state. */
  get state(): number {
    return this.#words[STATE];
  }

  #request(index: number): number {
    return HEADER_WORDS + index * REQUEST_WORDS;
  }
  /** Bytes from the start of the disk; devices end below 2^53. */
  offsetBytes(index: number): number {
    const at = this.#request(index) + REQUEST_OFFSET;
    return this.#words[at] + this.#words[at + 1] * TWO_32;
  }
  lengthBytes(index: number): number {
    return this.#words[this.#request(index) + REQUEST_LENGTH];
  }
  generation(index: number): number {
    return this.#words[this.#request(index) + REQUEST_GENERATION];
  }
  slot(index: number): number {
    return this.#words[this.#request(index) + REQUEST_SLOT] & 0xffff;
  }
  /** In the words of a disk; undefined if the number is unknown. */
  operation(index: number): Operation | undefined {
    return OPERATIONS[(this.#words[this.#request(index) + REQUEST_SLOT] >>> 16) & 0xff];
  }
  /** REQUEST_* of a disk; UNKNOWN if one of DBLOCK_REQUEST_* is unknown. */
  flags(index: number): number {
    const flags = this.#words[this.#request(index) + REQUEST_FLAGS];
    if ((flags & ORDERS & ~KNOWN_ORDERS) !== 0) return UNKNOWN;
    const priority = this.#words[this.#request(index) + REQUEST_SLOT] >>> 24;
    return FLAGS_AT[flags & LOW_MASK | (flags >>> 16 & HIGH_MASK) << LOW_BITS]! | PRIORITY_AT[priority]!;
  }

  #completion(index: number): number {
    return this.#completions + index * COMPLETION_WORDS;
  }

  /**
   * Writes the next completion.
   *
   * @param address of the data, or 0 for the request's slot of the buffer
   * @param errno 0, or why the request failed
   */
  complete(
    slot: number,
    generation: number,
    lengthBytes: number,
    address: number,
    errno: number,
  ): void {
    // A slot has one open request, which is answered once: never more than depth.
    if (this.pending >= this.depth) throw new Error("too many completions");
    const at = this.#completion(this.pending++);
    const words = this.#words;
    words[at + COMPLETION_ADDRESS] = address; // modulo 2^32
    words[at + COMPLETION_ADDRESS + 1] = address / TWO_32;
    words[at + COMPLETION_LENGTH] = lengthBytes;
    words[at + COMPLETION_GENERATION] = generation;
    words[at + COMPLETION_SLOT] = slot; // status 0: taken, unless it says else
    words[at + COMPLETION_ERROR] = errno;
  }

  /** enum dblock_status of a completion the kernel has looked at. */
  completionStatus(index: number): number {
    return this.#words[this.#completion(index) + COMPLETION_SLOT] >>> 16;
  }
  completionSlot(index: number): number {
    return this.#words[this.#completion(index) + COMPLETION_SLOT] & 0xffff;
  }
  completionGeneration(index: number): number {
    return this.#words[this.#completion(index) + COMPLETION_GENERATION];
  }

  /** Drops the first `count` completions: the kernel has taken them. */
  drop(count: number): void {
    if (count < this.pending) {
      this.#words.copyWithin(
        this.#completion(0),
        this.#completion(count),
        this.#completion(this.pending),
      );
    }
    this.pending = Math.max(0, this.pending - count);
  }
}
