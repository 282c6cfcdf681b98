// SPDX-License-Identifier: MIT
/** What the tests of `dblock top --web` share: servers with a disk each, the page, and the browser that looks at it. */
import { assertEquals, assertMatch } from "@std/assert";
import { findChromium } from "./browser.ts";
import { Background } from "./tools.ts";

/** Undefined if there is none on this machine. */
export const chromium = findChromium();
/** Whether the tests that look at a page cannot run, which is said. */
export const ignore = chromium === undefined || Deno.uid() !== 0;
if (chromium === undefined) console.log("skipped: there is no chromium (apt-get install chromium)");
else if (Deno.uid() !== 0) console.log("skipped: the servers' figures are root's");

const program = new URL("../../src/command/main.ts", import.meta.url).pathname;
const deno = Deno.execPath();
const MIB = 2 ** 20;
/** What the tests of a file leave in it goes with them. */
export const dir = await Deno.makeTempDir();
Deno.test.afterAll(() => Deno.remove(dir, { recursive: true }));

/** A server with one export, which has the name of its file if it is not given one. */
export async function served(
  file: string,
  { filters = [], name = file }: { filters?: string[]; name?: string } = {},
): Promise<{ readonly server: Background; readonly uri: string }> {
  const [disk, socket] = [`${dir}/${file}.img`, `${dir}/${file}.nbd`];
  await Deno.writeFile(disk, new Uint8Array(0));
  await Deno.truncate(disk, 64 * MIB);
  const address = `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`;
  const words = ["run", "-A", "--no-check", program, "serve", `${disk}?raw`, "--nbd", address, ...filters];
  const server = new Background(deno, words);
  await server.listens(socket);
  return { server, uri: address };
}

/** `dblock top --web` at a port of its own. */
export async function topWeb(...words: string[]): Promise<AsyncDisposable & { readonly url: string }> {
  const args = ["run", "-A", "--no-check", program, "top", "--web", "127.0.0.1:0", ...words];
  const child = new Deno.Command(deno, { args, stdout: "piped", stderr: "inherit" }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  while (!said.includes("\n")) said += (await reader.read()).value ?? "\n";
  const [, url = ""] = /^(http:\/\/127\.0\.0\.1:\d+\/) shows all disks/.exec(said) ?? [];
  assertMatch(url, /^http/, said);
  return {
    url,
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      while (!(await reader.read()).done);
      assertEquals((await child.status).code, 0);
    },
  };
}

/** Where a page has a disk, and the text of an element: expressions for `Page.evaluate()`. */
export const cardOf = (name: string): string => `document.querySelector('[data-disk="${name}"]')`;
export const textOf = (selector: string): string => `document.querySelector('${selector}')?.textContent`;
