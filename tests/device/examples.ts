/**
 * Every example of README.md, of src/README.md and of the programs' `--help`, and what is done with each: run, in an order
 * in which each finds what it needs, or left out, for a reason. Nothing runs here; examples_test.ts does that, and a unit
 * test sees that no example is missing.
 */
import { COMMANDS } from "../../src/command/commands.ts";
import { overview } from "../../src/command/command_line.ts";
import { HELP } from "../../src/command/ramdisk.ts";
import { filters } from "../../src/filters/table.ts";

const READMES = ["README.md", "src/README.md"];
/** The first word of a line that is typed. */
const TYPED = /^(\$ |sudo |\.\/[-\w]+( |$)|make |deno |dblock )/;

/** Without what differs from machine to machine: `sudo`, where the program is, a comment, the background. */
function normalized(line: string): string {
  return line.replace(/^\s*(\$ )?(sudo )?(\.\/(?=dblock))?/, "").replace(/(\s{2,}| +#| &$).*$/, "").trim();
}

/** The lines and the programs of a README. */
function examplesOfReadme(path: string): string[] {
  const text = Deno.readTextFileSync(path);
  const found: string[] = [];
  const prose = text.replaceAll(/^```(\w*)\n([^]*?)^```$/gm, (_, language: string, code: string) => {
    if (language === "ts") found.push(programName(path, found.filter((one) => one.includes(" program ")).length));
    else found.push(...code.split("\n").filter((line) => line.startsWith("$ ")).map(normalized));
    return "";
  });
  const lines = prose.split("\n").filter((line) => /^ {4}/.test(line)).map((line) => line.trim());
  const inline = [...prose.matchAll(/`([^`\n]+)`/g)].map(([, code]) => code!);
  found.push(...[...lines, ...inline].filter((line) => TYPED.test(line)).map(normalized));
  return found;
}

/** How a block of TypeScript is called here. */
function programName(path: string, index: number): string {
  return `${path} program ${index}`;
}

/** A block of TypeScript. */
export function programOf(name: string): string {
  const [path, index] = name.split(" program ") as [string, string];
  return [...Deno.readTextFileSync(path).matchAll(/^```ts\n([^]*?)^```$/gm)][Number(index)]![1]!;
}

/** What stands in a help text as a line to type, given the text. */
function examplesOfHelp(text: string): string[] {
  return text.split("\n").filter((line) => /^ {2}(sudo )(\.\/)?dblock/.test(line)).map(normalized);
}

/** All examples, each once. */
export function allExamples(): string[] {
  return [
    ...new Set([
      ...READMES.flatMap(examplesOfReadme),
      ...COMMANDS.flatMap(({ examples }) => examples.map(({ words }) => `dblock ${words}`)),
      ...examplesOfHelp(overview(COMMANDS)),
      ...examplesOfHelp(HELP),
      ...Object.values(filters).map(({ example }) => filterExample(example)),
    ]),
  ].sort();
}

/** A filter's example is an option of a disk. */
function filterExample(example: string): string {
  return `--with ${example}`;
}

/** What is done with a line. */
export type Step =
  /** It ends by itself, with this status [0], and says this. */
  | {
    readonly kind: "command";
    readonly typed: string;
    readonly says?: RegExp;
    readonly status?: number;
    /** What is typed after it, so that it ends sooner. */
    readonly more?: string;
  }
  /**
   * It serves: its disks are written and read, then Ctrl-C ends it; or it is kept, for the steps that follow. Of a line that
   * covers examples the disks are only there: a filter's example may be one that makes errors.
   */
  | { readonly kind: "server"; readonly typed: string; readonly keep?: true; readonly covers?: readonly string[] }
  /** The last one that was kept ends by itself now, with status 0; or it is killed first, and its disk stays. */
  | { readonly kind: "end"; readonly by: "itself" | "Ctrl-C" | "SIGKILL" }
  /** It goes on until Ctrl-C, having said this; then it has died of that, or has this status. */
  | { readonly kind: "watch"; readonly typed: string; readonly says: RegExp; readonly status?: number }
  /** A block of TypeScript that is the module of the steps that follow: ./disk.ts. */
  | { readonly kind: "module"; readonly typed: string }
  /** A block of TypeScript, with these lines in front of it; as a server that is kept, or to its end. */
  | { readonly kind: "program"; readonly typed: string; readonly before?: string; readonly keep?: true };

const command = (typed: string, says?: RegExp): Step => ({ kind: "command", typed, ...(says && { says }) });
const bench = (typed: string, says: RegExp, more = ""): Step => ({
  kind: "command",
  typed,
  says,
  more: `--seconds 1 --area 8MiB ${more}`,
});
const watch = (typed: string, says: RegExp, status?: number): Step => ({
  kind: "watch",
  typed,
  says,
  ...(status !== undefined && { status }),
});
const server = (typed: string): Step => ({ kind: "server", typed });
const kept = (typed: string): Step => ({ kind: "server", typed, keep: true });
const end = (by: "itself" | "Ctrl-C" | "SIGKILL"): Step => ({ kind: "end", by });

const FRAGMENT = `
import { DblockError, intercept, serve, WriteCache } from "./mod.ts";
const bytes = new Uint8Array(16 * 2 ** 20);
const disk = {
  sizeBytes: bytes.length,
  read: (buffer: Uint8Array, offset: number) => buffer.set(bytes.subarray(offset, offset + buffer.length)),
  write: (buffer: Uint8Array, offset: number) => bytes.set(buffer, offset),
  flush: () => {},
};
`;

/** By what a test of its own shows. */
export const GROUPS: Readonly<Record<string, readonly Step[]>> = {
  "the programs of README.md and src/README.md": [
    { kind: "program", typed: "README.md program 0", keep: true },
    command("dblock destroy scratch", /^\/dev\/scratch is destroyed$/m),
    end("itself"),
    { kind: "program", typed: "src/README.md program 0", keep: true },
    command("mkfs.ext4 -q /dev/scratch && mount /dev/scratch /mnt"),
    command("cp -r /project/src /mnt && umount /mnt && fsck.ext4 -fn /dev/scratch && mount /dev/scratch /mnt"),
    command("diff -r /project/src/module /mnt/src/module"),
    command("umount /mnt"),
    command("dblock-ramdisk -d --name scratch", /^\/dev\/scratch is destroyed$/m),
    end("itself"),
    { kind: "program", typed: "src/README.md program 2", before: FRAGMENT },
  ],
  "the ramdisk": [
    kept("dblock-ramdisk"),
    command("mkfs.ext4 /dev/dblockramdisk", /done/),
    command("dblock-ramdisk --list", /^\/dev\/dblockramdisk: live, 4 GiB/),
    command("dblock-ramdisk -d", /^\/dev\/dblockramdisk is destroyed$/m),
    end("itself"),
    server("dblock-ramdisk --size 8GiB"),
    server("dblock-ramdisk --name a --size 512M"),
    server("dblock-ramdisk --store /dev/shm/a --on-death hold"),
  ],
  "dblock serve": [
    server("dblock serve memory:4GiB --name scratch"),
    server("dblock serve ./disk.img?size=10GiB --name disk"),
    { kind: "module", typed: "README.md program 1" },
    server("dblock serve './disk.ts?size=64MiB'"),
    { kind: "module", typed: "src/README.md program 1" },
    server("dblock serve ./disk.ts?size=1GiB --name mine"),
    server("dblock serve ./disk.ts?size=1GiB --name mine --watch"),
    server("dblock serve './disk.ts?size=1GiB' --name mine --watch"),
    server("dblock serve './disk.ts?size=64MiB' --name scratch --watch"),
    server("dblock serve ./disk.img --nbd unix:/tmp/disk.sock"),
    server("dblock serve ./disk.img?size=10GiB --nbd unix:/tmp/disk.sock"),
    server("dblock serve memory:1GiB --name slow --with delay=read=5ms,jitter=1ms --with stats"),
    server("dblock serve memory:1GiB --name a ./b.img --name b"),
    server("dblock serve stripe:./a.img,./b.img --name fast"),
    server("dblock serve mirror:./a.img,./b.img?bitmap=./ab.bitmap --name safe"),
    server("dblock serve --config"),
    server("dblock serve ./disk.img?raw --name disk --metrics 127.0.0.1:9464"),
    {
      kind: "server",
      typed: `dblock serve ${
        Object.values(filters).map(({ example }, i) => `memory:64MiB --name filter${i} ${filterExample(example)}`).join(
          " ",
        )
      }`,
      covers: Object.values(filters).map(({ example }) => filterExample(example)),
    },
  ],
  "what is done to disks": [
    command("dblock doctor", /nothing is in the way/),
    kept("dblock serve ./disk.img --name disk --on-death hold"),
    command("dblock resize disk 20GiB", /^\/dev\/disk has 20 GiB now$/m),
    end("SIGKILL"),
    kept("dblock recover disk"),
    end("SIGKILL"),
    server("dblock recover"),
    kept("dblock serve memory:4GiB --name scratch"),
    command("dblock list", /^\/dev\/scratch +4 GiB +live/m),
    command("dblock list --json", /"name": "scratch"/),
    command("dblock info scratch", /content: memory:4GiB/),
    command("dblock info scratch --json", /"name": "scratch"/),
    watch("dblock top", /^scratch .*\n1 disk/m),
    // Ten seconds as it stands there; device/top has top end by itself.
    watch("dblock top --json --count 10", /^(\{"time":.*"name":"scratch".*\}\n){2}/),
    watch("dblock top --web 127.0.0.1:8080", /shows all disks/, 0),
    watch("dblock top --web 0.0.0.0:8080 --token /etc/dblock-token --control", /shows all disks/, 0),
    command("dblock metrics", /^dblock_size_bytes\{.*disk="scratch".*\} 4294967296$/m),
    watch("dblock metrics 127.0.0.1:9464", /metrics is ready/, 0),
    watch("dblock metrics unix:/run/dblock-metrics.sock", /is ready/, 0),
    watch("dblock metrics 0.0.0.0:9464 --token /etc/dblock-token", /is ready/, 0),
    command("dblock destroy scratch --force", /^\/dev\/scratch is destroyed$/m),
    end("itself"),
  ],
  "dblock bench": [
    { kind: "module", typed: "src/README.md program 1" },
    // Some jobs, for a second each; as they stand there these take minutes.
    bench(
      "dblock bench ./new.img?size=1GiB",
      /^write 4 KiB, one at a time .* \d+\.\d\d$/m,
      "--jobs write-1MiB-8,randwrite-4KiB-1,randrw-4KiB-32",
    ),
    bench("dblock bench ./disk.img", /^read 4 KiB, one at a time .* \d+\.\d\d$/m, "--jobs randread-4KiB-1"),
    bench("dblock bench ./disk.ts?size=1GiB --read-only --json", /"ratio": [\d.]+/, "--jobs randread-4KiB-1"),
  ],
};

const SET_UP = "it sets up or builds, from the network: whoever runs these tests has done so";
const THIS = "it runs tests, these among them, or boots a VM as they do";
const PACKAGES = "it builds packages, or installs them, for a machine of its own";
const SERVICE = "only a service of systemd can be reloaded: device/debian_unit does it";
const HELP_TEXT = "it only prints: unit/command/main_test reads it";
const SWAP = "on a machine of 2 GiB the disk is too large; device/swap does the same with a small one";

/** Examples that do not run, and why. */
export const LEFT_OUT: Readonly<Record<string, string>> = {
  "make": SET_UP,
  "make load": "it builds the module for the kernel that runs; the tests load the one that was built for them",
  "make dist": SET_UP,
  "make deb": PACKAGES,
  "apt install ./.build/deb/dblock_*.deb ./.build/deb/dblock-dkms_*.deb": PACKAGES,
  "systemctl enable --now dblock@data": PACKAGES,
  "mkfs.ext4 /dev/data": PACKAGES,
  "make help": "it lists the Makefile",
  "make demo": THIS,
  "make test": THIS,
  "make test KERNEL=all": THIS,
  "make test KERNEL=6.1-armhf ARGS=device/portable": THIS,
  "make test-debug": THIS,
  "make kernel-debug": SET_UP,
  "make soak MINUTES=60": THIS,
  "make bench": "it measures, for ten minutes",
  "rmmod dblock": "the tests after this one need the module; device/rmmod removes it",
  "deno compile": "it is the name of what the build uses",
  "deno bundle --watch ./disk.ts -o disk.js": "it has esbuild from the network",
  "dblock serve ./disk.js --watch": "the file is what deno bundle makes",
  ".build/bin/deno run -A scratch.ts": "the program above it runs, from where mod.ts is",
  "deno run -A disk.ts": "the program above it runs, from where mod.ts is",
  "systemd-run -p MemorySwapMax=0 -p OOMScoreAdjust=-1000 -p CPUSchedulingPolicy=rr $PWD/dblock-ramdisk --name swap0 --size 2GiB":
    SWAP,
  "dd if=/dev/zero of=/dev/swap0 bs=1M oflag=direct": SWAP,
  "dblock help serve": HELP_TEXT,
  "dblock serve --help": HELP_TEXT,
  "dblock help filters": HELP_TEXT,
  "dblock reload disk": SERVICE,
  "dblock reload --server 123": SERVICE,
  "mkswap /dev/swap0 && sudo swapon /dev/swap0": SWAP,
};

/** Examples that a step runs. */
export function examplesRun(): string[] {
  return Object.values(GROUPS).flat().flatMap((step) =>
    step.kind === "end" ? [] : step.kind === "server" && step.covers !== undefined ? step.covers : [step.typed]
  );
}
