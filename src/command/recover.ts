// SPDX-License-Identifier: MIT
/** `dblock recover`: goes on with disks whose server has died, with the words that it was started with. */
import { DblockError } from "../disk/errors.ts";
import { devicePath } from "../module/control.ts";
import { type DeviceInfo, info, list } from "../module/info.ts";
import { type Command, readItems, readTyped } from "./command.ts";
import { checkName } from "./words.ts";
import { DISK_OPTIONS, type DiskPlan, readDisks, requireNames } from "./disk_plan.ts";
import { withNames } from "./info.ts";
import { readStarted, type Started } from "./run_folder.ts";
import { serveDisks } from "./serve_disks.ts";
import { byName } from "./page/order.ts";

/** The subcommand. */
export const RECOVER: Command = {
  name: "recover",
  summary: "go on with disks whose server has died",
  usage: "[NAME...]",
  options: [],
  examples: [
    { words: "recover", text: "all that wait for a server" },
    { words: "recover disk", text: "this one" },
  ],
  notes: () =>
    "A disk waits for a server if it was served with --on-death hold or fail. It is\n" +
    "served as it was before, in the foreground, and its I/O goes on.",
  parse(words) {
    const names = readTyped(words, this, Infinity).words.map(checkName);
    return async () => await recover(names);
  },
};

async function recover(names: readonly string[]): Promise<void> {
  const waiting = names.length === 0
    ? (await list()).filter((one) => waits(one)).map(({ name }) => name).sort(byName)
    : await Promise.all(names.map(requireWaiting));
  if (waiting.length === 0) return console.log("no disk waits for a server");
  const started = waiting.map(requireStarted);
  const [first, ...others] = new Set(started.map(({ cwd }) => cwd));
  if (others.length > 0) {
    const hint = `type: ${waiting.map((name) => `dblock recover ${name}`).join("; ")}`;
    const wrong = "they were started in different folders, and their paths mean something there";
    throw new DblockError("EINVAL", `Cannot recover ${waiting.join(", ")} together`, wrong, { hint });
  }
  Deno.chdir(first!);
  await serveDisks(plansOf(started));
}

function waits({ state }: DeviceInfo): boolean {
  return state === "held" || state === "failed";
}

async function requireWaiting(name: string): Promise<string> {
  let found: DeviceInfo;
  try {
    found = await info(name);
  } catch (error) {
    throw await withNames(error);
  }
  if (waits(found)) return name;
  const wrong = found.server === undefined ? `it is ${found.state}` : `process ${found.server.pid} serves it`;
  throw new DblockError("EBUSY", `Cannot recover ${devicePath(name)}`, wrong, {
    hint: "to take it over: dblock serve SPEC --name NAME --take-over",
  });
}

function requireStarted(name: string): Started {
  const started = readStarted(name);
  if (started !== undefined) return started;
  const wrong = "nobody knows what served it";
  const hint = `dblock serve SPEC --name ${name}, with the SPEC that it had, or dblock destroy ${name}`;
  throw new DblockError("ENOENT", `Cannot recover ${devicePath(name)}`, wrong, { hint });
}

/**
 * What is to be served again. A disk with several names has all of them in the record of each, and is served once; one that
 * took another one over does not take it over from a dead server.
 *
 * @throws {UsageError} a name that two disks have
 */
export function plansOf(started: readonly Pick<Started, "words">[]): DiskPlan[] {
  const different = new Map(started.map(({ words }) => {
    const again = words.filter((word) => word !== "--take-over");
    return [JSON.stringify(again), again];
  }));
  const plans = [...different.values()].flatMap((words) => readDisks(readItems(words, DISK_OPTIONS)));
  requireNames(plans);
  return plans;
}
