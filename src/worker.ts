// SPDX-License-Identifier: MIT
/**
 * The module of a Worker that serves one queue. It is told what to do by two messages, then its thread is in EXCHANGE
 * until the device is gone: it hears no more messages, and only the kernel can release it.
 */
import type { Backend, BackendFactory, Mapping, Profile } from "./backend.ts";
import { profileOf } from "./backend.ts";
import { Channel } from "./channel.ts";
import { Dispatcher, type Geometry } from "./dispatch.ts";
import { DblockError } from "./errors.ts";
import { EventLoop } from "./eventloop.ts";
import { linux, setBatchScheduling } from "./libc.ts";
import { serveMapped } from "./mapped.ts";

/** To the Worker: import a backend; it answers `loaded`. */
export interface LoadMessage {
  readonly kind: "load";
  readonly href: string;
  readonly data: unknown;
}

/** To the Worker: serve a queue; it answers `attached`, later `ended`. */
export interface ServeMessage {
  readonly kind: "serve";
  readonly name: string;
  readonly queue: number;
  readonly depth: number;
  readonly geometry: Geometry;
  readonly takeOver?: boolean;
  /** The disk's memory; without it, the backend that was loaded. */
  readonly mapping?: Mapping;
}

/** To the Worker. */
export type ToWorker = LoadMessage | ServeMessage;

/** From the Worker. `failed` is the last one, as is `ended`. */
export type FromWorker =
  | { readonly kind: "loaded"; readonly profile: Profile }
  | { readonly kind: "opened"; readonly fd: number }
  | { readonly kind: "closed" }
  | { readonly kind: "attached"; readonly ioFlusher: boolean }
  | { readonly kind: "log"; readonly message: string }
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly errno: number; readonly message: string };

/** The part of a Worker's global scope that is used: the default types are those of a main program. */
interface WorkerScope {
  postMessage(message: FromWorker): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
}

const scope = self as unknown as WorkerScope;
let backend: Backend | undefined;

function send(message: FromWorker): void {
  scope.postMessage(message);
}

async function load(message: LoadMessage): Promise<void> {
  const module: { readonly default?: unknown } = await import(message.href);
  if (typeof module.default !== "function") {
    throw new DblockError(
      "EINVAL",
      `Cannot serve ${message.href}`,
      "its default export is not a function that makes a backend",
    );
  }
  const factory = module.default as BackendFactory;
  backend = await factory(message.data);
  send({ kind: "loaded", profile: profileOf(backend) });
}

async function serve(message: ServeMessage): Promise<void> {
  try {
    await serveQueue(message);
  } finally {
    send({ kind: "closed" });
    await backend?.close?.();
  }
  // After this message the main program may end this Worker at any time.
  send({ kind: "ended" });
}

async function serveQueue(message: ServeMessage): Promise<void> {
  const { name, queue, depth, geometry, takeOver = false, mapping } = message;
  // A flag of the thread: the process may not have it, and this thread matters most.
  const ioFlusher = linux.ensureIoFlusher();
  // With all processors busy, requests gather while others run: fewer switches, longer batches (tests/bench/README.md).
  setBatchScheduling();
  const slotBytes = mapping === undefined ? geometry.maxIoBytes : 0;
  using channel = new Channel({ name, queue, depth, slotBytes });
  send({ kind: "opened", fd: channel.fd });
  channel.attach({ takeOver });
  send({ kind: "attached", ioFlusher });
  if (mapping !== undefined) {
    serveMapped(channel, mapping, geometry);
    return;
  }
  if (backend === undefined) throw new Error("serve came before load");
  const log = (message: string) => send({ kind: "log", message });
  await new EventLoop(channel, new Dispatcher(backend, geometry, log)).run({ mayBlock: true });
}

scope.addEventListener("message", async (event) => {
  try {
    if (event.data.kind === "load") await load(event.data);
    else await serve(event.data);
  } catch (error) {
    const { message, errno } = error instanceof DblockError
      ? error
      : new DblockError("EIO", "A queue's Worker stopped", String(error), { cause: error });
    send({ kind: "failed", errno, message });
  }
});
