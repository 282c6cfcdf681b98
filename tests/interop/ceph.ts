/** A real Ceph cluster on loopback, from Debian's packages: one monitor and some OSDs, each with a sparse file as its disk. */
import { join } from "node:path";

/** Room for what a test writes. */
const OSD_BYTES = 4 * 2 ** 30;
const OSD_MEMORY_BYTES = 939_524_096; // the least that ceph-osd takes

/** How a program of the cluster's ended. */
export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What is not there for a cluster, or undefined. */
export function whyNoCeph(): string | undefined {
  const missing = ["ceph-mon", "ceph-osd", "rbd"].filter((name) => !isInstalled(name));
  return missing.length === 0 ? undefined : `needs ${missing.join(", ")} (apt install ceph-mon ceph-osd ceph-common)`;
}

function isInstalled(name: string): boolean {
  try {
    return Deno.statSync(`/usr/bin/${name}`).isFile;
  } catch {
    return false;
  }
}

/** A cluster; `await using` ends it and removes its files. */
export class Cluster implements AsyncDisposable {
  /** Its ceph.conf. */
  readonly conf: string;
  /** What another machine's ceph.conf has to say to reach it. */
  clientConf = "";
  readonly #dir: string;
  readonly #servers = new Map<string, Deno.ChildProcess>();

  private constructor(dir: string) {
    this.#dir = dir;
    this.conf = join(dir, "ceph.conf");
  }

  /**
   * Starts one with a pool "rbd": some 10 s.
   *
   * @param options.address where it listens, and what it says of itself
   */
  static async start({ osds = 1, address = "127.0.0.1" } = {}): Promise<Cluster> {
    const cluster = new Cluster(await Deno.makeTempDir({ prefix: "dblock-ceph-" }));
    try {
      await cluster.#make(osds, address);
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #make(osds: number, address: string): Promise<void> {
    const port = freePort(address);
    const fsid = crypto.randomUUID();
    const dir = this.#dir;
    this.clientConf = `[global]
fsid = ${fsid}
mon host = [v2:${address}:${port}/0]
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
`;
    await Deno.writeTextFile(
      this.conf,
      `${this.clientConf}osd pool default size = ${Math.min(osds, 2)}
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon osd min down reporters = 1
osd heartbeat grace = 6
osd objectstore = bluestore
bluestore block size = ${OSD_BYTES}
osd memory target = ${OSD_MEMORY_BYTES}
mon data = ${dir}/mon
public addr = ${address}
osd class load list = *
osd class default list = *
run dir = ${dir}
log file = ${dir}/$name.log
[mon]
admin socket = ${dir}/$name.asok
[osd]
admin socket = ${dir}/$name.asok
osd data = ${dir}/osd$id
`,
    );
    await Deno.mkdir(join(dir, "mon"));
    await run("monmaptool", [
      "--create",
      "--fsid",
      fsid,
      "--addv",
      "a",
      `[v2:${address}:${port}]`,
      join(dir, "monmap"),
    ]);
    await run("ceph-mon", ["-c", this.conf, "--mkfs", "-i", "a", "--monmap", join(dir, "monmap")]);
    await this.startMonitor();
    for (let id = 0; id < osds; id++) {
      await Deno.mkdir(join(dir, `osd${id}`));
      const uuid = crypto.randomUUID();
      await this.ceph("osd", "new", uuid);
      await run("ceph-osd", ["-c", this.conf, "-i", String(id), "--mkfs", "--osd-uuid", uuid]);
      this.startOsd(id);
    }
    await this.ceph("osd", "pool", "create", "rbd", "8");
    await this.rbd("pool", "init", "rbd");
  }

  /** Starts the monitor, and waits until it answers. */
  async startMonitor(): Promise<void> {
    this.#start("mon", "ceph-mon", "a");
    await this.ceph("osd", "stat");
  }

  /** Starts an OSD; the cluster has it some seconds later. */
  startOsd(id: number): void {
    this.#start(`osd${id}`, "ceph-osd", String(id));
  }

  #start(name: string, program: string, id: string): void {
    const args = ["-c", this.conf, "-i", id, "-f"];
    this.#servers.set(name, new Deno.Command(program, { args, stdout: "null", stderr: "null" }).spawn());
  }

  /** Ends "mon", "osd0" and so on: by default as a power cut does. */
  async stop(name: string, signal: Deno.Signal = "SIGKILL"): Promise<void> {
    const server = this.#servers.get(name);
    if (server === undefined) throw new Error(`${name} is not there`);
    this.#servers.delete(name);
    server.kill(signal);
    await server.status;
  }

  /** Runs ceph, which has to succeed, and returns what it prints. */
  async ceph(...args: string[]): Promise<string> {
    return (await run("timeout", ["60", "ceph", "-c", this.conf, ...args])).stdout;
  }

  /** Runs rbd, likewise. */
  async rbd(...args: string[]): Promise<string> {
    return (await run("timeout", ["120", "rbd", "-c", this.conf, ...args])).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#servers.keys()].reverse()) await this.stop(name);
    await Deno.remove(this.#dir, { recursive: true });
  }
}

function freePort(hostname: string): number {
  using listener = Deno.listen({ hostname, port: 0 });
  return listener.addr.port;
}

async function run(program: string, args: readonly string[]): Promise<Ran> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args], stdin: "null" }).output();
  const decoder = new TextDecoder();
  const ran = { status: code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}: ${ran.stderr}${ran.stdout}`);
  return ran;
}
