/** Several dblock-ramdisk processes that serve one disk after another: killed, started again, taken over. */
import { exists, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { destroyDevice, type Info, infoOf } from "./server.ts";

/** The servers of a disk whose content is in /dev/shm. */
export class Servers implements AsyncDisposable {
  readonly name: string;
  readonly path: string;
  readonly store: string;
  readonly #args: readonly string[];
  readonly #all: Ramdisk[] = [];

  /** @param args of every server, beside --name and --store */
  constructor(name: string, args: readonly string[]) {
    this.name = name;
    this.path = `/dev/${name}`;
    this.store = `/dev/shm/${name}`;
    this.#args = args;
  }

  /** Starts one and waits until it says that it serves. */
  async start(args: readonly string[] = []): Promise<Ramdisk> {
    const all = ["--store", this.store, ...this.#args, ...args];
    const server = await Ramdisk.start({ name: this.name, args: all });
    this.#all.push(server);
    return server;
  }

  /** kill -9, and waits for the end of the process; the disk stays. */
  async kill(server: Ramdisk): Promise<void> {
    server.child.kill("SIGKILL");
    await server.child.status;
  }

  info(): Info {
    const info = infoOf(this.name);
    if (info === undefined) throw new Error(`${this.path} is gone`);
    return info;
  }

  /** Waits until so many more writes are answered. */
  async untilWritten(count: number): Promise<void> {
    const before = this.info().requests[1]!;
    await waitFor(`${count} writes to ${this.path}`, () => this.info().requests[1]! >= before + count, 30_000);
  }

  /**
   * Runs a command again and again until `stop()`, which gives its errors: none at all, or the test fails. How long
   * servers take to start is the machine's business, so what they are tested under has no end of its own.
   */
  keepRunning(command: string): { stop(): Promise<void> } {
    const flag = `/tmp/${this.name}.stop`;
    const running = sh(`rm -f ${flag}; until [ -e ${flag} ]; do ${command} || exit 1; done`, { timeoutMs: 200_000 });
    running.catch(() => {}); // stop() tells
    return {
      stop: async () => {
        await sh(`touch ${flag}`);
        await running;
      },
    };
  }

  /**
   * fio over the whole disk, 5 s at a time, that checks what it reads.
   *
   * @param options.breathes bursts with pauses: two emulated processors leave a program that starts beside it nothing else
   */
  verifyWithFio(options: { breathes?: boolean } = {}): { stop(): Promise<void> } {
    const pauses = options.breathes ? "--thinktime=100ms --thinktime_blocks=64 " : "";
    return this.keepRunning(
      `fio --name=verify --filename=${this.path} --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=16 ` +
        `--size=64M --time_based --runtime=5 --verify=crc32c --verify_fatal=1 --verify_backlog=256 ${pauses}--output=/dev/null`,
    );
  }

  /** Removes disk, servers and store, in whatever state they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (infoOf(this.name) !== undefined) await destroyDevice(this.name);
    for (const server of this.#all) await server[Symbol.asyncDispose]();
    if (exists(this.store)) await sh(`rm ${this.store}`);
  }
}
