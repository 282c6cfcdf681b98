// SPDX-License-Identifier: MIT
/** A disk that a module of the user's exports: what it has to export, and what is said if it does not. */
import type { Backend } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import { UsageError } from "./cli.ts";
import { loadModule } from "./module_loader.ts";
import { parseSize } from "./cli.ts";

/** What the default export of a module is called with: the parameters of the SPEC. */
export type ModuleParameters = Readonly<Record<string, string | number>>;

const EXAMPLE =
  "export default ({ sizeBytes }) => ({ sizeBytes, read(buffer, offset) {…}, write(buffer, offset) {…} })";

/**
 * Loads the module anew and lets it make its disk: the default export is a function of the parameters, or a backend.
 *
 * @param parameters as typed; `size` is given as `sizeBytes`, a number
 * @throws {DblockError} ENOENT, or EINVAL with what to write into the module.
 */
export async function openModule(path: string, parameters: ReadonlyMap<string, string>): Promise<Backend> {
  const given = moduleParameters(path, parameters);
  const attempted = `Cannot load ${path}`;
  const { exports } = await loadModule(path);
  const exported = exports.default;
  if (exported === undefined) {
    throw new DblockError("EINVAL", attempted, "it has no default export", { hint: `type into it: ${EXAMPLE}` });
  }
  let made: unknown = exported;
  if (typeof exported === "function") {
    try {
      made = await (exported as (given: ModuleParameters) => unknown)(given);
    } catch (error) {
      throw new DblockError("EINVAL", attempted, `its default export threw ${describe(error)}`, { cause: error });
    }
  }
  const wrong = whyNoBackend(made);
  if (wrong === undefined) return made as Backend;
  throw new DblockError("EINVAL", attempted, wrong, { hint: `a disk has sizeBytes, read and write: ${EXAMPLE}` });
}

/** @throws {UsageError} a size that is none. */
export function moduleParameters(path: string, parameters: ReadonlyMap<string, string>): ModuleParameters {
  const { size, ...given } = Object.fromEntries(parameters);
  if (size === undefined) return given;
  try {
    return { ...given, sizeBytes: parseSize(size) };
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(`${path}: ${error.message}`) : error;
  }
}

function whyNoBackend(made: unknown): string | undefined {
  if (typeof made !== "object" || made === null) return "what it exports makes no disk";
  const { sizeBytes, read, write } = made as Partial<Record<keyof Backend, unknown>>;
  if (typeof sizeBytes !== "number") return "its disk has no sizeBytes, or it is no number (give it: ?size=1GiB)";
  if (typeof read !== "function") return "its disk has no read()";
  return typeof write === "function" ? undefined : "its disk has no write()";
}
