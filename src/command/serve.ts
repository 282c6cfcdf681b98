// SPDX-License-Identifier: MIT
/** `dblock serve`: one disk or many in one process, in the foreground, until they have ended. */
import { filters as FILTERS } from "../filters/table.ts";
import { UsageError } from "./cli.ts";
import { type Command, type Item, type Option, readItems, row } from "./command.ts";
import { CONFIG_FOLDER, readConfig } from "./config.ts";
import { DISK_OPTIONS, type DiskPlan, readDisks, requireNames } from "./disk_plan.ts";
import { type HttpPlan, planHttp, TOKEN_OPTION } from "./http.ts";
import { SCHEMES } from "./schemes.ts";
import { serveDisks } from "./serve_disks.ts";
import { SIGNALS_HELP } from "./signals.ts";

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

const INITRD: Option = {
  name: "initrd",
  text:
    "for an initial ramdisk, which starts the disks that / and /usr are on: the server goes on when the machine's root " +
    "is there, and nothing takes its disks over",
};

/** The subcommand. */
export const SERVE: Command = {
  name: "serve",
  summary: "serve disks until they are destroyed",
  usage: "SPEC [OPTIONS] [SPEC [OPTIONS]]... [--config [FILE|DIR]]",
  options: [...DISK_OPTIONS, CONFIG, METRICS, TOKEN_OPTION, INITRD],
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
  Parameters follow a "?" and are divided by "&" (quote them for the shell). In
  a path or a value %3F is a "?", %26 a "&" and %25 a "%", as in any URL.
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
    const others: readonly Option[] = [CONFIG, METRICS, TOKEN_OPTION, INITRD];
    const own = items.filter((item) => item.kind === "word" || !others.includes(item.option));
    // Without a SPEC beside them, --take-over is about the disks of the files.
    const takeOver = paths.length > 0 && own.length > 0 && own.every(isTakeOver);
    const plans = readDisks(takeOver ? [] : own);
    const metrics = readMetrics(items);
    const isOfInitrd = items.some((item) => item.kind === "option" && item.option === INITRD);
    if (plans.length + paths.length === 0) {
      throw new UsageError("a SPEC is missing (write it like memory:4GiB or ./disk.img)");
    }
    return async () => {
      const configured = paths.flatMap(readConfig);
      const all = [...plans, ...takeOver ? configured.map(takingOver) : configured];
      requireNames(all);
      await serveDisks(all, { metrics, initrdFiles: isOfInitrd ? paths : undefined });
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
