/** What the tests on a whole Debian share: units of systemd and what they say. */
import { exists, requires, sh } from "./harness.ts";

/** True on a machine with systemd, which a file asks for by `// machine: debian`. */
export function isDebian(): boolean {
  return requires("a whole Debian", exists("/run/systemd/system"));
}

/** Units of systemd that a test made; they are stopped and removed at its end, the last one first. */
export class Units implements AsyncDisposable {
  readonly #files: string[] = [];

  /** Writes a unit, "x.service" or the like, or changes one that was written. */
  async write(name: string, text: string): Promise<void> {
    const file = `/run/systemd/system/${name}`;
    if (!this.#files.includes(file)) this.#files.push(file);
    await Deno.writeTextFile(file, text);
    await sh("systemctl daemon-reload");
  }

  /** A service that serves a disk of the executable. */
  async writeRamdisk(name: string, args: string): Promise<void> {
    await this.write(
      `${name}.service`,
      `[Unit]\nDescription=the disk ${name}\n[Service]\nExecStart=/project/dblock-ramdisk --name ${name} ${args}\n`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files.reverse()) {
      await sh(`systemctl stop ${file.slice(file.lastIndexOf("/") + 1)}; rm ${file}`, { check: false });
    }
    await sh("systemctl daemon-reload; systemctl reset-failed");
  }
}

/** What systemd says about a unit: "active", "inactive", "failed", … */
export async function stateOf(unit: string): Promise<string> {
  return (await sh(`systemctl show --property=ActiveState --value '${unit}'`)).stdout.trim();
}

/** What a service printed, and what systemd says of it. */
export async function journalOf(unit: string): Promise<string> {
  return (await sh(`journalctl --unit=${unit} --output=cat --no-pager`)).stdout;
}

/** The UUID of every file system that these tests make; none is there beside another. */
export const uuid = "5d2f6a1e-3c8b-4b0e-9a67-0f1e2d3c4b5a";
