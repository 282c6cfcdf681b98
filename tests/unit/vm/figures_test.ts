import { assertEquals, assertThrows } from "@std/assert";
import { addFigures, type Figure, figureLine, formatFigure, parseFigures } from "../../vm/figures.ts";

const kills: Figure = new Map([
  ["kills under load", { value: 20, unit: "" }],
  ["acknowledged writes lost", { value: 0, unit: "" }],
]);
const destroys = (count: number, seconds: number): Figure =>
  new Map([["force destroys", { value: count, unit: "" }], ["longest", { value: count, unit: "" }], [
    "longest wait",
    { value: seconds, unit: "s" },
  ]]);

Deno.test("a figure's line is found among others and read as it was written", () => {
  const line = figureLine(kills);
  assertEquals(line, "figure: kills under load 20, acknowledged writes lost 0");
  const output = `running 1 test\n${line}\nok | 1 passed | 0 failed\n${figureLine(destroys(1, 1.25))}\n`;
  assertEquals(parseFigures(output), [kills, destroys(1, 1.25)]);
  assertEquals(parseFigures("no figure: here 1"), []);
});

Deno.test("a line that claims to be a figure and is none is an error", () => {
  assertThrows(() => parseFigures("figure: nothing in particular"), Error, "nothing in particular");
});

Deno.test("a ratio is printed and read with its fraction", () => {
  const sleeps: Figure = new Map([["sleeps", { value: 0.25, unit: "/request" }]]);
  assertEquals(figureLine(sleeps), "figure: sleeps 0.25 /request");
  assertEquals(parseFigures(figureLine(sleeps)), [sleeps]);
});

Deno.test("of what has a unit the largest is kept, as of counts that say so; counts and amounts of data are added", () => {
  const round = (ratio: number, ms: number, gib: number, devices: number): Figure =>
    new Map([
      ["sleeps", { value: ratio, unit: "/request" }],
      ["CPU time of an idle server", { value: ms, unit: "ms" }],
      ["verified I/O", { value: gib, unit: "GiB" }],
      ["most devices at once", { value: devices, unit: "" }],
      ["mostly harmless calls", { value: devices, unit: "" }],
    ]);
  assertEquals(
    addFigures([round(0.25, 30, 1, 1000), round(1, 10, 0.5, 250), round(0.5, 20, 1, 1000)]).map(formatFigure),
    [
      "sleeps 1.00 /request, CPU time of an idle server 30.00 ms, verified I/O 2.50 GiB, most devices at once 1000, " +
      "mostly harmless calls 2250",
    ],
  );
});

Deno.test("figures of one kind become one: counts are added, of the longest the longest is kept", () => {
  const sum = addFigures([destroys(1, 2), kills, destroys(1, 4.5), destroys(3, 1), kills]);
  assertEquals(sum.map(formatFigure), [
    "force destroys 5, longest 5, longest wait 4.50 s",
    "kills under load 40, acknowledged writes lost 0",
  ]);
});
