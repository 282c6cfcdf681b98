// SPDX-License-Identifier: MIT
/** A disk in memory on a fake kernel: what the tests of serve() share. */
import { assertEquals } from "@std/assert";
import type { Backend } from "../../../src/disk/backend.ts";
import type { Device } from "../../../src/module/device.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import type { Io } from "../../sim/fake_queue.ts";

export const MIB = 2 ** 20;

/** A disk in memory. */
export class Disk implements Backend {
  readonly store = new Uint8Array(MIB);
  readonly sizeBytes = MIB;
  closedCount = 0;
  read(buffer: Uint8Array, at: number): void | Promise<void> {
    buffer.set(this.store.subarray(at, at + buffer.length));
  }
  write(buffer: Uint8Array, at: number): void {
    this.store.set(buffer, at);
  }
  close(): void {
    this.closedCount++;
  }
}

/** What `make()` makes. */
export interface Made {
  readonly kernel: FakeKernel;
  /** What was logged. */
  readonly logged: string[];
  readonly disk: Disk;
  readonly serve: () => Promise<Device>;
}

/** A disk that can be served on a fake kernel. */
export function make(options: Partial<ServeOptions> = {}, disk: Disk = new Disk()): Made {
  const kernel = new FakeKernel();
  const logged: string[] = [];
  const log = (message: string) => void logged.push(message);
  return { kernel, logged, disk, serve: () => serveOn(kernel, disk, { name: "a", log, ...options }) };
}

export function assertNothingLeft(kernel: FakeKernel): void {
  assertEquals([...kernel.devices.keys()], []);
  assertEquals(kernel.files.size, 0);
}

/** A request behind the first page. */
export function io(operation: number, data: Uint8Array): Omit<Io, "end"> {
  return { operation, flags: 0, offsetBytes: 4096, lengthBytes: data.length, data };
}
