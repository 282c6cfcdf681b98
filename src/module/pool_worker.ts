// SPDX-License-Identifier: MIT
/**
 * The module of a Worker of a pool: what it does is in pool_queues.ts, and the main program's side in worker_pool.ts, which
 * rings a bell to be heard.
 */
import { linux, setBatchScheduling } from "../system/libc.ts";
import { libc } from "../system/library.ts";
import { type PollFiles, ReadyFiles } from "../system/waiting.ts";
import { refuseToEnd } from "./loaded_backend.ts";
import { type FromPoolWorker, PoolQueues, type ToPoolWorker } from "./pool_queues.ts";

/** To the Worker, first of all. */
export interface BeginMessage {
  readonly kind: "begin";
  readonly pollFiles: PollFiles;
  /** One word: how many messages were sent after this one. */
  readonly sent: Int32Array<SharedArrayBuffer>;
}

/** The part of a Worker's global scope that is used: the default types are those of a main program. */
interface WorkerScope {
  postMessage(message: FromPoolWorker): void;
  addEventListener(type: "message", listener: (event: MessageEvent<BeginMessage | ToPoolWorker>) => void): void;
}

const scope = self as unknown as WorkerScope;
let queues: PoolQueues | undefined;

function begin({ pollFiles, sent }: BeginMessage): PoolQueues {
  setBatchScheduling();
  return new PoolQueues(linux, new ReadyFiles(libc(), pollFiles), sent, (message) => scope.postMessage(message));
}

refuseToEnd();
scope.addEventListener("message", async ({ data }) => {
  if ("kind" in data) queues = begin(data);
  else await queues?.hear(data);
});
