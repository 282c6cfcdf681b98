// SPDX-License-Identifier: MIT
/**
 * `serve()`: from a backend to a disk in /dev. Creates the device, gets every queue served, starts it; if any of that
 * fails, nothing is left of it.
 */
import { DBLOCK_DEVICE_DIRECT, DBLOCK_FEATURE_ATTACH_FILE, DBLOCK_ON_DEATH_REMOVE } from "./abi.ts";
import { resize, start } from "./node.ts";
import { Control, devicePath, type RawInfo } from "./control.ts";
import { checkMs, Deadline, settleWithin } from "./deadline.ts";
import { type Device, endDevice, type Resizer, ServedDevice, stopQueues } from "./device.ts";
import type { Backend } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import { logFrom, type LoggingOptions } from "../disk/log.ts";
import { contentFileOf } from "../disk/content_file.ts";
import { directProfile, type Profile, profileOf } from "../disk/profile.ts";
import {
  type BackendModule,
  closeBackend,
  isMapped,
  isModule,
  type MappedBackend,
  type Servable,
} from "../disk/servable.ts";
import { checkFits, createWhenFree, EXISTING_POLICIES, type ExistingPolicy, findExisting } from "./existing.ts";
import { Life } from "./life.ts";
import { type Kernel, linux } from "../system/libc.ts";
import { MovingQueue } from "./moving_queue.ts";
import { checkOptions, type DeviceOptions, geometryOf, planDevice } from "./plan.ts";
import { LocalQueue, type QueuePlan, type QueueServer, QueueWorker, STOP_MS } from "./queue.ts";
import { immediate } from "./turn.ts";
import { queueOf, type WorkerPool } from "./worker_pool.ts";

const DEFAULT_START_TIMEOUT_MS = 60_000;
/** A guess: long enough for what a cache has to write, and short enough for who waits for the program to end. */
const DEFAULT_CLOSE_TIMEOUT_MS = 60_000;
const DEFAULT_QUEUES_MAX = 4;

/** How to serve a disk. */
export interface ServeOptions extends DeviceOptions, LoggingOptions {
  /**
   * What to do when /dev/NAME is there already. To serve it on takes a backend with the same content; the device stays as
   * it was created, whatever the other options say. Without such a device, one is created in any case.
   * @default "refuse"
   */
  readonly existing?: ExistingPolicy;
  /** A device that is there already, and smaller than the backend, becomes as large once it is served. @default false */
  readonly grow?: boolean;
  /**
   * Who serves the queues of a disk in memory, or of a module, together with those of other disks; they have to outlive the
   * device. Other disks do not need them. @default a Worker for each queue
   */
  readonly workers?: WorkerPool | undefined;
  /** Ends the device when aborted, as `Symbol.asyncDispose` does. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Bound on all that happens until the disk is there: the wait for a name on its way out, a module's loading, the wait
   * for another server, the growth. In ms; 0 or Infinity: no bound. @default 60,000
   */
  readonly startTimeoutMs?: number;
  /**
   * How long `close()` of the backend may take, in ms; 0 or Infinity: however long. After it, a log line says so, a Worker
   * of its own is ended, and an object, or a Worker of a pool, is not waited for any longer. @default 60,000
   */
  readonly closeTimeoutMs?: number;
  /**
   * How long leaving an `await using` block, and `signal`, wait for those who have the disk open before they force it, in
   * ms. 0: not at all; Infinity: however long it takes. @default 2,000
   */
  readonly disposeWaitMs?: number;
}

/**
 * Makes /dev/NAME, or goes on with one that is there (`options.existing`), and serves it until `close()`, the signal, or
 * somebody else's `destroy()` or take-over.
 *
 * The backend is owned from here on: its `close()` is called when the device has ended, also when it never began.
 *
 * ```ts no-run
 * import { MemoryBackend, serve } from "../mod.ts";
 *
 * await using device = await serve(new MemoryBackend({ sizeBytes: 64 * 2 ** 20 }), { name: "scratch" });
 * console.log(`${device.path} is there`);
 * await device.closed;
 * ```
 *
 * @param backend an object with `read` and `write` (served by this thread's event loop); memory, or a module (served by
 * one Worker per queue, or by `options.workers`)
 * @param options the disk's `name`, and what else is not as usual
 * @throws {DblockError} with what was tried, what is wrong and what to do: ENOENT (module not loaded), EACCES and EPERM
 * (not root), EEXIST (name in use), EBUSY (another server has it), EINVAL (an option), ETIMEDOUT (the disk does not start),
 * EMFILE (too many open files). The signal's reason, if the signal is aborted before the disk is there.
 */
export async function serve(backend: Servable, options: ServeOptions): Promise<Device> {
  return await serveOn(linux, backend, options);
}

/** What this project's own programs say to `serve()` beside its options. */
export interface ServeOnOptions {
  /** Ends the start when aborted, instead of `ServeOptions.signal`; once the disk is there, it does nothing. */
  readonly startSignal?: AbortSignal | undefined;
}

/** {@linkcode serve} on a given kernel. */
export async function serveOn(
  kernel: Kernel,
  backend: Servable,
  options: ServeOptions,
  { startSignal = options.signal }: ServeOnOptions = {},
): Promise<Device> {
  const { name, startTimeoutMs = DEFAULT_START_TIMEOUT_MS, closeTimeoutMs = DEFAULT_CLOSE_TIMEOUT_MS } = options;
  const life = new Life(name, kernel, logFrom(options));
  using limit = new Deadline(startTimeoutMs, startSignal, () => {
    const wrong = `it is not there after ${startTimeoutMs / 1000} s`;
    return new DblockError("ETIMEDOUT", `Cannot start ${devicePath(name)}`, wrong, { hint: "is every read answered?" });
  });
  await using undo = new AsyncDisposableStack();
  undo.defer(() => closeObject(backend, life, closeTimeoutMs));
  checkServeOptions(options);
  limit.signal.throwIfAborted();
  return await begin(backend, { ...options, closeTimeoutMs }, { life, limit, undo });
}

/**
 * Checks that {@linkcode serveOn} may and can go on with the device of that name, if there is one; nothing happens to it.
 *
 * @throws {DblockError} EEXIST, EOPNOTSUPP or EINVAL, as `serve()` does of a device that is there; or the signal's reason.
 */
export async function checkExisting(kernel: Kernel, backend: Backend, options: ServeOptions): Promise<void> {
  const { name, existing = "refuse", grow = false, signal } = options;
  if (existing === "refuse") return; // CREATE will say it
  using control = await Control.open(`Cannot create ${devicePath(name)}`, kernel);
  const found = await findExisting(control, name, existing, signal);
  if (found === undefined) return;
  const profile = profileOf(backend);
  const { features } = await control.version();
  const fromFile = profile.hasContentFile && takesFiles(features, found.info);
  const queues = found.info.queue_count;
  const request = planDevice(fromFile ? directProfile(profile) : profile, { ...options, queues });
  checkFits(found.info, request, { grow });
}

/** Whether dblock.ko can read and write a server's file by itself, for a device that is there already if one is. */
function takesFiles(features: number, found: RawInfo | undefined): boolean {
  const knowsFiles = Math.floor(features / DBLOCK_FEATURE_ATTACH_FILE) % 2 === 1;
  return knowsFiles && (found === undefined || (found.flags & DBLOCK_DEVICE_DIRECT) !== 0);
}

/** What a start needs to go on and to be undone. */
interface Start {
  readonly life: Life;
  readonly limit: Deadline;
  readonly undo: AsyncDisposableStack;
}

async function begin(
  backend: Servable,
  options: ServeOptions & { readonly closeTimeoutMs: number },
  { life, limit, undo }: Start,
): Promise<Device> {
  const { name, kernel } = life;
  const { existing = "refuse", grow = false, closeTimeoutMs } = options;
  using control = await Control.open(`Cannot create ${devicePath(name)}`, kernel);
  const { queue_count_max, features } = await control.version();
  const found = await findExisting(control, name, existing, limit.signal);
  const mayUseFile = takesFiles(features, found?.info);
  const served = mayUseFile && !isModule(backend) ? contentFileOf(backend)?.module ?? backend : backend;
  const queues = found?.info.queue_count ?? Math.min(options.queues ?? defaultQueues(served), queue_count_max);
  const workerCount = isMapped(served) || isModule(served) ? queues : 0;
  // What a module says is not known yet; all else is checked before Workers are started.
  if (!isModule(backend)) planDevice(profileOf(backend), { ...options, queues });
  const isDirect = found !== undefined && (found.info.flags & DBLOCK_DEVICE_DIRECT) !== 0;
  const pool = mayShare(backend) && !(isModule(backend) && isDirect) ? options.workers : undefined;
  const newWorker = (): QueueServer =>
    pool === undefined ? new QueueWorker(name, life.log, kernel) : queueOf(pool, name, life.log, kernel);
  // Somebody waits for the disk already: its Workers come later.
  const mapped = isMapped(backend) && found?.origin === "recovered" ? backend : undefined;
  const workers = Array.from({ length: mapped === undefined ? workerCount : 0 }, newWorker);
  undo.defer(async () => {
    if (life.moved !== undefined) await settleWithin(STOP_MS, [life.moved]);
    const saved = await Promise.all(workers.map((worker) => worker.close(life.may.closeReason, closeTimeoutMs)));
    if (saved.includes(false)) life.isUnsaved = true;
  });
  const profile = isModule(served) ? await limit.race(loadAll(workers, served)) : profileOf(served);
  const fromFile = pool === undefined && isModule(served) && profile.hasContentFile && mayUseFile;

  const request = planDevice(fromFile ? directProfile(profile) : profile, { ...options, queues });
  if (found !== undefined) {
    checkFits(found.info, request, { grow });
    life.origin = found.origin;
  }
  const device = found?.info ?? await createWhenFree(control, request, limit.signal);
  life.id = device.id;
  life.keeps = device.on_death !== DBLOCK_ON_DEATH_REMOVE;
  life.become(found === undefined ? "making" : "joining");
  undo.defer(() => stopQueues(life));
  undo.defer(() => endDevice(life));
  const sizeBytes = request.size_bytes ?? device.size_bytes;
  const geometry = geometryOf({ ...device, size_bytes: sizeBytes });
  const depth = device.queue_depth;
  const takeOver = existing === "take-over";
  const plans = Array.from(
    { length: device.queue_count },
    (_, queue): QueuePlan => ({ name, id: device.id, queue, depth, geometry, takeOver }),
  );
  const moving = mapped === undefined ? [] : attachHere(mapped, plans, life);
  const started = mapped === undefined ? attachAndStart(served, plans, { workers, fromFile, life }) : startDisk(life);
  await limit.race(started);
  // Everybody who serves it knows of the new size by now, and nobody else does.
  if (sizeBytes > device.size_bytes) await limit.race(resize(name, sizeBytes, kernel, device.id));
  life.serverPid = (await control.info(name, device.id)).server_pid;
  life.become("serving");
  if (moving.length > 0) {
    const moved = moveToWorkers(moving, life, () => {
      const worker = newWorker();
      workers.push(worker);
      return worker;
    });
    life.moved = moved.finally(() => life.moved = undefined);
  }
  return new ServedDevice(life, undo.move(), {
    geometry,
    depth,
    direct: isMapped(served) || fromFile,
    signal: options.signal,
    resizer: resizerOf(backend, geometry),
    disposeWaitMs: options.disposeWaitMs,
  });
}

/**
 * Checks what can be checked before the backend is known, so that a mistake is reported at once.
 *
 * @throws {DblockError} EINVAL, with the value and what it may be.
 */
function checkServeOptions(options: ServeOptions): void {
  const { name, existing = "refuse" } = options;
  const attempted = `Cannot create ${devicePath(name)}`;
  checkOptions(options);
  if (!EXISTING_POLICIES.includes(existing)) {
    throw new DblockError("EINVAL", attempted, `existing is ${EXISTING_POLICIES.join(", ")}, not ${existing}`);
  }
  checkMs(attempted, "startTimeoutMs", options.startTimeoutMs);
  checkMs(attempted, "closeTimeoutMs", options.closeTimeoutMs);
  checkMs(attempted, "disposeWaitMs", options.disposeWaitMs);
}

/** Workers, which are in the kernel, would not learn of another size. */
function resizerOf(backend: Servable, geometry: Resizer["geometry"]): Resizer | undefined {
  if (isMapped(backend) || isModule(backend) || backend.resize === undefined) return undefined;
  return { geometry, resize: backend.resize.bind(backend) };
}

/** A file may keep a thread waiting, for a page that has to be read; memory does not. */
function mayShare(backend: Servable): boolean {
  return isModule(backend) || isMapped(backend) && backend.mapping.kind === "anonymous";
}

function defaultQueues(backend: Servable): number {
  if (!isMapped(backend) && !isModule(backend)) return 1; // one event loop is not faster with two queues
  return Math.min(navigator.hardwareConcurrency, DEFAULT_QUEUES_MAX);
}

/** Closes a backend that is an object. Never throws: why serve() has failed, if it has, is what its caller is to hear. */
async function closeObject(backend: Servable, life: Life, timeoutMs: number): Promise<void> {
  if (isModule(backend)) return; // each Worker closes its own
  const call = `${devicePath(life.name)}: close() of the backend`;
  life.isUnsaved = true; // until it is closed
  try {
    // The kernel may still copy from and to memory that a Worker has named.
    if (isMapped(backend) && life.queues.some((queue) => !queue.hasLeft)) return backend.abandon?.();
    const closed = closeBackend(backend, life.may.closeReason);
    if (await settleWithin(timeoutMs, [closed])) {
      await closed;
      life.isUnsaved = false;
      return;
    }
    life.log(
      `${call} has not returned after ${timeoutMs / 1000} s: it is not waited for any longer (see closeTimeoutMs)`,
    );
  } catch (error) {
    life.log(`${call} threw ${describe(error)}`);
  }
}

async function loadAll(workers: readonly QueueServer[], backend: BackendModule): Promise<Profile> {
  const [first, ...others] = await Promise.all(workers.map((worker) => worker.load(backend)));
  if (first === undefined) throw new RangeError("a device has at least one queue");
  if (others.some((other) => JSON.stringify(other) !== JSON.stringify(first))) {
    throw new DblockError("EINVAL", `Cannot serve ${backend.module}`, "its Workers disagree about the disk", {
      hint: "sizeBytes and the callbacks must be the same in each",
    });
  }
  return first;
}

/** Who is to serve. */
interface Serving {
  readonly workers: readonly QueueServer[];
  /** dblock.ko reads and writes the file of the backend that they have loaded. */
  readonly fromFile: boolean;
  readonly life: Life;
}

/** Resolves when the disk is there. The kernel reads its partition table before: the queues are served by then. */
async function attachAndStart(backend: Servable, plans: readonly QueuePlan[], by: Serving): Promise<void> {
  const { life } = by;
  const { kernel, log } = life;
  if (isMapped(backend) || isModule(backend)) await attachWorkers(backend, plans, by);
  else {
    if (!kernel.ensureIoFlusher()) sayNoIoFlusher(life);
    for (const plan of plans) {
      const queue = new LocalQueue(plan, backend, kernel, log, plans.length === 1);
      life.queues.push(queue);
      await queue.attached();
    }
  }
  await startDisk(life);
}

/** The same for a mapped disk whose users wait for it: this thread serves them until each queue has its Worker. */
function attachHere({ mapping }: MappedBackend, plans: readonly QueuePlan[], life: Life): MovingQueue[] {
  if (!life.kernel.ensureIoFlusher()) sayNoIoFlusher(life);
  return plans.map((plan) => {
    const queue = new MovingQueue(plan, mapping, life.kernel);
    life.queues.push(queue);
    return queue;
  });
}

/** One after the other, until the device has ended. Never throws: a queue that cannot move is served where it is. */
async function moveToWorkers(queues: readonly MovingQueue[], life: Life, newWorker: () => QueueServer): Promise<void> {
  for (const queue of queues) {
    await immediate(); // whoever waits for the disk hears first that it is there
    if (life.state !== "serving") return;
    // The start of a Worker keeps this thread.
    for (const one of queues) one.answer();
    try {
      await queue.moveTo(newWorker());
    } catch (error) {
      if (isGone(error)) return; // the queue where it is will hear of it
      if (life.state === "serving") {
        life.log(`${devicePath(life.name)}: a queue has no thread of its own: ${describe(error)}`);
      }
    }
  }
}

function isGone(error: unknown): boolean {
  return error instanceof DblockError && (error.code === "ENODEV" || error.code === "ENOENT");
}

/** START, unless the device ends before. */
async function startDisk(life: Life): Promise<void> {
  const { name, kernel } = life;
  const ended = Promise.all(life.queues.map((queue) => queue.left)).then(() => {
    throw new DblockError("ENODEV", `Cannot start ${devicePath(name)}`, "it was destroyed meanwhile");
  });
  const started = start(name, kernel, { existing: life.origin !== "created", id: life.id });
  started.catch(() => {}); // the loser of the race has nobody to listen
  ended.catch(() => {});
  await Promise.race([started, ended]);
}

async function attachWorkers(
  backend: MappedBackend | BackendModule,
  plans: readonly QueuePlan[],
  { workers, fromFile, life }: Serving,
): Promise<void> {
  const options = isMapped(backend)
    ? { mapping: backend.mapping }
    : { eventLoop: backend.eventLoop ?? false, fromFile };
  const flushers: Promise<boolean>[] = [];
  for (const [i, worker] of workers.entries()) {
    const plan = plans[i];
    if (plan === undefined) break; // the kernel wants fewer
    flushers.push(worker.serve(plan, options));
    life.queues.push(worker);
    // Of several that want the same device, who has the first queue has all. So a server that does not let go of one
    // keeps the others, too.
    if (life.origin !== "created") await flushers[0];
  }
  if ((await Promise.all(flushers)).includes(false)) sayNoIoFlusher(life);
}

function sayNoIoFlusher(life: Life): void {
  life.log(
    `${devicePath(life.name)}: PR_SET_IO_FLUSHER is refused (it takes CAP_SYS_RESOURCE): ` +
      "short of memory, the disk may wait for itself",
  );
}
