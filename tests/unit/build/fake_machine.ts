// SPDX-License-Identifier: MIT
/** A machine that is a folder: scripts of the packages run there, with programs that only say that they were called. */

/** What the machine has. */
export interface FakeMachine {
  /** Where files are, with what is in them. */
  readonly files?: Readonly<Record<string, string>>;
  /** Programs by name, each with the shell commands that it is: "" does nothing. */
  readonly programs?: Readonly<Record<string, string>>;
}

/** How a script ended. */
export interface Ran {
  readonly code: number;
  /** The lines that programs and script printed. */
  readonly did: string[];
  /** What it said on standard error. */
  readonly said: string;
  /** Files of the machine that are there afterwards. */
  readonly left: string[];
}

/** The folders of a machine that scripts name. */
const FOLDERS = /(?<![\w}])\/(sys|proc|run|dev|etc|lib|var|usr\/lib|usr\/src)\/(?!null)/g;

/**
 * Runs a script on such a machine, as root.
 *
 * @param path where the script is on the machine, as `$0` says
 */
export async function runOn(
  { files = {}, programs = {} }: FakeMachine,
  script: string,
  args: readonly string[],
  path = "/script",
): Promise<Ran> {
  const root = await Deno.makeTempDir();
  const put = async (at: string, text: string, mode = 0o644) => {
    await Deno.mkdir(root + at.slice(0, at.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(root + at, text);
    await Deno.chmod(root + at, mode);
  };
  for (const [at, text] of Object.entries(files)) await put(at, text);
  for (const [name, commands] of Object.entries({ id: "echo 0", ...programs })) {
    await put(`/fake/${name}`, `#!/bin/sh\n${commands.replace(FOLDERS, `${root}$&`)}\n`, 0o755);
  }
  await put(path, script.replace(FOLDERS, `${root}$&`), 0o755);
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: [root + path, ...args],
    env: { PATH: `${root}/fake:/usr/bin:/bin` },
  }).output();
  const found = await new Deno.Command("find", {
    args: [root, "-not", "-type", "d", "-not", "-path", `${root}/fake/*`, "-printf", "/%P\n"],
  }).output();
  await Deno.remove(root, { recursive: true });
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replaceAll(root, "");
  const lines = (bytes: Uint8Array) => text(bytes).split("\n").slice(0, -1);
  return { code, did: lines(stdout), said: text(stderr), left: lines(found.stdout).sort() };
}
