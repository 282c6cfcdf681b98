/** Memory that never comes, by way of userfaultfd: a server stuck on it is as stuck as one can be. */
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { encode } from "../../src/system/struct.ts";
import { requires } from "./harness.ts";
import { callAsync, done, type Queue, type Request } from "./server.ts";
import { close, Memory, NR, O_CLOEXEC, PAGE_BYTES, syscall } from "./syscall.ts";

const ioctlApi = 0xc018aa3f;
const ioctlRegister = 0xc020aa00;
const ioctlUnregister = 0x8010aa01;
const apiVersion = 0xaan;
const modeMissing = 1n;
const MADV_DONTNEED = 4;

/** Whether a test that needs it can run; the report says so if not. */
export function requiresDeadMemory(): boolean {
  const fd = syscall(NR.userfaultfd, O_CLOEXEC);
  if (fd >= 0) close(fd);
  return requires("userfaultfd", fd >= 0);
}

/** Memory that can lose pages: nobody will ever provide them, until it is revived or disposed of. */
export class MortalMemory extends Memory {
  readonly #fd: number;

  constructor(sizeBytes: number) {
    super(sizeBytes);
    this.#fd = syscall(NR.userfaultfd, O_CLOEXEC);
    assert(this.#fd >= 0, `userfaultfd: errno ${-this.#fd}`);
    this.#ioctl(ioctlApi, [apiVersion, 0n, 0n]);
  }

  #ioctl(request: number, words: readonly bigint[]): void {
    const argument = new Uint8Array(new BigUint64Array([...words, ...Array(16).fill(0n)]).buffer);
    assertEquals(syscall(NR.ioctl, this.#fd, request, argument), 0);
  }

  /** Who touches these whole pages waits from now on; their content is lost. */
  die(offset = 0, lengthBytes = this.bytes.length - offset): void {
    assertEquals([offset % PAGE_BYTES, lengthBytes % PAGE_BYTES], [0, 0]);
    assertEquals(syscall(NR.madvise, this.address + offset, lengthBytes, MADV_DONTNEED), 0);
    this.#ioctl(ioctlRegister, [BigInt(this.address + offset), BigInt(lengthBytes), modeMissing, 0n]);
  }

  /** All pages that are missing are plain zeroes from now on, and who waits for one goes on. */
  revive(): void {
    this.#ioctl(ioctlUnregister, [BigInt(this.address), BigInt(this.bytes.length)]);
  }

  override [Symbol.dispose](): void {
    close(this.#fd);
    super[Symbol.dispose]();
  }
}

/** {@linkcode MortalMemory} of which nothing has ever been there. */
export function deadMemory(sizeBytes: number): MortalMemory {
  const memory = new MortalMemory(sizeBytes);
  memory.die();
  return memory;
}

/** The parts of a ring, in the order in which they lie. */
export type RingPart = "header" | "requests" | "completions";

/** A ring whose parts begin on pages of their own, so that the beginning of each can be lost by itself. */
export class MortalRing extends MortalMemory {
  /** Requests fill a page or more: three of 4 KiB, one and a half of 16 KiB. */
  static readonly depth = Math.min(PAGE_BYTES / 8, abi.DBLOCK_QUEUE_DEPTH_MAX);
  static readonly #pages: Readonly<Record<RingPart, number>> = {
    header: 0,
    requests: 1,
    completions: 1 + Math.floor(MortalRing.depth * abi.dblock_request.size / PAGE_BYTES),
  };
  /** For ATTACH: the header ends with the first page. */
  readonly ringAddress = this.address + PAGE_BYTES - abi.dblock_ring_header.size;

  constructor() {
    super(7 * PAGE_BYTES);
  }

  /** The page with the first of them is not there any more. */
  lose(part: RingPart): void {
    this.die(MortalRing.#pages[part] * PAGE_BYTES, PAGE_BYTES);
  }
}

/** COMMIT on another thread of one completion, whose data is in memory that may be dead; the errno, once there is one. */
export async function commitFrom(memory: Memory, queue: Queue, request: Request): Promise<number> {
  const completion = new Memory(PAGE_BYTES);
  completion.bytes.set(encode(abi.dblock_completion, { ...done(request), address: memory.address }));
  const { errno } = await callAsync(queue.fd, abi.DBLOCK_IOC_COMMIT, abi.dblock_commit, {
    count: 1,
    completions_address: completion.address,
  });
  return errno;
}
