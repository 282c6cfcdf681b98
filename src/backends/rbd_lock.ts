// SPDX-License-Identifier: MIT
/**
 * An image's exclusive lock: how one server has an image to itself, and how the next one gets it from a dead one.
 *
 * librbd gives a lock away when another client asks. dblock's servers do not: they acquire it for good. Who has it is written
 * into the image's metadata, so that the next server can tell a dead server on its own machine from a living one elsewhere.
 */
import { DblockError, ERRNO, errnoName } from "../disk/errors.ts";
import { cText, fromCText, RBD_FEATURE_EXCLUSIVE_LOCK, RBD_LOCK_MODE_EXCLUSIVE } from "../system/ceph.ts";
import type { RbdImage } from "./rbd_image.ts";

/** The metadata's key. "conf_" keys are librbd's own; this is none. */
const OWNER_KEY = "dblock.owner";
const OWNERS_MAX = 8;
const METADATA_BYTES_MAX = 4096;
/** rbd_image_watcher_t { char *addr; int64_t id; uint64_t cookie; } */
const WATCHER_WORDS = 3;
const WATCHERS_MAX = 64;
/** A server that was replaced answers what it has, and gives the lock back; the cluster misses a dead client after 30 s. */
const HAND_OVER_MS = 40_000;
const PAUSE_MS = 50;
/** A cluster that takes so long to say who has the lock was away: a guess. */
const AWAY_MS = 5_000;

/** Who has a lock, as its server wrote it down. */
interface Owner {
  /** The lock's owner as the cluster calls it: "127.0.0.1:0/2882042169". */
  readonly lock: string;
  readonly host: string;
  /** One start of one machine. */
  readonly boot: string;
  /** A process number means something in its namespace only. */
  readonly namespace: string;
  readonly pid: number;
  /** When the process began, in ticks since the boot: numbers are used again. */
  readonly started: number;
}

/** How to get a lock. */
export interface LockOptions {
  /** Take it from whoever has it. */
  readonly fence: boolean;
  /** Wait for another dblock on this machine to end: it is being taken over. */
  readonly waits: boolean;
}

/** The lock of one image. */
export class RbdLock {
  readonly #image: RbdImage;
  readonly #attempted: string;
  readonly #fence: boolean;
  readonly #waits: boolean;
  #isHeld = false;

  private constructor(image: RbdImage, attempted: string, { fence, waits }: LockOptions) {
    this.#image = image;
    this.#attempted = attempted;
    this.#fence = fence;
    this.#waits = waits;
  }

  /**
   * The lock of an image.
   *
   * @throws {DblockError} EINVAL if the image has none.
   */
  static async of(image: RbdImage, attempted: string, options: LockOptions): Promise<RbdLock> {
    const features = new BigUint64Array(1);
    const code = await image.calls.rbd_get_features(image.handle, features);
    if (code < 0) throw new DblockError(-code, attempted);
    if ((features[0]! & RBD_FEATURE_EXCLUSIVE_LOCK) === 0n) {
      throw new DblockError("EINVAL", attempted, "the image has no exclusive lock, so two servers could write it", {
        hint: "rbd feature enable POOL/IMAGE exclusive-lock",
      });
    }
    return new RbdLock(image, attempted, options);
  }

  /** Whether this client has it. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /**
   * Gets the lock. A dead server of this machine is shut out of the cluster first; with `fence`, so is whoever has it.
   *
   * @throws {DblockError} EBUSY (another server has it, and its name).
   */
  async acquire(): Promise<void> {
    const { calls, handle } = this.#image;
    let untilMs = performance.now() + HAND_OVER_MS;
    for (;;) {
      const askedMs = performance.now();
      const holder = await this.#holder();
      // The server before could not leave meanwhile either: it has all of its time again.
      if (performance.now() - askedMs > AWAY_MS) untilMs = performance.now() + HAND_OVER_MS;
      if (holder !== undefined && (this.#fence || isDead(holder.owner))) {
        await this.#break(holder.lock);
        continue;
      }
      // Another dblock on this machine is alive, and may be about to end. Anybody else keeps the image, unless it is dead; but
      // who has removed its note gives the lock back next.
      const mayGo = holder?.owner !== undefined && !isElsewhere(holder.owner);
      const isKept = holder !== undefined && !mayGo && await this.#isWatching(holder.lock);
      if (isKept && !this.#waits) throw this.#busy(holder);
      if (!mayGo && !isKept) {
        // From a client that is gone librbd takes the lock itself, and shuts it out.
        const code = await calls.rbd_lock_acquire(handle, RBD_LOCK_MODE_EXCLUSIVE);
        if (code === 0) break;
        if (!isTaken(-code)) throw new DblockError(-code, this.#attempted, `its lock: ${errnoName(-code)}`);
      }
      if (!this.#waits || performance.now() > untilMs) throw this.#busy(holder);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.#isHeld = true;
    const lock = (await this.#holder())?.lock;
    // Without this note a successor waits until the cluster misses this client, and no longer.
    if (lock !== undefined) {
      await calls.rbd_metadata_set(handle, cText(OWNER_KEY), cText(JSON.stringify(thisProcess(lock))));
    }
  }

  /** Gives the lock back. */
  async release(): Promise<void> {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    const { calls, handle } = this.#image;
    await calls.rbd_metadata_remove(handle, cText(OWNER_KEY));
    await calls.rbd_lock_release(handle);
  }

  /** Who has the lock: as the cluster calls it, and as its server wrote it down. */
  async #holder(): Promise<{ lock: string; owner: Owner | undefined } | undefined> {
    const { calls, handle } = this.#image;
    const [mode, owners, count] = [
      new Int32Array(1),
      new BigUint64Array(OWNERS_MAX),
      new BigUint64Array([BigInt(OWNERS_MAX)]),
    ];
    const code = await calls.rbd_lock_get_owners(handle, mode, owners, count);
    if (code === -ERRNO.ENOENT) return undefined;
    if (code < 0) throw new DblockError(-code, this.#attempted, `its lock: ${errnoName(-code)}`);
    const pointer = Deno.UnsafePointer.create(owners[0]!);
    const lock = count[0] === 0n || pointer === null ? undefined : Deno.UnsafePointerView.getCString(pointer);
    calls.rbd_lock_get_owners_cleanup(owners, count[0]!);
    if (lock === undefined) return undefined;
    const owner = await this.#note();
    // The note of a server that is gone says nothing about another program that has the lock now.
    return { lock, owner: owner?.lock === lock ? owner : undefined };
  }

  /** Whether a client is still there: the cluster forgets one that is silent for 30 s. */
  async #isWatching(lock: string): Promise<boolean> {
    const { calls, handle } = this.#image;
    const [watchers, count] = [
      new BigUint64Array(WATCHERS_MAX * WATCHER_WORDS),
      new BigUint64Array([BigInt(WATCHERS_MAX)]),
    ];
    const code = await calls.rbd_watchers_list(handle, watchers, count);
    if (code === -ERRNO.ERANGE) return true; // more than anybody has
    if (code < 0) throw new DblockError(-code, this.#attempted, `its watchers: ${errnoName(-code)}`);
    const addresses = Array.from({ length: Number(count[0]!) }, (_, i) => {
      const pointer = Deno.UnsafePointer.create(watchers[i * WATCHER_WORDS]!);
      return pointer === null ? "" : Deno.UnsafePointerView.getCString(pointer);
    });
    calls.rbd_watchers_list_cleanup(watchers, count[0]!);
    return addresses.includes(lock);
  }

  async #note(): Promise<Owner | undefined> {
    const [value, length] = [new Uint8Array(METADATA_BYTES_MAX), new BigUint64Array([BigInt(METADATA_BYTES_MAX)])];
    const { calls, handle } = this.#image;
    if (await calls.rbd_metadata_get(handle, cText(OWNER_KEY), value, length) < 0) return undefined;
    try {
      const { lock, host, boot, namespace, pid, started } = JSON.parse(fromCText(value));
      const isOwner = [lock, host, boot, namespace].every((word) => typeof word === "string") &&
        [pid, started].every(Number.isSafeInteger);
      return isOwner ? { lock, host, boot, namespace, pid, started } : undefined;
    } catch {
      return undefined; // somebody else's note
    }
  }

  /** Shuts the owner out of the cluster (its blocklist), and takes the lock from it. */
  async #break(lock: string): Promise<void> {
    const code = await this.#image.calls.rbd_lock_break(this.#image.handle, RBD_LOCK_MODE_EXCLUSIVE, cText(lock));
    if (code < 0 && code !== -ERRNO.ENOENT) {
      throw new DblockError(-code, this.#attempted, `${lock} cannot be shut out: ${errnoName(-code)}`, {
        hint: "the client needs the monitors' profile rbd",
      });
    }
  }

  #busy(holder: { lock: string; owner: Owner | undefined } | undefined): DblockError {
    const { owner, lock } = holder ?? { owner: undefined, lock: "another client" };
    const who = owner === undefined ? lock : `process ${owner.pid} on ${owner.host} (${owner.lock})`;
    return new DblockError("EBUSY", this.#attempted, `${who} has the image`, {
      hint: "end that server; if it is dead and its machine is gone, ?fence=true shuts it out",
    });
  }
}

/** What librbd says when another client has the lock and keeps it. */
function isTaken(errno: number): boolean {
  return errno === ERRNO.EBUSY || errno === ERRNO.EROFS || errno === ERRNO.EAGAIN || errno === ERRNO.EEXIST ||
    errno === ERRNO.ETIMEDOUT;
}

function thisProcess(lock: string): Owner {
  const { pid } = Deno;
  return { lock, host: Deno.hostname(), boot: bootId(), namespace: pidNamespace(), pid, started: startOf(pid) ?? 0 };
}

/** A server of this machine that has ended. Of any other nothing is known. */
function isDead(owner: Owner | undefined): boolean {
  return owner !== undefined && !isElsewhere(owner) && startOf(owner.pid) !== owner.started;
}

/** Whether nothing can be known of it here: another machine, another start of this one, another container. */
function isElsewhere(owner: Owner | undefined): boolean {
  return owner === undefined || owner.boot !== bootId() || owner.namespace !== pidNamespace();
}

function bootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

function pidNamespace(): string {
  return Deno.readLinkSync("/proc/self/ns/pid");
}

/** When a process of this machine began, in ticks since the boot; undefined if there is none. */
function startOf(pid: number): number | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    // The name in brackets may contain anything. A zombie has ended.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : Number(fields[19]);
  } catch {
    return undefined;
  }
}
