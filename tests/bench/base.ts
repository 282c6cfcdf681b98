/** An earlier state of the project, checked out beside this one, so that both are measured by the same machine. */
import { join } from "node:path";
import { buildDir, exists, makeDirOnce, projectDir, run, UserError } from "../vm/host.ts";

/** A commit whose files are in a folder. */
export interface Base {
  /** Its hash, as short as is still clear. */
  readonly commit: string;
  readonly dir: string;
}

/** The commit that a figure of results.json was true of: the last one that changed the file. */
async function recordedCommit(): Promise<string> {
  return (await git("log", "-1", "--format=%H", "--", "tests/bench/results.json")).trim();
}

/**
 * Checks out a commit under .build/.
 *
 * @param reference what git calls it, or "" for the one whose figures are recorded
 * @throws {UserError} if there is no such commit here.
 */
export async function checkOutBase(reference: string): Promise<Base> {
  const wanted = reference || await recordedCommit();
  if (wanted === "") {
    throw new UserError("Cannot compare: no commit here has tests/bench/results.json (name one: BASE=HEAD~1)");
  }
  const commit = (await git("rev-parse", "--short", `${wanted}^{commit}`)).trim();
  const dir = join(buildDir, "bench", `base-${commit}`);
  await Deno.mkdir(join(buildDir, "bench"), { recursive: true });
  await makeDirOnce(dir, async (temporaryDir) => {
    const archive = `${temporaryDir}.tar`;
    await git("archive", "--output", archive, commit);
    await run(["tar", "--extract", "--file", archive, "--directory", temporaryDir]);
    await Deno.remove(archive);
  });
  await Deno.utime(dir, new Date(), new Date());
  await forgetCheckouts(buildDir);
  return { commit, dir };
}

/** Checkouts that are kept, the one in use included: each takes 90 MB with what is built in it. */
const keptCheckouts = 2;

/** Removes the checkouts that were not used for the longest time, and their modules. */
export async function forgetCheckouts(buildDir: string): Promise<void> {
  const parent = join(buildDir, "bench");
  const names = [...Deno.readDirSync(parent)].map(({ name }) => name).filter((name) => /^base-[0-9a-f]+$/.test(name));
  const usedAt = (name: string) => Deno.statSync(join(parent, name)).mtime?.getTime() ?? 0;
  for (const name of names.toSorted((a, b) => usedAt(b) - usedAt(a)).slice(keptCheckouts)) {
    for (const path of [join(parent, name), join(parent, `${name}.lock`), join(buildDir, `kmod-${name}`)]) {
      if (exists(path)) await Deno.remove(path, { recursive: true });
    }
  }
}

async function git(...args: string[]): Promise<string> {
  return await run(["git", "-C", projectDir, ...args], {
    hint: "Comparing takes a checkout with its history, and a commit of it (BASE=HEAD~1).",
  });
}
