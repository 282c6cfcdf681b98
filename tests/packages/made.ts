/**
 * The packages and the archive of this checkout, each made once: as `make deb`, `make rpm` and `make dist` make them, but not
 * compressed.
 */
import { join } from "node:path";
import { buildProgram } from "../vm/architecture.ts";
import { listFiles, projectDir, run } from "../vm/host.ts";
import { defaultKernel } from "../vm/kernels.ts";

/** Where all of it is made. */
export const dir: string = await Deno.makeTempDir({ prefix: "packages-" });

/** What is made. */
export type Kind = "deb" | "rpm" | "dist";

/** The word of toolchain.sh for what makes it; the archive needs nothing but the host's tools. */
const TOOLS: Readonly<Record<Kind, string>> = { deb: "package", rpm: "rpm", dist: "all" };
/** How each is told not to spend time on compression. */
const COMPRESSION: Readonly<Record<Kind, string>> = { deb: "-Znone", rpm: "w0.gzdio", dist: "-1" };
/** The version in them is not that of this checkout: what has it from elsewhere is found. */
export const version = "0.0.7";

/** Why it cannot be made here: its tools are missing, and cannot be installed. Undefined: it can. */
export async function whyNot(kind: Kind): Promise<string | undefined> {
  const script = join(projectDir, "src/build/toolchain.sh");
  const { success, stderr } = await new Deno.Command(script, { args: [TOOLS[kind]] }).output();
  return success ? undefined : new TextDecoder().decode(stderr).trim().split("\n").at(-1);
}

const made = new Map<Kind, Promise<readonly string[]>>();

/**
 * Makes it, unless that is done. Fails if lintian or rpmlint has something to say.
 *
 * @returns the files that were made, logs included
 */
export function make(kind: Kind): Promise<readonly string[]> {
  const found = made.get(kind);
  if (found !== undefined) return found;
  const making = (async () => {
    const program = await buildProgram("amd64");
    const output = join(dir, kind);
    const env = { OUTPUT: output, VERSION: version, COMPRESSION: COMPRESSION[kind] };
    const more = kind === "dist" ? [defaultKernel] : [];
    await run([join(projectDir, `src/build/${kind}.sh`), program, ...more], { env });
    return listFiles(output).map((file) => join(output, file));
  })();
  made.set(kind, making);
  return making;
}
