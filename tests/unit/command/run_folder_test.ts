// SPDX-License-Identifier: MIT
/**
 * What two servers leave in /run/dblock/ while one takes a disk of the other: the moment at which the second one puts its own there
 * is the worst one, just before the first one takes its own away.
 */
import { assertEquals } from "@std/assert";
import {
  answerQuestions,
  ask,
  keepStarted,
  readStarted,
  RUN_FOLDER,
  serverName,
  sortOutServers,
} from "../../../src/command/run_folder.ts";

const ignore = Deno.uid() !== 0;
const name = `run-folder-test-${Deno.pid}`;

/** Does something just before this process moves that file away. */
function beforeMoving(path: string, act: () => void): Disposable {
  const rename = Deno.renameSync;
  let isDone = false;
  Deno.renameSync = (from, to) => {
    if (from === path && !isDone) {
      isDone = true;
      act();
    }
    rename(from, to);
  };
  return {
    [Symbol.dispose]: () => {
      Deno.renameSync = rename;
    },
  };
}

function left(): string[] {
  return [...Deno.readDirSync(RUN_FOLDER)].map((entry) => entry.name).filter((one) => one.startsWith(name)).sort();
}

Deno.test({
  name: "a server that ends leaves the words of the one that has taken its disk over",
  ignore,
  fn() {
    const words = { name, cwd: "/", words: ["memory:1MiB"] };
    const one = keepStarted({ ...words, pid: Deno.pid });
    const path = `${RUN_FOLDER}/${name}.json`;
    {
      using _moment = beforeMoving(
        path,
        () => Deno.writeTextFileSync(path, JSON.stringify({ ...words, pid: Deno.pid + 1 })),
      );
      one[Symbol.dispose]();
    }
    assertEquals([readStarted(name)?.pid, left()], [Deno.pid + 1, [`${name}.json`]]);
    keepStarted({ ...words, pid: Deno.pid })[Symbol.dispose]();
    assertEquals(left(), []);
  },
});

Deno.test({
  name: "a server that ends leaves the socket of the one that has taken its disk over",
  ignore,
  async fn() {
    const one = answerQuestions(name, () => Promise.resolve("one"));
    let other: Disposable | undefined;
    {
      using _moment = beforeMoving(`${RUN_FOLDER}/${name}.sock`, () => {
        other = answerQuestions(name, () => Promise.resolve("other"));
      });
      one[Symbol.dispose]();
    }
    await new Promise((resolve) => setTimeout(resolve, 50)); // what closing a listener does comes a moment later
    assertEquals([await ask(name, { ask: "describe" }, "Cannot ask"), left()], ["other", [`${name}.sock`]]);
    other![Symbol.dispose]();
    assertEquals(left(), []);
  },
});

Deno.test({
  name: "a server that died is found once, and the others are found also by who may not remove what it left",
  ignore,
  async fn() {
    using _own = answerQuestions(serverName(Deno.pid), () => Promise.resolve());
    const { pid: dead, status } = new Deno.Command("true").spawn();
    await status;
    const path = `${RUN_FOLDER}/${serverName(dead)}.sock`;
    await Deno.writeTextFile(path, "");
    const found = () => {
      const servers = sortOutServers();
      return [servers.alive.includes(Deno.pid), servers.dead.includes(dead)];
    };
    const remove = Deno.removeSync;
    try {
      Deno.removeSync = () => {
        throw new Error("Read-only file system (os error 30)");
      };
      assertEquals(found(), [true, false]);
    } finally {
      Deno.removeSync = remove;
    }
    assertEquals([found(), found()], [[true, true], [true, false]]);
  },
});
