/** What is installed below a folder, by what it is: formats of packages have their own places for the same file, and compress some. */
import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { join } from "node:path";
import { listFiles } from "../vm/host.ts";

/** Where formats put the same thing: from the beginning of a path to that of the name it has here. */
const PLACES: readonly (readonly [RegExp, string])[] = [
  [/^lib\//, "usr/lib/"],
  [/^etc\/(systemd|udev)\//, "usr/lib/$1/"],
  [/^usr\/share\/zsh\/(vendor-completions|site-functions)\//, "usr/share/zsh/"],
  [/^usr\/src\/dblock-[^/]+\//, "module/"],
];

/** Each file: its mode and a hash of its content. A link is what it leads to, as it may be a copy elsewhere. */
export function partsIn(root: string): Map<string, string> {
  return new Map(
    listFiles(root).map((path) => {
      const isCompressed = path.startsWith("usr/share/") && path.endsWith(".gz");
      const plain = isCompressed ? path.slice(0, -".gz".length) : path;
      const name = PLACES.reduce((text, [place, instead]) => text.replace(place, instead), plain);
      return [name, sumOf(join(root, path), isCompressed)];
    }),
  );
}

/** The mode of a file, and a hash of what is in it. */
export function sumOf(path: string, isCompressed = false): string {
  const { mode } = Deno.statSync(path);
  const bytes = Deno.readFileSync(path);
  const sum = createHash("sha256").update(isCompressed ? gunzipSync(bytes) : bytes).digest("hex");
  return `${(mode! & 0o777).toString(8)} ${sum.slice(0, 16)}`;
}
