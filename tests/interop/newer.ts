// SPDX-License-Identifier: MIT
/**
 * A newer libnbd than this machine's Debian has, unpacked in a folder: its nbdsh speaks extended headers. Nothing is installed.
 */
import { join } from "node:path";
import { debianTree } from "../vm/debian.ts";
import { run } from "./tools.ts";

const SUITE = "trixie";

/** Runs a script of nbdsh, with `h` a handle that is not connected. @returns what it printed */
export async function newerNbdsh(script: string): Promise<string> {
  const tree = await debianTree(`nbd-${SUITE}`, [SUITE], ["python3-libnbd"], "amd64");
  // The tree's own loader, for its own libraries: the machine's are older.
  const libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib"].map((folder) => join(tree, folder)).join(":");
  const python = [...Deno.readDirSync(join(tree, "usr/bin"))].find(({ name }) => /^python3\.\d+$/.test(name))!.name;
  const loader = join(tree, "usr/lib64/ld-linux-x86-64.so.2");
  return await run(
    loader,
    ["--library-path", libraries, join(tree, "usr/bin", python), "-m", "nbd", "-c", script],
    { PYTHONHOME: join(tree, "usr"), PYTHONPATH: join(tree, "usr/lib/python3/dist-packages") },
  );
}
