// SPDX-License-Identifier: MIT
/**
 * Workers that are played in this thread, by the real channel and event loop on a fake kernel: what the main program makes
 * of its Workers can be tested without the module.
 */
import type { Backend } from "../../src/disk/backend.ts";
import { DblockError, ERRNO } from "../../src/disk/errors.ts";
import { profileOf } from "../../src/disk/profile.ts";
import { Channel } from "../../src/module/channel.ts";
import type { Device } from "../../src/module/device.ts";
import { EventLoop } from "../../src/module/eventloop.ts";
import { Rounds } from "../../src/module/rounds.ts";
import { serveOn, type ServeOptions } from "../../src/module/serve.ts";
import type { Failure } from "../../src/module/loaded_backend.ts";
import type { FromWorker, ServeMessage, ToWorker } from "../../src/module/worker.ts";
import { FakeKernel } from "./fake_kernel.ts";

const module = new URL("data:text/javascript,// played");

/** What every played Worker serves. */
export const disk: Backend = { sizeBytes: 2 ** 20, read() {}, write() {} };

/** A Worker played in this thread. */
export class PlayedWorker {
  static kernel = new FakeKernel();
  static all: PlayedWorker[] = [];
  /** What they say is heard after this. */
  static gate: Promise<void> = Promise.resolve();
  /** It serves memory: without a buffer. */
  static mapped = false;
  /** What its backend's close() takes. */
  static close: () => Promise<void> = () => Promise.resolve();
  /** Whether that goes well. */
  static isSaved = true;
  onmessage: (event: { data: FromWorker }) => void = () => {};
  onerror: (event: { message: string; preventDefault(): void }) => void = () => {};
  fd = -1;
  /** It has its queue, and has said so. */
  isServing = false;
  readonly seen: string[] = [];

  constructor() {
    PlayedWorker.all.push(this);
  }

  async say(data: FromWorker): Promise<void> {
    await PlayedWorker.gate;
    this.onmessage({ data });
  }

  terminate(): void {
    if (this.seen.at(-1) !== "terminated") this.seen.push("terminated");
  }

  async postMessage(message: ToWorker): Promise<void> {
    this.seen.push(message.kind);
    await null;
    switch (message.kind) {
      case "load":
        return await this.say({ kind: "loaded", profile: profileOf(disk) });
      case "serve":
        return await this.say({ kind: "left", failure: await this.#serve(message) });
      case "close":
        await PlayedWorker.close();
        this.seen.push(message.reason);
        await this.say({ kind: "ended", isSaved: PlayedWorker.isSaved });
    }
  }

  async #serve({ name, id, queue, depth, fd, geometry, takeOver = false }: ServeMessage): Promise<Failure | undefined> {
    const { kernel } = PlayedWorker;
    this.fd = fd;
    try {
      using channel = new Channel({
        name,
        id,
        queue,
        depth,
        slotBytes: PlayedWorker.mapped ? 0 : geometry.maxIoBytes,
        fd,
        kernel,
      });
      channel.setNonblocking();
      await channel.attachAsync({ takeOver });
      await this.say({ kind: "attached", ioFlusher: true });
      this.isServing = true;
      await new EventLoop(channel, disk, geometry, () => {}, new Rounds(kernel)).run();
      return undefined;
    } catch (error) {
      return error instanceof DblockError ? error : { errno: ERRNO.EBADF, message: String(error) };
    }
  }
}

/** What a test does with them. */
export interface Played extends Disposable {
  readonly kernel: FakeKernel;
  serve(): Promise<Device>;
  /** Another program's server. */
  other(existing: NonNullable<ServeOptions["existing"]>): Promise<Device>;
}

/** Serves a module with Workers that are played. */
export function play(options: Partial<ServeOptions> = {}): Played {
  const kernel = new FakeKernel();
  const real = globalThis.Worker;
  PlayedWorker.kernel = kernel;
  PlayedWorker.all = [];
  PlayedWorker.mapped = false;
  PlayedWorker.gate = Promise.resolve();
  PlayedWorker.close = () => Promise.resolve();
  PlayedWorker.isSaved = true;
  Object.assign(globalThis, { Worker: PlayedWorker });
  return {
    kernel,
    serve: (): Promise<Device> => serveOn(kernel, { module }, { name: "a", queues: 2, log: () => {}, ...options }),
    other: (existing: NonNullable<ServeOptions["existing"]>): Promise<Device> => {
      kernel.pid = 1;
      return serveOn(kernel, disk, { name: "a", log: () => {}, existing });
    },
    [Symbol.dispose]: () => void Object.assign(globalThis, { Worker: real }),
  };
}
