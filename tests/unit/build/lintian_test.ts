// SPDX-License-Identifier: MIT
// What `make deb` makes of lintian's end: clean only if it came to its end and had nothing to say.
import { assertEquals, assertStringIncludes } from "@std/assert";
import { runOn } from "./fake_machine.ts";

const script = Deno.readTextFileSync(new URL("../../../src/build/deb.sh", import.meta.url).pathname);
const check = `set -eu\ndeb=$(dirname "$0")\n${script.slice(script.indexOf("# It is quiet unless"))}`;

Deno.test("make deb fails if lintian finds something, and if it crashes", async () => {
  const judged = (lintian: string) => runOn({ programs: { lintian } }, check, []);
  assertEquals((await judged('echo "N: Processing"')).code, 0);
  const found = await judged('echo "W: dblock: no-such-tag"; exit 0');
  assertEquals(found.code, 1);
  assertStringIncludes(found.said, "lintian has something to say");
  const crashed = await judged('echo "Cannot open: no space" >&2; exit 255');
  assertEquals(crashed.code, 1);
  assertStringIncludes(crashed.said, "Cannot check the packages: lintian ended with status 255");
});
