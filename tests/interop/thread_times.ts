/** What the threads of a process cost: processor time, as the kernel's scheduler counts it, by the threads' names. */

/** A process. */
export class ThreadTimes {
  /** In ns, of the stretches that were added. */
  readonly spent = new Map<string, number>();
  readonly #pid: number;

  constructor(pid: number) {
    this.#pid = pid;
  }

  /** Since each thread began. */
  now(): ReadonlyMap<string, number> {
    const times = new Map<string, number>();
    for (const { name } of Deno.readDirSync(`/proc/${this.#pid}/task`)) {
      const folder = `/proc/${this.#pid}/task/${name}`;
      try {
        const thread = Deno.readTextFileSync(`${folder}/comm`).trim();
        const ns = Number(Deno.readTextFileSync(`${folder}/schedstat`).split(" ")[0]);
        times.set(thread, (times.get(thread) ?? 0) + ns);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended meanwhile
      }
    }
    return times;
  }

  /** Adds what was spent since `now()` said `began`. */
  addSince(began: ReadonlyMap<string, number>): void {
    for (const [thread, ns] of this.now()) {
      this.spent.set(thread, (this.spent.get(thread) ?? 0) + ns - (began.get(thread) ?? 0));
    }
  }
}
