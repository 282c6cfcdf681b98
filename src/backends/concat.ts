// SPDX-License-Identifier: MIT
/** Several disks one behind the other: one disk as large as all of them. */
import type { Backend } from "../disk/backend.ts";
import { JoinedBackend, type Layout, type Piece } from "./joined.ts";
import { limitsOfSet, Member } from "./member.ts";

/**
 * Joins disks one behind the other. The block size is the largest of theirs; the end of a disk that is no whole block is
 * left out. `close()` closes all of them.
 *
 * ```ts
 * import { requestOptions } from "../disk/request.ts";
 * import { concat } from "./concat.ts";
 * import { MemoryBackend } from "./memory.ts";
 *
 * const [first, second] = [new MemoryBackend({ sizeBytes: 8192 }), new MemoryBackend({ sizeBytes: 4096 })];
 * const disk = concat([first, second]);
 * await disk.write(new Uint8Array(1024).fill(1), 8192 - 512, requestOptions());
 * console.assert(disk.sizeBytes === 12288 && first.bytes()[8191] === 1 && second.bytes()[511] === 1);
 * await disk.close?.("destroyed");
 * ```
 *
 * @param backends at least one; they are the new disk's from here on
 * @throws {RangeError} if there is none.
 */
export function concat(backends: readonly Backend[]): Backend {
  return new JoinedBackend(layoutOf(backends));
}

function layoutOf(backends: readonly Backend[]): Layout {
  if (backends.length === 0) throw new RangeError("a concat is made of one disk or more, not of none");
  const members = backends.map((backend) => new Member(backend));
  const { blockBytes } = limitsOfSet(members);
  let sizeBytes = 0;
  const places = members.map((member) => {
    const start = sizeBytes;
    sizeBytes += member.backend.sizeBytes - member.backend.sizeBytes % blockBytes;
    return { member, start, end: sizeBytes };
  });
  return {
    sizeBytes,
    members,
    *pieces(offsetBytes: number, lengthBytes: number): Generator<Piece> {
      const stop = offsetBytes + lengthBytes;
      for (const { member, start, end } of places) {
        const [from, to] = [Math.max(start, offsetBytes), Math.min(end, stop)];
        if (from < to) yield { member, offsetBytes: from - start, lengthBytes: to - from };
      }
    },
  };
}
