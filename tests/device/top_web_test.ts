// `dblock top --web` of disks in /dev: where reads and writes land, also of memory that the kernel copies from; a death as it
// happens; with --control and the secret a disk is resized and destroyed, and otherwise not. What the page looks like is
// interop/top_web's.
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Beginning } from "../../src/command/lookout.ts";
import type { Activity, Description, Moment } from "../../src/command/moment.ts";
import { FIELDS } from "../../src/command/page/terms.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { Running } from "./running.ts";
import { Serving } from "./serving.ts";

const SECRET = "0123456789abcdef";
const TOKEN = "/tmp/web-token";
const AUTHORIZED = { authorization: `Bearer ${SECRET}` };

/** What the page is told. */
class Stream implements AsyncDisposable {
  readonly moments: Moment[] = [];
  beginning: Beginning | undefined;
  readonly #stop = new AbortController();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #ended: Promise<void>;

  constructor(url: string) {
    this.#ended = (async () => {
      const { body } = await fetch(`${url}events`, { headers: AUTHORIZED, signal: this.#stop.signal });
      this.#reader = body!.getReader();
      const decoder = new TextDecoder();
      let text = "";
      for (let { value } = await this.#reader.read(); value !== undefined; ({ value } = await this.#reader.read())) {
        text += decoder.decode(value, { stream: true });
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const [, event, data] = /^event: (.*)\ndata: (.*)$/.exec(text.slice(0, end))!;
          text = text.slice(end + 2);
          if (event === "beginning") this.beginning = JSON.parse(data!);
          else this.moments.push(JSON.parse(data!));
        }
      }
    })().catch((error) => {
      if (!this.#stop.signal.aborted) throw error;
    });
  }

  /** A disk as it is now. */
  disk(name: string): Description | undefined {
    return this.moments.at(-1)?.disks.find((disk) => disk.name === name);
  }

  /** All that a disk did. */
  activities(name: string): Activity[] {
    return this.moments.flatMap(({ disks, activities }) => {
      const key = disks.find((disk) => disk.name === name)?.key;
      return key === undefined ? [] : activities[key]!;
    });
  }

  /** Waits until enough moments are there after now. */
  async pass(count: number): Promise<void> {
    const wanted = this.moments.length + count;
    await waitFor(`${count} moments`, () => this.moments.length >= wanted, 60_000);
  }

  happened(disk: string, text: RegExp): boolean {
    return this.moments.some(({ happenings }) => happenings.some((one) => one.disk === disk && text.test(one.text)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    // A read that waits is not always told of that.
    await this.#reader?.cancel().catch(() => {});
    await this.#ended;
  }
}

const pieces = (all: readonly Activity[], what: "reads" | "writes") => {
  const found = new Set<number>();
  for (const activity of all) [...activity[what]].forEach((letter, i) => letter !== "0" && found.add(i));
  return [...found].sort((a, b) => a - b);
};
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const number = (activity: Activity, field: typeof FIELDS[number]) => activity.numbers[FIELDS.indexOf(field)] ?? null;

async function landsWhereItWas(url: string): Promise<void> {
  await using serving = await Serving.start(
    "serve memory:256MiB --name webmem memory:256MiB --name webcode --with stats".split(" "),
  );
  await using stream = new Stream(url);
  await waitFor(
    "both disks",
    () => stream.disk("webmem") !== undefined && stream.disk("webcode") !== undefined,
    60_000,
  );
  await stream.pass(2);
  for (const name of ["webmem", "webcode"]) {
    // A piece is 1 MiB: 16 of them are written, and 8 read elsewhere.
    await sh(`dd if=/dev/zero of=/dev/${name} bs=128k seek=256 count=128 oflag=direct status=none
      dd if=/dev/${name} of=/dev/null bs=64k skip=1600 count=128 iflag=direct status=none`);
  }
  await stream.pass(3);
  for (const name of ["webmem", "webcode"]) {
    const all = stream.activities(name);
    assertEquals(stream.disk(name)!.mapAbsence, undefined, name);
    assertEquals(pieces(all, "writes"), range(32, 48), name);
    // udev may look at a disk that was closed: its beginning and its end.
    assertEquals(pieces(all, "reads").filter((piece) => piece > 3 && piece < 250), range(100, 108), name);
    assert(all.some((one) => (number(one, "p50Ms") ?? 0) > 0), `${name} has times`);
    assertEquals(stream.moments.at(-1)!.notes, []);
  }
  serving.child.kill("SIGTERM");
  assertEquals((await serving.end()).code, 0);
  await waitFor("its end is told", () => stream.happened("webmem", /^is gone/), 60_000);
}

async function tellsOfDeath(url: string): Promise<void> {
  const words = "serve /tmp/web.img?size=64MiB&raw --name webdeath --on-death hold".split(" ");
  await using serving = await Serving.start(words);
  await using stream = new Stream(url);
  await waitFor("the disk", () => stream.disk("webdeath") !== undefined, 60_000);
  await stream.pass(1);
  serving.child.kill("SIGKILL");
  await waitFor("the death is told", () => stream.happened("webdeath", /^its server has died: its I\/O waits/), 60_000);
  await waitFor("it is held", () => stream.disk("webdeath")!.state === "held", 60_000);
  assertEquals(stream.disk("webdeath")!.mapAbsence, undefined);
  await using again = await Serving.start(words);
  await waitFor(
    "its server is told",
    () => stream.happened("webdeath", new RegExp(`^process ${again.pid} serves`)),
    60_000,
  );
  again.child.kill("SIGTERM");
  assertEquals((await again.end()).code, 0);
  await sh("./dblock destroy webdeath");
}

async function controls(url: string, running: Running): Promise<void> {
  await using serving = await Serving.start("serve /tmp/webctl.img?size=64MiB&raw --name webctl".split(" "));
  await using stream = new Stream(url);
  await waitFor("the disk", () => stream.disk("webctl") !== undefined, 60_000);
  assertEquals(stream.beginning!.control, true);
  const post = async (what: string, asked: unknown, headers: Record<string, string> = AUTHORIZED) => {
    const init = { method: "POST", headers: { ...headers, "x-dblock-control": "1" }, body: JSON.stringify(asked) };
    const response = await fetch(`${url}control/${what}`, init);
    return `${response.status} ${await response.text()}`;
  };
  assertMatch(await post("destroy", { disk: "webctl" }, {}), /^401 /);
  assertMatch(await post("resize", { disk: "webctl", size: "128MiB" }), /^200 \/dev\/webctl has 128 MiB now/);
  await waitFor("its size is told", () => stream.happened("webctl", /^has 128 MiB now$/), 60_000);
  const { id } = stream.disk("webctl")!;
  assertMatch(await post("destroy", { disk: "webctl", id: id! + 1 }), /^409 /);
  {
    using _open = Deno.openSync("/dev/webctl");
    assertMatch(await post("destroy", { disk: "webctl", id }), /^409 .*in use/);
    assert(exists("/dev/webctl"));
    assertMatch(await post("destroy", { disk: "webctl", id, force: true }), /^200 \/dev\/webctl is destroyed/);
  }
  assertEquals((await serving.end()).code, 0);
  assert(!exists("/dev/webctl"));
  await waitFor(
    "the page's server says so",
    () => running.stdout.includes("/dev/webctl is destroyed, as the page asked"),
  );
}

Deno.test("dblock top --web", async (t) => {
  Deno.writeTextFileSync(TOKEN, `${SECRET}\n`, { mode: 0o600 });
  const words = ["top", "--web", "127.0.0.1:0", "--control", "--token", TOKEN];
  await using running = new Running("dblock top --web", ["./dblock", ...words]);
  await running.ready((stdout) => stdout.includes("shows all disks"));
  const url = /^(http:\S+) /.exec(running.stdout)![1]!;
  await t.step(
    "reads and writes of disks in /dev are where they were: memory, which the kernel counts, and code, which counts itself",
    () => landsWhereItWas(url),
  );
  await t.step("a disk whose server dies and comes back: the death, who serves it now, and its errors", () => {
    return tellsOfDeath(url);
  });
  await t.step(
    "with --control and the secret the page resizes and destroys; a disk that is in use only by force, and no other of its name",
    () => controls(url, running),
  );
  running.child.kill("SIGINT");
  assertEquals((await running.end()).code, 0, running.stderr);
});
