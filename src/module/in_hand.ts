// SPDX-License-Identifier: MIT
/** The requests of one queue, from the ring to the backend and back: what eventloop.ts and polled_loop.ts have in common. */
import { type Dispatcher, LATER } from "../disk/dispatch.ts";
import { ERRNO } from "../disk/errors.ts";
import { type Ring, UNKNOWN } from "./request.ts";

/** The requests of one queue that its backend has. */
export class InHand {
  /** Requests that are answered later. */
  openCount = 0;
  readonly #ring: Ring;
  /** By slot. */
  readonly #generations: Uint32Array;
  readonly #lengths: Uint32Array;

  constructor(ring: Ring) {
    this.#ring = ring;
    this.#generations = new Uint32Array(ring.depth);
    this.#lengths = new Uint32Array(ring.depth);
  }

  /** Dispatches the requests that are in the ring. What is answered at once is in it afterwards. */
  dispatchAll(count: number, dispatcher: Dispatcher): void {
    const ring = this.#ring;
    dispatcher.batchBegins();
    for (let i = 0; i < count; i++) {
      const operation = ring.operation(i);
      const flags = ring.flags(i);
      const slot = ring.slot(i);
      const generation = ring.generation(i);
      const lengthBytes = ring.lengthBytes(i);
      const errno = operation === undefined || flags === UNKNOWN
        ? ERRNO.EOPNOTSUPP
        : dispatcher.dispatch(operation, flags, ring.offsetBytes(i), lengthBytes, slot);
      if (errno === LATER) {
        this.openCount++;
        this.#generations[slot] = generation;
        this.#lengths[slot] = lengthBytes;
      } else ring.complete(slot, generation, lengthBytes, 0, errno);
    }
    dispatcher.batchEnds();
  }

  /** Puts the answer to one of them into the ring. */
  complete(slot: number, errno: number): void {
    this.#ring.complete(slot, this.#generations[slot]!, this.#lengths[slot]!, 0, errno);
  }
}
