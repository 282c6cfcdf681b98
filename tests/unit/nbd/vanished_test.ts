// SPDX-License-Identifier: MIT
// A server's machine that is gone without a word, and one that is there and takes nothing: two things to a client.
import { assertEquals } from "@std/assert";
import { makeCertificates } from "./certificates.ts";

const LIMIT_S = 20;

/** Runs vanished_main.ts in a network of its own. Returns what it prints. */
async function run(...args: string[]): Promise<string> {
  const main = new URL("vanished_main.ts", import.meta.url).pathname;
  const command = ["timeout", String(LIMIT_S), Deno.execPath(), "run", "-A", "--no-check", main, ...args];
  const script = ["sh", "-c", 'ip link set lo up; exec "$@"', "sh"];
  const { stdout, stderr } = await new Deno.Command("unshare", { args: ["-rn", ...script, ...command] }).output();
  return (new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr)).trim();
}

/** Whether this user may make networks. */
const isAble = await new Deno.Command("unshare", { args: ["-rn", "ip", "link", "set", "lo", "up"] }).output()
  .then(({ success }) => success, () => false);

Deno.test({
  name:
    "NbdBackend: requests to a machine that has vanished fail after reconnectTimeoutMs; one that takes nothing is waited for",
  ignore: !isAble,
  async fn() {
    const dir = await Deno.makeTempDir();
    await makeCertificates(dir);
    const runs = [["acknowledged"], ["sent"], ["sent", dir], ["stalled"]];
    const printed = await Promise.all(runs.map((args) => run(...args)));
    await Deno.remove(dir, { recursive: true });
    // Whether the kernel notices it or we do, the words are not the same.
    const outcomes = printed.map((line) =>
      line.replace(/ \S+, export "disk": .*; requests wait 0.5 s for it$/, " requests wait")
    );
    const lost = "ENOLINK true requests wait";
    assertEquals(outcomes, [lost, lost, lost, "done true 0"]);
  },
});
