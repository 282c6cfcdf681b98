// SPDX-License-Identifier: MIT
/** `dblock serve`: one disk or many in one process, in the foreground, until they have ended. */
import { DblockError, describe, quietly } from "../disk/errors.ts";
import type { Device } from "../module/device.ts";
import { list } from "../module/info.ts";
import { SharedWorkers } from "../module/shared_workers.ts";
import { linux } from "../system/libc.ts";
import { filters as FILTERS } from "../filters/table.ts";
import { formatNbdUri } from "../nbd/address.ts";
import { type NbdServer, serveNbd } from "../nbd/server.ts";
import { becomeIoFlusher, formatSize, keepCode, ServiceFailure, UsageError } from "./cli.ts";
import { type Command, type Item, type Option, readItems, row } from "./command.ts";
import { CONFIG_FOLDER, readConfig } from "./config.ts";
import { DISK_OPTIONS, type DiskPlan, readDisks, requireNames } from "./disk_plan.ts";
import { endAtSignals, greetingOfKernelDisk, type ServedKernelDisk, startKernelDisks } from "./serve_kernel_disk.ts";
import { figuresOf, Measured } from "./figures.ts";
import { type HttpPlan, planHttp, TOKEN_OPTION } from "./http.ts";
import { counted } from "./listing.ts";
import { complain, logOptionsOf } from "./log.ts";
import { metricsUrl, serveMetrics } from "./metrics.ts";
import { answerQuestions, type Description, keepStarted, type Question, serverName } from "./run_folder.ts";
import { SCHEMES } from "./schemes.ts";
import { Service } from "./service.ts";
import { type DeviceEnd, type NbdPart, ServedDisk, type StartOptions } from "./served_disk.ts";
import { abortOnSignals, heedSignals, outliveTerminal, SIGNALS_HELP } from "./signals.ts";

const CONFIG: Option = {
  name: "config",
  value: "FILE|DIR",
  fallback: CONFIG_FOLDER,
  text:
    `disks from a file with the same words, or from all files of a folder [${CONFIG_FOLDER}]; a disk without --name ` +
    "has its file's name",
};

const METRICS: Option = {
  name: "metrics",
  value: "ADDRESS",
  text: "answer Prometheus with figures of these disks: 127.0.0.1:9464 (at /metrics), or unix:PATH",
};

/** The subcommand. */
export const SERVE: Command = {
  name: "serve",
  summary: "serve disks until they are destroyed",
  usage: "SPEC [OPTIONS] [SPEC [OPTIONS]]... [--config [FILE|DIR]]",
  options: [...DISK_OPTIONS, CONFIG, METRICS, TOKEN_OPTION],
  examples: [
    { words: "serve memory:4GiB --name scratch", text: "/dev/scratch, in memory" },
    { words: "serve ./disk.img?size=10GiB --name disk", text: "/dev/disk, in a file that is made if it is not there" },
    {
      words: "serve ./disk.img --name disk --on-death hold",
      text: "if the program is killed, I/O waits for the next one",
    },
    { words: "serve ./disk.ts?size=1GiB --name mine", text: "a disk that you have written" },
    {
      words: "serve ./disk.ts?size=1GiB --name mine --watch",
      text: "the same; when you save the file, those who use the disk go on with the new code",
    },
    {
      words: "serve ./disk.img --nbd unix:/tmp/disk.sock",
      text: "to NBD clients; this needs neither root nor a module",
    },
    {
      words: "serve memory:1GiB --name slow --with delay=read=5ms,jitter=1ms --with stats",
      text: "with filters in front of it",
    },
    {
      words: "serve ./disk.img?raw --name disk --metrics 127.0.0.1:9464",
      text: "with figures for Prometheus, http://127.0.0.1:9464/metrics",
    },
    { words: "serve memory:1GiB --name a ./b.img --name b", text: "two disks in one process" },
    { words: "serve stripe:./a.img,./b.img --name fast", text: "one disk made of two" },
    { words: "serve mirror:./a.img,./b.img?bitmap=./ab.bitmap --name safe", text: "the same content on two disks" },
    {
      words: "serve --config",
      text: `a disk for each file in ${CONFIG_FOLDER}/: /etc/dblock/scratch has: memory:4GiB`,
    },
  ],
  notes: () => {
    const filters = Object.entries(FILTERS).map(([name, { summary }]) => row(`  ${name}`, summary));
    const schemes = SCHEMES.flatMap(({ form, text, parameters }) => [
      row(`  ${form}`, text),
      ...parameters.map((one) => row(`    ?${one.name}${one.value === undefined ? "" : `=${one.value}`}`, one.text)),
    ]);
    return `A SPEC says where the content is; options after a SPEC belong to it:\n${schemes.join("\n")}
  Parameters follow a "?" and are divided by "&" (quote them for the shell).
  A SPEC inside another one stands in [ ] if it has a comma or a "?":
  stripe:[a.img?size=1GiB],b.img

A module, ./disk.ts, served with ./disk.ts?size=1GiB:
${MODULE_EXAMPLE}

Filters (dblock help filters has their options):
${filters.join("\n")}

${SIGNALS_HELP}`;
  },
  parse(words) {
    const items = readItems(words, this.options);
    const paths = items.flatMap((item) => item.kind === "option" && item.option === CONFIG ? [item.value] : []);
    const others: readonly Option[] = [CONFIG, METRICS, TOKEN_OPTION];
    const own = items.filter((item) => item.kind === "word" || !others.includes(item.option));
    // Without a SPEC beside them, --take-over is about the disks of the files.
    const takeOver = paths.length > 0 && own.length > 0 && own.every(isTakeOver);
    const plans = readDisks(takeOver ? [] : own);
    const metrics = readMetrics(items);
    if (plans.length + paths.length === 0) {
      throw new UsageError("a SPEC is missing (write it like memory:4GiB or ./disk.img)");
    }
    return async () => {
      const configured = paths.flatMap(readConfig);
      const all = [...plans, ...takeOver ? configured.map(takingOver) : configured];
      requireNames(all);
      await serveDisks(all, metrics);
    };
  },
};

/** A disk in memory, as whoever writes one begins. */
export const MODULE_EXAMPLE = `\
  export default ({ sizeBytes }, store = new Uint8Array(sizeBytes)) => ({
    sizeBytes,
    read: (buffer, at) => buffer.set(store.subarray(at, at + buffer.length)),
    write: (buffer, at) => store.set(buffer, at),
    handOver: () => store, // what outlives the code, for --watch
  });`;

/** @throws {UsageError} twice, or without a token where others could ask */
function readMetrics(items: readonly Item[]): HttpPlan | undefined {
  const [addresses, tokens] = [METRICS, TOKEN_OPTION].map((option) =>
    items.flatMap((item) => item.kind === "option" && item.option === option ? [item.value] : [])
  ) as [string[], string[]];
  const [address] = addresses;
  for (const [name, given] of [["metrics", addresses], ["token", tokens]] as const) {
    if (given.length > 1) throw new UsageError(`--${name} is there twice`);
  }
  if (address === undefined && tokens.length > 0) {
    throw new UsageError("--token is for --metrics ADDRESS, which is missing");
  }
  return address === undefined ? undefined : planHttp("--metrics", address, tokens[0]);
}

function isTakeOver(item: Item): boolean {
  return item.kind === "option" && item.option.name === "take-over";
}

/** The same disk, from the server that it has. */
function takingOver(plan: DiskPlan): DiskPlan {
  const { source: { survives, text } } = plan;
  if (!survives) {
    throw new UsageError(`--take-over needs a disk whose content outlives this program, and ${text} does not`);
  }
  return { ...plan, takeOver: true };
}

/** Whether anybody can read it or not, the disks go on. */
const say = quietly(console.log);

/**
 * Serves disks until all of them have ended. If one of them cannot be started, none is, nor if nobody can ask for `metrics`.
 *
 * @throws {DblockError} why one cannot be started, or has failed.
 */
export async function serveDisks(plans: readonly DiskPlan[], metrics?: HttpPlan): Promise<void> {
  using service = Service.here();
  service?.outliveShutdown();
  becomeIoFlusher();
  keepCode();
  outliveTerminal();
  keepOthersAlive();
  using interrupted = abortOnSignals();
  const stop = new AbortController();
  const signal = AbortSignal.any([interrupted.signal, stop.signal]);
  await using undo = new AsyncDisposableStack();
  using shared = sharedWorkers(plans);
  const disks = await startAll(await nameAll(plans), stop, { signal, shared });
  undo.defer(async () => {
    await Promise.all(disks.flatMap((disk) => disk.devices.map(undoDevice)));
  });
  const servers = await startServers(disks, signal);
  undo.defer(async () => {
    await Promise.all(servers.map(({ server }) => server.close()));
  });
  const kernelDisks = await startKernelDisks(disks);
  undo.defer(async () => {
    await Promise.all(kernelDisks.map(({ device }) => device.close({ force: true })));
  });
  const measured = measure(disks, servers, kernelDisks);
  await using asked = metrics === undefined
    ? undefined
    : await serveMetrics(metrics, () => figuresOf(measured().map((one) => one.figures())));
  if (asked !== undefined) { for (const one of measured()) one.figures(); }
  undo.move();
  using _figures = answerForFigures(measured);
  const left = new Set<string>();
  const running = new Set(disks);
  const inUse = () => [...running].flatMap((disk) => disk.devices);
  const ended = Promise.all(disks.map((disk) => disk.ended));
  using _words = leaveWords(disks, left, async (gone) => {
    if (service === undefined) throw new DblockError("EOPNOTSUPP", "Cannot reload", NO_SERVICE);
    if (servers.length + kernelDisks.length > 0 || asked !== undefined) {
      throw new DblockError("EOPNOTSUPP", "Cannot reload", NOT_IN_DEV);
    }
    await service.reload(ended, gone);
  });
  using _heard = heedSignals(inUse, { stopping: () => service?.stopping(inUse) ?? Promise.resolve() });
  interrupted[Symbol.dispose]();
  using _servers = closeAtSignals(servers);
  using _kernelDisks = endAtSignals(kernelDisks, complain);
  if (asked !== undefined) say(`${metricsUrl(asked)} has the figures`);
  const greetingLines = greetings(disks, servers, kernelDisks);
  for (const line of greetingLines) say(line);
  service?.ready(greetingLines);

  const failures: DblockError[] = [];
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
      for (const uri of uris) say(`${uri} has ended`);
    }),
    ...kernelDisks.map(async (one) => {
      await one.ended;
      say(`${one.device.path} (${one.name}) has ended`);
    }),
  ]);
  service?.ended();
  for (const failure of failures.slice(1)) complain(failure.message);
  const [failure] = failures;
  if (failure === undefined) return;
  throw service === undefined ? failure : new ServiceFailure(failure);
}

const NO_SERVICE =
  "it is no service of systemd, which could go on with another process; type: dblock serve … --take-over";
const NOT_IN_DEV =
  "it has an address, for NBD or --metrics, which two processes cannot have; restart the service instead";

/** A disk that this process has not made is left to the next server: those who use it wait, and lose nothing. */
async function undoDevice(device: Device): Promise<void> {
  const isOwn = device.origin === "created" || (await device.info()).onDeath === "remove";
  await (isOwn ? device.close({ force: true }) : device.leave());
}

/** What the code of one disk throws where nobody waits for it must not end the others. */
function keepOthersAlive(): void {
  const heed = (event: Event, error: unknown) => {
    event.preventDefault();
    complain(`the code of a disk failed outside of a request: ${describe(error)}`);
  };
  globalThis.addEventListener("unhandledrejection", (event) => heed(event, event.reason));
  globalThis.addEventListener("error", (event) => heed(event, event.error));
}

/** Gives those that have no name the first one that is free. */
async function nameAll(plans: readonly DiskPlan[]): Promise<DiskPlan[]> {
  const exits = plans.flatMap((plan) => plan.exits).filter((exit) => exit.kind === "device");
  const taken = new Set(exits.flatMap(({ name }) => name ?? []));
  if (taken.size < exits.length) { for (const { name } of await list()) taken.add(name); }
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
function sharedWorkers(plans: readonly DiskPlan[]): SharedWorkers | undefined {
  const { hardwareConcurrency } = navigator;
  return plans.length > hardwareConcurrency ? new SharedWorkers(hardwareConcurrency, linux) : undefined;
}

/** All of them, or none. */
async function startAll(
  plans: readonly DiskPlan[],
  stop: AbortController,
  options: StartOptions,
): Promise<readonly ServedDisk[]> {
  const queues = plans.length === 1 ? undefined : 1;
  const started: ServedDisk[] = [];
  const failures: unknown[] = [];
  await Promise.all(plans.map(async (plan) => {
    try {
      started.push(await ServedDisk.start(plan, { ...options, queues }));
    } catch (error) {
      failures.push(error);
      stop.abort(error);
    }
  }));
  if (failures.length === 0) return started.sort((a, b) => plans.indexOf(a.plan) - plans.indexOf(b.plan));
  await Promise.all(started.flatMap((disk) => disk.devices.map(undoDevice)));
  for (const { nbdParts, kernelParts } of started) {
    for (const { backend } of [...nbdParts, ...kernelParts]) await backend.close?.("unused");
  }
  throw failures[0];
}

interface Exporter {
  readonly server: NbdServer;
  readonly uris: readonly string[];
  readonly parts: readonly { readonly disk: ServedDisk; readonly part: NbdPart; readonly name: string }[];
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

/** One NBD server for each address, with all disks that go there. */
async function startServers(disks: readonly ServedDisk[], signal: AbortSignal): Promise<Exporter[]> {
  const parts = disks.flatMap((disk) => disk.nbdParts.map((part) => ({ disk, part })));
  const groups = Map.groupBy(parts, ({ part }) => JSON.stringify(part.exit.address));
  const servers: Exporter[] = [];
  for (const group of groups.values()) {
    const named = group.map(({ disk, part }, i) => {
      const name = part.exit.exportName ?? disk.devices[0]?.name ?? (group.length === 1 ? "" : `disk${i}`);
      return { disk, part, name };
    });
    const exports = Object.fromEntries(named.map(({ part, name }) => [name, part.backend]));
    const server = await serveNbd(exports, { address: group[0]!.part.exit.address, signal, ...logOptionsOf() });
    const uris = server.exportNames.map((exportName) =>
      formatNbdUri({ address: server.address, exportName, tls: false })
    );
    servers.push({ server, uris, parts: named });
  }
  return servers;
}

function closeAtSignals(servers: readonly Exporter[]): Disposable {
  const close = () => {
    for (const { server } of servers) void server.close();
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  if (servers.length > 0) { for (const name of signals) Deno.addSignalListener(name, close); }
  return {
    [Symbol.dispose]: () => {
      if (servers.length > 0) { for (const name of signals) Deno.removeSignalListener(name, close); }
    },
  };
}

/** Says in /run/dblock/ how each disk was started, and answers there. What is `left` can be recovered later. */
function leaveWords(
  disks: readonly ServedDisk[],
  left: ReadonlySet<string>,
  reload: (gone: AbortSignal) => Promise<void>,
): Disposable {
  const stack = new DisposableStack();
  for (const disk of disks) {
    for (const { name } of disk.devices) {
      try {
        const { words } = disk.plan;
        const named = words.includes("--name") ? words : [...words, "--name", name];
        stack.use(keepStarted({ name, pid: Deno.pid, cwd: Deno.cwd(), words: named }, () => left.has(name)));
        stack.use(answerQuestions(name, (question, gone) => answer(disk, question, () => reload(gone))));
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
  reload: () => Promise<void>,
): Promise<Description | void> {
  switch (question.ask) {
    case "resize":
      return await disk.resize(question.sizeBytes);
    case "figures":
      return; // of a whole server, at its own socket
    case "reload":
      return await reload();
    case "describe": {
      const { source, filters } = disk.plan;
      return { spec: source.text, filters: filters.map(({ name }) => name), lines: source.describe?.() ?? [] };
    }
  }
}

function greetings(
  disks: readonly ServedDisk[],
  servers: readonly Exporter[],
  kernelDisks: readonly ServedKernelDisk[],
): string[] {
  const lines = disks.flatMap((disk) => disk.devices.map((device) => greeting(disk, device)));
  for (const { uris } of servers) lines.push(...uris.map((uri) => `${uri} is ready`));
  lines.push(...kernelDisks.map(greetingOfKernelDisk));
  const names = [...disks.flatMap((disk) => disk.devices), ...kernelDisks].map(({ name }) => name);
  const end = names.length === 1 ? `dblock destroy ${names[0]}, or Ctrl-C` : "Ctrl-C";
  const last = lines.pop();
  return last === undefined ? [] : [...lines, `${last}; to end ${lines.length === 0 ? "it" : "all"}: ${end}`];
}

function greeting({ plan }: ServedDisk, { path, sizeBytes, queueCount, origin }: Device): string {
  const what = origin === "created" ? "ready" : origin.replace("-", " ");
  return `${path} is ${what}: ${formatSize(sizeBytes)}, ${counted(queueCount, "queue")}, ${plan.source.text}`;
}

function report({ plan }: ServedDisk, { device: { name, path }, ending }: DeviceEnd, failures: DblockError[]): void {
  switch (ending.reason) {
    case "failed": {
      const hint = plan.onDeath === "remove" ? "the disk has ended" : `go on with: dblock recover ${name}`;
      failures.push(new DblockError("EIO", `Cannot serve ${path} any more`, describe(ending.error), { hint }));
      return;
    }
    case "left":
      return say(`${path} is left to its next server; to go on: dblock recover ${name}`);
    case "replaced":
      return say(`${path} goes on: another process has taken it over`);
    case "closed":
      return say(`${path} has ended: destroyed`);
    case "destroyed":
      return say(`${path} has ended: destroyed by another process`);
  }
}
