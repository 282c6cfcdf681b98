// SPDX-License-Identifier: MIT
/**
 * `serve()`: from a backend to a disk in /dev. Creates the device, gets every queue served, starts it; if any of that
 * fails, nothing is left of it.
 */
import { DBLOCK_ON_DEATH_REMOVE } from "./abi.ts";
import type { CloseReason } from "../disk/backend.ts";
import { resize, start } from "./channel.ts";
import { Control, devicePath } from "./control.ts";
import { destroyLeftover, type Device, type Life, type Resizer, ServedDevice, stopQueues } from "./device.ts";
import { DblockError, describe, quietly } from "../disk/errors.ts";
import { type Profile, profileOf } from "../disk/profile.ts";
import { type BackendModule, isMapped, isModule, type MappedBackend, type Servable } from "../disk/servable.ts";
import { checkFits, createWhenFree, type Existing, findExisting, infoIfThere } from "./existing.ts";
import { type Kernel, linux } from "../system/libc.ts";
import { checkOptions, type DeviceOptions, geometryOf, planDevice } from "./plan.ts";
import { LocalQueue, type QueuePlan, QueueWorker } from "./queue.ts";

const DEFAULT_START_TIMEOUT_MS = 60_000;
const DEFAULT_QUEUES_MAX = 4;
/** A timer for longer fires at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** How to serve a disk. */
export interface ServeOptions extends DeviceOptions {
  /**
   * What to do when /dev/NAME is there already. To serve it on takes a backend with the same content; the device stays as
   * it was created, whatever the other options say. Without such a device, one is created in any case.
   * @default "refuse"
   */
  readonly existing?: Existing;
  /** A device that is there already, and smaller than the backend, becomes as large once it is served. @default false */
  readonly grow?: boolean;
  /** Ends the device when aborted, as `Symbol.asyncDispose` does. */
  readonly signal?: AbortSignal | undefined;
  /** Bound on all that happens until the disk is there, a module's loading included, in ms. @default 60,000 */
  readonly startTimeoutMs?: number;
  /** Takes one line for each thing worth knowing. @default console.error */
  readonly log?: (message: string) => void;
  /** @default linux */
  readonly kernel?: Kernel;
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
 * one Worker per queue)
 * @throws {DblockError} with what was tried, what is wrong and what to do: ENOENT (module not loaded), EACCES and EPERM
 * (not root), EEXIST (name in use), EBUSY (another server has it), EINVAL (an option), ETIMEDOUT (the disk does not start).
 */
export async function serve(backend: Servable, options: ServeOptions): Promise<Device> {
  const { name, signal, existing = "refuse", grow = false, kernel = linux } = options;
  const log = quietly(options.log ?? console.error);
  const beganMs = performance.now();
  await using undo = new AsyncDisposableStack();
  const life: Life = {
    name,
    kernel,
    log,
    queues: [],
    origin: "created",
    ours: true,
    keeps: false,
    serverPid: undefined,
    gone: false,
    replaced: false,
    abandoned: false,
  };
  undo.defer(() => closeBackend(backend, life));

  checkOptions(options);
  signal?.throwIfAborted();
  using control = await Control.open(`Cannot create ${devicePath(name)}`, kernel);
  const { queue_count_max } = await control.version();
  const found = await findExisting(control, name, existing);
  const queues = found?.info.queue_count ?? Math.min(options.queues ?? defaultQueues(backend), queue_count_max);
  const workerCount = isMapped(backend) || isModule(backend) ? queues : 0;
  // Checked before Workers are started: a mistake is reported at once. What a module says is not known yet.
  if (!isModule(backend)) planDevice(profileOf(backend), { ...options, queues });
  const workers = Array.from({ length: workerCount }, () => new QueueWorker(log, kernel));
  undo.defer(() => Promise.all(workers.map((worker) => worker.close())).then(() => {}));
  const profile = isModule(backend) ? await inTime(loadAll(workers, backend), options, beganMs) : profileOf(backend);

  const request = planDevice(profile, { ...options, queues });
  if (found !== undefined) {
    checkFits(found.info, request, { grow });
    life.origin = found.origin;
    life.ours = false;
  }
  const device = found?.info ?? await createWhenFree(control, request);
  undo.defer(() => stopQueues(life));
  undo.defer(() => destroyLeftover(life));
  const sizeBytes = request.size_bytes ?? device.size_bytes;
  const geometry = geometryOf({ ...device, size_bytes: sizeBytes });
  const takeOver = existing === "take-over";
  const plans = Array.from(
    { length: device.queue_count },
    (_, queue): QueuePlan => ({ name, queue, depth: device.queue_depth, geometry, takeOver }),
  );
  await inTime(attachAndStart(backend, plans, workers, life), options, beganMs);
  // Everybody who serves it knows of the new size by now, and nobody else does.
  if (sizeBytes > device.size_bytes) await resize(name, sizeBytes, kernel);
  life.ours = true;
  life.serverPid = (await infoIfThere(control, name))?.server_pid;
  life.keeps = device.on_death !== DBLOCK_ON_DEATH_REMOVE;
  return new ServedDevice(life, geometry, undo.move(), { signal, resizer: resizerOf(backend, geometry) });
}

/** Workers, which are in the kernel, would not learn of another size. */
function resizerOf(backend: Servable, geometry: Resizer["geometry"]): Resizer | undefined {
  if (isMapped(backend) || isModule(backend) || backend.resize === undefined) return undefined;
  return { geometry, resize: backend.resize.bind(backend) };
}

function defaultQueues(backend: Servable): number {
  if (!isMapped(backend) && !isModule(backend)) return 1; // one event loop is not faster with two queues
  return Math.min(navigator.hardwareConcurrency, DEFAULT_QUEUES_MAX);
}

async function closeBackend(backend: Servable, life: Life): Promise<void> {
  if (isModule(backend)) return; // each Worker closes its own
  if (life.abandoned && isMapped(backend)) return;
  try {
    await backend.close?.(closeReasonOf(life));
  } catch (error) {
    // Why serve() has failed, if it has, is what its caller is to hear.
    life.log(`${devicePath(life.name)}: close() of the backend threw ${describe(error)}`);
  }
}

function closeReasonOf({ gone, ours, replaced, queues }: Life): CloseReason {
  if (queues.length === 0) return "unused";
  return gone && ours && !replaced ? "destroyed" : "left";
}

async function loadAll(workers: readonly QueueWorker[], backend: BackendModule): Promise<Profile> {
  const [first, ...others] = await Promise.all(workers.map((worker) => worker.load(backend)));
  if (first === undefined) throw new RangeError("a device has at least one queue");
  if (others.some((other) => JSON.stringify(other) !== JSON.stringify(first))) {
    throw new DblockError("EINVAL", `Cannot serve ${backend.module}`, "its Workers disagree about the disk", {
      hint: "sizeBytes and the callbacks must be the same in each",
    });
  }
  return first;
}

/** Resolves when the disk is there. The kernel reads its partition table before: the queues are served by then. */
async function attachAndStart(
  backend: Servable,
  plans: readonly QueuePlan[],
  workers: readonly QueueWorker[],
  life: Life,
): Promise<void> {
  const { name, kernel, log } = life;
  if (isMapped(backend) || isModule(backend)) await attachWorkers(backend, plans, workers, life);
  else {
    if (!kernel.ensureIoFlusher()) sayNoIoFlusher(life);
    for (const plan of plans) {
      const queue = new LocalQueue(plan, backend, kernel, log);
      life.queues.push(queue);
      await queue.attached();
    }
  }
  const ended = Promise.all(life.queues.map((queue) => queue.left)).then(() => {
    throw new DblockError("ENODEV", `Cannot start ${devicePath(name)}`, "it was destroyed meanwhile");
  });
  const started = start(name, kernel, { existing: life.origin !== "created" });
  started.catch(() => {}); // the loser of the race has nobody to listen
  ended.catch(() => {});
  await Promise.race([started, ended]);
}

async function attachWorkers(
  backend: MappedBackend | BackendModule,
  plans: readonly QueuePlan[],
  workers: readonly QueueWorker[],
  life: Life,
): Promise<void> {
  const mapping = isMapped(backend) ? backend.mapping : undefined;
  const flushers: Promise<boolean>[] = [];
  for (const [i, worker] of workers.entries()) {
    const plan = plans[i];
    if (plan === undefined) {
      worker.close(); // the kernel wants fewer
      continue;
    }
    flushers.push(worker.serve(plan, mapping));
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

/** Waits for the start, its timeout or the signal, whichever comes first. */
async function inTime<T>(ready: Promise<T>, options: ServeOptions, beganMs: number): Promise<T> {
  const { name, signal, startTimeoutMs = DEFAULT_START_TIMEOUT_MS } = options;
  const other = Promise.withResolvers<never>();
  const abort = () => other.reject(signal?.reason);
  signal?.addEventListener("abort", abort);
  const timer = setTimeout(() => {
    const wrong = `it is not there after ${startTimeoutMs / 1000} s`;
    other.reject(
      new DblockError("ETIMEDOUT", `Cannot start ${devicePath(name)}`, wrong, { hint: "is every read answered?" }),
    );
  }, Math.min(startTimeoutMs - (performance.now() - beganMs), TIMER_MS_MAX));
  ready.catch(() => {}); // if it loses the race
  try {
    signal?.throwIfAborted(); // an event that was before is not heard
    const result = await Promise.race([ready, other.promise]);
    signal?.throwIfAborted();
    return result;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
