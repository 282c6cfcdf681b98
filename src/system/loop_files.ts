// SPDX-License-Identifier: MIT
/**
 * Files that Deno's event loop waits for, whoever reads them: it puts a socket into its epoll set once, and is woken by all that
 * comes there from then on, with nothing to do where another thread takes it. So such a file is told to be quiet. The set is
 * not a program's to use, but /proc says which one it is, and what is in it.
 */
import { controlEpoll, EPOLL_CTL_MOD, EPOLLET } from "./epoll.ts";
import { libc } from "./library.ts";

const FOLDER = "/proc/self/fdinfo";

/** The set in which the last file was found. */
let last = "";

/** What the loop wants to know of a file, as it has said itself. */
interface Watched {
  readonly epoll: number;
  readonly events: number;
  readonly data: bigint;
}

/**
 * Lets the event loop sleep, whatever comes at a file that another thread uses. What has come meanwhile, the loop hears when
 * this is disposed, which has to be before the file is closed.
 *
 * @returns nothing happens where the loop does not have the file, or where /proc cannot be read
 */
export function quieten(fd: number): Disposable {
  const watched = find(fd);
  if (watched !== undefined) put(watched, fd, EPOLLET);
  return {
    [Symbol.dispose]() {
      if (watched !== undefined) put(watched, fd, watched.events);
    },
  };
}

/** An error is no news: the loop has closed the file, then. */
function put({ epoll, data }: Watched, fd: number, events: number): void {
  controlEpoll(libc(), epoll, EPOLL_CTL_MOD, fd, events, data);
}

function find(fd: number): Watched | undefined {
  if (Deno.permissions.querySync({ name: "read", path: FOLDER }).state !== "granted") return undefined; // or it would ask
  const found = findIn(last, fd);
  if (found !== undefined) return found;
  try {
    for (const { name } of Deno.readDirSync(FOLDER)) {
      const watched = findIn(name, fd);
      if (watched === undefined) continue;
      last = name;
      return watched;
    }
  } catch { /* no permission, or no /proc */ }
  return undefined;
}

/** Lines of a set, for each file in it: "tfd:       24 events: 8000201d data:     55d6090f1f80  pos:0 ino:…". */
function findIn(name: string, fd: number): Watched | undefined {
  if (name === "") return undefined;
  let text: string;
  try {
    text = Deno.readTextFileSync(`${FOLDER}/${name}`);
  } catch {
    return undefined; // it is closed
  }
  const line = new RegExp(`^tfd:\\s*${fd} events:\\s*([0-9a-f]+) data:\\s*([0-9a-f]+)`, "m").exec(text);
  if (line === null) return undefined;
  return { epoll: Number(name), events: parseInt(line[1]!, 16), data: BigInt(`0x${line[2]}`) };
}
