/** How functions of libc are opened: slow at first, then fast, and the same all the while. */
import { assertEquals } from "@std/assert";
import { O_RDWR } from "../../../src/system/libc.ts";
import { libc } from "../../../src/system/library.ts";

/** The libraries' functions that are opened while `run` runs, by their kind. */
function opened(run: () => void): string[] {
  const seen: string[] = [];
  const { dlopen } = Deno;
  const watching = (path: string, symbols: Deno.ForeignLibraryInterface) => {
    const [[name, definition]] = Object.entries(symbols) as [[string, Deno.ForeignFunction | Deno.ForeignStatic]];
    seen.push("type" in definition ? `address of ${name}` : name);
    return dlopen(path, symbols);
  };
  Object.defineProperty(Deno, "dlopen", { value: watching, configurable: true });
  try {
    run();
  } finally {
    Object.defineProperty(Deno, "dlopen", { value: dlopen, configurable: true });
  }
  return seen;
}

Deno.test("a function of libc that is called often becomes fast, and gives the same before and after", () => {
  const path = Deno.makeTempFileSync();
  const bytes = new Uint8Array([1, 2, 3, 4, 5, 6]);
  Deno.writeFileSync(path, bytes);
  const fd = libc().open(new TextEncoder().encode(`${path}\0`), O_RDWR, 0);
  Deno.removeSync(path);
  const read = () => {
    const buffer = new Uint8Array(8);
    // A view that does not begin where its memory does, and a result of 64 bits.
    const count = libc().pread(fd, buffer.subarray(1), 4n, 2n);
    return [count, libc().lseek(fd, 0n, 2), ...buffer];
  };
  const expected = [4n, 6n, 0, 3, 4, 5, 6, 0, 0, 0];
  assertEquals(opened(() => assertEquals(read(), expected)), ["address of pread", "address of lseek"]);
  const later = opened(() => {
    for (let i = 0; i < 1_000; i++) assertEquals(read(), expected);
  });
  assertEquals(later, ["pread", "lseek"]);
  libc().close(fd);
});

Deno.test("what is called once per batch is fast at once", () => {
  assertEquals(opened(() => void libc().ioctlNumber), ["ioctlNumber"]);
});
