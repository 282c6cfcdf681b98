/**
 * What is left of a file system that was in use when all processes were killed, at the last step of a shutdown: looked at on the
 * host. late_writer.ts has written to it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";

/** The serial number of the disk that the file system's disk has its content on. */
export const lateStore = "late";
/** The same of the disk that has /usr. */
export const earlyStore = "usr";
/** Before each number on the console that was acknowledged. */
export const LATE_MARK = "late: acknowledged";

/** What {@linkcode checkLate} has found. */
export interface LateEnd {
  /** How many writes were. */
  readonly acknowledged: number;
}

/** What was written to, and how. */
export interface LateDisk {
  /** The file of the disk that has the content. */
  readonly store: string;
  /** What is said at that step of the file system, and of the server. */
  readonly said: readonly RegExp[];
  /** What would be wrong elsewhere. */
  readonly mayBeSaid?: RegExp;
}

/** systemd says this of a server that it spares and whose program is on the root file system. */
const SPARED = /Process \d+ \(dblock\) has been marked to be excluded from killing/;

/** Of the disk {@linkcode lateStore}: systemd unmounts it. */
export const LATE_SAID: readonly RegExp[] = [SPARED, /Unmounting '\/srv\/late'/];

/** Of the disk {@linkcode earlyStore}: systemd's own program is on /usr, so it stays mounted, and nothing can be written to it. */
export const EARLY_SAID: readonly RegExp[] = [/Remounting '\/usr' read-only/, /EXT4-fs \(usr\): re-mounted/];
export const EARLY_MAY_BE_SAID = /Failed to unmount \/usr: Device or resource busy/;

/**
 * @param consoleLog of the boot
 * @param run a command of the host, whose output it returns
 */
export async function checkLate(
  consoleLog: string,
  { store, said, mayBeSaid }: LateDisk,
  run: (command: readonly string[]) => Promise<string>,
): Promise<LateEnd> {
  const numbers = [...consoleLog.matchAll(new RegExp(`${LATE_MARK} (\\d+)`, "g"))];
  const acknowledged = Number(numbers.at(-1)?.[1] ?? 0);
  const killedAt = consoleLog.indexOf("Sending SIGTERM to remaining processes");
  assert(killedAt > 0, "systemd has come to its last step");
  const end = consoleLog.slice(killedAt);
  for (const one of said) assertMatch(end, one);
  const wrong = end.match(/(Failed to (re|un)mount|I\/O error|EXT4-fs error|timed out|Unable to finalize).*/g) ?? [];
  assertEquals(wrong.filter((line) => !mayBeSaid?.test(line)), []);
  await run(["e2fsck", "-f", "-n", store]);
  // Clean without a look at the journal: it was unmounted, or is read-only.
  assertMatch(await run(["dumpe2fs", "-h", store]), /^Filesystem state: +clean$/m);
  assert(!/needs_recovery/.test(await run(["dumpe2fs", "-h", store])), "the journal is empty");
  const left = Number(await run(["debugfs", "-R", "cat /count", store]));
  // The writer may have been killed between its last write and the word of it.
  assert(left === acknowledged || left === acknowledged + 1, `${left} is there, ${acknowledged} was acknowledged`);
  return { acknowledged };
}
