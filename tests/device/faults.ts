/**
 * Makes the kernel's n-th fallible step fail, once: an allocation or a copy to or from user memory, on this thread or in
 * the kernel's worker threads, and only below dblock.ko's functions on the stack. Needs a kernel with fault injection
 * (Documentation/fault-injection: fail-nth), which the debug kernel is.
 */
import { assert } from "@std/assert";
import { ERRNO } from "../../src/disk/errors.ts";
import { exists } from "./harness.ts";
import { cString, NR, O_RDWR, open, syscall } from "./syscall.ts";

const own = "/proc/thread-self/fail-nth";
const kinds = ["failslab", "fail_page_alloc", "fail_usercopy"];

/** True if this kernel can be told what is to fail. */
export function hasFaultInjection(): boolean {
  return exists(own) && kinds.every((kind) => exists(`/sys/kernel/debug/${kind}/require-start`));
}

/** Fault injection, set up for as long as this object lives. Belongs to the thread that makes it. */
export class Faults implements Disposable {
  readonly #fd: number;
  readonly #panicOnWarn: string;

  /** @param scope "dblock": only what happens below the module's functions; "all": everything this thread does */
  constructor(scope: "dblock" | "all" = "dblock") {
    const [start, end] = scope === "dblock" ? moduleText() : ["0", "0xffffffffffffffff"];
    for (const kind of kinds) {
      configure(kind, { verbose: "0", "require-start": start, "require-end": end, "stacktrace-depth": "32" });
    }
    configure("failslab", { "ignore-gfp-wait": "N" });
    configure("fail_page_alloc", { "ignore-gfp-wait": "N", "ignore-gfp-highmem": "N", "min-order": "0" });
    this.#fd = open(own, O_RDWR);
    if (this.#fd < 0) throw new Error(`open ${own}: errno ${-this.#fd}`);
    // A warning would end the VM; here all of them are wanted. They fail the test file all the same, by the kernel's log.
    this.#panicOnWarn = Deno.readTextFileSync(panicOnWarn);
    Deno.writeTextFileSync(panicOnWarn, "0");
  }

  /** Does something on this thread; its n-th fallible step fails. */
  fail<T>(n: number, action: () => T): { readonly value: T; readonly hasFailed: boolean } {
    this.#arm(n);
    try {
      const value = action();
      return { value, hasFailed: this.#left() === 0 };
    } finally {
      this.#arm(0);
    }
  }

  #arm(n: number): void {
    const text = cString(String(n));
    const write = () => syscall(NR.write, this.#fd, text, String(n).length);
    // With scope "all" the copy of this very text may be the step that fails, once.
    if (write() < 0 && write() < 0) throw new Error(`cannot write ${own}`);
  }

  #left(): number {
    const text = cString("");
    const length = syscall(NR.pread64, this.#fd, text, text.length, 0);
    // With scope "all" this very copy is the next step that can fail: so it was not reached before.
    if (length === -ERRNO.EFAULT) return 1;
    if (length < 0) throw new Error(`cannot read ${own}: errno ${-length}`);
    return Number(new TextDecoder().decode(text.subarray(0, length)));
  }

  /**
   * Does something that makes the module's works run; in each worker the n-th fallible step fails.
   * A worker that was started meanwhile is not among them: "untouched" says that no step was counted at all.
   */
  async failWorkers<T>(
    n: number,
    action: () => Promise<T>,
  ): Promise<{ readonly value: T; readonly outcome: "failed" | "passed" | "untouched" }> {
    const files = workers().map((pid) => `/proc/${pid}/fail-nth`);
    for (const file of files) writeIfThere(file, String(n));
    try {
      const value = await action();
      const left = files.map((file) => Number(readIfThere(file) ?? n));
      const outcome = left.includes(0) ? "failed" : left.some((count) => count !== n) ? "passed" : "untouched";
      return { value, outcome };
    } finally {
      for (const file of files) writeIfThere(file, "0");
    }
  }

  [Symbol.dispose](): void {
    syscall(NR.close, this.#fd);
    Deno.writeTextFileSync(panicOnWarn, this.#panicOnWarn);
  }
}

const maxSteps = 5_000;
/** What a call may say when memory is short or its argument cannot be copied. */
const excuses: readonly number[] = [0, ERRNO.ENOMEM, ERRNO.EFAULT];

/** Attempts with n = 1, 2, … until one, which returns false, had nothing left to fail. */
export async function sweep(what: string, attempt: (n: number) => boolean | Promise<boolean>): Promise<void> {
  for (let n = 1; n <= maxSteps; n++) {
    Deno.writeTextFileSync("/dev/kmsg", `dblock-test: ${what}, step ${n} fails\n`);
    if (await attempt(n)) continue;
    console.log(`${what}: ${n - 1} steps failed, one at a time`);
    assert(n > 1, `nothing in ${what} can fail`);
    return;
  }
  throw new Error(`${what} has more than ${maxSteps} steps`);
}

/** Fails unless a call made under {@linkcode Faults} worked, or failed for one of the reasons that it may have then. */
export function assertExcused(errno: number, what: string): void {
  assert(excuses.includes(errno), `${what}: errno ${errno}`);
}

const panicOnWarn = "/proc/sys/kernel/panic_on_warn";

function configure(kind: string, settings: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(settings)) {
    Deno.writeTextFileSync(`/sys/kernel/debug/${kind}/${name}`, value);
  }
}

/** The first and last address of dblock.ko's functions. */
function moduleText(): [string, string] {
  const symbols = Deno.readTextFileSync("/proc/kallsyms").matchAll(/^([0-9a-f]+) [tT] \S+\t\[dblock\]$/gm);
  const addresses = [...symbols].map((match) => match[1]!).sort();
  if (addresses.length === 0) throw new Error("dblock.ko is not loaded");
  return [`0x${addresses[0]}`, `0x${(BigInt(`0x${addresses.at(-1)}`) + 4096n).toString(16)}`];
}

/** Process ids of the threads that unbound works run in. */
function workers(): string[] {
  return [...Deno.readDirSync("/proc")].map((entry) => entry.name).filter((pid) =>
    /^\d+$/.test(pid) && /^kworker\/(u|R-dblock)/.test(readIfThere(`/proc/${pid}/comm`) ?? "")
  );
}

function readIfThere(file: string): string | undefined {
  try {
    return Deno.readTextFileSync(file);
  } catch {
    return undefined; // the thread has ended
  }
}

function writeIfThere(file: string, text: string): void {
  try {
    Deno.writeTextFileSync(file, text);
  } catch {
    // The thread has ended.
  }
}
