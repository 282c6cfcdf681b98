// SPDX-License-Identifier: MIT
/**
 * Whose a device is: the one state of a device in this program's hands, and the table that says what each state may do.
 * What is done about it is in device.ts and serve.ts.
 */
import type { CloseReason } from "../disk/backend.ts";
import type { Log } from "../disk/log.ts";
import type { DeviceOrigin } from "./existing.ts";
import { type ServedQueue, STOP_MS } from "./queue.ts";
import type { Kernel } from "../system/libc.ts";

/**
 * - `planned`: there is no device of this program, or no longer one that anybody could have used.
 * - `making`: this program has created the device; its disk is not there yet.
 * - `joining`: the device was there before; this program is about to serve it.
 * - `serving`: the disk is there, and this program's.
 * - `left`: the device stays, for its next server; this program serves it no more.
 * - `replaced`: another server has the device, or is about to have all of it.
 * - `gone`: the device is no more. Its name may be another device's by now.
 */
export type LifeState = "planned" | "making" | "joining" | "serving" | "left" | "replaced" | "gone";

/** What a state may do. */
export interface Rights {
  /** Whether this program may destroy and resize the device. */
  readonly owns: boolean;
  /** What becomes of the device when this program ends with it. */
  readonly atEnd: "nothing" | "destroy" | "abandon";
  /** How long the servers of the queues may take to come back from the kernel after that, in ms. */
  readonly stopMs: number;
  /** What the backend is told when it is closed. */
  readonly closeReason: CloseReason;
}

/**
 * Another server takes one queue after the other, and waits at each for what is still to be answered: as long as commands
 * wait for that.
 */
const HAND_OVER_MS = 300_000;

const RIGHTS: Readonly<Record<LifeState, Rights>> = {
  planned: { owns: false, atEnd: "nothing", stopMs: STOP_MS, closeReason: "unused" },
  making: { owns: true, atEnd: "destroy", stopMs: STOP_MS, closeReason: "unused" },
  joining: { owns: false, atEnd: "abandon", stopMs: STOP_MS, closeReason: "left" },
  serving: { owns: true, atEnd: "destroy", stopMs: STOP_MS, closeReason: "destroyed" },
  left: { owns: false, atEnd: "abandon", stopMs: STOP_MS, closeReason: "left" },
  replaced: { owns: false, atEnd: "nothing", stopMs: HAND_OVER_MS, closeReason: "left" },
  gone: { owns: false, atEnd: "nothing", stopMs: STOP_MS, closeReason: "destroyed" },
};

/** Which state can follow; the last three are for good. */
const NEXT: Readonly<Record<LifeState, readonly LifeState[]>> = {
  planned: ["making", "joining"],
  making: ["planned", "serving"],
  joining: ["serving", "left", "replaced", "gone"],
  serving: ["left", "replaced", "gone"],
  left: [],
  replaced: [],
  gone: [],
};

/** How a device can end for this program. */
export type Ended = "left" | "replaced" | "gone";

/** A device in this program's hands, from the moment it is planned. */
export class Life {
  readonly name: string;
  readonly kernel: Kernel;
  readonly log: Log;
  /** Those that are served, or are about to be. */
  readonly queues: ServedQueue[] = [];
  /** Resolves when no queue is about to move to another thread; undefined while none is. */
  moved: Promise<void> | undefined;
  /** Which device it is, whatever has its name; 0 before it is known. */
  id = 0;
  origin: DeviceOrigin = "created";
  /** Its policy keeps it when its server dies. */
  keeps = false;
  /** This process, as the module names it; undefined before the disk is there. */
  serverPid: number | undefined;
  /** `close()` of a backend threw, was not waited for, or was not called: what was answered may not be durable. */
  isUnsaved = false;
  #state: LifeState = "planned";

  constructor(name: string, kernel: Kernel, log: Log) {
    this.name = name;
    this.kernel = kernel;
    this.log = log;
  }

  get state(): LifeState {
    return this.#state;
  }

  /** What may be done now. */
  get may(): Rights {
    return RIGHTS[this.#state];
  }

  /** The next state. Another one than the table has is a mistake of this program. */
  become(state: LifeState): void {
    if (!NEXT[this.#state].includes(state)) throw new Error(`a device that is ${this.#state} cannot become ${state}`);
    this.#state = state;
  }

  /** This program serves it no more. What has ended already stays as it ended. */
  end(how: Ended): void {
    if (this.#state === "making") this.become("planned");
    else if (NEXT[this.#state].includes(how)) this.become(how);
  }
}
