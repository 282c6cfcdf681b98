// SPDX-License-Identifier: MIT
/// <reference lib="dom" />
/** A disk on the page: its name, its numbers, its plots and its map. Plots are drawn only while they can be seen. */
import { chartData, type ChartKind, CHARTS, makeChart, makeMap, mapData, type Plot } from "./charts.ts";
import { spotAt } from "./map.ts";
import { type Disk, focusOf, type Model } from "./model.ts";
import { type Field, PIECES } from "./terms.ts";
import { formatBytes, formatCount, formatMs, formatTime } from "./units.ts";
import type { MapAbsence } from "../moment.ts";

const CHART_HEIGHT = 150;
const MAP_HEIGHT = 190;

/** What is said where there is no map. */
const ABSENCE: Readonly<Record<MapAbsence, string>> = {
  mapped:
    "There is no map of this disk. It is memory, or a file mapped into memory: the kernel copies from and to it by " +
    "itself, so its server does not see where, and this kernel lets nobody count at its tracepoints. To have a map, serve " +
    "it with a filter in front of it (--with stats), or a file with ?raw.",
  silent:
    "There is no map of this disk: the program that serves it does not tell where its requests land, and this kernel " +
    "lets nobody count at its tracepoints.",
  unserved: "There is no map of this disk while nobody serves it.",
};

/** Makes an element; text is always text. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  properties: { readonly class?: string; readonly text?: string; readonly title?: string } = {},
  ...children: Node[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  if (properties.class !== undefined) made.className = properties.class;
  if (properties.text !== undefined) made.textContent = properties.text;
  if (properties.title !== undefined) made.title = properties.title;
  made.append(...children);
  return made;
}

/** Writes only what is new: a screen reader, and a selection, are not disturbed. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** A value as people read it. */
export function formatField(field: Field, value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (field.endsWith("Ms")) return formatMs(value);
  return field.endsWith("Bytes") ? formatBytes(value) : formatCount(value);
}

/** The newest value of a field. */
export function latest(disk: Disk, field: Field): number | null {
  return disk.columns[field].at(-1) ?? null;
}

/** A disk's part of the page. */
export class Card {
  readonly root: HTMLElement;
  readonly #key: string;
  readonly #model: Model;
  readonly #title = element("h2");
  readonly #about = element("p", { class: "about" });
  readonly #state = element("span", { class: "state" });
  readonly #absence = element("p", { class: "absence" });
  readonly #focus = element("p", { class: "focus" });
  readonly #parts: readonly Part[];
  #isVisible = false;

  constructor(key: string, model: Model, buttons: readonly HTMLElement[]) {
    this.#key = key;
    this.#model = model;
    const map = new MapPart(model, () => this.#disk);
    this.#parts = [...CHARTS.map((kind) => new ChartPart(kind, model, () => this.#disk)), map];
    map.root.append(this.#absence, this.#focus);
    const head = element("header", {}, this.#title, this.#state, ...buttons);
    const plots = element("div", { class: "plots" }, ...this.#parts.map(({ root }) => root));
    this.root = element("article", { class: "disk" }, head, this.#about, plots);
    new IntersectionObserver((entries) => {
      this.#isVisible = entries.at(-1)!.isIntersecting;
      if (this.#isVisible) this.#drawParts();
    }, { rootMargin: "200px" }).observe(this.root);
    // A window that changes its width changes the plots'.
    new ResizeObserver(() => this.#isVisible && this.#drawParts()).observe(plots);
  }

  get #disk(): Disk | undefined {
    return this.#model.disks.get(this.#key);
  }

  /** Shows the newest numbers. */
  update(): void {
    const disk = this.#disk;
    if (disk === undefined) return;
    const { name, path, transport, spec, sizeBytes, state, pid, openCount, readOnly, totals, mapAbsence } =
      disk.description;
    this.root.dataset.disk = name;
    setText(this.#title, name);
    setText(this.#state, state ?? "exported");
    this.#state.dataset.state = state ?? "exported";
    const about = [
      formatBytes(sizeBytes) + (readOnly ? ", read-only" : ""),
      path ?? "NBD",
      ...(transport === "kernel-nbd" ? ["by the kernel's NBD client"] : []),
      ...(spec === undefined || spec === name ? [] : [spec]),
      pid === undefined ? "no server" : `process ${pid}`,
      ...(openCount === undefined
        ? []
        : [openCount === 0 ? "not open" : `open ${openCount} ${openCount === 1 ? "time" : "times"}`]),
      ...(totals.errors === 0 ? [] : [`${formatCount(totals.errors)} failed in all`]),
      ...(totals.deaths === 0 ? [] : [`${totals.deaths} dead ${totals.deaths === 1 ? "server" : "servers"}`]),
    ];
    setText(this.#about, about.join(" · "));
    setText(this.#absence, mapAbsence === undefined ? "" : ABSENCE[mapAbsence]);
    setText(this.#focus, mapAbsence === undefined ? focusText(disk) : "");
    this.#parts.at(-1)!.root.classList.toggle("absent", mapAbsence !== undefined);
    if (this.#isVisible) this.#drawParts();
  }

  /** Draws in other colours from now on. */
  recolour(): void {
    for (const part of this.#parts) part.reset();
    if (this.#isVisible) this.#drawParts();
  }

  /** It is not shown any more. */
  remove(): void {
    for (const part of this.#parts) part.reset();
    this.root.remove();
  }

  #drawParts(): void {
    for (const part of this.#parts) part.draw();
  }
}

/** Where most of the last minutes' reads and writes were, in words. */
function focusText(disk: Disk): string {
  const focus = focusOf(disk);
  if (focus === undefined) return "Nothing was read or written in these minutes.";
  const { sizeBytes } = disk.description;
  const share = Math.round(focus.share * 100);
  const width = focus.lastPiece - focus.firstPiece + 1;
  if (width > PIECES / 3) return "Reads and writes are spread over the disk.";
  const [from, to] = [focus.firstPiece, focus.lastPiece + 1].map((piece) => formatBytes(piece * sizeBytes / PIECES));
  return `${share} % of it was between ${from} and ${to}.`;
}

/** A plot with what is above it. */
abstract class Part {
  readonly root: HTMLElement;
  protected readonly model: Model;
  protected readonly disk: () => Disk | undefined;
  readonly #target = element("div", { class: "plot" });
  #plot: Plot | undefined;
  #width = 0;

  constructor(name: string, title: string, legend: HTMLElement, model: Model, disk: () => Disk | undefined) {
    this.model = model;
    this.disk = disk;
    const caption = element("figcaption", {}, element("h3", { text: title }), legend);
    this.root = element("figure", { class: `part ${name}` }, caption, this.#target);
  }

  /** Draws what there is now. */
  draw(): void {
    const width = this.#target.clientWidth;
    if (this.disk() === undefined || width === 0) return;
    this.#plot ??= this.make(this.#target);
    if (width !== this.#width) this.#plot.setSize({ width, height: this.height });
    this.#width = width;
    this.#plot.setData(this.data());
    this.tell();
  }

  /** Makes it anew at the next drawing. */
  reset(): void {
    this.#plot?.destroy();
    this.#plot = undefined;
  }

  protected abstract readonly height: number;
  protected abstract make(target: HTMLElement): Plot;
  protected abstract data(): (readonly (number | null)[])[];
  /** Writes the values of the moment under the pointer, or the newest. */
  protected abstract tell(): void;
}

class ChartPart extends Part {
  protected readonly height = CHART_HEIGHT;
  readonly #kind: ChartKind;
  readonly #values: readonly HTMLElement[];
  #at: number | null = null;

  constructor(kind: ChartKind, model: Model, disk: () => Disk | undefined) {
    const values = kind.lines.map(() => element("b", { text: "–" }));
    const entries = kind.lines.map(({ name, colour }, i) => {
      return element(
        "span",
        {},
        element("i", { class: `swatch ${colour.slice(2)}` }),
        document.createTextNode(`${name} `),
        values[i]!,
      );
    });
    super(kind.name, kind.title, element("span", { class: "legend" }, ...entries), model, disk);
    this.#kind = kind;
    this.#values = values;
  }

  protected make(target: HTMLElement): Plot {
    return makeChart(this.#kind, this.model, target, this.height, (at) => {
      this.#at = at;
      this.tell();
    });
  }

  protected data(): (readonly (number | null)[])[] {
    return chartData(this.#kind, this.model, this.disk()!);
  }

  protected tell(): void {
    const disk = this.disk();
    if (disk === undefined) return;
    for (const [i, { field }] of this.#kind.lines.entries()) {
      const value = this.#at === null ? latest(disk, field) : disk.columns[field][this.#at];
      setText(this.#values[i]!, formatField(field, value));
    }
  }
}

class MapPart extends Part {
  protected readonly height = MAP_HEIGHT;
  readonly #spot: HTMLElement;
  #at: number | null = null;
  #offsetBytes: number | null = null;

  constructor(model: Model, disk: () => Disk | undefined) {
    const spot = element("span", { class: "spot" });
    const swatches = ["read", "write", "both"].map((name) =>
      element(
        "span",
        {},
        element("i", { class: `swatch ${name}` }),
        document.createTextNode(name === "both" ? name : `${name}s`),
      )
    );
    super("map", "Where on the disk", element("span", { class: "legend" }, ...swatches, spot), model, disk);
    this.#spot = spot;
  }

  override draw(): void {
    if (this.disk()?.description.mapAbsence === undefined) super.draw();
  }

  protected make(target: HTMLElement): Plot {
    return makeMap(this.model, () => this.disk()!, target, this.height, (at, offsetBytes) => {
      this.#at = at;
      this.#offsetBytes = offsetBytes;
      this.tell();
    });
  }

  protected data(): (readonly (number | null)[])[] {
    return mapData(this.model);
  }

  protected tell(): void {
    const disk = this.disk();
    const isOver = disk !== undefined && this.#at !== null && this.#offsetBytes !== null;
    const spot = isOver ? spotAt(disk, this.#at!, this.#offsetBytes!) : undefined;
    if (spot === undefined) return setText(this.#spot, "");
    const time = formatTime(this.model.times[this.#at!]! * 1000);
    const [read, written] = [spot.readBytes, spot.writeBytes].map((bytes) =>
      bytes === 0 ? "nothing" : `≈ ${formatBytes(bytes)}`
    );
    setText(this.#spot, `${time}, from ${formatBytes(spot.fromByte)}: ${read} read, ${written} written`);
  }
}
