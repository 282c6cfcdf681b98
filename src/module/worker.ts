// SPDX-License-Identifier: MIT
/**
 * The module of a Worker that serves one queue. It is told what to do by messages: load a backend, serve a queue, close the
 * backend. While it serves, its thread is in EXCHANGE, where it hears no message and only the kernel can release it. The
 * queue's file, and what the Worker waits with, are the main program's, which opens and closes them.
 */
import type { Backend, CloseReason } from "../disk/backend.ts";
import { Channel } from "./channel.ts";
import type { Geometry } from "../disk/dispatch.ts";
import type { DiskLog } from "../disk/log.ts";
import { type Profile, profileOf } from "../disk/profile.ts";
import type { Mapping } from "../disk/servable.ts";
import { contentFileOf } from "../disk/content_file.ts";
import { serveContent } from "./content.ts";
import { EventLoop } from "./eventloop.ts";
import { PolledLoop } from "./polled_loop.ts";
import { Rounds } from "./rounds.ts";
import { openPolled } from "../disk/late.ts";
import { closeLoaded, type Failure, failureOf, loadBackend, refuseToEnd } from "./loaded_backend.ts";
import { linux, setBatchScheduling, usePollFiles } from "../system/libc.ts";
import { serveMapped } from "./mapped.ts";
import type { PollFiles } from "../system/waiting.ts";

/** To the Worker: import a backend; it answers `loaded`. */
export interface LoadMessage {
  readonly kind: "load";
  readonly href: string;
  readonly data: unknown;
}

/** To the Worker: serve a queue; it answers `attached`. */
export interface ServeMessage {
  readonly kind: "serve";
  readonly name: string;
  readonly id: number;
  readonly queue: number;
  readonly depth: number;
  /** The queue's open file, which is the Worker's until it says `left`. */
  readonly fd: number;
  readonly geometry: Geometry;
  readonly takeOver?: boolean;
  /** The disk's memory; without it, the backend that was loaded. */
  readonly mapping?: Mapping;
  /** dblock.ko reads and writes the file of the backend that was loaded. */
  readonly fromFile?: boolean;
  /** What the Worker waits with, if it may be an event loop. */
  readonly pollFiles?: PollFiles;
  /** The thread never waits in the kernel. */
  readonly eventLoop?: boolean;
}

/** To the Worker: close the backend that was loaded; it answers `ended`. */
export interface CloseMessage {
  readonly kind: "close";
  readonly reason: CloseReason;
}

/** To the Worker. What it cannot do, or has done, ends with `left`. */
export type ToWorker = LoadMessage | ServeMessage | CloseMessage;

/** From the Worker. */
export type FromWorker =
  | { readonly kind: "loaded"; readonly profile: Profile }
  | { readonly kind: "attached"; readonly ioFlusher: boolean }
  | { readonly kind: "log"; readonly message: string; readonly fields?: Parameters<DiskLog>[1] }
  /** It serves no more: the device is gone, or there is a failure. Its backend waits to be closed. */
  | { readonly kind: "left"; readonly failure: Failure | undefined }
  /** Nothing of it uses anything any more; whether its backend closed without an error. */
  | { readonly kind: "ended"; readonly isSaved: boolean };

/** The part of a Worker's global scope that is used: the default types are those of a main program. */
interface WorkerScope {
  postMessage(message: FromWorker): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
}

const scope = self as unknown as WorkerScope;
let backend: Backend | undefined;

refuseToEnd();

function send(message: FromWorker): void {
  scope.postMessage(message);
}

const log: DiskLog = (message, fields) => send({ kind: "log", message, ...(fields && { fields }) });

async function load({ href, data }: LoadMessage): Promise<void> {
  backend = await loadBackend(href, data);
  send({ kind: "loaded", profile: profileOf(backend) });
}

async function serve(message: ServeMessage): Promise<void> {
  const { name, id, queue, depth, fd, geometry, takeOver = false, mapping, pollFiles, eventLoop = false } = message;
  const file = message.fromFile && backend !== undefined ? contentFileOf(backend) : undefined;
  // A flag of the thread: the process may not have it, and this thread matters most.
  const ioFlusher = linux.ensureIoFlusher();
  // With all processors busy, requests gather while others run: fewer switches, longer batches (tests/bench/README.md).
  setBatchScheduling();
  const slotBytes = mapping === undefined && file === undefined ? geometry.maxIoBytes : 0;
  using channel = new Channel({ name, id, queue, depth, slotBytes, contentFd: file?.fd, fd });
  channel.attach({ takeOver });
  if (pollFiles !== undefined) {
    usePollFiles(pollFiles);
    channel.watch();
  }
  send({ kind: "attached", ioFlusher });
  if (mapping !== undefined) {
    serveMapped(channel, mapping, geometry);
    return;
  }
  if (backend === undefined) throw new Error("serve came before load");
  if (file !== undefined) return serveContent(channel, file, backend, geometry, log);
  const polled = openPolled(backend);
  if (polled !== undefined) {
    channel.setNonblocking();
    return await new PolledLoop(channel, polled, geometry, log, linux).run();
  }
  if (eventLoop) channel.setNonblocking();
  await new EventLoop(channel, backend, geometry, log, Rounds.of(linux)).run({ mayBlock: !eventLoop });
}

async function close({ reason }: CloseMessage): Promise<void> {
  const isSaved = backend === undefined || await closeLoaded(backend, reason, log);
  // After this message the main program may end this Worker at any time.
  send({ kind: "ended", isSaved });
}

scope.addEventListener("message", async ({ data }) => {
  if (data.kind === "close") return await close(data);
  const failure = await failureOf(data.kind === "load" ? load(data) : serve(data));
  // Whose the disk is depends on this, so it is said before the backend is closed, which may take its time.
  if (data.kind === "serve" || failure !== undefined) send({ kind: "left", failure });
});
