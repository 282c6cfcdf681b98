/** The executable dblock-ramdisk as a process of its own: started, watched, and never left behind. */
import { exists, sh, type ShellResult, waitFor } from "./harness.ts";
import { Running } from "./running.ts";

const program = "./dblock-ramdisk";
/** As long as a start may take. */
const endMs = 60_000;

/** Runs it to its end: for -d, --help and everything that is refused. */
export async function runRamdisk(args: string, options: { prefix?: string } = {}): Promise<ShellResult> {
  return await sh(`${options.prefix ?? ""} ${program} ${args}`, { check: false, timeoutMs: endMs });
}

/** Options of {@linkcode Ramdisk.start}. */
export interface RamdiskOptions {
  /** @default the command's own */
  readonly name?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The folder of the control group that it runs in. @default the test's */
  readonly cgroup?: string;
  /** What it is run by, such as chrt and its arguments. */
  readonly prefix?: readonly string[];
}

/** A running dblock-ramdisk. */
export class Ramdisk extends Running {
  readonly name: string;
  readonly path: string;

  private constructor(name: string, args: readonly string[], { env = {}, cgroup, prefix = [] }: RamdiskOptions) {
    // In the group before it is itself: what a process has is charged where it was when it took it.
    const inGroup = cgroup === undefined ? [] : ["bash", "-c", `echo $$ >${cgroup}/cgroup.procs && exec "$@"`, "bash"];
    super(`dblock-ramdisk (${name})`, [...inGroup, ...prefix, program, ...args], { env });
    this.name = name;
    this.path = `/dev/${name}`;
  }

  /** Starts it and waits until it says that the disk is there. */
  static async start(options: RamdiskOptions = {}): Promise<Ramdisk> {
    const { name, args = [] } = options;
    const named = name === undefined ? [] : ["--name", name];
    const ramdisk = new Ramdisk(name ?? "dblockramdisk", [...named, ...args], options);
    await ramdisk.ready((stdout) => stdout.includes("\n") && exists(ramdisk.path));
    return ramdisk;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await waitFor(`${this.path} is gone`, () => !exists(this.path) && !exists(`${this.path}-ctl`));
  }
}
