import { join } from "node:path";
import { run } from "./host.ts";
import { pacePort } from "./pace.ts";

/** The way of {@linkcode VmOptions.tellsPace} into the VM: a pipe that is a port there. */
export class PacePipe implements Disposable {
  readonly #file: Deno.FsFile;
  #isWriting = false;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  static async make(runDir: string): Promise<PacePipe> {
    // QEMU wants two, one for each direction.
    await run(["mkfifo", join(runDir, `${pacePort}.in`), join(runDir, `${pacePort}.out`)]);
    // Open for both, so that neither this nor QEMU waits for the other.
    return new PacePipe(await Deno.open(join(runDir, `${pacePort}.in`), { read: true, write: true }));
  }

  static qemuArgs(runDir: string): string[] {
    return [
      ...["-chardev", `pipe,id=${pacePort},path=${join(runDir, pacePort)}`],
      ...["-device", `virtserialport,chardev=${pacePort},name=${pacePort}`],
    ];
  }

  /** Writes a line, unless the VM has not read those before. */
  tell(slowness: number): void {
    if (this.#isWriting) return;
    this.#isWriting = true;
    const done = () => this.#isWriting = false;
    this.#file.write(new TextEncoder().encode(`${slowness.toFixed(2)}\n`)).then(done, done);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
