// SPDX-License-Identifier: MIT
/** What `dblock serve` and `dblock recover` do: disks in one process, from their start to the end of the last one. */
import { DblockError, describe } from "../disk/errors.ts";
import type { Device } from "../module/device.ts";
import { type DeviceInfo, list } from "../module/info.ts";
import { WorkerPool } from "../module/worker_pool.ts";
import { becomeIoFlusher, formatSize, keepCode, ServiceFailure } from "./cli.ts";
import type { DiskPlan } from "./disk_plan.ts";
import { figuresOf, Measured } from "./figures.ts";
import type { HttpPlan } from "./http.ts";
import { followRoot, INITRD_LINE, keepUnitsAway, NO_RELOAD } from "./initrd.ts";
import { counted } from "./listing.ts";
import { complain, say } from "./log.ts";
import { metricsUrl, serveMetrics } from "./metrics.ts";
import { Progress } from "./progress.ts";
import { closeUnused, openDisk, type StartOptions } from "./opened_disk.ts";
import { answerQuestions, type Description, keepStarted, type Question, serverName } from "./run_folder.ts";
import { endAtSignals, greetingOfKernelDisk, type ServedKernelDisk, startKernelDisks } from "./serve_kernel_disk.ts";
import { closeAtSignals, type Exporter, Sockets, startServers } from "./serve_nbd.ts";
import { type DeviceEnd, ServedDisk } from "./served_disk.ts";
import { outliveShutdown, Service } from "./service.ts";
import { abortOnSignals, heedSignals, outliveTerminal, undoDevice } from "./signals.ts";

/** What else a server does. */
export interface ServerOptions {
  /** Answers Prometheus. */
  readonly metrics?: HttpPlan | undefined;
  /** The initial ramdisk has started it, for the disks of these files of /etc/dblock. */
  readonly initrdFiles?: readonly string[] | undefined;
}

/**
 * Serves disks until all of them have ended. If one of them cannot be started, none is, nor if nobody can ask for `metrics`.
 *
 * @throws {DblockError} why one cannot be started, or has failed.
 */
export async function serveDisks(plans: readonly DiskPlan[], options: ServerOptions = {}): Promise<void> {
  const { metrics, initrdFiles } = options;
  using service = Service.here();
  if (service !== undefined || initrdFiles !== undefined) outliveShutdown();
  becomeIoFlusher();
  keepCode();
  outliveTerminal();
  keepOthersAlive();
  using interrupted = abortOnSignals();
  const stop = new AbortController();
  const signal = AbortSignal.any([interrupted.signal, stop.signal]);
  using workers = poolFor(plans); // ended when its disks are
  await using undo = new AsyncDisposableStack();
  // Before any disk is touched: one that is taken over has no other server to go back to.
  using starting = new Progress(`starting ${plans.length === 1 ? plans[0]!.source.text : `${plans.length} disks`}`);
  using sockets = await Sockets.open(plans);
  let measured: () => readonly Measured[] = () => [];
  await using asked = metrics === undefined
    ? undefined
    : await serveMetrics(metrics, () => figuresOf(measured().map((one) => one.figures())));
  const disks = await startAll(await nameAll(plans), stop, { signal, workers });
  undo.defer(async () => {
    await Promise.all(disks.flatMap((disk) => disk.devices.map(undoDevice)));
  });
  const servers = await startServers(disks, sockets, signal);
  undo.defer(async () => {
    await Promise.all(servers.map(({ server }) => server.close()));
  });
  const kernelDisks = await startKernelDisks(disks);
  undo.defer(async () => {
    await Promise.all(kernelDisks.map(({ device }) => device.close({ force: true })));
  });
  measured = measure(disks, servers, kernelDisks);
  if (asked !== undefined) { for (const one of measured()) one.figures(); }
  signal.throwIfAborted(); // what has been started by now does not heed it
  undo.move();
  using _figures = answerForFigures(measured);
  const left = new Set<string>();
  const running = new Set(disks);
  const inUse = () => [...running].flatMap((disk) => disk.devices);
  using _root = initrdFiles === undefined ? undefined : followRoot();
  using _units = initrdFiles === undefined ? undefined : keepUnitsAway(initrdFiles);
  const own = { left, isOfInitrd: initrdFiles !== undefined };
  using _words = leaveWords(disks, own, async (gone) => {
    if (initrdFiles !== undefined) throw new DblockError("EOPNOTSUPP", "Cannot reload", NO_RELOAD);
    if (service === undefined) throw new DblockError("EOPNOTSUPP", "Cannot reload", NO_SERVICE);
    if (servers.length + kernelDisks.length > 0 || asked !== undefined) {
      throw new DblockError("EOPNOTSUPP", "Cannot reload", NOT_IN_DEV);
    }
    await service.reload(disks, gone);
  });
  using _heard = heedSignals(inUse, { stopping: () => service?.stopping(inUse) ?? Promise.resolve() });
  interrupted[Symbol.dispose]();
  using _servers = closeAtSignals(servers);
  using _kernelDisks = endAtSignals(kernelDisks, complain);
  if (asked !== undefined) say(`${metricsUrl(asked)} has the figures`);
  starting[Symbol.dispose]();
  const greetingLines = greetings(disks, servers, kernelDisks);
  for (const { text, disk } of greetingLines) say(text, disk);
  service?.ready(greetingLines.map(({ text }) => text));
  using _copying = new Progress(() => copyingOf(disks));

  const failures: Failure[] = [];
  await Promise.all([
    ...disks.map(async (disk) => {
      const ends = await disk.ended;
      running.delete(disk);
      for (const end of ends) {
        const { reason } = end.ending;
        const isLeft = reason === "left" || reason === "failed" && disk.plan.onDeath !== "remove";
        if (isLeft) left.add(end.device.name);
        report(disk, end, failures);
      }
    }),
    ...servers.map(async ({ server, uris }) => {
      await server.closed;
      for (const { uri, disk } of uris) say(`${uri} has ended`, disk);
    }),
    ...kernelDisks.map(async (one) => {
      await one.ended;
      say(`${one.device.path} (${one.name}) has ended`, one.name);
    }),
  ]);
  service?.ended();
  for (const { error, disk } of failures.slice(1)) complain(error.message, disk);
  const [failure] = failures;
  if (failure === undefined) return;
  throw service === undefined ? failure.error : new ServiceFailure(failure.error, failure.disk);
}

/** Why a disk cannot be served any more. */
interface Failure {
  readonly error: DblockError;
  readonly disk: string;
}

/** A line, and the disk that it is about. */
interface Line {
  readonly text: string;
  readonly disk: string | undefined;
}

const NO_SERVICE =
  "it is no service of systemd, which could go on with another process; type: dblock serve … --take-over";
const NOT_IN_DEV =
  "it has an address, for NBD or --metrics, which two processes cannot have; restart the service instead";

/** What the code of one disk throws where nobody waits for it must not end the others. */
function keepOthersAlive(): void {
  const heed = (event: Event, error: unknown) => {
    event.preventDefault();
    complain(`the code of a disk failed outside of a request: ${describe(error)}`);
  };
  globalThis.addEventListener("unhandledrejection", (event) => heed(event, event.reason));
  globalThis.addEventListener("error", (event) => heed(event, event.error));
}

/** @throws {DblockError} why no disk can be made: there is no module, mostly. */
async function devicesBeside({ source }: DiskPlan): Promise<DeviceInfo[]> {
  try {
    return await list();
  } catch (error) {
    if (!(error instanceof DblockError) || error.code !== "ENOENT") throw error;
    const hint = "dblock doctor says how to load it; without it: --nbd unix:/tmp/disk.sock";
    throw new DblockError("ENOENT", `Cannot make a disk of ${source.text}`, error.wrong, { hint });
  }
}

/** Gives those that have no name the first one that is free. */
async function nameAll(plans: readonly DiskPlan[]): Promise<DiskPlan[]> {
  const exits = plans.flatMap((plan) => plan.exits).filter((exit) => exit.kind === "device");
  const taken = new Set(exits.flatMap(({ name }) => name ?? []));
  const nameless = plans.find((plan) => plan.exits.some((exit) => exit.kind === "device" && exit.name === undefined));
  if (nameless !== undefined) { for (const { name } of await devicesBeside(nameless)) taken.add(name); }
  let number = 0;
  const next = (): string => {
    while (taken.has(`dblock${number}`)) number++;
    return `dblock${number++}`;
  };
  return plans.map((plan) => ({
    ...plan,
    exits: plan.exits.map((exit) => exit.kind === "device" ? { ...exit, name: exit.name ?? next() } : exit),
  }));
}

/** As many Workers as there are processors, if there are more disks: a thread for each takes its time to start. */
function poolFor(plans: readonly DiskPlan[]): WorkerPool | undefined {
  return plans.length > navigator.hardwareConcurrency ? new WorkerPool() : undefined;
}

/**
 * All of them, or none. All are open before any is served, so that one that cannot be opened, or that somebody does not wait
 * for, leaves the others with the servers that they have.
 *
 * @throws what the first one throws.
 */
export async function startAll(
  plans: readonly DiskPlan[],
  stop: AbortController,
  options: StartOptions,
): Promise<readonly ServedDisk[]> {
  const each = { ...options, queues: plans.length === 1 ? undefined : 1 };
  const opened = await makeAll(plans, stop, (plan) => openDisk(plan, each), closeUnused);
  return await makeAll(
    opened,
    stop,
    (disk) => ServedDisk.serve(disk, each),
    async ({ devices, nbdParts, kernelParts }) => {
      await Promise.all(devices.map(undoDevice));
      for (const { backend } of [...nbdParts, ...kernelParts]) await backend.close?.("unused");
    },
  );
}

/** Makes all at once, or none: at the first that fails the others are told to stop, and those that are made are undone. */
async function makeAll<From, Made>(
  from: readonly From[],
  stop: AbortController,
  make: (one: From) => Promise<Made>,
  undo: (made: Made) => Promise<void>,
): Promise<readonly Made[]> {
  const outcomes = await Promise.allSettled(from.map(async (one) => {
    try {
      return await make(one);
    } catch (error) {
      stop.abort(error); // the first reason is the one that stays
      throw error;
    }
  }));
  const made = outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? [outcome.value] : []);
  if (made.length === from.length) return made;
  await Promise.all(made.map(undo));
  throw stop.signal.reason;
}

/** Everything that is served, on each of its ways out; as it is now. */
function measure(
  disks: readonly ServedDisk[],
  servers: readonly Exporter[],
  kernelDisks: readonly ServedKernelDisk[],
): () => readonly Measured[] {
  const others = [
    ...servers.flatMap(({ parts }) =>
      parts.map(({ disk, part, name }) => {
        const spec = disk.plan.source.text;
        return new Measured({ disk: name || spec, transport: "nbd", spec }, () => disk.backend, part.meter);
      })
    ),
    ...kernelDisks.map(({ name, disk, meter }) => {
      const spec = disk.plan.source.text;
      return new Measured({ disk: name, transport: "kernel-nbd", spec }, () => disk.backend, meter);
    }),
  ];
  return () => [
    ...disks.flatMap((disk) =>
      disk.devices.map((device) => {
        const what = { disk: device.name, transport: "dblock.ko", spec: disk.plan.source.text } as const;
        return new Measured(what, () => disk.backend, disk.meterOf(device));
      })
    ),
    ...others,
  ];
}

/** For `dblock metrics` and `dblock top --web`. Without the right to /run/dblock, only --metrics shows these disks. */
function answerForFigures(measured: () => readonly Measured[]): Disposable | undefined {
  try {
    return answerQuestions(
      serverName(Deno.pid),
      (question) =>
        Promise.resolve(
          question.ask === "figures" ? measured().map((one) => one.figures(question.forMs)) : undefined,
        ),
    );
  } catch {
    return undefined;
  }
}

/** Says in /run/dblock/ how each disk was started, and answers there. What is `left` can be recovered later. */
function leaveWords(
  disks: readonly ServedDisk[],
  { left, isOfInitrd }: { readonly left: ReadonlySet<string>; readonly isOfInitrd: boolean },
  reload: (gone: AbortSignal) => Promise<void>,
): Disposable {
  const stack = new DisposableStack();
  for (const disk of disks) {
    for (const { name } of disk.devices) {
      try {
        const { words } = disk.plan;
        const named = words.includes("--name") ? words : [...words, "--name", name];
        const started = { name, pid: Deno.pid, cwd: Deno.cwd(), words: named };
        stack.use(keepStarted(isOfInitrd ? { ...started, isOfInitrd } : started, () => left.has(name)));
        const lines = isOfInitrd ? [INITRD_LINE] : [];
        stack.use(answerQuestions(name, (question, gone) => answer(disk, question, lines, () => reload(gone))));
      } catch (error) {
        complain(`/run/dblock/${name}: ${describe(error)}; nobody can ask this server to resize the disk`, name);
      }
    }
  }
  return stack;
}

async function answer(
  disk: ServedDisk,
  question: Question,
  ownLines: readonly string[],
  reload: () => Promise<void>,
): Promise<Description | void> {
  switch (question.ask) {
    case "resize":
      return await disk.resize(question.sizeBytes, question.id);
    case "figures":
      return; // of a whole server, at its own socket
    case "reload":
      return await reload();
    case "describe": {
      const { source, filters } = disk.plan;
      const mirror = source.mirror?.();
      return {
        spec: source.text,
        filters: filters.map(({ name }) => name),
        lines: [...source.describe?.() ?? [], ...ownLines],
        ...(mirror === undefined ? {} : { mirror }),
      };
    }
  }
}

/** What mirrors still have to copy, for who looks at the terminal. */
function copyingOf(disks: readonly ServedDisk[]): string {
  const left = disks.flatMap(({ plan: { source } }) => source.mirror?.()?.halves ?? [])
    .filter(({ state }) => state === "syncing");
  return left.map(({ name, syncLeftBytes }) => `copying to ${name}: ${formatSize(syncLeftBytes)} left`).join(", ");
}

function greetings(
  disks: readonly ServedDisk[],
  servers: readonly Exporter[],
  kernelDisks: readonly ServedKernelDisk[],
): Line[] {
  const lines: Line[] = [
    ...disks.flatMap((disk) => disk.devices.map((device) => ({ text: greeting(disk, device), disk: device.name }))),
    ...servers.flatMap(({ uris }) => uris.map(({ uri, disk }) => ({ text: `${uri} is ready`, disk }))),
    ...kernelDisks.map((one) => ({ text: greetingOfKernelDisk(one), disk: one.name })),
  ];
  const names = [...disks.flatMap((disk) => disk.devices), ...kernelDisks].map(({ name }) => name);
  const end = names.length === 1 ? `dblock destroy ${names[0]}, or Ctrl-C` : "Ctrl-C";
  const last = lines.pop();
  if (last === undefined) return [];
  return [...lines, { ...last, text: `${last.text}; to end ${lines.length === 0 ? "it" : "all"}: ${end}` }];
}

function greeting({ plan }: ServedDisk, { path, sizeBytes, queueCount, origin }: Device): string {
  const what = origin === "created" ? "ready" : origin.replace("-", " ");
  return `${path} is ${what}: ${formatSize(sizeBytes)}, ${counted(queueCount, "queue")}, ${plan.source.text}`;
}

function report({ plan }: ServedDisk, { device: { name, path }, ending }: DeviceEnd, failures: Failure[]): void {
  switch (ending.reason) {
    case "failed": {
      const hint = plan.onDeath === "remove" ? "the disk has ended" : `go on with: dblock recover ${name}`;
      const error = new DblockError("EIO", `Cannot serve ${path} any more`, describe(ending.error), { hint });
      failures.push({ error, disk: name });
      return;
    }
    case "left":
      return say(`${path} is left to its next server; to go on: dblock recover ${name}`, name);
    case "replaced":
      return say(`${path} goes on: another process has taken it over`, name);
    case "closed":
      return say(`${path} has ended: destroyed`, name);
    case "destroyed":
      return say(`${path} has ended: destroyed by another process`, name);
  }
}
