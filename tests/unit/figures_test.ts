import { assertEquals, assertThrows } from "@std/assert";
import { addFigures, type Figure, figureLine, formatFigure, parseFigures } from "../vm/figures.ts";

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

Deno.test("figures of one kind become one: counts are added, of the longest the longest is kept", () => {
  const sum = addFigures([destroys(1, 2), kills, destroys(1, 4.5), destroys(3, 1), kills]);
  assertEquals(sum.map(formatFigure), [
    "force destroys 5, longest 5, longest wait 4.50 s",
    "kills under load 40, acknowledged writes lost 0",
  ]);
});
