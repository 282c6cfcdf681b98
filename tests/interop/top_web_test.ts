// SPDX-License-Identifier: MIT
// The page of `dblock top --web` in a headless Chromium: what it shows of disks that a real client reads and writes, what it
// says when one fails and when one dies, on a phone, dark and light.
// With DBLOCK_PICTURES=PREFIX, pictures are left at PREFIX-NAME.png for a person to look at.
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { DiskFigures } from "../../src/command/figures.ts";
import { type Beginning, Lookout } from "../../src/command/lookout.ts";
import type { Moment } from "../../src/command/moment.ts";
import { FIELDS } from "../../src/command/page/terms.ts";
import { serveWeb } from "../../src/command/web.ts";
import { DBLOCK_DEVICE_DIRECT, dblock_info } from "../../src/module/abi.ts";
import { inWords } from "../../src/module/info.ts";
import { decode, encode } from "../../src/system/struct.ts";
import { madeUpDisk } from "../unit/command/made_up_disk.ts";
import { Browser, type Page } from "./browser.ts";
import { Background, run } from "./tools.ts";
import { cardOf, chromium, dir, ignore, served, textOf, topWeb } from "./top_web.ts";

const MIB = 2 ** 20;

async function fio(uri: string, ...words: string[]): Promise<{ reads: number; writes: number }> {
  const args = ["--name=load", "--ioengine=nbd", `--uri=${uri}`, "--output-format=json", "--bs=4k", ...words];
  const said = await run("fio", args);
  const { jobs: [job] } = JSON.parse(said.slice(said.indexOf("{")));
  return { reads: job.read.total_ios, writes: job.write.total_ios };
}

/** A load until the end of the block: how long it takes to look at all of it is the machine's business. */
function endlessFio(uri: string, ...words: string[]): Background {
  const args = ["--name=load", "--ioengine=nbd", `--uri=${uri}`, "--bs=4k", "--time_based", "--runtime=600", ...words];
  return new Background("fio", args);
}

async function picture(page: Page, name: string, whole = false): Promise<void> {
  const prefix = Deno.env.get("DBLOCK_PICTURES");
  const bytes = await page.picture(whole);
  assert(bytes.length > 10_000, `${name} is ${bytes.length} bytes`);
  if (prefix !== undefined) await Deno.writeFile(`${prefix}-${name}.png`, bytes);
}

/** The stream of a page, as its messages. */
async function* messages(url: string): AsyncGenerator<{ event: string; data: unknown }> {
  const response = await fetch(`${url}events`);
  let text = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const [, event, data] = /^event: (.*)\ndata: (.*)$/.exec(text.slice(0, end))!;
      text = text.slice(end + 2);
      yield { event: event!, data: JSON.parse(data!) };
    }
  }
}

Deno.test({
  name: "each request of a client is in the stream, in its second, and where it was on the disk",
  ignore,
  async fn() {
    await using one = (await served("streamed")).server;
    await using top = await topWeb();
    const uri = `nbd+unix:///streamed?socket=${dir}/streamed.nbd`;
    const sums = { reads: 0, writes: 0 };
    let load: Promise<{ reads: number; writes: number }> | undefined;
    let done: { reads: number; writes: number } | undefined;
    let more = 3;
    const pieces = new Set<number>();
    let beforeMs = NaN;
    for await (const { event, data } of messages(top.url)) {
      if (event === "beginning") {
        assertEquals((data as Beginning).control, false);
        continue;
      }
      const { timeMs, disks, activities } = data as Moment;
      const key = disks.find(({ name }) => name === "streamed")?.key;
      if (key === undefined) continue;
      const { numbers, reads, writes } = activities[key]!;
      const seconds = (timeMs - beforeMs) / 1000;
      beforeMs = timeMs;
      if (load === undefined) {
        if (numbers[0] === null) continue;
        load = fio(uri, "--rw=randrw", "--offset=16M", "--size=8M", "--number_ios=2000", "--iodepth=4");
        void load.then((result) => done = result);
      }
      for (const field of ["reads", "writes"] as const) sums[field] += numbers[FIELDS.indexOf(field)]! * seconds;
      for (const letters of [reads, writes]) [...letters].forEach((letter, i) => letter !== "0" && pieces.add(i));
      if (done !== undefined && more-- === 0) break;
    }
    const { reads, writes } = await load!;
    // Seconds are measured by another clock than the page's, and numbers have three digits.
    for (const [is, shall] of [[sums.reads, reads], [sums.writes, writes]] as const) {
      assert(Math.abs(is - shall) < shall * 0.02, `${is} of ${shall}`);
    }
    // 16 to 24 MiB of 64; fio may look at the disk's beginning.
    for (let piece = 64; piece < 96; piece++) assert(pieces.has(piece), `piece ${piece}`);
    assertEquals([...pieces].filter((piece) => piece > 0 && (piece < 64 || piece >= 96)), []);
    assert(one.pid > 0);
  },
});

Deno.test({
  name: "a server that is stopped holds up no other: it is said, and its disk comes back",
  ignore,
  async fn() {
    const stopped = (await served("stopped")).server;
    await using _stopped = stopped;
    await using _running = (await served("running")).server;
    await using top = await topWeb();
    const told: string[] = [];
    let looks = 0;
    for await (const { event, data } of messages(top.url)) {
      if (event === "beginning") continue;
      const { disks, happenings } = data as Moment;
      assert(looks === 0 || disks.some(({ name }) => name === "running"), "the other one is there at each look");
      // On a busy machine a look may miss both: what has not been seen is not missed.
      if (looks === 0 && disks.length < 2) continue;
      if (looks > 0) told.push(...happenings.filter(({ disk }) => disk === "stopped").map(({ text }) => text));
      if (++looks === 1) Deno.kill(stopped.pid, "SIGSTOP");
      if (told.length === 1) Deno.kill(stopped.pid, "SIGCONT");
      if (told.length === 2) break;
      assert(looks < 60, `nothing more is said: ${told.join("; ")}`);
    }
    assertEquals(told[0], `is gone, or process ${stopped.pid} does not answer`);
    assertMatch(told[1]!, /^is there: 64 MiB/);
  },
});

Deno.test({
  name:
    "the page shows disks at work, an error, and a death; dark, light, on a phone; and loads nothing from elsewhere",
  ignore,
  async fn() {
    const busy = await served("database");
    await using _busy = busy.server;
    const faulty = await served("old-disk", {
      filters: ["--with", "fault=operations=read,errno=EIO,after=400,times=3"],
    });
    await using _faulty = faulty.server;
    const slow = await served("archive", { filters: ["--with", "delay=read=2ms,jitter=3ms"] });
    await using _slow = slow.server;
    const dying = await served("scratch");
    await using _dying = dying.server;
    await using top = await topWeb();
    await using browser = await Browser.start(chromium!);
    const page = await browser.open();
    await page.size(1440, 1000);
    await page.prefer("light");
    await page.go(top.url);
    await page.until(`${textOf("#live")} === "live"`);
    await page.until(`document.querySelectorAll(".disk").length >= 4`);

    // Work to see: a hot region, a scan through the whole disk, and a slow disk.
    await using loads = new AsyncDisposableStack();
    const load = (uri: string, ...words: string[]) => void loads.use(endlessFio(uri, ...words));
    load(busy.uri, "--rw=randrw", "--rwmixread=70", "--offset=40M", "--size=6M", "--rate_iops=900,400");
    load(busy.uri, "--rw=read", "--bs=64k", "--size=64M", "--rate=4m", "--thinktime=1ms");
    load(slow.uri, "--rw=randread", "--size=64M", "--iodepth=8");
    load(dying.uri, "--rw=write", "--size=64M", "--rate=3m"); // its disk dies
    load(faulty.uri, "--rw=randread", "--size=64M", "--rate_iops=60", "--continue_on_error=read"); // it has errors
    const row = (name: string, field: string) =>
      `[...document.querySelectorAll("#rows tr")].find((row) => row.cells[0].textContent === "${name}").querySelector("td.${field}").textContent`;
    await page.until(`Number.parseInt(${row("database", "reads")}.replace(",", "")) > 300`);
    await page.until(`/ms|µs/.test(${row("database", "p99Ms")})`);
    assertMatch(await page.evaluate(textOf("#requests")), /^[\d,.]+ k? ?requests\/s$/);
    assertMatch(await page.evaluate(textOf("#bytes")), /^[\d.]+ [KM]iB\/s$/);

    // An error, and then a death, are told as they happen.
    await page.until(`/reads? failed: EIO/.test(${textOf("#list")})`);
    assertEquals(await page.evaluate(`document.querySelector("#list li.error b").textContent`), "old-disk");
    await page.until(`/^[1-3] errors?$/.test(${textOf("#alarm")})`);
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    await dying.server.kill("KILL");
    await page.until(`document.querySelector("#list li.death") !== null`);
    assertMatch(
      await page.evaluate(textOf("#list li.death")),
      /scratch.*is gone: process \d+, which served it, has died/,
    );
    assertEquals(await page.evaluate(textOf("#alarm")), "1 death, 3 errors");
    assertEquals(await page.evaluate(`${cardOf("scratch")} === null`), true);

    // The map has the hot region; the canvas is painted there and not above it.
    assertMatch(
      await page.evaluate(`${cardOf("database")}.querySelector(".focus").textContent`),
      /% of it was between (3[89]|4\d)(\.\d+)? MiB and (4\d|5[0-9])(\.\d+)? MiB/,
    );
    const bright = await page.evaluate<Record<string, number>>(`(() => {
      const canvas = ${cardOf("database")}.querySelector(".map canvas");
      const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      context.drawImage(canvas, 0, 0);
      const dots = (from, to) => {
        // The plot ends above the times and has the offsets at its left.
        const [top, bottom] = [8 * devicePixelRatio, canvas.height - 24 * devicePixelRatio];
        const y = bottom - (bottom - top) * to / 64, h = (bottom - top) * (to - from) / 64;
        const { data } = context.getImageData(canvas.width * 0.85, y, canvas.width * 0.12, h);
        let count = 0;
        for (let i = 0; i < data.length; i += 4) if (Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 60) count++;
        return count / (data.length / 4);
      };
      return { hot: dots(41, 45), cold: dots(50, 60) };
    })()`);
    assert(bright["hot"]! > 3 * bright["cold"]! && bright["hot"]! > 0.1, JSON.stringify(bright));

    const background = async () => await page.evaluate<string>(`getComputedStyle(document.body).backgroundColor`);
    const light = await background();
    await picture(page, "light");
    await page.evaluate(`${cardOf("database")}.scrollIntoView()`);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await picture(page, "light-disk");
    await page.evaluate(`scrollTo(0, 0)`);
    await page.prefer("dark");
    await page.until(`getComputedStyle(document.body).backgroundColor !== "${light}"`);
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    await picture(page, "dark");
    await page.size(390, 844, true);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    assertEquals(await page.evaluate(`document.documentElement.scrollWidth <= innerWidth`), true, "it fits on a phone");
    await picture(page, "phone-dark");
    await page.evaluate(`${cardOf("database")}.scrollIntoView()`);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await picture(page, "phone-dark-disk");
    await page.prefer("light");
    await page.evaluate(`scrollTo(0, 0)`);
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    await picture(page, "phone-light");
    // The button goes round: dark, whatever the system prefers.
    await page.evaluate(`document.querySelector("#theme").click()`);
    assertEquals(await page.evaluate(`document.documentElement.dataset.theme`), "dark");
    await page.until(`getComputedStyle(document.body).backgroundColor !== "${light}"`);

    assertEquals(page.complaints, []);
    assertEquals(page.asked.filter((url) => !url.startsWith(top.url)), []);
    assert(page.asked.length >= 10, page.asked.join(" "));
  },
});

Deno.test({
  name: "a hundred disks each have their card, and the page goes on to show what is new",
  ignore,
  async fn() {
    // What is measured is the page: the disks are made up, and cost the server nothing.
    const names = Array.from({ length: 100 }, (_, i) => `disk${i}`);
    let looks = 0;
    const lookout = new Lookout(() => {
      looks++;
      return Promise.resolve(names.map((name) => madeUpDisk({ name, size_bytes: 64 * MIB })));
    });
    const address = { transport: "tcp", hostname: "127.0.0.1", port: 0 } as const;
    await using server = await serveWeb({ address, control: false }, lookout);
    await using browser = await Browser.start(chromium!);
    const page = await browser.open();
    await page.size(1000, 800);
    await page.go(server.url);
    await page.until(`document.querySelectorAll("[data-disk]").length === 100`);
    const shown = await page.evaluate(
      `[...document.querySelectorAll("[data-disk]")].map((one) => one.dataset.disk).join()`,
    );
    assertEquals(`${shown}`.split(",").sort(), names.toSorted());
    names.splice(50, 1);
    const before = looks;
    // One is gone, and one has come: both are seen although a hundred are drawn each second.
    names.push("newcomer");
    await page.until(`${cardOf("newcomer")} !== null`);
    assert(looks - before <= 5, `it took ${looks - before} looks until a new disk was shown`);
    assertEquals(page.complaints, []);
  },
});

Deno.test({
  name: "a disk without a map says so in words; buttons ask before they change a disk, and say why it was refused",
  ignore,
  async fn() {
    // No module can be loaded here: the disk is made up, and all that shows it is real. device/top_web has real ones.
    const fields = { name: "ramdisk", size_bytes: 64 * MIB, queue_count: 2, queue_depth: 64, state: 2, server_pid: 42 };
    const module = inWords(decode(dblock_info, encode(dblock_info, { ...fields, flags: DBLOCK_DEVICE_DIRECT })));
    const disk: DiskFigures = {
      disk: "ramdisk",
      transport: "dblock.ko",
      sizeBytes: 64 * MIB,
      path: "/dev/ramdisk",
      module,
      own: [],
    };
    const tokenPath = `${dir}/token-of-buttons`;
    await Deno.writeTextFile(tokenPath, "0123456789abcdef\n", { mode: 0o600 });
    const address = { transport: "tcp", hostname: "127.0.0.1", port: 0 } as const;
    await using server = await serveWeb(
      { address, tokenPath, control: true },
      new Lookout(() => Promise.resolve([disk])),
    );
    await using browser = await Browser.start(chromium!);
    const page = await browser.open();
    await page.size(1000, 800);
    await page.prefer("light");
    await page.go(`${server.url}?token=0123456789abcdef`);
    await page.until(`${cardOf("ramdisk")} !== null`);
    assertMatch(
      await page.evaluate(`${cardOf("ramdisk")}.querySelector(".absence").textContent`),
      /^There is no map of this disk\./,
    );
    assertEquals(await page.evaluate(`${cardOf("ramdisk")}.querySelectorAll(".map canvas").length`), 0);
    const click = async (text: string, within = "document") =>
      await page.evaluate(
        `[...${within}.querySelectorAll("button")].find((one) => one.textContent === "${text}").click()`,
      );
    const dialog = 'document.querySelector("dialog")';
    await click("Destroy…");
    assertMatch(await page.evaluate(`${dialog}.innerText`), /^Destroy \/dev\/ramdisk\?/);
    assertEquals(await page.evaluate("document.activeElement.textContent"), "Cancel");
    await picture(page, "destroy");
    await click("Cancel", dialog);
    await page.until(`${dialog} === null`);
    await click("Destroy…");
    await click("Destroy", dialog);
    await page.until(
      `/^Cannot destroy \\/dev\\/ramdisk: /.test(document.querySelector("dialog .refused").textContent)`,
    );
    await page.evaluate(`${dialog}.close()`);
    // A dialog that is closed is taken away by its event, which comes later.
    await page.until(`${dialog} === null`);
    await click("Resize…");
    assertEquals(await page.evaluate(`${dialog}.querySelector("input").value`), "64MiB");
    await page.evaluate(`${dialog}.querySelector("input").value = "1"`);
    await click("Resize", dialog);
    await page.until(`/not a multiple of 512/.test(document.querySelector("dialog .refused").textContent)`);
    assertEquals(page.complaints.filter((one) => !/status of 4\d\d/.test(one)), []);
  },
});
