// SPDX-License-Identifier: MIT
/**
 * A disk under /dev without dblock.ko: the kernel's own NBD client is given one end of a socket, and this program serves the
 * other. The kernel's module is the distribution's, so it loads where only signed modules do.
 */
import type { Backend } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { logFrom, type LoggingOptions, logOf } from "../disk/log.ts";
import { connectKernelDevice, disconnectKernelDevice, kernelDevicePath } from "../system/kernel_nbd.ts";
import { libc } from "../system/library.ts";
import { connectUnix } from "../system/socket.ts";
import { closeBackend, endSessions } from "./ending.ts";
import { describeExport, exportOf, geometryOf } from "./export.ts";
import { listen } from "./listener.ts";
import { BufferPool } from "./pool.ts";
import { Session } from "./session.ts";
import { ConnWire } from "./wire.ts";

/** Payloads that are in memory at a time. */
const MEMORY_BYTES = 256 * 2 ** 20;

/** How to give a disk to the kernel's NBD client. */
export interface KernelDeviceOptions extends LoggingOptions {
  /** Refuse everything that would change the disk. @default false */
  readonly readOnly?: boolean;
  /** After so long a request fails, and the disk with it, in ms; 0: never. @default 30 s */
  readonly timeoutMs?: number;
}

/** A disk that the kernel's NBD client has. */
export interface KernelDevice {
  /** The number in its path. */
  readonly index: number;
  /** Where it is, such as /dev/nbd0. */
  readonly path: string;
  readonly sizeBytes: number;
  /**
   * Resolves, and never rejects, when the kernel has let it go and the backend is closed: one that does not answer what is
   * open is closed after 10 s.
   */
  readonly closed: Promise<void>;
  /**
   * Takes it from the kernel.
   *
   * @throws {DblockError} EBUSY (in use: the message says by whom), unless `force`.
   */
  close(options?: { readonly force?: boolean }): Promise<void>;
}

/**
 * Gives a disk to the kernel's NBD client. The backend is owned from here on, and closed when the kernel has let it go, or
 * did not take it. If this program is killed, I/O fails at once, until somebody calls `disconnectKernelDevice()`.
 *
 * @throws {DblockError} ENOENT (the nbd module is not loaded), EPERM (not root), EBUSY (no device is free), EINVAL.
 */
export async function serveKernelDevice(backend: Backend, options: KernelDeviceOptions = {}): Promise<KernelDevice> {
  const attempted = "Cannot make a disk of the kernel's NBD client";
  const log = logFrom(options);
  await using undo = new AsyncDisposableStack();
  undo.defer(() => backend.close?.("unused"));
  const one = exportOf("disk", backend, options.readOnly ?? false);
  const { wire, fd } = await connectedPair(attempted);
  undo.defer(() => wire.close());
  const description = describeExport(one);
  let index: number;
  try {
    index = connectKernelDevice(attempted, fd, {
      sizeBytes: one.sizeBytes,
      blockBytes: one.limits.blockBytes,
      flags: description.flags,
      timeoutMs: options.timeoutMs ?? 30_000,
    });
  } finally {
    libc().close(fd); // the kernel has its own hold on the socket
  }
  undo.move();
  const path = kernelDevicePath(index);
  const session = new Session({
    wire,
    negotiated: { export: description, structured: false, extended: false, hasAllocation: false },
    backend,
    geometry: geometryOf(one, one.sizeBytes),
    pool: new BufferPool(MEMORY_BYTES),
    log: logOf(log, path, path.slice("/dev/".length)),
  });
  const left = Promise.withResolvers<void>();
  const ran = session.run(new Uint8Array(0), left.resolve);
  const closed = (async () => {
    await left.promise;
    const say = (line: string) => log(`${path}: ${line}`);
    const deaf = await endSessions(new Map([[session, ran]]), say);
    await closeBackend(backend, say, { isDeaf: deaf.has(backend) });
  })();
  return {
    index,
    path,
    sizeBytes: one.sizeBytes,
    closed,
    close: async (how = {}) => {
      await disconnectKernelDevice(index, how);
      session.stop();
      await closed;
    },
  };
}

/** Two ends of a socket: one is Deno's, the other a file for the kernel. */
async function connectedPair(attempted: string): Promise<{ wire: ConnWire; fd: number }> {
  const dir = await Deno.makeTempDir({ prefix: "dblock-" }); // for this user alone
  try {
    const path = `${dir}/nbd`;
    using listener = await listen({ transport: "unix", path });
    const fd = connectUnix(path);
    if (fd === undefined) throw new DblockError("EMFILE", attempted, "there is no room for a socket");
    return { wire: new ConnWire(await listener.accept(), { isAccepted: true }), fd };
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}
