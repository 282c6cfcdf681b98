/**
 * Which lines of the kernel's log a test may not leave behind. I/O errors and file systems' complaints are not among them:
 * many tests are about just those.
 */

const badLine = new RegExp(
  [
    /\bWARNING:/,
    /\bBUG:/,
    /\bOops\b/,
    /Call Trace:/,
    /general protection/,
    /unable to handle/i,
    /blocked for more than/,
    /\brcu.*(stall|self-detected)/,
    /soft lockup|hard LOCKUP/,
    /possible (circular|recursive|irq)|inconsistent lock|suspicious RCU|bad unlock balance|held lock freed|lock held when returning/,
    /\bUBSAN\b|\bKASAN\b|\bKFENCE\b|\bKCSAN\b|kmemleak: \d+ new/,
    /refcount_t/,
    /list_(add|del) corruption/,
    /scheduling while atomic|sleeping function called/,
    /Objects remaining|cannot create duplicate|kobject_add_internal failed|Trying to vfree/,
    /invoked oom-killer/,
  ].map((pattern) => pattern.source).join("|"),
);

/**
 * The lines that are bad news. A test file for which one of them is expected says so in its source:
 * `// dmesg may have: <regular expression>`.
 */
export function badKernelLines(lines: readonly string[], testSource: string): string[] {
  const allowed = [...testSource.matchAll(/^\/\/ dmesg may have: (.+)$/gm)].map((match) => new RegExp(match[1]!));
  return lines.filter((line) => badLine.test(line) && !allowed.some((pattern) => pattern.test(line)))
    .map((line) => `dmesg: ${line.trim()}`);
}
