// SPDX-License-Identifier: MIT
/** A disk that a module of the user's exports: what it has to export, and what is said if it does not. */
import type { Backend } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import type { BackendFactory } from "../disk/servable.ts";
import { parseSize, UsageError } from "./cli.ts";
import type { Mark } from "./file_watch.ts";
import { loadModule } from "./module_loader.ts";
import { placeOf } from "./module_place.ts";

/** What the default export of a module is called with: the parameters of the SPEC. */
export type ModuleParameters = Readonly<Record<string, string | number>>;

/**
 * Makes the disk of a module that was loaded.
 *
 * @param handedOver what the version before hands over, if there is one
 * @throws {DblockError} EINVAL with what to write into the module.
 */
export type MakeDisk = (given: ModuleParameters, handedOver?: unknown) => Promise<Backend>;

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
  return await (await loadDisk(path))(given);
}

/**
 * Loads the module anew; makes no disk yet.
 *
 * @param files as of `loadModule()`
 * @throws {DblockError} as `openModule()`.
 */
export async function loadDisk(path: string, files: Map<string, Mark> = new Map()): Promise<MakeDisk> {
  const { default: exported } = await loadModule(path, files);
  const attempted = `Cannot load ${path}`;
  if (exported === undefined) {
    throw new DblockError("EINVAL", attempted, "it has no default export", { hint: `type into it: ${EXAMPLE}` });
  }
  return async (given, handedOver) => {
    const made = typeof exported === "function"
      ? await called(() => (exported as BackendFactory<ModuleParameters>)(given, handedOver), attempted, files)
      : exported;
    const wrong = whyNoBackend(made) ??
      (made === exported && handedOver !== undefined
        ? "its default export is no function, so it cannot take what the version before hands over"
        : undefined);
    if (wrong === undefined) return made as Backend;
    const size = wrong.includes("sizeBytes") ? "give it: ?size=1GiB; " : "";
    throw new DblockError("EINVAL", attempted, wrong, {
      hint: `${size}a disk has sizeBytes, read and write: ${EXAMPLE}`,
    });
  };
}

async function called(make: () => unknown, attempted: string, files: ReadonlyMap<string, Mark>): Promise<unknown> {
  try {
    return await make();
  } catch (error) {
    const place = await placeOf(error, files);
    const wrong = `${place === undefined ? "" : `${place}: `}its default export threw ${describe(error)}`;
    throw new DblockError("EINVAL", attempted, wrong, { cause: error });
  }
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
  if (typeof sizeBytes !== "number") return "its disk has no sizeBytes, or it is no number";
  if (typeof read !== "function") return "its disk has no read()";
  return typeof write === "function" ? undefined : "its disk has no write()";
}
