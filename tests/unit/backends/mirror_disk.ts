// SPDX-License-Identifier: MIT
/** Disks for the tests of a mirror: they answer late, fail when they are told to, and can be opened again and again. */
import type { MirrorDisk } from "../../../src/backends/mirror_half.ts";
import type { Backend, Limits } from "../../../src/disk/backend.ts";
import { DblockError, type ErrnoName } from "../../../src/disk/errors.ts";
import type { Operation } from "../../../src/disk/operation.ts";

/** A request that a disk is about to do. */
export interface Asked {
  readonly operation: Operation;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A disk of memory that a test can break. */
export class BreakableDisk implements MirrorDisk {
  readonly name: string;
  readonly content: Uint8Array<ArrayBuffer>;
  /** What it was asked since the test has emptied this. */
  asked: Asked[] = [];
  /** The errno of a request; undefined: it is done. */
  failure: (asked: Asked) => ErrnoName | undefined = () => undefined;
  /** Why it cannot be opened. */
  openError: Error | undefined;
  /** Waited for before a request is done. */
  delay: (asked: Asked) => Promise<unknown> | undefined = () => undefined;
  limits: Limits = {};
  openCount = 0;
  readonly closings: string[] = [];
  #life = 0;

  constructor(name: string, sizeBytes: number, content: Uint8Array<ArrayBuffer> = new Uint8Array(sizeBytes)) {
    this.name = name;
    this.content = content;
  }

  readonly open = (): Backend => {
    if (this.openError !== undefined) throw this.openError;
    this.openCount++;
    const { content } = this;
    const life = this.#life;
    const ask = (operation: Operation, offsetBytes: number, lengthBytes: number, work: () => void) =>
      this.#ask({ operation, offsetBytes, lengthBytes }, life, work);
    return {
      sizeBytes: content.length,
      limits: this.limits,
      cacheSurvives: true,
      read: (buffer, at) => ask("read", at, buffer.length, () => buffer.set(content.subarray(at, at + buffer.length))),
      write: (buffer, at) =>
        ask("write", at, buffer.length, () => {
          content.set(buffer, at);
          buffer.fill(0xdd); // the buffer is the disk's until it has answered
        }),
      flush: () => ask("flush", 0, 0, () => {}),
      discard: (at, length) => ask("discard", at, length, () => void content.fill(0, at, at + length)),
      writeZeroes: (at, length) => ask("writeZeroes", at, length, () => void content.fill(0, at, at + length)),
      close: (reason) => void this.closings.push(reason),
    };
  };

  /** The program that has it open dies: nothing that it has asked or will ask is done or answered any more. */
  die(): void {
    this.#life++;
    this.asked = [];
  }

  async #ask(asked: Asked, life: number, work: () => void): Promise<void> {
    if (life === this.#life) this.asked.push(asked);
    await this.delay(asked);
    if (life !== this.#life) await new Promise(() => {});
    const errno = this.failure(asked);
    if (errno !== undefined) throw new DblockError(errno, `Cannot ${asked.operation}`, `${this.name} is broken`);
    work();
  }
}
