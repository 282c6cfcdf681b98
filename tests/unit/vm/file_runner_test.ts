/** The runner of device test files, on files of its own: it counts as `deno test` does, whose summary the harness reads. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { parseTestSummary } from "../../vm/report.ts";

const root = new URL("../../../", import.meta.url).pathname;

async function run(file: string, filter = ""): Promise<{ code: number; output: string }> {
  const args = ["run", "-A", "--no-check", "--quiet", "tests/vm/file_runner.ts", file, filter];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: root }).output();
  return { code, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

async function runSource(source: string, filter?: string): Promise<{ code: number; output: string }> {
  const file = await Deno.makeTempFile({ suffix: "_test.ts" });
  await Deno.writeTextFile(file, source);
  try {
    return await run(file, filter);
  } finally {
    await Deno.remove(file);
  }
}

Deno.test("the runner counts tests, and a step that fails fails its test after the others", async () => {
  const { code, output } = await run("tests/vm/fixtures/steps_test.ts");
  assertEquals([code, parseTestSummary(output)], [1, { passed: 1, failed: 1, skipped: 1 }], output);
  assertMatch(output, /^ {2}a step \.\.\. ok \(\d+\.\ds\)$/m);
  assertMatch(
    output,
    /not now[^]*^ {2}a step that fails \.\.\. FAILED[^]*^ {2}a step that is skipped \.\.\. ignored$/m,
  );
});

Deno.test("the runner's filter is a part of a name, or a regular expression", async () => {
  const source = ["one", "two", "three"].map((name) => `Deno.test("${name}", () => {});`).join("\n");
  const passed = async (filter: string) => parseTestSummary((await runSource(source, filter)).output)?.passed;
  assertEquals([await passed(""), await passed("t"), await passed("/^t.o$/"), await passed("four")], [3, 2, 1, 0]);
});

Deno.test("what fails outside of a test leaves no summary: the file has failed", async () => {
  const sources = [
    `Deno.test("a", () => {}); throw new Error("at import");`,
    `Deno.test("a", async () => { void Promise.reject(new Error("nobody waits")); await new Promise((r) => setTimeout(r, 50)); });`,
    `Deno.test("a", () => Deno.exit(0));`,
    `Deno.test("a", async () => { await new Promise(() => {}); });`,
  ];
  for (const source of sources) {
    const { output } = await runSource(source);
    assertEquals(parseTestSummary(output), undefined, `${source}: ${output}`);
  }
  assertStringIncludes((await runSource(sources[1]!)).output, "nobody waits");
});
