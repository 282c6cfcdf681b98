// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import { checkRequest, Dispatcher, type Geometry, LATER, type Transport } from "../../../src/disk/dispatch.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import {
  type Operation,
  REQUEST_FUA as FUA,
  REQUEST_KEEP_ALLOCATED as KEEP_ALLOCATED,
  REQUEST_METADATA as METADATA,
  REQUEST_PRIORITY_SHIFT as PRIORITY_SHIFT,
  REQUEST_READ_AHEAD as READ_AHEAD,
  REQUEST_REPLAYED as REPLAYED,
  REQUEST_SWAP as SWAP,
} from "../../../src/disk/operation.ts";

const KIB = 1024;
const geometry: Geometry = {
  sizeBytes: 1024 * KIB,
  blockBytes: 512,
  maxIoBytes: 64 * KIB,
  maxDiscardBytes: 256 * KIB,
  maxWriteZeroesBytes: 128 * KIB,
  readOnly: false,
  timeoutMs: 0,
};
const end = geometry.sizeBytes;

/** A transport of one slot, whose answers can be waited for. */
class OneSlot implements Transport {
  readonly memory = new Uint8Array(geometry.maxIoBytes).fill(0xaa);
  #answered = Promise.withResolvers<number>();

  view(_slot: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    return this.memory.subarray(0, lengthBytes);
  }

  answer(_slot: number, errno: number): void {
    this.#answered.resolve(errno);
  }

  /** The next answer that comes later. */
  later(): Promise<number> {
    this.#answered = Promise.withResolvers<number>();
    return this.#answered.promise;
  }
}

/** A dispatcher as a function of a request: its answer, or a promise of that. */
function dispatcherOf(backend: Backend, log: (message: string) => void = () => {}, limits: Partial<Geometry> = {}) {
  const transport = new OneSlot();
  const dispatcher = new Dispatcher(backend, { ...geometry, ...limits }, transport, log);
  return {
    dispatcher,
    ask(
      operation: Operation,
      options: { flags?: number; at?: number; length?: number } = {},
    ): number | Promise<number> {
      const { flags = 0, at = 0, length = operation === "flush" ? 0 : 4096 } = options;
      const later = transport.later();
      const errno = dispatcher.dispatch(operation, flags, at, length, 0);
      return errno === LATER ? later : errno;
    },
  };
}

/** A backend that writes down what it is asked; each callback does what `answer` says. */
function backendOf(answer: Partial<Backend> = {}): { backend: Backend; calls: string[] } {
  const calls: string[] = [];
  const backend: Backend = {
    sizeBytes: geometry.sizeBytes,
    read: (buffer, at) => void calls.push(`read ${at} ${buffer.length}`),
    write: (buffer, at, { fua }) => void calls.push(`write ${at} ${buffer.length}${fua ? " fua" : ""}`),
    ...answer,
  };
  return { backend, calls };
}

function dispatch(
  backend: Backend,
  operation: Operation,
  options: { flags?: number; at?: number; length?: number; log?: (message: string) => void } = {},
): number | Promise<number> {
  return dispatcherOf(backend, options.log).ask(operation, options);
}

const cases: [what: string, operation: Operation, at: number, length: number, errno: number][] = [
  ["the smallest read", "read", 0, 512, 0],
  ["the largest read", "read", 0, 64 * KIB, 0],
  ["a read that is one block too long", "read", 0, 64 * KIB + 512, ERRNO.EINVAL],
  ["a read of nothing", "read", 0, 0, ERRNO.EINVAL],
  ["a read up to the end", "read", end - 4096, 4096, 0],
  ["a read that ends one block past the end", "read", end - 4096 + 512, 4096, ERRNO.EIO],
  ["a read from the end on", "read", end, 512, ERRNO.EIO],
  ["a read far past the end", "read", 2 ** 53 - 512, 512, ERRNO.EIO],
  ["a read between blocks", "read", 256, 512, ERRNO.EINVAL],
  ["a read of half a block", "read", 0, 256, ERRNO.EINVAL],
  ["the largest write", "write", 0, 64 * KIB, 0],
  ["a write that is one block too long", "write", 0, 64 * KIB + 512, ERRNO.EINVAL],
  ["a write up to the end", "write", end - 512, 512, 0],
  ["a write that ends one block past the end", "write", end - 512, 1024, ERRNO.ENOSPC],
  ["a write between blocks", "write", 1, 512, ERRNO.EINVAL],
  ["a flush", "flush", 0, 0, 0],
  ["a flush with a length", "flush", 0, 512, ERRNO.EINVAL],
  ["a flush with an offset", "flush", 512, 0, ERRNO.EINVAL],
  ["the largest discard", "discard", 0, 256 * KIB, 0],
  ["a discard that is one block too long", "discard", 0, 256 * KIB + 512, ERRNO.EINVAL],
  ["a discard that ends past the end", "discard", end - 512, 1024, ERRNO.EIO],
  ["the largest write of zeroes", "writeZeroes", 0, 128 * KIB, 0],
  ["a write of zeroes that is one block too long", "writeZeroes", 0, 128 * KIB + 512, ERRNO.EINVAL],
  ["a write of zeroes that ends past the end", "writeZeroes", end - 512, 1024, ERRNO.ENOSPC],
];
for (const [what, operation, at, length, errno] of cases) {
  Deno.test(`checkRequest() answers ${errno} to ${what}`, () => {
    assertEquals(checkRequest(geometry, operation, at, length), errno);
  });
}

Deno.test("checkRequest() answers EROFS to everything that would change a read-only disk", () => {
  const readOnly = { ...geometry, readOnly: true };
  const errnos = (["read", "write", "discard", "writeZeroes"] as const).map((operation) =>
    checkRequest(readOnly, operation, 0, 512)
  );
  assertEquals(errnos, [0, ERRNO.EROFS, ERRNO.EROFS, ERRNO.EROFS]);
  assertEquals(checkRequest(readOnly, "flush", 0, 0), 0);
});

Deno.test("checkRequest() answers EOPNOTSUPP to ranges that were not advertised", () => {
  const poor = { ...geometry, maxDiscardBytes: 0, maxWriteZeroesBytes: 0 };
  assertEquals((["discard", "writeZeroes"] as const).map((operation) => checkRequest(poor, operation, 0, 512)), [
    ERRNO.EOPNOTSUPP,
    ERRNO.EOPNOTSUPP,
  ]);
});

Deno.test("dispatch() answers at once, without a promise, when the backend does", () => {
  const { backend, calls } = backendOf();
  assertEquals(dispatch(backend, "read", { at: 8192 }), 0);
  assertEquals(dispatch(backend, "write", { at: 512, length: 512 }), 0);
  assertEquals(calls, ["read 8192 4096", "write 512 512"]);
});

Deno.test("dispatch() does not ask the backend what it refuses", () => {
  const { backend, calls } = backendOf();
  assertEquals(dispatch(backend, "write", { at: end }), ERRNO.ENOSPC);
  assertEquals(calls, []);
});

Deno.test("dispatch() waits for a backend that answers later", async () => {
  const { backend } = backendOf({ read: () => Promise.resolve(4096) });
  const answer = dispatch(backend, "read");
  assert(answer instanceof Promise);
  assertEquals(await answer, 0);
});

Deno.test("dispatch() answers EIO, and logs once, when the backend does less or more than the request", async () => {
  for (const count of [0, 4095, 4097, NaN]) {
    const logged: string[] = [];
    const { backend } = backendOf({ read: () => count, write: () => Promise.resolve(count) });
    const dispatcher = dispatcherOf(backend, (message) => logged.push(message));
    assertEquals(dispatcher.ask("read"), ERRNO.EIO);
    assertEquals(dispatcher.ask("read"), ERRNO.EIO);
    assertEquals(await dispatcher.ask("write"), ERRNO.EIO);
    assertEquals(logged, [
      `read() of the backend did ${count} of 4096 bytes: answered EIO`,
      `write() of the backend did ${count} of 4096 bytes: answered EIO`,
    ]);
  }
});

Deno.test("dispatch() answers EIO, and logs once, when the backend throws or rejects", async () => {
  const logged: string[] = [];
  const { backend } = backendOf({
    read: () => {
      throw new TypeError("oops");
    },
    write: () => Promise.reject("nothing to say"),
  });
  const dispatcher = dispatcherOf(backend, (message) => logged.push(message));
  for (let i = 0; i < 3; i++) {
    assertEquals(dispatcher.ask("read"), ERRNO.EIO);
    assertEquals(await dispatcher.ask("write"), ERRNO.EIO);
  }
  assertEquals(logged, [
    "read() of the backend threw TypeError: oops: answered EIO",
    "write() of the backend threw nothing to say: answered EIO",
  ]);
});

Deno.test("dispatch() answers with the errno that a backend throws, and logs what it said", async () => {
  const logged: string[] = [];
  const codes = ["ENOSPC", "EROFS", "ETIMEDOUT"] as const;
  for (const code of codes) {
    const error = new DblockError(code, "Cannot write", "because");
    const { backend } = backendOf({ write: () => Promise.reject(error) });
    assertEquals(await dispatch(backend, "write", { log: (message) => logged.push(message) }), ERRNO[code]);
  }
  const { backend } = backendOf({ read: () => Deno.readFileSync("/absent") as unknown as number });
  assertEquals(dispatch(backend, "read", { log: (message) => logged.push(message) }), ERRNO.ENOENT);
  assertEquals(logged.length, 4);
  assertEquals(logged[0], "write() of the backend threw Cannot write: because: answered ENOSPC");
});

Deno.test("dispatch() flushes after a FUA write of a backend that cannot do FUA itself", async () => {
  const { backend, calls } = backendOf({ flush: () => void calls.push("flush") });
  assertEquals(dispatch(backend, "write", { flags: FUA }), 0);
  assertEquals(calls, ["write 0 4096", "flush"]);
  const late = backendOf({ write: () => Promise.resolve(), flush: () => Promise.reject(new Error("disk full")) });
  assertEquals(await dispatch(late.backend, "write", { flags: FUA }), ERRNO.EIO);
});

Deno.test("dispatch() leaves FUA to a backend that does it itself", () => {
  const { backend, calls } = backendOf({ fua: true, flush: () => void calls.push("flush") });
  assertEquals(dispatch(backend, "write", { flags: FUA }), 0);
  assertEquals(calls, ["write 0 4096 fua"]);
});

Deno.test("dispatch() does not flush after a FUA write that failed", () => {
  const { backend, calls } = backendOf({ write: () => 0, flush: () => void calls.push("flush") });
  assertEquals(dispatch(backend, "write", { flags: FUA }), ERRNO.EIO);
  assertEquals(calls, []);
});

Deno.test("dispatch() writes zeroes, in slot-sized pieces, for a backend that cannot zero", async () => {
  for (const isLate of [false, true]) {
    const store = new Uint8Array(geometry.sizeBytes).fill(1);
    const write = (buffer: Uint8Array, at: number) => {
      store.set(buffer, at);
      buffer.fill(0xbb); // a backend may scribble on its buffer
      return isLate ? Promise.resolve() : undefined;
    };
    const { backend } = backendOf({ write });
    assertEquals(await dispatch(backend, "writeZeroes", { at: 512, length: 128 * KIB }), 0);
    assertEquals(store.indexOf(0), 512);
    assertEquals(store.lastIndexOf(0), 512 + 128 * KIB - 1);
    assertEquals(store.filter((byte) => byte === 0).length, 128 * KIB);
  }
});

Deno.test("dispatch() stops writing zeroes at the first piece that fails", async () => {
  for (const answer of [0, Promise.resolve(0), Promise.reject(new Error("no"))]) {
    let count = 0;
    const { backend } = backendOf({
      write: () => {
        count++;
        return answer;
      },
    });
    assertEquals(await dispatch(backend, "writeZeroes", { length: 128 * KIB }), ERRNO.EIO);
    assertEquals(count, 1);
  }
});

Deno.test("dispatch() passes flush, discard and writeZeroes on, with what the flags say", () => {
  const { backend, calls } = backendOf({
    flush: () => void calls.push("flush"),
    discard: (at, length, { replayed }) => void calls.push(`discard ${at} ${length} ${replayed}`),
    writeZeroes: (at, length, { keepAllocated }) => void calls.push(`zeroes ${at} ${length} ${keepAllocated}`),
  });
  assertEquals(dispatch(backend, "flush"), 0);
  assertEquals(dispatch(backend, "discard", { at: 512, flags: REPLAYED }), 0);
  assertEquals(dispatch(backend, "writeZeroes", { flags: KEEP_ALLOCATED }), 0);
  assertEquals(dispatch(backend, "writeZeroes", {}), 0);
  assertEquals(calls, ["flush", "discard 512 4096 true", "zeroes 0 4096 true", "zeroes 0 4096 false"]);
});

Deno.test("dispatch() answers a flush of a backend that has nothing to flush", () => {
  assertEquals(dispatch(backendOf().backend, "flush"), 0);
});

Deno.test("dispatch() says what a request's flags say, and nothing of the slot's request before", () => {
  const seen: string[] = [];
  const { backend } = backendOf({
    read: (_buffer, _at, { metadata, readAhead, swap, priority }) =>
      void seen.push([metadata, readAhead, swap, priority].join(" ")),
  });
  const { ask } = dispatcherOf(backend);
  ask("read", { flags: METADATA | READ_AHEAD | 1 << PRIORITY_SHIFT });
  ask("read", { flags: SWAP | 3 << PRIORITY_SHIFT });
  ask("read");
  assertEquals(seen, ["true true false realtime", "false false true idle", "false false false none"]);
});

Deno.test("a copy of a request's options, made as { ...options }, is complete", () => {
  const { backend } = backendOf({
    write: (_buffer, _at, options) => {
      const copy = { ...options, fua: true };
      assertEquals([copy.fua, copy.replayed, copy.priority, copy.signal.aborted], [true, true, "none", false]);
    },
  });
  assertEquals(dispatch(backend, "write", { flags: REPLAYED }), 0);
});

Deno.test("a request's signal is aborted at its timeout, and the request is still the backend's", async () => {
  const gate = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<unknown>();
  const { backend } = backendOf({
    read: (_buffer, _at, { signal }) => {
      signal.addEventListener("abort", () => aborted.resolve(signal.reason));
      return gate.promise;
    },
  });
  const { ask } = dispatcherOf(backend, () => {}, { timeoutMs: 20 });
  const answer = ask("read");
  const reason = await aborted.promise;
  assert(reason instanceof DblockError);
  assertEquals(reason.code, "ETIMEDOUT");
  gate.resolve();
  assertEquals(await answer, 0);
});

Deno.test("a signal says nothing to the slot's next request, and its timer ends with its own", async () => {
  const signals: AbortSignal[] = [];
  const { backend } = backendOf({ read: (_buffer, _at, { signal }) => void signals.push(signal) });
  const { dispatcher, ask } = dispatcherOf(backend, () => {}, { timeoutMs: 20 });
  assertEquals([ask("read"), ask("read")], [0, 0]);
  await new Promise((resolve) => setTimeout(resolve, 60));
  dispatcher.abort();
  assertEquals([signals[0] === signals[1], signals.map(({ aborted }) => aborted)], [false, [false, false]]);
});

Deno.test("abort() aborts the signals of what is open, made before or after it", async () => {
  const gate = Promise.withResolvers<void>();
  const seen: (() => AbortSignal)[] = [];
  const { backend } = backendOf({
    flush: (options) => {
      seen.push(() => options.signal);
      return gate.promise;
    },
  });
  for (const isEarly of [true, false]) {
    const { dispatcher, ask } = dispatcherOf(backend);
    const answer = ask("flush");
    const signal = isEarly ? seen.pop()?.() : undefined;
    dispatcher.abort();
    assertEquals((signal ?? seen.pop()?.())?.reason.code, "ENODEV");
    gate.resolve();
    assertEquals(await answer, 0);
  }
});

Deno.test("dispatch() refuses a slot whose request is open", async () => {
  const gate = Promise.withResolvers<void>();
  const { backend, calls } = backendOf({ read: () => gate.promise });
  const { dispatcher, ask } = dispatcherOf(backend);
  const answer = ask("read");
  assertEquals(dispatcher.dispatch("write", 0, 0, 4096, 0), ERRNO.EBUSY);
  gate.resolve();
  assertEquals([await answer, calls], [0, []]);
  assertEquals(dispatcher.dispatch("write", 0, 0, 4096, 0), 0);
});

Deno.test("dispatch() takes one answer of something that is only like a promise", async () => {
  const then = (done: (count: number) => void, failed: (error: unknown) => void) => {
    done(4096);
    failed(new Error("after all"));
    throw new Error("and that");
  };
  const { backend } = backendOf({ read: () => ({ then }) as unknown as Promise<number> });
  const logged: string[] = [];
  assertEquals(await dispatch(backend, "read", { log: (message) => logged.push(message) }), 0);
  assertEquals(logged, []);
});

Deno.test("extents() says that all is data where the backend cannot say, and cuts off what it does", async () => {
  const data = { lengthBytes: 8192, kind: "data" } as const;
  assertEquals(await dispatcherOf(backendOf().backend).dispatcher.extents(0, 8192), [data]);
  const hole = { lengthBytes: 4096, kind: "hole" } as const;
  const { dispatcher } = dispatcherOf(backendOf({ extents: () => [hole, data, hole] }).backend);
  assertEquals(await dispatcher.extents(512, 8192), [hole, { lengthBytes: 4096, kind: "data" }]);
  assertEquals(await dispatcher.extents(512, 32768), [hole, data, hole]);
});

Deno.test("extents() answers with an errno: a range that is none, a backend that throws or says nonsense", async () => {
  const logged: string[] = [];
  const ask = (extents: NonNullable<Backend["extents"]>, ...[at = 0, length = 512]: number[]) =>
    dispatcherOf(backendOf({ extents }).backend, (message) => logged.push(message)).dispatcher.extents(at, length);
  for (const [at, length] of [[0, 0], [1, 512], [0, 513], [end, 512], [-512, 512], [0, end + 512]] as const) {
    assertEquals(await ask(() => [], at, length), ERRNO.EINVAL);
  }
  assertEquals(await ask(() => Promise.reject(new DblockError("ETIMEDOUT"))), ERRNO.ETIMEDOUT);
  assertEquals(await ask(() => []), ERRNO.EIO);
  assertEquals(await ask(() => [{ lengthBytes: 100, kind: "data" }]), ERRNO.EIO);
  assertEquals(logged, [
    "extents() of the backend threw ETIMEDOUT: answered ETIMEDOUT",
    "extents() of the backend said nothing: answered EIO",
    "extents() of the backend said 100: answered EIO",
  ]);
});
