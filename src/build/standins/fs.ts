// SPDX-License-Identifier: MIT
/** Stands in for `@std/fs` where JSR cannot be reached: the one function that is used here, with the package's results. */

/** Options of {@linkcode existsSync}. */
export interface ExistsOptions {
  /** Only when it is a file. @default {false} */
  isFile?: boolean;
}

/** Whether a path exists and is what the options ask for. */
export function existsSync(path: string | URL, { isFile = false }: ExistsOptions = {}): boolean {
  try {
    return Deno.statSync(path).isFile || !isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    // Something is there that may not be looked at.
    if (error instanceof Deno.errors.PermissionDenied) return true;
    throw error;
  }
}
