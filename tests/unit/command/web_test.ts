// SPDX-License-Identifier: MIT
/** Who may have the page of `dblock top --web`, what it may load, and what it may change. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { UsageError } from "../../../src/command/cli.ts";
import { parseHttpAddress } from "../../../src/command/http.ts";
import type { DiskFigures } from "../../../src/command/figures.ts";
import { Lookout } from "../../../src/command/lookout.ts";
import { readCommandLine } from "../../../src/command/main.ts";
import type { Moment } from "../../../src/command/moment.ts";
import { serveWeb } from "../../../src/command/web.ts";
import { Meter } from "../../../src/disk/meter.ts";

const SECRET = "0123456789abcdef";
const tokenPath = await Deno.makeTempFile();
await Deno.writeTextFile(tokenPath, `${SECRET}\n`, { mode: 0o600 });
Deno.test.afterAll(() => Deno.remove(tokenPath));

/** The page of a machine without disks. */
async function page(options: { readonly control?: boolean; readonly token?: boolean } = {}) {
  const { control = false, token = control } = options;
  const address = parseHttpAddress("127.0.0.1:0");
  return await serveWeb({ address, control, ...(token ? { tokenPath } : {}) }, new Lookout(() => Promise.resolve([])));
}

async function ask(url: string, init: RequestInit = {}) {
  const response = await fetch(url, { redirect: "manual", ...init });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** By hand, as fetch() sets some headers by itself. */
async function askRaw(url: string, head: string, body = ""): Promise<string> {
  using conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const text = `${head}\r\nConnection: close\r\n\r\n${body}`;
  await conn.write(new TextEncoder().encode(text));
  return await new Response(conn.readable).text();
}

Deno.test("top --web reads its options; without a secret neither others nor --control", () => {
  for (
    const words of [
      "top --web 8080",
      "top --web unix:/x",
      "top --web 0.0.0.0:80 --token /t",
      "top --web 1 --token /t --control",
    ]
  ) {
    readCommandLine(words.split(" "));
  }
  const wrong: [string, string][] = [
    ["top --web 0.0.0.0:80", "--token FILE"],
    ["top --web 8080 --control", "--token FILE"],
    ["top --web unix:/x --control", "--token FILE"],
    ["top --token /t", "--web ADDRESS"],
    ["top --control", "--web ADDRESS"],
    ["top --web 8080 --json", "--web is a page"],
    ["top --web 8080 --count 3", "--web is a page"],
    ["top --web nowhere", "is not an address"],
  ];
  for (const [words, said] of wrong) assertThrows(() => readCommandLine(words.split(" ")), UsageError, said);
});

Deno.test("whatever the page and its scripts load is served", async () => {
  await using server = await page();
  const found = new Set([server.url]);
  for (const url of found) {
    const { status, text } = await ask(url);
    assertEquals(status, 200, url);
    for (const [, path] of text.matchAll(/(?:^import .* from |^\} from | src=| href=)"([^#"]+)"/gm)) {
      found.add(new URL(path!, url).href);
    }
  }
  assert(found.size > 10, `${found.size} files`);
});

Deno.test("every answer has the policy: scripts and styles from here only, nothing written into the page, no frames", async () => {
  await using server = await page();
  for (const path of ["", "page.ts", "page.css", "nothing", "events"]) {
    const response = await fetch(`${server.url}${path}`);
    const { headers } = response;
    await response.body?.cancel();
    const policy = headers.get("content-security-policy") ?? "";
    const directives = new Map(policy.split("; ").map((one) => [one.split(" ")[0], one.split(" ").slice(1).join(" ")]));
    assertEquals(directives.get("default-src"), "'none'", path);
    for (const name of ["script-src", "style-src", "img-src", "connect-src"]) {
      assertEquals(directives.get(name), "'self'");
    }
    for (const name of ["base-uri", "form-action", "frame-ancestors"]) assertEquals(directives.get(name), "'none'");
    assertEquals(headers.get("x-content-type-options"), "nosniff");
    assertEquals(headers.get("access-control-allow-origin"), null);
  }
});

Deno.test("the page names no other machine, and all that it names is served", async () => {
  await using server = await page();
  const { text } = await ask(server.url);
  assert(!/<script>|<style|style=|onclick|https?:/.test(text));
  const named = [...text.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, path]) => path!);
  assert(named.length >= 5);
  const waiting = [...named];
  const seen = new Set<string>();
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (seen.has(path)) continue;
    seen.add(path);
    const file = await ask(`${server.url}${path}`);
    assertEquals(file.status, 200, path);
    if (!path.endsWith(".ts")) continue;
    assertMatch(file.headers.get("content-type")!, /^text\/javascript/);
    assert(!/: (string|number)\b|^interface /m.test(file.text), `${path} has types`);
    waiting.push(...[...file.text.matchAll(/from "\.\/([^"]+)"/g)].map(([, name]) => name!));
  }
  assert(seen.has("model.ts") && seen.has("units.ts"), [...seen].join(" "));
});

Deno.test("another name for this address is refused, so that no page of somebody else's can read it", async () => {
  await using server = await page();
  const { host } = new URL(server.url);
  const ask = (name: string) => askRaw(server.url, `GET / HTTP/1.1\r\nHost: ${name}`);
  assertMatch(await askRaw(server.url, `GET / HTTP/1.1\r\nHost: ${host}`), /^HTTP\/1.1 200 /);
  for (const name of ["evil.example", `evil.example:${host.split(":")[1]}`, "127.0.0.1.evil.example"]) {
    assertMatch(await ask(name), /^HTTP\/1.1 421 /, name);
  }
});

Deno.test("with a token nothing is answered without it, not even the stream", async () => {
  await using server = await page({ token: true });
  for (const path of ["", "events", "page.ts", "control/destroy"]) {
    assertEquals((await ask(`${server.url}${path}`)).status, 401, path);
    assertEquals((await ask(`${server.url}${path}?token=${SECRET}x`)).status, 401, path);
  }
  assertEquals((await ask(server.url, { headers: { authorization: `Bearer ${SECRET}` } })).status, 200);
});

const body = JSON.stringify({ disk: "none" });
const bearer = { authorization: `Bearer ${SECRET}` };
const own = { ...bearer, "x-dblock-control": "1" };

Deno.test("without --control nothing is changed, whoever asks", async () => {
  await using server = await page({ token: true });
  for (const what of ["destroy", "resize"]) {
    const { status, text } = await ask(`${server.url}control/${what}`, { method: "POST", headers: own, body });
    assertEquals([status, text], [403, "this page only looks: it was started without --control\n"]);
  }
});

Deno.test("with --control only the page itself may ask: by POST, with its header, from its own origin", async () => {
  await using server = await page({ control: true });
  const url = `${server.url}control/destroy`;
  const origin = new URL(server.url).origin;
  const refused: [string, RequestInit][] = [
    ["GET", { headers: own }],
    ["no header", { method: "POST", headers: bearer, body }],
    ["another site", { method: "POST", headers: { ...own, "sec-fetch-site": "same-site" }, body }],
    ["another origin", { method: "POST", headers: { ...own, origin: "http://127.0.0.1:1" }, body }],
    ["no origin at all", { method: "POST", headers: { ...own, origin: "null" }, body }],
  ];
  for (const [why, init] of refused) assertEquals((await ask(url, init)).status, 403, why);
  assertEquals((await ask(url, { method: "POST", headers: { "x-dblock-control": "1" }, body })).status, 401);
  // A page of somebody else's that asks whether it may: it may not.
  const asked = await ask(url, { method: "OPTIONS", headers: { origin: "http://evil.example", ...bearer } });
  assertEquals([asked.status, asked.headers.get("access-control-allow-headers")], [403, null]);
  // The page itself gets as far as the disk, which is not there.
  const { status, text } = await ask(url, { method: "POST", headers: { ...own, origin }, body });
  assertEquals(status, 409, text);
  assertMatch(text, /^Cannot destroy \/dev\/none: /);
});

Deno.test("what is asked for is checked: nonsense, names that cannot be, sizes that cannot be, too much of it", async () => {
  await using server = await page({ control: true });
  const post = async (what: string, text: string) =>
    (await ask(`${server.url}control/${what}`, { method: "POST", headers: own, body: text })).status;
  for (
    const text of ["", "1", "{}", '{"disk":1}', '{"disk":"a","id":"x"}', '{"disk":"a","force":1}', '{"disk":"../a"}']
  ) {
    assertEquals(await post("destroy", text), 400, text);
  }
  assertEquals(await post("destroy", JSON.stringify({ disk: "a".repeat(5000) })), 400);
  for (const size of ["", "0", "1", "x"]) {
    assertEquals(await post("resize", JSON.stringify({ disk: "a", size })), 400, size);
  }
  assertEquals(await post("other", body), 404);
});

Deno.test("only GET, and no more than 64 streams", async () => {
  await using server = await page();
  assertEquals((await ask(server.url, { method: "POST" })).status, 405);
  const streams = await Promise.all(Array.from({ length: 64 }, () => fetch(`${server.url}events`)));
  assert(streams.every(({ status }) => status === 200));
  assertEquals((await ask(`${server.url}events`)).status, 503);
  await streams[0]!.body!.cancel();
  for (let tries = 0;; tries++) {
    const again = await fetch(`${server.url}events`);
    await again.body?.cancel();
    if (again.status === 200) break;
    assert(tries < 100, "a stream that ended is counted still");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  for (const { body } of streams.slice(1)) await body!.cancel();
});

Deno.test("an end of the page's server ends its streams, and no reader is cut off in a message", async () => {
  const server = await page();
  const { body } = await fetch(`${server.url}events`);
  const text = new Response(body).text();
  await server[Symbol.asyncDispose]();
  assertMatch(await text, /^event: beginning\ndata: \{.*\}\n\n/);
});

Deno.test("a server that misses a look is late, and not gone: its disk stays, and nothing is known of that second", async () => {
  const meter = new Meter();
  let isLate = false;
  const figures = (): DiskFigures[] =>
    isLate ? [] : [{ disk: "d", transport: "nbd", sizeBytes: 4096, pid: Deno.pid, meter: meter.report(), own: [] }];
  using lookout = new Lookout(() => Promise.resolve(figures()));
  const moments: Moment[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  using _watched = lookout.watch((moment) => {
    moments.push(moment);
    isLate = moments.length === 2;
    meter.addTime(meter.count("read", 0, 512, 0, 4096), 1, 1);
    if (moments.length === 4) resolve();
  });
  await promise;
  const reads = moments.map(({ disks, activities }) => activities[disks[0]!.key]!.numbers[0]);
  assertEquals([reads[0], reads[2]], [null, null]);
  // One read in the second before, two in the two seconds since.
  for (const value of [reads[1]!, reads[3]!]) assert(value > 0.5 && value < 1.5, `${reads}`);
  assertEquals(moments.flatMap(({ happenings }) => happenings), []);
});
