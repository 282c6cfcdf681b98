/**
 * One file from one program: made once from a small program whose source is deleted before it runs. The same tests hold
 * for both ways of making it. Not covered: kernels and C libraries other than this machine's.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";

const BUILDER = new URL("../../../src/build/executable.ts", import.meta.url).pathname;
const DENO = new URL("../../../src/build/deno.sh", import.meta.url).pathname;

const PROGRAM = {
  "main.ts": `
    import { parseArgs } from "@std/cli";
    import { ask } from "./lib/ask.ts";
    const { mode } = parseArgs(Deno.args, { string: ["mode"] });
    if (mode === "exit") Deno.exit(7);
    if (mode === "throw") throw new Error("thrown on purpose");
    if (mode === "wait") {
      Deno.addSignalListener("SIGTERM", () => { console.log("got SIGTERM"); Deno.exit(0); });
      console.log("waiting");
      setInterval(() => {}, 1_000);
    } else if (mode === "again") {
      const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["--help"] }).output();
      console.log(new TextDecoder().decode(stdout).trim());
    } else if (mode === "module") {
      const [{ SourceTextModule }, { stripTypeScriptTypes }] = await Promise.all([import("node:vm"), import("node:module")]);
      const module = new SourceTextModule(stripTypeScriptTypes("export const one: number = 1;"));
      await module.link(() => {});
      await module.evaluate();
      console.log(module.namespace.one);
    } else if (mode === "worker") {
      console.log(await ask(new URL("./backend.ts", import.meta.url)));
    } else {
      const libc = Deno.dlopen("libc.so.6", { getpid: { parameters: [], result: "i32" } });
      console.log(JSON.stringify({
        args: Deno.args,
        main: import.meta.main,
        ffi: libc.symbols.getpid() === Deno.pid,
        env: Deno.env.toObject(),
        cwd: mode === "cwd" ? "" : Deno.cwd(),
        exec: Deno.execPath(),
        standalone: Deno.build.standalone || Deno.mainModule.startsWith("file:///proc/self/fd/"),
        cmdline: Deno.readTextFileSync("/proc/self/cmdline").split("\\0"),
        comm: Deno.readTextFileSync("/proc/self/comm").trim(),
      }));
    }`,
  "lib/ask.ts": `
    export async function ask(backend: URL): Promise<string> {
      const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
      const answer = new Promise<string>((resolve) => worker.onmessage = (event) => resolve(event.data));
      worker.postMessage(backend.href);
      try { return await answer; } finally { worker.terminate(); }
    }`,
  "lib/worker.ts": `
    self.onmessage = async (event: MessageEvent) => {
      const backend = await import(event.data);
      self.postMessage("worker has " + backend.name);
    };`,
  "backend.ts": `export const name = "the backend";`,
};

let made: Promise<{ dir: string; executable: string; line: string }> | undefined;

/** The executable, made once; its source is gone. */
function executable(): Promise<{ dir: string; executable: string; line: string }> {
  return made ??= (async () => {
    const dir = Deno.makeTempDirSync({ prefix: "dblock-executable-" });
    globalThis.addEventListener("unload", () => Deno.removeSync(dir, { recursive: true }));
    const source = writeProgram(join(dir, "source"));
    const { code, stdout, stderr } = await run(DENO, ["run", "-A", BUILDER, "--output", join(dir, "prog"), source]);
    assertEquals(code, 0, stderr);
    Deno.removeSync(join(dir, "source"), { recursive: true });
    return { dir, executable: join(dir, "prog"), line: stdout };
  })();
}

function writeProgram(dir: string): string {
  Deno.mkdirSync(join(dir, "lib"), { recursive: true });
  for (const [name, text] of Object.entries(PROGRAM)) Deno.writeTextFileSync(join(dir, name), text);
  return join(dir, "main.ts");
}

interface Result {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(command: string, args: readonly string[], options: Deno.CommandOptions = {}): Promise<Result> {
  const output = await new Deno.Command(command, { ...options, args: [...args] }).output();
  const decoder = new TextDecoder();
  const { code, signal } = output;
  return { code, signal, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
}

async function report(args: readonly string[], options: Deno.CommandOptions = {}, command?: string) {
  const { code, stdout, stderr } = await run(command ?? (await executable()).executable, args, options);
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout);
}

Deno.test("the build says in one line which way it took", async () => {
  assertMatch(
    (await executable()).line,
    /^executable: \S+ \(\d+ MiB\), made (by deno compile|from Deno's own binary) .*\n$/,
  );
});

Deno.test("an executable gets the user's arguments unchanged", async () => {
  const args = ["--help", "--version", "-d", "--allow-none", "-A", "--", "--", "", "a b", "ü"];
  const seen = await report(args);
  assertEquals(seen.args, args);
  assertEquals([seen.main, seen.ffi, seen.standalone], [true, true, true]);
  assertEquals((await report([])).args, []);
});

Deno.test("an executable shows in ps as what the user typed", async () => {
  const { executable: path } = await executable();
  const { cmdline, comm } = await report(["--size", "1"]);
  assertEquals([cmdline, comm], [[path, "--size", "1", ""], "prog"]);
});

Deno.test("an executable passes exit codes and errors on", async () => {
  const { executable: path } = await executable();
  assertEquals((await run(path, ["--mode", "exit"])).code, 7);
  const { code, stderr } = await run(path, ["--mode", "throw"]);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "thrown on purpose");
});

Deno.test("an executable says nothing on a terminal that the program does not say", async () => {
  const { executable: path } = await executable();
  const onTerminal = (mode: string) => run("script", ["-qec", `${path} --mode ${mode}`, "/dev/null"]);
  assertEquals((await onTerminal("worker")).stdout, "worker has the backend\r\n");
  const { code, stdout } = await onTerminal("exit");
  assertEquals([code, stdout], [7, ""]);
  // Its errors are to be seen all the same.
  assertStringIncludes((await onTerminal("throw")).stdout, "thrown on purpose");
});

for (const signal of ["SIGTERM", "SIGINT", "SIGKILL"] as const) {
  Deno.test(`an executable gets ${signal}`, async () => {
    const { executable: path } = await executable();
    const child = new Deno.Command(path, { args: ["--mode", "wait"], stdout: "piped", stderr: "null" }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await reader.read()).value, "waiting\n");
    child.kill(signal);
    const rest = (await reader.read()).value;
    const status = await child.status;
    await reader.cancel();
    if (signal === "SIGTERM") assertEquals([rest, status.code], ["got SIGTERM\n", 0]);
    else assertEquals(status.signal, signal);
  });
}

Deno.test("an executable starts Workers, which import modules by URL", async () => {
  const { executable: path } = await executable();
  const { stdout, stderr } = await run(path, ["--mode", "worker"]);
  assertEquals([stdout, stderr], ["worker has the backend\n", ""]);
});

Deno.test("an executable can load TypeScript that it is given: dblock's disks that users have written", async () => {
  const { stdout, stderr } = await run((await executable()).executable, ["--mode", "module"]);
  assertEquals([stdout, stderr], ["1\n", ""]);
});

Deno.test("an executable runs through a symbolic link, through PATH and again by Deno.execPath()", async () => {
  const { dir, executable: path } = await executable();
  const link = join(dir, "link");
  Deno.symlinkSync(path, link);
  assertEquals((await report([], {}, link)).exec, path);
  assertEquals((await report([], { env: { PATH: dir } }, "prog")).exec, path);
  const { stdout } = await run(path, ["--mode", "again"]);
  assertEquals(JSON.parse(stdout).args, ["--help"]);
});

Deno.test("an executable gets the user's environment, and what it needs for itself", async () => {
  const env = { DENO_DIR: "/tmp/users-own", HOME: "/nonexistent", LANG: "C", EMPTY: "" };
  const seen = await report([], { clearEnv: true, env });
  assertEquals([seen.env.HOME, seen.env.LANG, seen.env.EMPTY], ["/nonexistent", "C", ""]);
  assertEquals((await report([], { clearEnv: true })).args, []);
});

Deno.test("an executable leaves nothing behind, whatever the directory it runs in holds", async () => {
  const { executable: path } = await executable();
  const home = Deno.makeTempDirSync({ prefix: "dblock-home-" });
  try {
    Deno.writeTextFileSync(join(home, "deno.json"), "not json");
    Deno.writeTextFileSync(join(home, "package.json"), "not json");
    const variables = ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DENO_DIR"];
    const env = Object.fromEntries(variables.map((name) => [name, home]));
    const { code, stderr } = await run(path, ["--mode", "worker"], { cwd: home, env });
    assertEquals([code, stderr], [0, ""]);
    assertEquals([...Deno.readDirSync(home)].map((entry) => entry.name).sort(), ["deno.json", "package.json"]);
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});

Deno.test("an executable does not depend on which file descriptors are free", async () => {
  const { executable: path } = await executable();
  for (const taken of ["3</dev/null", "4</dev/null", "3</dev/null 5</dev/null 7</dev/null", "0<&- 1<&2"]) {
    const { code, stderr } = await run("sh", ["-c", `exec ${taken}; exec "$0" --mode worker`, path]);
    assertEquals(code, 0, `${taken}: ${stderr}`);
  }
});

Deno.test("an executable that was not made by deno compile starts in a directory that was removed", async () => {
  const { executable: path, line } = await executable();
  if (line.includes("deno compile")) return;
  const { code, stderr } = await run("sh", [
    "-c",
    'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$0" --mode worker',
    path,
  ]);
  assertEquals(code, 0, stderr);
});

Deno.test("the build does nothing when nothing changed, and sees a changed worker", async () => {
  const { dir } = await executable();
  const source = writeProgram(join(dir, "rebuilt"));
  const output = join(dir, "rebuilt/prog");
  const build = () => run(DENO, ["run", "-A", BUILDER, "--output", output, source]);
  assertStringIncludes((await build()).stdout, "executable:");
  const { ino } = Deno.statSync(output);
  Deno.utimeSync(source, new Date(), new Date());
  assertEquals(await build(), { code: 0, signal: null, stdout: "", stderr: "" });
  assertEquals(Deno.statSync(output).ino, ino);
  Deno.writeTextFileSync(join(dir, "rebuilt/backend.ts"), `export const name = "another";`);
  assertStringIncludes((await build()).stdout, "executable:");
  assertEquals((await run(output, ["--mode", "worker"])).stdout, "worker has another\n");
  Deno.writeTextFileSync(output, "overwritten");
  assertStringIncludes((await build()).stdout, "executable:");
});

Deno.test("the build says in one line what is wrong, and exits 1", async () => {
  const wrong: readonly (readonly [string[], string])[] = [
    [[], "Usage: executable.ts"],
    [["--output", "/tmp/x", "--way", "magic", "a.ts"], "Usage: executable.ts"],
    [["--output", "/tmp/x", "--arch", "riscv64", "a.ts"], "Usage: executable.ts"],
    [["--output", "/tmp/x", "/nonexistent/a.ts"], "/nonexistent/a.ts"],
  ];
  for (const [args, part] of wrong) {
    const { code, stdout, stderr } = await run(DENO, ["run", "-A", BUILDER, ...args]);
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, /^executable: [^\n]*\n$/);
    assertStringIncludes(stderr, part);
  }
});
