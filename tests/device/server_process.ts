/** A server in a process of its own (server_main.ts), to be killed, stopped, and asked what it has seen. */
import type { DiskOptions } from "./disk.ts";
import { destroyDevice, type Request } from "./server.ts";
import { TextLineStream } from "./lines.ts";

/** What the process is to serve. */
export interface ServerOptions extends Omit<DiskOptions, "store" | "rule"> {
  /** The content: a file as long as the device, mapped shared. @default memory of the process */
  readonly storeFile?: string;
  /** enum dblock_operation: requests of these are kept open. @default none */
  readonly holdOperations?: readonly number[];
  /** Starts a child that inherits what it can and lives so long. @default 0 */
  readonly childSeconds?: number;
  /** Only attaches; nothing is started. @default false */
  readonly attachOnly?: boolean;
}

/** What the process can be told. */
export interface ServerCommand {
  readonly holdOperations?: readonly number[];
  /** Answer all that is held. */
  readonly release?: true;
  readonly pause?: true;
  readonly serve?: true;
  /** START, and wait for it on another thread; nothing is served by this. */
  readonly start?: true;
  /** Write a file with fsync(), on the thread that serves. */
  readonly syncFile?: string;
  /** Close the files without answering. */
  readonly close?: true;
  /** Read the first block of the disk on another thread, past all caches. */
  readonly readDisk?: true;
  /** Serve from a thread that sleeps in EXCHANGE and keeps all that it gets, not from the event loop. */
  readonly sleep?: true;
  /** Become another program, for so many seconds. */
  readonly execSeconds?: number;
}

/** What the process says of itself. */
export interface ServerReport {
  readonly held: number;
  readonly seen: readonly Request[];
  readonly replayed: number;
  /** errno that ended serving, or null. */
  readonly ended: number | null;
}

const mapping = "--import-map=src/build/standins/import_map.json";
const allOperations = [0, 1, 2, 3, 4];

/** A running server process. */
export class ServerProcess implements AsyncDisposable {
  readonly name: string;
  readonly path: string;
  readonly child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;

  private constructor(options: ServerOptions) {
    this.name = options.name;
    this.path = `/dev/${options.name}`;
    this.child = new Deno.Command("deno", {
      args: ["run", "--allow-all", "--no-check", mapping, "tests/device/server_main.ts", JSON.stringify(options)],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#reader = this.child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream()).getReader();
    this.#writer = this.child.stdin.getWriter();
  }

  /** Starts the process and waits until its disk is live (or attached). */
  static async start(options: ServerOptions): Promise<ServerProcess> {
    const server = new ServerProcess(options);
    await server.#report();
    return server;
  }

  async #report(): Promise<ServerReport> {
    const { value, done } = await this.#reader.read();
    if (done) throw new Error(`the server of ${this.path} ended`);
    return JSON.parse(value) as ServerReport;
  }

  /** Tells the process something, or only asks. */
  async tell(command: ServerCommand = {}): Promise<ServerReport> {
    await this.order(command);
    return await this.#report();
  }

  /** Tells the process something that it may never get done. */
  async order(command: ServerCommand): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(command)}\n`));
  }

  /** Keeps every request open from now on. */
  async holdAll(): Promise<void> {
    await this.tell({ holdOperations: allOperations });
  }

  /** Ends the process as its own doing: what it holds is not answered. */
  async exit(): Promise<number> {
    await this.#writer.close();
    return (await this.child.status).code;
  }

  /** Sends a signal; with SIGKILL, waits for the end. */
  async kill(signal: Deno.Signal = "SIGKILL"): Promise<void> {
    this.child.kill(signal);
    if (signal === "SIGKILL") await this.child.status;
  }

  /** Ends the process and removes the device, whatever state they are in. */
  async [Symbol.asyncDispose](): Promise<void> {
    await destroyDevice(this.name);
    await this.forget();
  }

  /** Ends the process and leaves the device to its policy. */
  async forget(): Promise<void> {
    try {
      this.child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.child.status;
    await this.#writer.abort().catch(() => {});
    await this.#reader.cancel().catch(() => {});
  }
}
