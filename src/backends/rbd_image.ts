// SPDX-License-Identifier: MIT
/**
 * An open image of a Ceph cluster: the way there, asynchronous calls with their completions, and the way back. It knows no
 * disk; rbd.ts makes one of it.
 *
 * Completions come by an eventfd: a callback for each, on the event loop, is ten times slower at depth 32.
 */
import type { Completed } from "../disk/backend.ts";
import { DblockError, ERRNO, errnoName } from "../disk/errors.ts";
import { type Answers, LateAnswer } from "../disk/late.ts";
import { type Ceph, ceph, cText, EBLOCKLISTED, fromCText, RBD_EVENT_TYPE_EVENTFD } from "../system/ceph.ts";
import { openEvent } from "../system/libc.ts";
import { libc } from "../system/library.ts";
import type { WaitedEvent } from "../system/loop_event.ts";
import { ShortWait } from "../system/short_wait.ts";

/** Which image, and as whom. */
export interface RbdAddress {
  /** The pool's name. */
  readonly pool: string;
  /** The image's name. */
  readonly image: string;
  /** A snapshot of the image: such a disk is read-only. */
  readonly snapshot?: string | undefined;
  /** A namespace of the pool. @default none */
  readonly namespace?: string | undefined;
  /** The client's name without "client.". @default "admin" */
  readonly id?: string | undefined;
  /** Ceph's configuration. @default where every client looks: $CEPH_CONF, /etc/ceph/ceph.conf, ~/.ceph/config */
  readonly conf?: string | undefined;
  /** The file with the client's key. @default what the configuration says, /etc/ceph/ceph.client.ID.keyring among it */
  readonly keyring?: string | undefined;
}

/** How an image is opened. */
export interface OpenImageOptions {
  readonly readOnly: boolean;
  /** Keep answered writes in this process until they are flushed. */
  readonly cache: boolean;
  /** Bound on the way there. */
  readonly timeoutMs: number;
}

/** Half the processors: librbd's threads wake each other, and this thread, for every request. */
const THREADS = Math.max(1, Math.floor(navigator.hardwareConcurrency / 2));
/**
 * What librados and librbd do of their own accord, and what is better for a disk (README.md has figures): no more threads than
 * that, for messages and for what comes of them; and no scheduler, which delays a write to an object that another one is under
 * way to, in case more of them follow, as the kernel has put together what belongs together.
 */
const BETTER: readonly (readonly [setting: string, theirs: string, ours: string])[] = [
  ["ms_async_op_threads", "3", String(Math.min(3, THREADS))],
  ["librados_thread_count", "2", String(Math.min(2, THREADS))],
  ["rbd_io_scheduler", "simple", "none"],
];
const SETTING_BYTES_MAX = 64;
const EVENTS_MAX = 64;
const WORD = 2 ** 32;
/** How long timers and signals may have to wait. */
const TURN_MS = 2;
/** In the second of these whoever was answered asks for more. */
const ANSWER_MICROTASKS = 2;

/** What a call that was begun waits for. */
interface Call {
  readonly what: string;
  readonly answer: Pick<LateAnswer, "resolve" | "reject">;
  readonly isPromised: boolean;
  /** librbd has its address until the call is done. */
  readonly buffer: Uint8Array | undefined;
}

/** "pool/namespace/image@snapshot". */
export function imageName({ pool, namespace, image, snapshot }: RbdAddress): string {
  const place = namespace === undefined ? pool : `${pool}/${namespace}`;
  return `${place}/${image}${snapshot === undefined ? "" : `@${snapshot}`}`;
}

/** An image that is open. */
export class RbdImage implements Answers {
  readonly calls: Ceph;
  /** "pool/namespace/image@snapshot". */
  readonly name: string;
  /** librbd's handle. */
  readonly handle: bigint;
  readonly #cluster: bigint;
  readonly #pool: bigint;
  readonly #event: WaitedEvent;
  readonly #shortWait: ShortWait;
  /** Calls whose end has not been seen, those that a promise waits for among them. */
  readonly #open = new Map<number, Call>();
  #promisedCount = 0;
  isTurn = false;
  #waiting: Promise<void> | undefined;
  readonly #made = new BigUint64Array(1);
  readonly #count = new BigUint64Array(1);
  readonly #events = new BigUint64Array(EVENTS_MAX);
  readonly #eventWords = new Uint32Array(this.#events.buffer);
  readonly #madeWords = new Uint32Array(this.#made.buffer);
  #isCollecting = false;
  #isClosed = false;

  private constructor(
    calls: Ceph,
    name: string,
    handles: { cluster: bigint; pool: bigint; image: bigint; event: WaitedEvent },
  ) {
    this.calls = calls;
    this.name = name;
    this.#cluster = handles.cluster;
    this.#pool = handles.pool;
    this.handle = handles.image;
    this.#event = handles.event;
    this.#shortWait = new ShortWait(handles.event.fd);
  }

  /**
   * Connects to the cluster and opens the image.
   *
   * @throws {DblockError} ENOENT (library, configuration, pool, image or snapshot missing), EACCES (the key), ETIMEDOUT (the
   * cluster does not answer).
   */
  static async open(address: RbdAddress, options: OpenImageOptions): Promise<RbdImage> {
    const attempted = `Cannot open rbd:${imageName(address)}`;
    const calls = ceph(attempted);
    const within = bounded(attempted, options.timeoutMs);
    await using undo = new AsyncDisposableStack();
    const out = new BigUint64Array(1);
    const { id = "admin", conf } = address;
    check(attempted, calls.rados_create(out, cText(id)), `there is no client "${id}"`);
    const cluster = out[0]!;
    undo.defer(() => calls.rados_shutdown(cluster));
    configure(calls, cluster, attempted, address, options);
    const connected = await within(calls.rados_connect(cluster), NO_MONITOR);
    check(attempted, connected, whyNotConnected(connected, id, conf));

    const { pool: poolName, namespace, image: name, snapshot } = address;
    const poolOpened = await within(
      calls.rados_ioctx_create(cluster, cText(poolName), out),
      "the cluster does not answer",
    );
    check(attempted, poolOpened, `there is no pool "${poolName}"`);
    const pool = out[0]!;
    undo.defer(() => calls.rados_ioctx_destroy(pool));
    if (namespace !== undefined) calls.rados_ioctx_set_namespace(pool, cText(namespace));

    const open = options.readOnly ? calls.rbd_open_read_only : calls.rbd_open;
    const snapshotText = snapshot === undefined ? null : cText(snapshot);
    // The library keeps none of these after the call; until then this frame keeps them.
    const opened = await within(open(pool, cText(name), out, snapshotText), "the cluster does not answer");
    check(attempted, opened, whyNotOpened(opened, address));
    const image = out[0]!;
    undo.defer(async () => void await calls.rbd_close(image));

    const event = undo.use(openEvent(attempted));
    check(attempted, calls.rbd_set_image_notification(image, event.fd, RBD_EVENT_TYPE_EVENTFD), "it cannot notify");
    undo.move();
    return new RbdImage(calls, imageName(address), { cluster, pool, image, event });
  }

  /**
   * Begins a call. One promise, and no text for an error that does not come.
   *
   * @throws {DblockError} what the cluster says. Everything else as `begin()` has it.
   */
  call(what: string, buffer: Uint8Array | undefined, start: (completion: bigint) => number): Promise<Completed> {
    return new Promise((resolve, reject) => {
      this.#begin(start, { what, buffer, answer: { resolve, reject }, isPromised: true });
      this.#promisedCount++;
      if (!this.#isCollecting) this.#collect();
    });
  }

  /**
   * Begins a call whose answer somebody collects.
   *
   * @param what goes wrong if it fails: "Cannot read"
   * @param buffer is not changed, and stays where it is, until the call is done
   * @param start is given the completion, a handle of librbd
   * @returns its answer: the bytes that were read, or nothing
   * @throws {DblockError} it could not be begun.
   */
  begin(what: string, buffer: Uint8Array | undefined, start: (completion: bigint) => number): LateAnswer {
    const answer = new LateAnswer();
    this.#begin(start, { what, buffer, answer, isPromised: false });
    return answer;
  }

  #begin(start: (completion: bigint) => number, call: Call): void {
    const made = this.calls.rbd_aio_create_completion(0n, 0n, this.#made);
    if (made < 0) throw this.#failed(call.what, -made);
    const completion = this.#made[0]!;
    const key = this.#madeWords[0]! + this.#madeWords[1]! * WORD;
    const started = start(completion);
    if (started < 0) {
      this.calls.rbd_aio_release(completion);
      throw this.#failed(call.what, -started);
    }
    this.#open.set(key, call);
  }

  /** Has something to read when a call has ended. */
  get fd(): number {
    return this.#event.fd;
  }

  /** Calls that nobody has collected, but for those that a promise waits for. */
  get openCount(): number {
    return this.#open.size - this.#promisedCount;
  }

  /** Every call has begun already. */
  submit(): void {}

  /** Until a call may have ended: for any number of those who wait. */
  wait(): Promise<void> {
    return this.#waiting ??= this.#event.wait().finally(() => this.#waiting = undefined);
  }

  /**
   * Takes what has completed, as long as something is open: an idle image waits for nothing. Where much is under way, this
   * thread itself waits for more, between what the answers bring; for a time, as everything else has to wait meanwhile.
   */
  async #collect(): Promise<void> {
    this.#isCollecting = true;
    while (this.#promisedCount > 0) {
      await this.wait();
      const endMs = performance.now() + TURN_MS;
      do {
        this.#take();
        for (let i = 0; i < ANSWER_MICROTASKS; i++) await undefined;
      } while (this.#promisedCount > 0 && performance.now() < endMs && this.#shortWait.hasCome());
    }
    this.#isCollecting = false;
  }

  /** Settles what has completed. */
  collect(): void {
    libc().eventfd_read(this.fd, this.#count);
    this.#take();
  }

  #take(): void {
    let count: number;
    do {
      count = this.calls.rbd_poll_io_events(this.handle, this.#events, EVENTS_MAX);
      for (let i = 0; i < count; i++) this.#completed(i);
    } while (count === EVENTS_MAX);
  }

  #completed(index: number): void {
    const completion = this.#events[index]!;
    const key = this.#eventWords[2 * index]! + this.#eventWords[2 * index + 1]! * WORD;
    const result = this.calls.rbd_aio_get_return_value(completion);
    this.calls.rbd_aio_release(completion);
    const call = this.#open.get(key);
    this.#open.delete(key);
    if (call === undefined) return;
    if (call.isPromised) this.#promisedCount--;
    if (result < 0) call.answer.reject(this.#failed(call.what, -result));
    else call.answer.resolve(result > 0 ? result : undefined);
  }

  #failed(what: string, errno: number): DblockError {
    const attempted = `${what}: rbd:${this.name}`;
    if (errno !== EBLOCKLISTED) return new DblockError(errno, attempted);
    const wrong = "another server has taken the image, and the cluster has shut this one out";
    return new DblockError("EBADE", attempted, wrong);
  }

  /** Waits for what is open, then leaves the cluster. Once. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (this.#take(); this.#open.size > 0; this.#take()) await this.wait();
    await this.calls.rbd_close(this.handle);
    this.#event[Symbol.dispose]();
    await this.calls.rados_ioctx_destroy(this.#pool);
    await this.calls.rados_shutdown(this.#cluster);
  }
}

function configure(
  calls: Ceph,
  cluster: bigint,
  attempted: string,
  { conf, keyring }: RbdAddress,
  { cache, timeoutMs }: OpenImageOptions,
): void {
  const file = conf === undefined ? null : cText(conf);
  const missing = `there is no ${conf ?? "configuration of Ceph: /etc/ceph/ceph.conf"}`;
  check(attempted, calls.rados_conf_read_file(cluster, file), missing, "?conf=FILE names one");
  const settings: [string, string][] = [
    ["client_mount_timeout", String(Math.max(1, Math.ceil(timeoutMs / 1000)))],
    ["rbd_cache", String(cache)],
    // Not rbd_disable_zero_copy_writes=false: a server that another one has shut out then waits for some of its writes for
    // ever, as librbd (16.2.15) does not let go of their memory.
    // Errors of a call are in what it returns, and in the log file that the configuration names.
    ["log_to_stderr", "false"],
    ["err_to_stderr", "false"],
  ];
  if (keyring !== undefined) settings.push(["keyring", keyring]);
  for (const [name, theirs, ours] of BETTER) {
    if (settingOf(calls, cluster, name) === theirs) settings.push([name, ours]); // what the configuration says otherwise stays
  }
  for (const [name, value] of settings) {
    check(attempted, calls.rados_conf_set(cluster, cText(name), cText(value)), `${name} cannot be ${value}`);
  }
}

function settingOf(calls: Ceph, cluster: bigint, name: string): string {
  const value = new Uint8Array(SETTING_BYTES_MAX);
  return calls.rados_conf_get(cluster, cText(name), value, BigInt(value.length)) < 0 ? "" : fromCText(value);
}

const NO_MONITOR = "no monitor of the cluster answers (ceph -s, where it runs, says why)";

function whyNotConnected(code: number, id: string, conf: string | undefined): string {
  switch (-code) {
    case ERRNO.ETIMEDOUT:
      return NO_MONITOR;
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return `the cluster refuses the key of client.${id}`;
    case ERRNO.ENOENT:
      return `there is no key for client.${id}, or no monitor is named in ${conf ?? "/etc/ceph/ceph.conf"}`;
    default:
      return `the cluster: ${errnoName(-code)}`;
  }
}

function whyNotOpened(code: number, { pool, image, snapshot, id = "admin" }: RbdAddress): string {
  switch (-code) {
    case ERRNO.ENOENT:
      return snapshot === undefined
        ? `there is no image "${image}" in the pool "${pool}"`
        : `there is no image "${image}" in the pool "${pool}", or it has no snapshot "${snapshot}"`;
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return `client.${id} may not use it`;
    default:
      return errnoName(-code);
  }
}

function check(attempted: string, code: number, wrong: string, hint?: string): void {
  if (code < 0) throw new DblockError(-code, attempted, wrong, hint === undefined ? {} : { hint });
}

/** Makes a bound of promises. A call that is late goes on in its thread: a library cannot be interrupted. */
function bounded(attempted: string, timeoutMs: number): (call: Promise<number>, late: string) => Promise<number> {
  return async (call, late) => {
    const { promise, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      reject(new DblockError("ETIMEDOUT", attempted, `${late} within ${timeoutMs / 1000} s`));
    }, timeoutMs + 1_000); // librados has the same bound, and knows more
    try {
      return await Promise.race([call, promise]);
    } finally {
      clearTimeout(timer);
    }
  };
}
