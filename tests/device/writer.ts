/** Somebody who uses a disk while its server comes and goes. */

/** fio that writes and verifies, in bursts with pauses, until it is told to stop; then what it saw. */
export class Writer {
  readonly #child: Deno.ChildProcess;
  readonly #output: Promise<Deno.CommandOutput>;

  constructor(file: string) {
    const words = `--name=writer --filename=${file} --size=16M --direct=1 --ioengine=psync --rw=randrw --bs=4k
      --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=600
      --thinktime=50ms --thinktime_blocks=64 --output-format=json`;
    this.#child = new Deno.Command("fio", { args: words.split(/\s+/), stdout: "piped", stderr: "piped" }).spawn();
    this.#output = this.#child.output();
  }

  /** Returns the errno of its first error, 0 without one, and what its slowest request took. */
  async stop(): Promise<{ error: number; slowestMs: number; said: string }> {
    this.#child.kill("SIGINT");
    const { stdout, stderr } = await this.#output;
    const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    const json = said.slice(said.indexOf("{"), said.lastIndexOf("}") + 1);
    const [job] = (JSON.parse(json) as { jobs: Job[] }).jobs;
    return { error: job!.error, slowestMs: Math.max(job!.read.lat_ns.max, job!.write.lat_ns.max) / 1e6, said };
  }
}
interface Job {
  readonly error: number;
  readonly read: { readonly lat_ns: { readonly max: number } };
  readonly write: { readonly lat_ns: { readonly max: number } };
}
