// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import type { Completed } from "../../../src/disk/backend.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import type { LateAnswer } from "../../../src/disk/late.ts";
import { ASYNC, NOT_TAKEN } from "../../../src/system/aio.ts";
import { type CallOwner, PolledIo } from "../../../src/system/polled_io.ts";
import { BLOCK, DirectFile, pages } from "./direct_file.ts";
import { O_RDONLY, O_RDWR } from "../../../src/system/libc.ts";

/** Says what became of each call. */
class Owner implements CallOwner {
  readonly judged: [opcode: number, result: number, offsetBytes: number][] = [];
  readonly others: [opcode: number, offsetBytes: number][] = [];
  /** Settles every other way. */
  other = Promise.withResolvers<void>();

  judge(opcode: number, result: number, _bytes: Uint8Array | undefined, offsetBytes: number): void {
    this.judged.push([opcode, result, offsetBytes]);
    if (result < 0) throw new DblockError(-result, "Cannot do it");
  }

  otherwise(opcode: number, _bytes: Uint8Array | undefined, offsetBytes: number): Promise<void> {
    this.others.push([opcode, offsetBytes]);
    return this.other.promise;
  }
}

function open(owner: Owner): PolledIo {
  const io = PolledIo.open(owner);
  assert(io !== undefined, "this kernel has no asynchronous I/O");
  io.isTurn = true;
  return io;
}

/** The outcome of a call, once it is settled. */
function outcomeOf(late: LateAnswer | undefined): { value?: Completed | "undefined"; error?: unknown } {
  const outcome: { value?: Completed | "undefined"; error?: unknown } = {};
  late!.then((value) => outcome.value = value ?? "undefined", (error) => outcome.error = error);
  return outcome;
}

async function collectAll(io: PolledIo): Promise<void> {
  for (io.collect(); io.openCount > 0; io.collect()) await io.wait();
}

Deno.test("PolledIo writes, reads and syncs, and settles what has ended when it is collected", async () => {
  using file = new DirectFile(8);
  const owner = new Owner();
  const io = open(owner);
  const memory = pages(8);
  const writes = memory.map((page, i) => outcomeOf(io.call(ASYNC.write, file.fd, page.fill(i + 1), i * BLOCK)));
  assertEquals([io.openCount, writes[0]], [8, {}]); // nothing has begun
  io.submit();
  await collectAll(io);
  assertEquals(writes, writes.map(() => ({ value: "undefined" as const })));
  const sync = outcomeOf(io.call(ASYNC.fdatasync, file.fd, undefined, 0));
  const [page] = pages(1) as [Uint8Array<ArrayBuffer>];
  const read = outcomeOf(io.call(ASYNC.read, file.fd, page, 5 * BLOCK));
  io.submit();
  await collectAll(io);
  assertEquals([sync, read, page[0]], [{ value: "undefined" }, { value: "undefined" }, 6]);
  assertEquals(owner.judged.length, 10);
  assertEquals(owner.judged.filter(([opcode]) => opcode === ASYNC.fdatasync), [[ASYNC.fdatasync, 0, 0]]);
  assertEquals(owner.others, []);
  io.close();
});

Deno.test("PolledIo does in another way what the kernel does not take or does a part of, and reports what that came to", async () => {
  using readOnly = new DirectFile(2, O_RDONLY);
  const owner = new Owner();
  const io = open(owner);
  const [a, b] = pages(2) as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];
  const refused = outcomeOf(io.call(ASYNC.write, readOnly.fd, a, 0)); // EBADF, from io_submit
  const short = outcomeOf(io.call(ASYNC.read, readOnly.fd, b, 8 * BLOCK)); // behind the end: 0 bytes
  io.submit();
  await collectAll(io);
  // Their places are free, and their answers are still to come.
  assertEquals([io.openCount, owner.others.toSorted(), refused, short], [
    0,
    [[ASYNC.read, 8 * BLOCK], [ASYNC.write, 0]],
    {},
    {},
  ]);
  const next = outcomeOf(io.call(ASYNC.read, readOnly.fd, a, 0));
  io.submit();
  await collectAll(io);
  assertEquals([next, refused], [{ value: "undefined" }, {}]);
  owner.other.reject(new DblockError("EIO", "Cannot do it"));
  await owner.other.promise.catch(() => {});
  await Promise.resolve();
  assertEquals([refused.error, short.error].map((error) => (error as DblockError).errno), [ERRNO.EIO, ERRNO.EIO]);
  assertEquals(owner.judged.map(([, result]) => result).includes(NOT_TAKEN), false);
  io.close();
});

Deno.test("PolledIo takes nothing where nobody would submit it, or no place is left", async () => {
  using file = new DirectFile(1, O_RDWR);
  const io = open(new Owner());
  const [page] = pages(1) as [Uint8Array<ArrayBuffer>];
  io.isTurn = false;
  assertEquals(io.call(ASYNC.read, file.fd, page, 0), undefined);
  io.isTurn = true;
  const outcomes = [];
  for (;;) {
    const late = io.call(ASYNC.read, file.fd, page, 0);
    if (late === undefined) break;
    outcomes.push(outcomeOf(late));
  }
  assertEquals(outcomes.length, io.openCount);
  io.submit();
  await io.idle();
  assertEquals(outcomes.filter(({ value }) => value !== "undefined"), []);
  assertEquals(io.openCount, 0);
  io.close();
});
