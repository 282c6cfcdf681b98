/** An earlier state of the project, checked out beside this one, so that both are measured by the same machine. */
import { join } from "node:path";
import { buildDir, makeDirOnce, projectDir, run, UserError } from "../vm/host.ts";

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
  return { commit, dir };
}

async function git(...args: string[]): Promise<string> {
  return await run(["git", "-C", projectDir, ...args], {
    hint: "Comparing takes a checkout with its history, and a commit of it (BASE=HEAD~1).",
  });
}
