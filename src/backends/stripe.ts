// SPDX-License-Identifier: MIT
/** Several disks side by side: large requests are done by all of them at the same time. Without one of them all is lost. */
import type { Backend } from "../disk/backend.ts";
import { BLOCK_BYTES_MAX, IO_BYTES_MAX, whyOutside } from "../disk/limits.ts";
import { JoinedBackend, type Layout, type Piece } from "./joined.ts";
import { limitsOfSet, Member } from "./member.ts";

/** As md and LVM do it: a request of a database stays on one disk. */
const DEFAULT_CHUNK_BYTES = 64 * 2 ** 10;

/** Options of `stripe()`. */
export interface StripeOptions {
  /** So much goes to one disk before the next one has its turn: a multiple of 4096 up to 16 MiB. @default 64 KiB */
  readonly chunkBytes?: number;
}

/**
 * Joins disks side by side: the first chunk is on the first disk, the second one on the second, and so on in turn. Each
 * disk gives as many whole chunks as the smallest has. `close()` closes all of them.
 *
 * ```ts
 * import { requestOptions } from "../disk/request.ts";
 * import { MemoryBackend } from "./memory.ts";
 * import { stripe } from "./stripe.ts";
 *
 * const [first, second] = [new MemoryBackend({ sizeBytes: 65536 }), new MemoryBackend({ sizeBytes: 65536 })];
 * const disk = stripe([first, second], { chunkBytes: 4096 });
 * await disk.write(new Uint8Array(8192).fill(1), 4096, requestOptions());
 * console.assert(disk.sizeBytes === 131072 && second.bytes()[0] === 1 && first.bytes()[4096] === 1);
 * await disk.close?.("destroyed");
 * ```
 *
 * @param backends at least one; their order is part of the content; they are the new disk's from here on
 * @param options how large a chunk is
 * @throws {RangeError} if there is none, the chunk is out of its range, or a disk is smaller than a chunk.
 */
export function stripe(backends: readonly Backend[], options: StripeOptions = {}): Backend {
  return new JoinedBackend(layoutOf(backends, options.chunkBytes ?? DEFAULT_CHUNK_BYTES));
}

function layoutOf(backends: readonly Backend[], chunkBytes: number): Layout {
  if (backends.length === 0) throw new RangeError("a stripe is made of one disk or more, not of none");
  const wrong = whyOutside("chunkBytes", chunkBytes, BLOCK_BYTES_MAX, IO_BYTES_MAX, BLOCK_BYTES_MAX);
  if (wrong !== undefined) throw new RangeError(wrong);
  const members = backends.map((backend) => new Member(backend));
  const smallest = Math.min(...backends.map(({ sizeBytes }) => sizeBytes));
  const chunkCount = Math.floor(smallest / chunkBytes);
  if (chunkCount === 0) throw new RangeError(`a disk of ${smallest} bytes is smaller than a chunk of ${chunkBytes}`);
  const { physicalBlockBytes = BLOCK_BYTES_MAX } = limitsOfSet(members);
  const rowBytes = chunkBytes * members.length;
  const isOptimal = rowBytes <= IO_BYTES_MAX && rowBytes % physicalBlockBytes === 0;
  return {
    sizeBytes: chunkCount * rowBytes,
    members,
    limits: { optimalIoBytes: isOptimal ? rowBytes : 0 },
    *pieces(offsetBytes: number, lengthBytes: number): Generator<Piece> {
      for (let at = offsetBytes; at < offsetBytes + lengthBytes;) {
        const chunk = Math.floor(at / chunkBytes);
        const within = at - chunk * chunkBytes;
        const bytes = Math.min(chunkBytes - within, offsetBytes + lengthBytes - at);
        const member = members[chunk % members.length]!;
        yield {
          member,
          offsetBytes: Math.floor(chunk / members.length) * chunkBytes + within,
          lengthBytes: bytes,
        };
        at += bytes;
      }
    },
    /** Of a range each disk has one part without gaps. */
    *ranges(offsetBytes: number, lengthBytes: number): Generator<Piece> {
      const [first, last] = [offsetBytes, offsetBytes + lengthBytes];
      for (const [index, member] of members.entries()) {
        const [from, to] = [
          before(first, index, members.length, chunkBytes),
          before(last, index, members.length, chunkBytes),
        ];
        if (from < to) yield { member, offsetBytes: from, lengthBytes: to - from };
      }
    },
  };
}

/** How many bytes of the disk with this index are before an offset of the whole. */
function before(offsetBytes: number, index: number, memberCount: number, chunkBytes: number): number {
  const row = Math.floor(offsetBytes / (chunkBytes * memberCount));
  const rest = offsetBytes - row * chunkBytes * memberCount - index * chunkBytes;
  return row * chunkBytes + Math.min(Math.max(rest, 0), chunkBytes);
}
