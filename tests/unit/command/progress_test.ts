// SPDX-License-Identifier: MIT
/** The line of a wait: when it comes, what it may contain, and that nothing of it stays. A real terminal: device/progress. */
import { assertEquals, assertMatch } from "@std/assert";
import { eraseProgress, Progress, type Screen } from "../../../src/command/progress.ts";

/** A terminal, and what a person sees in its line. */
class Line implements Screen {
  readonly columns = 30;
  said = "";
  write = (text: string) => void (this.said += text);

  get shown(): string {
    return this.said.split("\x1b[K").at(-1)!.replaceAll("\r", "");
  }
}

const seconds = (count: number) => new Promise((resolve) => setTimeout(resolve, count * 1_000));

Deno.test("Progress: nothing is said of what takes no second", async () => {
  const line = new Line();
  {
    using progress = new Progress("opening a", line);
    await seconds(0.5);
    progress.say("opening b");
  }
  assertEquals(line.said, "");
});

Deno.test("Progress: a line comes after a second, makes way for others, and is gone at the end", async () => {
  const line = new Line();
  {
    using _progress = new Progress("opening a", line);
    await seconds(1.2);
    assertEquals(line.shown, "opening a (1 s)");
    assertMatch(line.said, /\r$/, "what another one writes begins at the beginning of the line");
    eraseProgress();
    assertEquals(line.shown, "");
    await seconds(1);
    assertEquals(line.shown, "opening a (2 s)");
  }
  assertEquals(line.shown, "");
  assertMatch(line.said, /^[^\n]*$/);
  const { said } = line;
  await seconds(1.1);
  assertEquals(line.said, said);
});

Deno.test("Progress: the seconds are those of what is waited for now; it fits into its line; a path's escapes do nothing", async () => {
  const line = new Line();
  let text = "";
  using _progress = new Progress(() => text, line);
  await seconds(1.2);
  assertEquals(line.said, "");
  text = "copying \x1b[2J to a disk whose name is long";
  await seconds(1);
  assertEquals(line.shown, "copying ?[2J to a disk whose ");
});

Deno.test("Progress: without a terminal nothing is written, and no timer is left", () => {
  using progress = new Progress("opening a", null);
  progress.say("opening b");
  eraseProgress();
});
