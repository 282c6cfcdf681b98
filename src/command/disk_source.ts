// SPDX-License-Identifier: MIT
/** What a SPEC is once it is read: a disk that can be opened. */
import type { Backend } from "../disk/backend.ts";
import type { MirrorStatus } from "../backends/mirror_status.ts";
import type { LiveOptions } from "./live_module.ts";
import type { Parameter, Parameters } from "./parameters.ts";
import type { Spec } from "./spec.ts";

/** How a disk is to be opened. */
export interface OpenOptions {
  /** Nothing of it may be written. */
  readonly readOnly: boolean;
  /** Another server has it now, and this one is about to take it over. */
  readonly shared: boolean;
  /** Replace the code of modules when their files change. */
  readonly live?: LiveOptions | undefined;
  /** Make it as large, instead of what the SPEC says; what is smaller grows. */
  readonly growToBytes?: number | undefined;
  /** Takes lines about the disk while it is open: a half that has left, a server that is gone. @default console.error */
  readonly log?: ((message: string) => void) | undefined;
}

/** A SPEC that was understood: nothing is opened yet. */
export interface DiskSource {
  /** As it was typed. */
  readonly text: string;
  /** What was written is there for the next server, when this process dies. */
  readonly survives: boolean;
  /** There is a module in it, whose code can be replaced. @default false */
  readonly hasModule?: boolean;
  /** The disk begins without content each time that it is opened. @default false */
  readonly isEmpty?: boolean;
  /** Files that opening it may make. @default none */
  readonly files?: readonly string[];
  /** What there is to say of the disk since it was opened, a line each. */
  describe?(): readonly string[];
  /** How the mirror is that this is; undefined before it is opened. */
  mirror?(): MirrorStatus | undefined;
  /**
   * Opens the disk.
   *
   * @throws {DblockError} with what to type.
   */
  open(options: OpenOptions): Promise<Backend>;
}

/** A source whose words are added by who read them. */
export type Source = Omit<DiskSource, "text">;

/** A scheme: a row of the table. */
export interface Scheme {
  /** "memory"; the first is the one that is shown. */
  readonly names: readonly string[];
  /** How it is typed. */
  readonly form: string;
  /** What it is. */
  readonly text: string;
  readonly parameters: readonly Parameter[];
  /** Reads what is behind the scheme; `readMember` reads the SPECs in it. */
  read(spec: Spec, parameters: Parameters, readMember: (spec: Spec) => DiskSource): Source;
}

/** The parameter that several schemes have. */
export const SIZE: Parameter = { name: "size", value: "SIZE", text: "how large it is" };
