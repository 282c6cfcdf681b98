/** A thread of the server in queue_threads_test.ts: takes requests and ends, or writes over memory until it is stopped. */
import * as abi from "../../src/module/abi.ts";
import { ioctl, NR, syscall } from "./syscall.ts";

/** What the thread is to do. */
export type ThreadTask =
  | { readonly kind: "take"; readonly fd: number }
  | {
    readonly kind: "scribble";
    readonly address: number;
    readonly bytes: number;
    /** Not 0: stop. */
    readonly stop: SharedArrayBuffer;
    readonly seed: number;
    /** Words between two pauses of a millisecond. */
    readonly burst: number;
  };

const scope = self as unknown as {
  onmessage: (event: MessageEvent<ThreadTask>) => void;
  postMessage(message: { readonly result: number; readonly tid: number }): void;
  close(): void;
};

/** Words that are likely to mean something to the kernel, and small enough to name no memory of this process. */
function scribble(task: ThreadTask & { kind: "scribble" }): number {
  const pointer = Deno.UnsafePointer.create(BigInt(task.address))!;
  const words = new Uint32Array(Deno.UnsafePointerView.getArrayBuffer(pointer, task.bytes));
  const stop = new Int32Array(task.stop);
  let state = task.seed >>> 0;
  let writes = 0;
  const pauseMs = 1;
  while (Atomics.wait(stop, 0, 0, pauseMs) === "timed-out") {
    for (let i = 0; i < task.burst; i++, writes++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const at = (state >>> 8) % words.length;
      // All ones in the lower half of a pair only: an offset must stay a number that JavaScript has.
      const ones = at % 2 === 0 && (state & 0x800) !== 0;
      words[at] = ones ? 0xffff_ffff : (state >>> 12) & (state & 0x400 ? 0xf : 0xfffff);
    }
  }
  return writes;
}

scope.onmessage = ({ data }) => {
  const result = data.kind === "take" ? ioctl(data.fd, abi.DBLOCK_IOC_EXCHANGE, 0) : scribble(data);
  scope.postMessage({ result, tid: syscall(NR.gettid) });
  scope.close();
};
