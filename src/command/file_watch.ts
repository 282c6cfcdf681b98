// SPDX-License-Identifier: MIT
/**
 * Says when files have changed, however an editor writes them: in place, twice, by a rename, or removed and written anew.
 * The files are looked at a few times a second. inotify would wake the program for each write to anything else in their
 * folders, such as a disk's own image, and hears nothing of what another machine does to a network's file system.
 */

/** How often the files are looked at. */
const LOOK_MS = 200;
/** After a change, they are left alone until they have been the same for so long. */
const SETTLE_MS = 50;
/** A file that has gone, or is empty, is about to be written: it is looked at so often before that is believed. A guess. */
const INCOMPLETE_LOOKS_MAX = 20;
/** Somebody who writes all the time does not hold everything up for longer than this. A guess. */
const UNSETTLED_LOOKS_MAX = 40;

/** What tells one content of a file from the next: "" if there is no such file. */
export type Mark = string;

/** How a file is now. Taken before the file is read, it tells later whether what was read is still there. */
export async function markOf(path: string): Promise<Mark> {
  try {
    const { ino, size, mtime, ctime } = await Deno.stat(path);
    return [size, ino, mtime?.getTime(), ctime?.getTime()].join(" ");
  } catch {
    return ""; // who reads it says why
  }
}

/** Looks at files until it is closed. */
export class FileWatch {
  readonly #files: () => ReadonlyMap<string, Mark>;
  readonly #changed: () => Promise<void>;
  readonly #ended: Promise<void>;
  #isClosed = false;
  /** Ends a pause. */
  #wake: () => void = () => {};

  /**
   * @param files what is looked at, with the marks that the files had when they were read
   * @param changed called when they are not like that any more, and have settled. Must not throw. From its end on, the files
   * are looked at again: it has to read them, or to mark them as they are.
   */
  constructor(files: () => ReadonlyMap<string, Mark>, changed: () => Promise<void>) {
    this.#files = files;
    this.#changed = changed;
    this.#ended = this.#run();
  }

  /** Looks no more. Ends when `changed` has ended, if that is going on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wake();
    await this.#ended;
  }

  async #run(): Promise<void> {
    while (!this.#isClosed) {
      await this.#pause(LOOK_MS);
      const known = this.#files();
      const seen = await this.#look(known);
      if (this.#isClosed || isSame(seen, known)) continue;
      await this.#settled(known, seen);
      if (!this.#isClosed) await this.#changed();
    }
  }

  async #settled(known: ReadonlyMap<string, Mark>, first: ReadonlyMap<string, Mark>): Promise<void> {
    let seen = first;
    for (let looks = 0; looks < UNSETTLED_LOOKS_MAX && !this.#isClosed; looks++) {
      await this.#pause(SETTLE_MS);
      const next = await this.#look(known);
      const isComplete = [...next].every(([path, mark]) => !hasGone(mark, known.get(path)!));
      if (isSame(seen, next) && (isComplete || looks >= INCOMPLETE_LOOKS_MAX)) return;
      seen = next;
    }
  }

  async #look(known: ReadonlyMap<string, Mark>): Promise<Map<string, Mark>> {
    return new Map(await Promise.all([...known.keys()].map(async (path) => [path, await markOf(path)] as const)));
  }

  #pause(ms: number): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Whether a file that had something in it has nothing now. */
function hasGone(mark: Mark, before: Mark): boolean {
  const isNothing = (one: Mark) => one === "" || one.startsWith("0 ");
  return isNothing(mark) && !isNothing(before);
}

function isSame(marks: ReadonlyMap<string, Mark>, others: ReadonlyMap<string, Mark>): boolean {
  return [...marks].every(([path, mark]) => mark === others.get(path));
}
