// SPDX-License-Identifier: MIT
/** Words for the numbers of the module: what goes out of this package is words. One table for each enum of the header. */
import {
  DBLOCK_ON_DEATH_FAIL,
  DBLOCK_ON_DEATH_HOLD,
  DBLOCK_ON_DEATH_REMOVE,
  DBLOCK_STATE_CREATED,
  DBLOCK_STATE_FAILED,
  DBLOCK_STATE_GONE,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
  DBLOCK_STATE_REMOVING,
  DBLOCK_STATE_STARTING,
} from "./abi.ts";

/**
 * What becomes of a disk when its server dies.
 *
 * - `remove`: the disk goes, and whoever uses it gets I/O errors.
 * - `fail`: the disk stays; its I/O fails with EIO until another server goes on with it.
 * - `hold`: the disk stays; its I/O waits for the next server.
 */
export type OnDeath = "remove" | "fail" | "hold";

/** The numbers of {@linkcode OnDeath}: enum dblock_on_death. */
export const ON_DEATH: Readonly<Record<OnDeath, number>> = {
  remove: DBLOCK_ON_DEATH_REMOVE,
  fail: DBLOCK_ON_DEATH_FAIL,
  hold: DBLOCK_ON_DEATH_HOLD,
};

/**
 * Where a device is in its life.
 *
 * - `created`: the device is made; its disk is not there yet.
 * - `starting`: the disk is being added; the kernel reads its partition table.
 * - `live`: the disk is there and served.
 * - `held`: its server died, and its I/O waits for the next one (`onDeath: "hold"`).
 * - `failed`: its server died, and its I/O fails until the next one (`onDeath: "fail"`).
 * - `removing`: the device is on its way out; its I/O fails.
 * - `gone`: only open files are left of it.
 */
export type DeviceState = "created" | "starting" | "live" | "held" | "failed" | "removing" | "gone";

/** The numbers of {@linkcode DeviceState}: enum dblock_state. */
export const STATE: Readonly<Record<DeviceState, number>> = {
  created: DBLOCK_STATE_CREATED,
  starting: DBLOCK_STATE_STARTING,
  live: DBLOCK_STATE_LIVE,
  held: DBLOCK_STATE_HELD,
  failed: DBLOCK_STATE_FAILED,
  removing: DBLOCK_STATE_REMOVING,
  gone: DBLOCK_STATE_GONE,
};

/**
 * The word for a number of one of the tables above.
 *
 * @throws {RangeError} if the table has no such number: the module is newer than its ABI version says.
 */
export function wordOf<Word extends string>(table: Readonly<Record<Word, number>>, number: number): Word {
  for (const word of Object.keys(table) as Word[]) if (table[word] === number) return word;
  throw new RangeError(`the module says ${number} where it may say ${Object.values(table).join(", ")}`);
}
