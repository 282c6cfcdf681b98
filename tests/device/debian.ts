/** What the tests on a whole Debian share: units of systemd and what they say, and dblock@NAME as the package has it. */
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

/**
 * The unit, the generator and the program where the package has them, until disposed. Only the limits are others: those of the
 * unit do not know of a machine that is emulated beside other work.
 */
export async function installUnit(): Promise<AsyncDisposable> {
  const source = "/project/src/build/systemd";
  await sh(`cp ${source}/dblock@.service /etc/systemd/system
    mkdir -p /etc/systemd/system-generators /etc/dblock
    cp ${source}/dblock-generator /etc/systemd/system-generators
    ln -sf /project/dblock /usr/bin/dblock
    mkdir -p /etc/systemd/system/dblock@.service.d
    printf '[Service]\nTimeoutStartSec=600\nTimeoutStopSec=600\nWatchdogSec=600\n' \
      >/etc/systemd/system/dblock@.service.d/emulated.conf
    systemctl daemon-reload`);
  return {
    async [Symbol.asyncDispose]() {
      await sh(
        `systemctl stop 'dblock@*.service'; systemctl reset-failed; rm -r /etc/dblock /usr/bin/dblock /etc/systemd/system/dblock@*.service.d
        rm /etc/systemd/system/dblock@.service /etc/systemd/system-generators/dblock-generator; systemctl daemon-reload`,
      );
    },
  };
}

/** What systemd says of the unit of a disk. */
export async function shown(name: string, property: string): Promise<string> {
  return (await sh(`systemctl show --property=${property} --value dblock@${name}`)).stdout.trim();
}

/** Writes the file of a disk. */
export async function write(name: string, words: string): Promise<void> {
  await Deno.writeTextFile(`/etc/dblock/${name}`, `${words}\n`);
}

/** The same, and systemd is told what a first start has to wait for. */
export async function configure(name: string, words: string): Promise<void> {
  await write(name, words);
  await sh("systemctl daemon-reload");
}

/** Changes the unit of one disk as `systemctl edit` does, until what {@linkcode installUnit} has returned is disposed. */
export async function override(name: string, ...lines: string[]): Promise<void> {
  const folder = `/etc/systemd/system/dblock@${name}.service.d`;
  await sh(`mkdir -p ${folder}`);
  // Of files with the same setting that of the last name counts.
  await Deno.writeTextFile(`${folder}/override.conf`, `[Service]\n${lines.join("\n")}\n`);
  await sh("systemctl daemon-reload");
}
