// SPDX-License-Identifier: MIT
// Flushes that the kernel does while a thread goes on. That reads are answered meanwhile is in tests/device/late_flush_test.ts.
import { assert, assertEquals } from "@std/assert";
import { dblock_completion } from "../../../src/module/abi.ts";
import { ERRNO } from "../../../src/disk/errors.ts";
import { LateFlushes } from "../../../src/module/late_flushes.ts";
import { Ring } from "../../../src/module/request.ts";
import { Flusher } from "../../../src/system/file.ts";
import { linux, O_RDWR, openEventFile } from "../../../src/system/libc.ts";
import { libc } from "../../../src/system/library.ts";
import { decode } from "../../../src/system/struct.ts";

const DEPTH = 4;

/** A file with something to flush, and the flushes of a queue of it. */
class Queue implements Disposable {
  readonly path = Deno.makeTempFileSync({ dir: ".", prefix: ".dblock-unit-" });
  readonly fd = linux.open(this.path, O_RDWR);
  /** Nothing comes of it before `write()`. */
  readonly channel = openEventFile();
  readonly ring = new Ring(8);
  readonly failures = new Int32Array(new SharedArrayBuffer(4));
  /** How often the thread has waited for a flush. */
  waits = 0;
  readonly flusher = new Flusher(() => ++this.waits > 0, this.failures);
  readonly flushes: LateFlushes;

  constructor() {
    Deno.writeFileSync(this.path, new Uint8Array(1 << 20).fill(7));
    this.flushes = new LateFlushes(this.fd, this.flusher, this.ring);
  }

  /** Waits for the answers of all that are under way. */
  end(): void {
    while (this.flushes.openCount > 0) assertEquals(this.flushes.wait(this.channel), false);
  }

  /** What is in the ring, in order of the slots. */
  answers(): { slot: number; generation: number; error: number }[] {
    const at = (i: number) => this.ring.bytes.subarray(this.ring.completionsOffset + i * dblock_completion.size);
    return Array.from({ length: this.ring.pending }, (_, i) => decode(dblock_completion, at(i)))
      .map(({ slot, generation, error }) => ({ slot, generation, error }))
      .sort((a, b) => a.slot - b.slot);
  }

  [Symbol.dispose](): void {
    this.flushes[Symbol.dispose]();
    for (const fd of [this.channel, this.fd]) linux.close(fd);
    Deno.removeSync(this.path);
  }
}

const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;

Deno.test("LateFlushes answers each flush once it has ended, with its slot and generation", () => {
  using queue = new Queue();
  const { flushes } = queue;
  assertEquals([flushes.begin(3, 2 ** 32 - 1), flushes.begin(1, 5)], [true, true]);
  assertEquals([flushes.openCount, queue.ring.pending], [2, 0]);
  queue.end();
  assertEquals(queue.answers(), [{ slot: 1, generation: 5, error: 0 }, { slot: 3, generation: 2 ** 32 - 1, error: 0 }]);
  assertEquals([flushes.openCount, queue.waits], [0, 0]);
});

Deno.test("LateFlushes.wait() says that the queue has something, whether or not a flush has ended", () => {
  using queue = new Queue();
  libc().eventfd_write(queue.channel, 1n);
  for (let slot = 0; slot < 100; slot++) {
    assertEquals(queue.flushes.begin(0, slot), true);
    assertEquals(queue.flushes.wait(queue.channel), true);
    while (queue.flushes.openCount > 0) queue.flushes.wait(queue.channel);
    assertEquals(queue.answers(), [{ slot: 0, generation: slot, error: 0 }]);
    queue.ring.drop(1);
  }
});

Deno.test("LateFlushes.wait() returns for a file that is closed", () => {
  using queue = new Queue();
  const closed = openEventFile();
  linux.close(closed);
  assertEquals(queue.flushes.begin(0, 1), true);
  assertEquals(queue.flushes.wait(closed), true);
  queue.end();
});

Deno.test("LateFlushes takes as many flushes as it has places, and more once they have ended", () => {
  using queue = new Queue();
  const begin = () => Array.from({ length: DEPTH + 1 }, (_, slot) => queue.flushes.begin(slot, 0));
  assertEquals(begin(), [...Array(DEPTH).fill(true), false]);
  queue.end();
  queue.ring.drop(DEPTH);
  assertEquals(begin(), [...Array(DEPTH).fill(true), false]);
  queue.end();
  assertEquals(queue.answers().map(({ slot }) => slot), [0, 1, 2, 3]);
});

Deno.test("LateFlushes reports a failure of another queue's flush once", () => {
  using queue = new Queue();
  const errorsOf = () => {
    queue.flushes.begin(0, 0);
    queue.end();
    const errors = queue.answers().map(({ error }) => error);
    queue.ring.drop(1);
    return errors;
  };
  assertEquals(errorsOf(), [0]);
  Atomics.add(queue.failures, 0, 1); // as the other one's Flusher does
  assertEquals([errorsOf(), errorsOf()], [[ERRNO.EIO], [0]]);
  assertEquals(Atomics.load(queue.failures, 0), 1);
});

Deno.test("LateFlushes does not take the flush of a file that has none, or is closed", () => {
  using queue = new Queue();
  const nothing = linux.open("/dev/null", O_RDWR);
  using flushes = new LateFlushes(nothing, queue.flusher, queue.ring);
  assertEquals([flushes.begin(0, 0), flushes.openCount], [false, 0]);
  linux.close(nothing);
  assertEquals([flushes.begin(0, 0), flushes.openCount], [false, 0]);
  assertEquals(queue.ring.pending, 0);
});

Deno.test("LateFlushes opens nothing before the first flush, and leaves nothing open, also with flushes under way", () => {
  const before = descriptors();
  {
    using queue = new Queue();
    const open = descriptors();
    for (let slot = 0; slot < DEPTH; slot++) assert(queue.flushes.begin(slot, 0));
    assertEquals(descriptors(), open + 1);
  }
  assertEquals(descriptors(), before);
});
