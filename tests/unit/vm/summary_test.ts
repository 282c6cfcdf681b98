import { assertEquals } from "@std/assert";
import type { FileResult } from "../../vm/device.ts";
import { figureTable, fileTable, kernelTable } from "../../vm/summary.ts";

const kernels = [{ version: "6.12", release: "6.12.1-cloud" }, { version: "7.2", release: "7.2.3-cloud" }];

function result(kernel: string, path: string, verdict: FileResult["verdict"], output = ""): FileResult {
  const counts = { passed: verdict === "pass" ? 3 : 0, failed: verdict === "fail" ? 1 : 0, skipped: 1 };
  return { kernel, path, verdict, counts, output, seconds: 1, pacedSeconds: 1, problems: [], runDir: "" };
}

const results = [
  result("6.12", "a_test.ts", "pass", "figure: races 200, longest race 1.50 s\n"),
  result("6.12", "bb_test.ts", "fail", "figure: races 1, longest race 2.25 s\n"),
  result("7.2", "a_test.ts", "skip"),
];

Deno.test("fileTable() says who did how where, and who was not there", () => {
  assertEquals(
    fileTable(["a_test.ts", "bb_test.ts"], kernels, results),
    "            6.12  7.2\na_test.ts   pass  skip\nbb_test.ts  fail  -",
  );
});

Deno.test("kernelTable() is Markdown with the sums of each kernel", () => {
  assertEquals(
    kernelTable(kernels, results),
    "| kernel | files | passed | failed | skipped |\n|---|---|---|---|---|\n" +
      "| 6.12.1-cloud | 2 | 3 | 1 | 2 |\n| 7.2.3-cloud | 1 | 0 | 0 | 1 |",
  );
});

Deno.test("figureTable() adds figures up for each kernel that has any", () => {
  assertEquals(figureTable(kernels, results), "figures on 6.12.1-cloud\n  races 201, longest race 2.25 s");
  assertEquals(figureTable(kernels, []), "");
});
