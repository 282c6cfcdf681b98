// SPDX-License-Identifier: MIT
/**
 * Serves one queue of a disk whose content is a file (disk/content_file.ts): each answer to a read, a write or a flush names an
 * offset, and dblock.ko has the file do the rest. So one system call takes a batch, no data is touched, and nobody has to come
 * back when the store has answered.
 */
import type { Backend } from "../disk/backend.ts";
import type { ContentFile } from "../disk/content_file.ts";
import { checkRequest, Dispatcher, type Geometry, LATER, type Transport } from "../disk/dispatch.ts";
import { ERRNO } from "../disk/errors.ts";
import type { DiskLog } from "../disk/log.ts";
import { type Channel, GONE } from "./channel.ts";
import { UNKNOWN } from "./request.ts";

/** There is no data on its way, and nothing is answered later. */
const NO_TRANSPORT: Transport = { view: () => undefined, answer: () => {} };

/**
 * Serves until the device is gone. Blocks this thread: for Workers only.
 *
 * @param channel attached with the file
 * @param backend does what is no read, write or flush, and answers at once
 * @throws {DblockError} if the channel fails for good.
 */
export function serveContent(
  channel: Channel,
  file: ContentFile,
  backend: Backend,
  geometry: Geometry,
  log: DiskLog,
): void {
  const { ring } = channel;
  const current = { ...geometry };
  const dispatcher = new Dispatcher(backend, current, NO_TRANSPORT, log);
  for (;;) {
    const count = channel.exchange();
    if (count === GONE) return dispatcher.abort();
    current.sizeBytes = file.sizeBytes;
    for (let i = 0; i < count; i++) {
      const operation = ring.operation(i);
      const flags = ring.flags(i);
      const slot = ring.slot(i);
      const offsetBytes = ring.offsetBytes(i);
      const lengthBytes = ring.lengthBytes(i);
      let errno: number = ERRNO.EOPNOTSUPP;
      if (operation !== undefined && flags !== UNKNOWN) {
        errno = operation === "discard" || operation === "writeZeroes"
          ? dispatcher.dispatch(operation, flags, offsetBytes, lengthBytes, slot)
          : checkRequest(current, operation, offsetBytes, lengthBytes);
      }
      ring.complete(slot, ring.generation(i), lengthBytes, offsetBytes, errno === LATER ? ERRNO.EIO : errno);
    }
  }
}
