// SPDX-License-Identifier: MIT
/** A backend that a Worker has imported: how it comes, how it ends, and what the main program is told of failures. */
import type { Backend, CloseReason } from "../disk/backend.ts";
import { DblockError, describe } from "../disk/errors.ts";
import type { DiskLog } from "../disk/log.ts";
import { type BackendFactory, closeBackend } from "../disk/servable.ts";

/** Why a Worker cannot go on. */
export interface Failure {
  readonly errno: number;
  readonly message: string;
}

/**
 * Imports a module and has it make a backend.
 *
 * @throws {DblockError} EINVAL (it exports no function), and what the module throws.
 */
export async function loadBackend(href: string, data: unknown): Promise<Backend> {
  const module: { readonly default?: unknown } = await import(href);
  if (typeof module.default !== "function") {
    throw new DblockError(
      "EINVAL",
      `Cannot serve ${href}`,
      "its default export is not a function that makes a backend",
    );
  }
  const factory = module.default as BackendFactory;
  return await factory(data);
}

/** Closes it. @returns whether it closed without an error */
export async function closeLoaded(backend: Backend, reason: CloseReason, log: DiskLog): Promise<boolean> {
  try {
    await closeBackend(backend, reason);
    return true;
  } catch (error) {
    log(`close() of the backend threw ${describe(error)}`);
    return false;
  }
}

/** What went wrong with some work, as a message can carry it; undefined if nothing did. */
export async function failureOf(work: Promise<void>): Promise<Failure | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    const { message, errno } = error instanceof DblockError
      ? error
      : new DblockError("EIO", "A queue's Worker stopped", describe(error), { cause: error });
    return { errno, message };
  }
}

/** Deno tells nobody that a Worker has ended itself, and its disks would wait for ever. An error that nobody catches is heard. */
export function refuseToEnd(): void {
  for (const [owner, name, call] of [[self, "close", "self.close()"], [Deno, "exit", "Deno.exit()"]] as const) {
    const refuse = (): never => {
      const error = new Error(`its backend called ${call}`);
      reportError(error);
      throw error;
    };
    Object.defineProperty(owner, name, { value: refuse });
  }
}
