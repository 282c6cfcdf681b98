/** A control group of its own for a server (cgroup v2). */
import { sh, waitFor } from "./harness.ts";

/** Made empty; removed at the end, when the processes in it have ended. */
export class ControlGroup implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @param settings files of the group and what is written to them, such as `memory.swap.max` */
  static async make(name: string, settings: Readonly<Record<string, string>> = {}): Promise<ControlGroup> {
    const group = new ControlGroup(`/sys/fs/cgroup/${name}`);
    await sh(`echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir ${group.path}`);
    for (const [file, value] of Object.entries(settings)) group.set(file, value);
    return group;
  }

  set(file: string, value: string): void {
    Deno.writeTextFileSync(`${this.path}/${file}`, value);
  }

  get(file: string): string {
    return Deno.readTextFileSync(`${this.path}/${file}`).trim();
  }

  /** Stops all its processes, or lets them go on; waits until they have. */
  async freeze(frozen: boolean, timeoutMs = 10_000): Promise<void> {
    this.set("cgroup.freeze", frozen ? "1" : "0");
    const wanted = `frozen ${frozen ? 1 : 0}`;
    await waitFor(`${this.path} is ${wanted}`, () => this.get("cgroup.events").includes(wanted), timeoutMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await waitFor(`${this.path} is empty`, () => this.get("cgroup.events").includes("populated 0"));
    await Deno.remove(this.path);
  }
}
