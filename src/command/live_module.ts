// SPDX-License-Identifier: MIT
/**
 * A disk that a module is, whose code is replaced while the disk is used (`--watch`). The new code is loaded beside the old
 * one; then requests wait until the old code has answered what it has, and hands over. Those who use the disk see a pause and
 * no error. Code that cannot take over changes nothing.
 */
import type { Backend, CallOptions, CloseReason, Completed, Extent } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import { isPromise } from "../disk/later.ts";
import { checkedLimits, LIMIT_NAMES } from "../disk/limits.ts";
import { profileOf } from "../disk/profile.ts";
import { requestOptions } from "../disk/request.ts";
import { Filter, type FilteredRequest } from "../filters/filter.ts";
import { FileWatch, type Mark } from "./file_watch.ts";
import { loadDisk, type MakeDisk, type ModuleParameters } from "./module_disk.ts";

/** How a module is watched. */
export interface LiveOptions {
  /**
   * How long requests may wait for new code, in ms: less than their timeout. If the old code has not handed over by then, or
   * the new code is not there, the old code goes on.
   */
  readonly pauseMaxMs: number;
  /** Takes a line for each version that serves. */
  readonly say: (line: string) => void;
  /** Takes a line for each that does not, with the reason. */
  readonly complain: (line: string) => void;
}

/** What a version needs so that another one can follow it. */
const HAND_OVER_HINT = "type into its disk: handOver: () => store, and take it: " +
  "export default ({ sizeBytes }, store = new Uint8Array(sizeBytes)) => …; if nothing is kept in variables: handOver() {}";

/** The disk, whatever version of the code serves it. */
export class LiveModule extends Filter {
  /** That of the version that serves. */
  declare protected backend: Backend;
  readonly #path: string;
  readonly #given: ModuleParameters;
  readonly #options: LiveOptions;
  readonly #traits: Traits;
  readonly #watch: FileWatch;
  /** Of the version that serves, and of one that failed after it. */
  #files: ReadonlyMap<string, Mark>;
  #version = 1;
  /** Requests that the version has and has not answered. */
  #openCount = 0;
  /** Called when there is none. */
  #onIdle: () => void = () => {};
  /** While requests wait. */
  #pause: Promise<void> | undefined;
  /** What a flush between two versions threw: the next flush throws it, as whoever waits for that one has to hear it. */
  #flushError: { readonly error: unknown } | undefined;
  /** Of the pause. */
  #limit: Limit | undefined;
  #isClosed = false;

  private constructor(
    path: string,
    given: ModuleParameters,
    options: LiveOptions,
    first: { readonly backend: Backend; readonly traits: Traits; readonly files: ReadonlyMap<string, Mark> },
  ) {
    super(first.backend);
    this.#path = path;
    this.#given = given;
    this.#options = options;
    this.#traits = first.traits;
    this.#files = first.files;
    this.#watch = new FileWatch(() => this.#files, () => this.#reload());
  }

  /**
   * Loads the module, and watches its files until `close()`.
   *
   * @throws {DblockError} as `openModule()`; EINVAL: the disk cannot hand over.
   */
  static async open(path: string, given: ModuleParameters, options: LiveOptions): Promise<LiveModule> {
    const files = new Map<string, Mark>();
    const make = await loadDisk(path, files);
    const backend = await make(given);
    try {
      const attempted = `Cannot watch ${path}`;
      requireHandOver(attempted, backend);
      return new LiveModule(path, given, options, { backend, files, traits: traitsOf(attempted, backend) });
    } catch (error) {
      await backend.close?.("unused");
      throw error;
    }
  }

  /** How often the code was replaced, and one more. */
  get version(): number {
    return this.#version;
  }

  protected override ask(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    if (request.operation !== "flush") return this.#inVersion(next);
    return this.#inVersion(() => {
      const failed = this.#flushError;
      if (failed === undefined) return next();
      this.#flushError = undefined;
      throw failed.error;
    });
  }

  protected override onResize(sizeBytes: number): void | Promise<void> {
    return this.#inVersion(() => this.backend.resize?.(sizeBytes));
  }

  protected override onExtents(
    offsetBytes: number,
    lengthBytes: number,
    options: CallOptions,
  ): readonly Extent[] | Promise<readonly Extent[]> {
    return this.#inVersion(() => super.onExtents(offsetBytes, lengthBytes, options));
  }

  protected override async onClose(reason: CloseReason): Promise<void> {
    this.#isClosed = true;
    this.#limit?.end(new DblockError("ECANCELED", `Cannot replace the code of ${this.#path}`, "the disk is closed"));
    await this.#watch.close();
    await super.onClose(reason);
  }

  /** Asks the version that serves: now, or when the pause is over. */
  #inVersion<T>(ask: () => T | Promise<T>): T | Promise<T> {
    if (this.#pause !== undefined) return this.#pause.then(() => this.#inVersion(ask));
    if (this.#isClosed) throw new DblockError("ENODEV", `Cannot ask ${this.#path}`, "the disk is closed");
    const answer = ask();
    if (!isPromise(answer)) return answer;
    this.#openCount++;
    const answered = () => {
      if (--this.#openCount === 0) this.#onIdle();
    };
    answer.then(answered, answered);
    return answer;
  }

  /** Takes what the files are now. Never throws. */
  async #reload(): Promise<void> {
    const files = new Map<string, Mark>();
    try {
      const make = await loadDisk(this.#path, files);
      const startedMs = performance.now();
      await this.#replace(make);
      this.#files = files;
      const tookMs = (performance.now() - startedMs).toFixed(1);
      this.#options.say(`${this.#path}: version ${++this.#version} serves now; requests waited for ${tookMs} ms`);
    } catch (error) {
      // What the version that serves is made of is watched as well: it may be what is mended.
      this.#files = new Map([...this.#files, ...files]);
      if (!this.#isClosed) this.#options.complain(`${describe(error)}; version ${this.#version} goes on`);
    }
  }

  /** All that happens while requests wait. */
  async #replace(make: MakeDisk): Promise<void> {
    const attempted = `Cannot replace the code of ${this.#path}`;
    const { promise, resolve: goOn } = Promise.withResolvers<void>();
    this.#pause = promise;
    const limit = this.#limit = new Limit(attempted, this.#options.pauseMaxMs);
    try {
      await limit.on("what was asked is not answered", this.#idle());
      await limit.on("flush() has not returned", this.#flushOld());
      const old = this.backend;
      const handedOver = await limit.on("handOver() has not returned", handOver(attempted, old));
      const next = await limit.on("the default export has not returned", this.#make(make, handedOver, limit));
      this.backend = next;
      await limit.on("close() has not returned", closeReplaced(attempted, old)).catch((error) => {
        this.#options.complain(`${describe(error)}; it is not waited for`);
      });
    } finally {
      limit.end();
      this.#pause = undefined;
      goOn();
    }
  }

  #idle(): Promise<void> {
    if (this.#openCount === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle = resolve);
  }

  async #flushOld(): Promise<void> {
    try {
      await this.backend.flush?.(requestOptions());
    } catch (error) {
      this.#flushError = { error };
      throw threw(`Cannot replace the code of ${this.#path}`, "flush()", error);
    }
  }

  /** The disk of the next version: as the disk that is used, but for its code. */
  async #make(make: MakeDisk, handedOver: unknown, limit: Limit): Promise<Backend> {
    const attempted = `Cannot load ${this.#path}`;
    // A disk that was resized is as large as it is now.
    const { sizeBytes } = this.backend;
    const isSized = "sizeBytes" in this.#given;
    const next = await make(isSized ? { ...this.#given, sizeBytes } : this.#given, handedOver);
    try {
      requireHandOver(attempted, next);
      requireSame(attempted, { ...this.#traits, sizeBytes }, traitsOf(attempted, next));
      if (limit.isOver) throw new DblockError("ETIMEDOUT", attempted, "it has come too late");
      return next;
    } catch (error) {
      await closeReplaced(attempted, next).catch((failed) => this.#options.complain(describe(failed)));
      throw error;
    }
  }
}

/** A bound on everything that happens in a pause. */
class Limit {
  /** Nobody waits for what is done under it any more. */
  isOver = false;
  readonly #attempted: string;
  readonly #over = Promise.withResolvers<never>();
  readonly #ms: number;
  readonly #timer: ReturnType<typeof setTimeout>;
  #late = "";

  constructor(attempted: string, ms: number) {
    this.#attempted = attempted;
    this.#ms = ms;
    this.#over.promise.catch(() => {}); // it may end while nobody waits
    this.#timer = setTimeout(() => this.end(this.#error()), ms);
  }

  /**
   * Waits for a step.
   *
   * @param late what is wrong if the time is over first
   */
  async on<T>(late: string, step: Promise<T>): Promise<T> {
    step.catch(() => {}); // it may fail when nobody waits any more
    this.#late = late;
    return await Promise.race([this.#over.promise, step]);
  }

  /** Ends the wait, with an error if there is one. */
  end(error?: DblockError): void {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.#timer);
    if (error !== undefined) this.#over.reject(error);
  }

  #error(): DblockError {
    const hint = "save the file again to try again";
    return new DblockError("ETIMEDOUT", this.#attempted, `${this.#late} after ${this.#ms / 1000} s`, { hint });
  }
}

async function handOver(attempted: string, disk: Backend): Promise<unknown> {
  try {
    return await disk.handOver?.();
  } catch (error) {
    throw threw(attempted, "handOver()", error);
  }
}

async function closeReplaced(attempted: string, disk: Backend): Promise<void> {
  try {
    await disk.close?.("replaced");
  } catch (error) {
    throw threw(attempted, "close()", error);
  }
}

function threw(attempted: string, callback: string, error: unknown): DblockError {
  return new DblockError("EIO", attempted, `${callback} threw ${describe(error)}`, { cause: error });
}

function requireHandOver(attempted: string, disk: Backend): void {
  if (disk.readOnly === true || disk.handOver !== undefined) return;
  const wrong = "its disk has no handOver(), so what it keeps in variables would be lost with the next version";
  throw new DblockError("EINVAL", attempted, wrong, { hint: HAND_OVER_HINT });
}

/** Everything that those who use a disk were told of it. */
type Traits = Readonly<Record<string, number | boolean>>;

const CALLBACKS = ["flush", "discard", "writeZeroes", "resize", "extents"] as const;

function traitsOf(attempted: string, disk: Backend): Traits {
  // Served by its callbacks, also if it is memory.
  const profile = { ...profileOf(disk), direct: false, hasContentFile: false };
  const limits = checkedLimits(attempted, profile);
  const { sizeBytes, readOnly, cacheSurvives } = profile;
  return {
    sizeBytes,
    ...Object.fromEntries(CALLBACKS.map((name) => [`${name}()`, disk[name] !== undefined])),
    ...Object.fromEntries(LIMIT_NAMES.map((name) => [name, limits[name]])),
    readOnly,
    cacheSurvives,
    fua: disk.fua ?? false,
  };
}

function requireSame(attempted: string, before: Traits, now: Traits): void {
  const name = Object.keys(before).find((trait) => before[trait] !== now[trait]);
  if (name === undefined) return;
  const [was, is] = [before[name], now[name]];
  const callback = is === true ? `its disk has ${name}, and had not` : `its disk has no ${name}, and had`;
  const wrong = name.endsWith("()") ? callback : `its disk's ${name} is ${is}, and was ${was}`;
  throw new DblockError("EINVAL", attempted, wrong, {
    hint: "a disk that is used stays what it is; to change that, end it and start it again",
  });
}
