// SPDX-License-Identifier: MIT
/**
 * /run/dblock/: what a server leaves there while it serves. NAME.json has the words it was started with, so that
 * `dblock recover` can go on with them after its death; NAME.sock is where it can be asked. Nothing here serves a disk.
 */
import type { MirrorStatus } from "../backends/mirror_status.ts";
import { DblockError, describe, errnoOf, received } from "../disk/errors.ts";

/** Where it is. Emptied when the machine starts; for root alone. */
export const RUN_FOLDER = "/run/dblock";

/** How a disk was started. */
export interface Started {
  readonly name: string;
  /** The process that did it. */
  readonly pid: number;
  /** Where it was, when the words meant something. */
  readonly cwd: string;
  /** What followed `dblock serve`. */
  readonly words: readonly string[];
  /** The number of /dev/nbdN, if the kernel's NBD client has the disk. */
  readonly kernelNbd?: number;
  /** The initial ramdisk has started it (initrd.ts). */
  readonly isOfInitrd?: true;
}

/** What a server can be asked. */
export type Question =
  /** With an `id`: that device, and no other that has its name by now. */
  | { readonly ask: "resize"; readonly sizeBytes: number; readonly id?: number }
  | { readonly ask: "describe" }
  /**
   * To a server's own socket: what all of its disks have counted. It counts from the first such question on; after one with
   * `forMs`, for so long.
   */
  | { readonly ask: "figures"; readonly forMs?: number }
  /** New code is to take over: it answers when that has failed, or ends when that is done. */
  | { readonly ask: "reload" };

/** What a server says of a disk, in words. */
export interface Description {
  readonly spec: string;
  readonly filters: readonly string[];
  /** What else there is to say, a line each. */
  readonly lines: readonly string[];
  /** How it is, if it is a mirror. */
  readonly mirror?: MirrorStatus;
}

type Answer = { readonly answer: unknown } | { readonly errno: number; readonly message: string };

/** 500 disks, each with all that can be counted. */
const ANSWER_BYTES_MAX = 16 * 2 ** 20;
const SERVERS = "servers";
/** Whoever only wants to know waits so long for a server, which may be stopped or stuck. A guess. */
export const ANSWER_MS = 2_000;

/** Keeps how a disk was started, until disposed; for good if the disk `isLeft` to the next server then. */
export function keepStarted(started: Started, isLeft: () => boolean = () => false): Disposable {
  const path = `${RUN_FOLDER}/${started.name}.json`;
  Deno.mkdirSync(RUN_FOLDER, { recursive: true, mode: 0o700 });
  Deno.writeTextFileSync(`${path}.${Deno.pid}`, `${JSON.stringify(started)}\n`, { mode: 0o600 });
  Deno.renameSync(`${path}.${Deno.pid}`, path);
  return {
    [Symbol.dispose]: () => {
      if (!isLeft()) removeOwn(path, (one) => readStartedAt(one)?.pid === started.pid);
    },
  };
}

/** How a disk was started; undefined if nobody knows. */
export function readStarted(name: string): Started | undefined {
  return readStartedAt(`${RUN_FOLDER}/${name}.json`);
}

function readStartedAt(path: string): Started | undefined {
  try {
    const started: unknown = JSON.parse(Deno.readTextFileSync(path));
    return isStarted(started) ? started : undefined;
  } catch {
    return undefined;
  }
}

function isStarted(value: unknown): value is Started {
  if (typeof value !== "object" || value === null) return false;
  const { name, pid, cwd, words, kernelNbd, isOfInitrd } = value as Partial<Record<keyof Started, unknown>>;
  return typeof name === "string" && typeof pid === "number" && typeof cwd === "string" && Array.isArray(words) &&
    (kernelNbd === undefined || Number.isInteger(kernelNbd)) &&
    (isOfInitrd === undefined || isOfInitrd === true) &&
    words.every((word) => typeof word === "string");
}

/** The disks of which something is there, by name: their servers may be gone. */
export function startedNames(): string[] {
  try {
    const names = [...Deno.readDirSync(RUN_FOLDER)].map((entry) => /^(.+)\.(json|sock)$/.exec(entry.name)?.[1]);
    return [...new Set(names.filter((name) => name !== undefined))].sort();
  } catch {
    return [];
  }
}

/** Removes what a dead server has left of a disk. */
export function forgetStarted(name: string): void {
  for (const kind of ["json", "sock"]) removeIfThere(`${RUN_FOLDER}/${name}.${kind}`);
}

/**
 * Removes what this process has left, unless another server has put its own in that place. The other one may do so at any moment,
 * as it takes the disks over while this process ends: so the file is moved aside, and looked at there.
 */
function removeOwn(path: string, isOwn: (path: string) => boolean): void {
  const aside = `${path}.${Deno.pid}.old`;
  try {
    if (!isOwn(path)) return;
    Deno.renameSync(path, aside);
    // Back to its place, unless the other server has made another one there meanwhile.
    if (!isOwn(aside)) Deno.linkSync(aside, path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  removeIfThere(aside);
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Where a process that serves disks can be asked about all of them, those that only NBD clients know included. */
export function serverName(pid: number): string {
  return `${SERVERS}/${pid}`;
}

/** The processes that can be asked. What dead ones have left is removed. */
export function serverPids(): number[] {
  return sortOutServers().alive;
}

/** The same, with those that died: who ends in order leaves nothing. They are found once, by who may remove what they left. */
export function sortOutServers(): { readonly alive: number[]; readonly dead: number[] } {
  try {
    const pids = [...Deno.readDirSync(`${RUN_FOLDER}/${SERVERS}`)].map(({ name }) =>
      Number(/^(\d+)\.sock$/.exec(name)?.[1])
    );
    const [alive, dead] = [pids.filter(isAlive), pids.filter((pid) => pid > 0 && !isAlive(pid))];
    return { alive: alive.sort((a, b) => a - b), dead: dead.filter(removeDead) };
  } catch {
    return { alive: [], dead: [] };
  }
}

/** False where this process may not: for dblock-metrics.service, which only asks, the folder is read-only. */
function removeDead(pid: number): boolean {
  try {
    removeIfThere(`${RUN_FOLDER}/${serverName(pid)}.sock`);
    return true;
  } catch {
    return false;
  }
}

/** Whether there is a process of this number. */
export function isAlive(pid: number): boolean {
  try {
    return pid > 0 && Deno.statSync(`/proc/${pid}`).isDirectory;
  } catch {
    return false;
  }
}

/** Answers a question; the signal is that nobody waits for the answer any more. */
export type Answerer = (question: Question, gone: AbortSignal) => Promise<unknown>;

/** Answers questions about a disk at its socket, until disposed. A question is a line of JSON, and so is the answer. */
export function answerQuestions(name: string, answer: Answerer): Disposable {
  const path = `${RUN_FOLDER}/${name}.sock`;
  Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true, mode: 0o700 });
  // A listener that is closed removes what is at its path, a moment later. By then that may be another server's, which has taken the
  // disk over: so this one is made elsewhere.
  const made = `${path}.${Deno.pid}.new`;
  removeIfThere(made);
  const listener = Deno.listen({ transport: "unix", path: made });
  const inode = Deno.statSync(made).ino;
  Deno.renameSync(made, path); // a dead server's goes
  void (async () => {
    for await (const conn of listener) void answerOne(conn, answer);
  })().catch(() => {}); // it was closed
  return {
    [Symbol.dispose]: () => {
      listener.close();
      removeOwn(path, (one) => Deno.statSync(one).ino === inode);
    },
  };
}

async function answerOne(conn: Deno.UnixConn, answer: Answerer): Promise<void> {
  try {
    const question = JSON.parse(await readLine(conn)) as Question;
    const gone = new AbortController();
    // Nobody says a second thing here: what comes is the end.
    void conn.read(new Uint8Array(1)).catch(() => {}).then(() => gone.abort());
    const reply = await answer(question, gone.signal).then(
      (value): Answer => ({ answer: value ?? null }),
      (error): Answer => ({ errno: errnoOf(error) ?? 5, message: describe(error) }),
    );
    await writeLine(conn, JSON.stringify(reply));
  } catch {
    // Whoever asked has gone, or asked nonsense.
  } finally {
    conn.close();
  }
}

/**
 * Asks the server of a disk.
 *
 * @param limitMs how long it may take to answer
 * @throws {DblockError} ENOTCONN: it cannot be asked; ETIMEDOUT: it has not answered; or what it answers.
 */
export async function ask(
  name: string,
  question: Question,
  attempted: string,
  limitMs?: number,
): Promise<unknown> {
  let conn: Deno.UnixConn;
  try {
    conn = await Deno.connect({ transport: "unix", path: `${RUN_FOLDER}/${name}.sock` });
  } catch (error) {
    const wrong = "its server is no `dblock serve`, so nobody can be asked";
    throw new DblockError("ENOTCONN", attempted, wrong, { cause: error });
  }
  let isLate = false;
  const timer = limitMs === undefined ? undefined : setTimeout(() => {
    isLate = true;
    conn.close();
  }, limitMs);
  try {
    await writeLine(conn, JSON.stringify(question));
    const reply = JSON.parse(await readLine(conn)) as Answer;
    if ("errno" in reply) throw received(reply);
    return reply.answer;
  } catch (error) {
    if (error instanceof DblockError) throw error;
    if (isLate) throw new DblockError("ETIMEDOUT", attempted, `its server does not answer within ${limitMs} ms`);
    throw new DblockError("ENOTCONN", attempted, "its server has ended meanwhile", { cause: error });
  } finally {
    clearTimeout(timer);
    if (!isLate) conn.close();
  }
}

async function readLine(conn: Deno.Conn): Promise<string> {
  const decoder = new TextDecoder();
  const bytes = new Uint8Array(65_536);
  let text = "";
  while (!text.includes("\n")) {
    const count = await conn.read(bytes);
    if (count === null) break;
    text += decoder.decode(bytes.subarray(0, count), { stream: true });
    if (text.length > ANSWER_BYTES_MAX) throw new RangeError("a line is too long");
  }
  return text;
}

async function writeLine(conn: Deno.Conn, line: string): Promise<void> {
  const bytes = new TextEncoder().encode(`${line}\n`);
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}
