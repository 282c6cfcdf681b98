// SPDX-License-Identifier: MIT
/**
 * A backend behind the real dispatch, as a transport would have it: requests go in, errnos and data come out. It watches
 * what the backend does with memory that is not, or not any more, its own.
 */
import type { Backend } from "../backend.ts";
import { Dispatcher, type Geometry, LATER } from "../dispatch.ts";
import { errnoName } from "../errors.ts";
import { type DecidedLimits, decideLimits } from "../limits.ts";
import { type Operation, REQUEST_FUA, REQUEST_KEEP_ALLOCATED, REQUEST_REPLAYED } from "../operation.ts";
import { profileOf } from "../profile.ts";

/** Bytes before and behind each buffer that the backend must not touch. */
const GUARD_BYTES = 64;
const GUARD = 0xa5;
/** What a buffer is filled with once the request is answered. */
const POISON = 0x5a;

/** The memory of one request. */
interface Window {
  readonly whole: Uint8Array<ArrayBuffer>;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly what: string;
  isPoisoned: boolean;
}

/** Flags of a request, in words. */
export interface Flags {
  readonly fua?: boolean;
  readonly replayed?: boolean;
  readonly keepAllocated?: boolean;
}

/** How a request ended. */
export interface Answer {
  /** 0, or an errno. */
  readonly errno: number;
  /** What was read; empty for every other request. */
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A backend behind dispatch. */
export class Host {
  readonly backend: Backend;
  readonly limits: DecidedLimits;
  /** What dispatch has said of the backend. */
  readonly log: string[] = [];
  /** How often the backend was called since the beginning. */
  calls = 0;
  readonly #geometry: Geometry & { sizeBytes: number };
  readonly #dispatcher: Dispatcher;
  readonly #waiting = new Map<number, (errno: number) => void>();
  /** By slot, the memory that its request was given. */
  readonly #windows = new Map<number, Window[]>();
  readonly #watched: Window[] = [];
  readonly #free: number[] = [];
  readonly #answerWithinMs: number;
  #slots = 0;

  constructor(backend: Backend, options: { readonly answerWithinMs: number }) {
    this.backend = backend;
    this.#answerWithinMs = options.answerWithinMs;
    this.limits = decideLimits({ ...profileOf(backend), direct: false });
    const { blockBytes, maxIoBytes, maxDiscardBytes, maxWriteZeroesBytes } = this.limits;
    this.#geometry = {
      sizeBytes: backend.sizeBytes,
      blockBytes,
      maxIoBytes,
      maxDiscardBytes,
      maxWriteZeroesBytes,
      readOnly: backend.readOnly ?? false,
      timeoutMs: 0,
    };
    const transport = {
      view: (slot: number, lengthBytes: number) => this.#view(slot, lengthBytes),
      answer: (slot: number, errno: number) => this.#waiting.get(slot)?.(errno),
    };
    this.#dispatcher = new Dispatcher(this.#counted(), this.#geometry, transport, (line) => this.log.push(line));
  }

  /** Requests beyond this are refused; `resize` of a disk changes it. */
  get sizeBytes(): number {
    return this.#geometry.sizeBytes;
  }

  set sizeBytes(sizeBytes: number) {
    this.#geometry.sizeBytes = sizeBytes;
  }

  /** One request. The data of a write is copied; what `ask` is given stays the caller's. */
  async ask(
    operation: Operation,
    offsetBytes: number,
    dataOrLength: Uint8Array | number,
    flags: Flags = {},
  ): Promise<Answer> {
    const data = typeof dataOrLength === "number" ? undefined : dataOrLength;
    const lengthBytes = typeof dataOrLength === "number" ? dataOrLength : dataOrLength.length;
    const what = operation === "flush" ? "flush" : `${operation} of ${lengthBytes} bytes at ${offsetBytes}`;
    const slot = this.#free.pop() ?? this.#slots++;
    const first = this.#window(lengthBytes, what);
    if (data !== undefined) first.bytes.set(data);
    this.#windows.set(slot, [first]);
    const bits = (flags.fua ? REQUEST_FUA : 0) | (flags.replayed ? REQUEST_REPLAYED : 0) |
      (flags.keepAllocated ? REQUEST_KEEP_ALLOCATED : 0);
    const answered = Promise.withResolvers<number>();
    this.#waiting.set(slot, answered.resolve);
    const now = this.#dispatcher.dispatch(operation, bits, offsetBytes, lengthBytes, slot);
    const errno = now === LATER ? await this.#inTime(answered.promise, what) : now;
    this.#waiting.delete(slot);
    const read = operation === "read" && errno === 0 ? first.bytes.slice() : new Uint8Array();
    for (const window of this.#windows.get(slot) ?? []) this.#poison(window);
    this.#windows.delete(slot);
    this.#free.push(slot);
    return { errno, data: read };
  }

  /** A request that has to succeed. Returns what was read. */
  async do(
    operation: Operation,
    offsetBytes: number,
    dataOrLength: Uint8Array | number,
    flags: Flags = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { errno, data } = await this.ask(operation, offsetBytes, dataOrLength, flags);
    if (errno !== 0) {
      const lengthBytes = typeof dataOrLength === "number" ? dataOrLength : dataOrLength.length;
      throw new Error(
        `${operation} of ${lengthBytes} bytes at ${offsetBytes}${words(flags)} failed with ${errnoName(errno)}` +
          this.#said(),
      );
    }
    return data;
  }

  /** Throws if the backend has touched memory that was not its own, now or since it had answered. */
  checkMemory(): void {
    for (const { whole, bytes, what, isPoisoned } of this.#watched) {
      const end = GUARD_BYTES + bytes.length;
      if (
        whole.subarray(0, GUARD_BYTES).some((byte) => byte !== GUARD) ||
        whole.subarray(end).some((byte) => byte !== GUARD)
      ) {
        throw new Error(`the backend wrote outside of its buffer: ${what}`);
      }
      if (isPoisoned && bytes.some((byte) => byte !== POISON)) {
        throw new Error(`the backend wrote to its buffer after it had answered: ${what}`);
      }
    }
  }

  #said(): string {
    return this.log.length === 0 ? "" : ` (${this.log.slice(-3).join("; ")})`;
  }

  #view(slot: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const windows = this.#windows.get(slot) ?? [];
    const first = windows[0];
    if (first?.bytes.length === lengthBytes && windows.length === 1) return first.bytes;
    const window = this.#window(lengthBytes, `${first?.what ?? "a request"}, a part`);
    windows.push(window);
    return window.bytes;
  }

  #window(lengthBytes: number, what: string): Window {
    const whole = new Uint8Array(lengthBytes + 2 * GUARD_BYTES).fill(GUARD);
    const bytes = whole.subarray(GUARD_BYTES, GUARD_BYTES + lengthBytes);
    const window = { whole, bytes, what, isPoisoned: false };
    // The last few hundred are watched: what a backend keeps, it uses soon.
    this.#watched.push(window);
    if (this.#watched.length > 256) this.#watched.shift();
    return window;
  }

  /** The transport has the buffer back and uses it for something else. */
  #poison(window: Window): void {
    window.bytes.fill(POISON);
    window.isPoisoned = true;
  }

  async #inTime<T>(answer: Promise<T>, what: string): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const wrong = `${what} was not answered within ${this.#answerWithinMs / 1000} s`;
      timer = setTimeout(() => reject(new Error(wrong)), this.#answerWithinMs);
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The backend, with its calls counted. */
  #counted(): Backend {
    return new Proxy(this.backend, {
      get: (backend, name) => {
        const value: unknown = Reflect.get(backend, name, backend);
        if (typeof value !== "function") return value;
        return (...args: unknown[]): unknown => {
          this.calls++;
          return Reflect.apply(value, backend, args);
        };
      },
    });
  }
}

function words(flags: Flags): string {
  return Object.entries(flags).filter(([, isSet]) => isSet).map(([name]) => `, ${name}`).join("");
}
