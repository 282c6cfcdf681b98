// SPDX-License-Identifier: MIT
/**
 * Reads, writes and syncs that the kernel does by itself (aio.ts), for a thread that waits for their answers together with
 * something else. async_io.ts is the same for everybody else.
 */
import { type Answers, LateAnswer } from "../disk/late.ts";
import { AioContext, ASYNC, EVENTS_MAX, NOT_TAKEN } from "./aio.ts";
import { linux, openEventFile } from "./libc.ts";
import { libc } from "./library.ts";

/** Calls under way at once: a guess, two queues' worth. */
const DEPTH = 256;

/** Whose calls they are. */
export interface CallOwner {
  /**
   * What the result of a call means: what it returned, an errno as a negative number.
   *
   * @throws {DblockError} what went wrong.
   */
  judge(opcode: number, result: number, bytes: Uint8Array | undefined, offsetBytes: number): void;
  /** Another way, where the kernel did not take a call, or did only a part of it. */
  otherwise(opcode: number, bytes: Uint8Array<ArrayBuffer> | undefined, offsetBytes: number): Promise<void>;
}

/** Calls of one thread. */
export class PolledIo implements Answers {
  /** Not one that the event loop waits for by itself: it would be told of every answer, also of those that are waited for here. */
  readonly fd: number;
  readonly #aio: AioContext;
  isTurn = false;
  readonly #owner: CallOwner;
  // By place. Nothing is allocated for a call.
  readonly #answers = Array.from({ length: DEPTH }, () => new LateAnswer());
  readonly #bytes: (Uint8Array<ArrayBuffer> | undefined)[] = new Array(DEPTH).fill(undefined);
  readonly #opcodes = new Uint8Array(DEPTH);
  readonly #offsets = new Float64Array(DEPTH);
  /** Places for calls that nobody has; the last one is taken first. */
  readonly #free = Array.from({ length: DEPTH }, (_, place) => place);
  readonly #count = new BigUint64Array(1);

  private constructor(fd: number, aio: AioContext, owner: CallOwner) {
    this.fd = fd;
    this.#owner = owner;
    this.#aio = aio;
  }

  /** Undefined where the kernel has none for this program, or too many files are open. */
  static open(owner: CallOwner): PolledIo | undefined {
    const fd = openEventFile();
    if (fd < 0) return undefined;
    const aio = AioContext.open(DEPTH, fd);
    try {
      if (aio !== undefined) {
        linux.watch(fd);
        return new PolledIo(fd, aio, owner);
      }
    } catch {
      aio?.close();
    }
    libc().close(fd);
    return undefined;
  }

  get openCount(): number {
    return DEPTH - this.#free.length;
  }

  /**
   * Does what pread(2), pwrite(2) or fdatasync(2) do, from the next `submit()` on. Undefined if no place is left,
   * or it is nobody's turn.
   *
   * @param opcode of ASYNC
   * @param bytes is not changed, and stays where it is, until the call is done
   */
  call(
    opcode: number,
    fd: number,
    bytes: Uint8Array<ArrayBuffer> | undefined,
    offsetBytes: number,
  ): LateAnswer | undefined {
    const place = this.isTurn ? this.#free.pop() : undefined;
    if (place === undefined) return undefined;
    this.#opcodes[place] = opcode;
    this.#bytes[place] = bytes;
    this.#offsets[place] = offsetBytes;
    this.#aio.prepare(place, opcode, fd, bytes, offsetBytes);
    return this.#answers[place];
  }

  submit(): void {
    this.#aio.submit((place) => this.#ended(place, NOT_TAKEN));
  }

  collect(): void {
    libc().eventfd_read(this.fd, this.#count);
    while (this.openCount > 0 && this.#aio.take(0n, null, this.#endedOne) === EVENTS_MAX) { /* there may be more */ }
  }

  readonly #endedOne = (place: number, result: number): void => this.#ended(place, result);

  #ended(place: number, result: number): void {
    const answer = this.#answers[place]!;
    const bytes = this.#bytes[place];
    const opcode = this.#opcodes[place]!;
    const offsetBytes = this.#offsets[place]!;
    this.#bytes[place] = undefined;
    this.#free.push(place);
    const isDone = result !== NOT_TAKEN && (result < 0 || opcode === ASYNC.fdatasync || result === bytes?.length);
    if (!isDone) {
      this.#answers[place] = new LateAnswer(); // this one is settled when the place has another call
      this.#owner.otherwise(opcode, bytes, offsetBytes).then(() => answer.resolve(), (error) => answer.reject(error));
      return;
    }
    try {
      this.#owner.judge(opcode, result, bytes, offsetBytes);
    } catch (error) {
      return answer.reject(error);
    }
    answer.resolve();
  }

  async wait(): Promise<void> {
    await linux.pollAsync(this.fd);
  }

  /** Resolves when no call is under way. Nobody else collects any more. */
  async idle(): Promise<void> {
    for (;;) {
      this.collect();
      if (this.openCount === 0) return;
      await this.wait();
    }
  }

  /** Gives it back to the kernel, which waits for calls that are under way. */
  close(): void {
    this.#aio.close();
    linux.close(this.fd);
  }
}
