/** The executable dblock-ramdisk as a process of its own: started, watched, and never left behind. */
import { exists, sh, type ShellResult, waitFor } from "./harness.ts";

const program = "./dblock-ramdisk";
/** A start takes 2 s on a VM with nothing else to do, and ten times that on a host that others share. */
const readyMs = 60_000;

/** Runs it to its end: for -d, --help and everything that is refused. */
export async function runRamdisk(args: string, options: { prefix?: string } = {}): Promise<ShellResult> {
  return await sh(`${options.prefix ?? ""} ${program} ${args}`, { check: false, timeoutMs: readyMs });
}

/** Options of {@linkcode Ramdisk.start}. */
export interface RamdiskOptions {
  /** @default the command's own */
  readonly name?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The folder of the control group that it runs in. @default the test's */
  readonly cgroup?: string;
}

/** A running dblock-ramdisk. */
export class Ramdisk implements AsyncDisposable {
  readonly name: string;
  readonly path: string;
  readonly child: Deno.ChildProcess;
  /** What it printed so far. */
  stdout = "";
  stderr = "";
  /** Undefined while it runs. */
  ended: Deno.CommandStatus | undefined;
  readonly #streams: Promise<void[]>;

  private constructor(name: string, args: readonly string[], options: RamdiskOptions) {
    const { env = {}, cgroup } = options;
    this.name = name;
    this.path = `/dev/${name}`;
    // In the group before it is itself: what a process has is charged where it was when it took it.
    const command = cgroup === undefined
      ? [program, ...args]
      : ["bash", "-c", `echo $$ >${cgroup}/cgroup.procs && exec "$@"`, "bash", program, ...args];
    this.child = new Deno.Command(command[0]!, {
      args: command.slice(1),
      env: { ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.child.status.then((status) => this.ended = status);
    const collect = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
      const decoder = new TextDecoder();
      for await (const chunk of stream) add(decoder.decode(chunk, { stream: true }));
    };
    this.#streams = Promise.all([
      collect(this.child.stdout, (text) => this.stdout += text),
      collect(this.child.stderr, (text) => this.stderr += text),
    ]);
  }

  /** Starts it and waits until it says that the disk is there. */
  static async start(options: RamdiskOptions = {}): Promise<Ramdisk> {
    const { name, args = [] } = options;
    const named = name === undefined ? [] : ["--name", name];
    const ramdisk = new Ramdisk(name ?? "dblockramdisk", [...named, ...args], options);
    await waitFor(`${ramdisk.path} is ready`, () => {
      if (ramdisk.ended !== undefined) {
        throw new Error(`dblock-ramdisk ended with ${ramdisk.ended.code}; it said: ${ramdisk.stdout}${ramdisk.stderr}`);
      }
      return ramdisk.stdout.includes("\n") && exists(ramdisk.path);
    }, readyMs);
    return ramdisk;
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Waits for its end. Returns the status, once everything it printed is there. */
  async end(timeoutMs = 10_000): Promise<Deno.CommandStatus> {
    await waitFor(`dblock-ramdisk (${this.name}) ends`, () => this.ended !== undefined, timeoutMs);
    await this.#streams;
    return this.ended!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.ended === undefined) this.child.kill("SIGKILL");
    await this.end();
    await waitFor(`${this.path} is gone`, () => !exists(this.path) && !exists(`${this.path}-ctl`));
  }
}
