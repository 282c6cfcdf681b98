// SPDX-License-Identifier: MIT
/// <reference lib="dom" />
/** The plots of a disk, by uPlot: what each has on its axes and which lines. Which disk, and when, is card.ts. */
import { type MapColours, paint } from "./map.ts";
import type { Disk, Model } from "./model.ts";
import { type Field, PIECES } from "./terms.ts";
import { BYTE_STEPS, byteTicks, COUNT_STEPS, countTicks, formatMs, formatTime } from "./units.ts";

/** What is used of uPlot, which a script of its own has made global. */
interface Plot {
  readonly ctx: CanvasRenderingContext2D;
  readonly bbox: { readonly left: number; readonly top: number; readonly width: number; readonly height: number };
  readonly cursor: { readonly idx?: number | null; readonly left?: number; readonly top?: number };
  setData(data: readonly (readonly (number | null)[])[]): void;
  setSize(size: { width: number; height: number }): void;
  posToVal(position: number, scale: string): number;
  destroy(): void;
}

declare const uPlot: new (options: unknown, data: unknown, target: HTMLElement) => Plot;

/** A line of a plot. */
export interface Line {
  readonly field: Field;
  readonly name: string;
  /** The CSS variable with its colour. */
  readonly colour: string;
  readonly filled?: true;
}

/** What a plot shows. */
export interface ChartKind {
  readonly name: string;
  readonly title: string;
  readonly lines: readonly Line[];
  readonly axis: "count" | "bytes" | "time";
}

const READS = { name: "reads", colour: "--read", filled: true } as const;
const WRITES = { name: "writes", colour: "--write", filled: true } as const;

/** The plots of each disk, but for its map. */
export const CHARTS: readonly ChartKind[] = [
  {
    name: "requests",
    title: "Requests a second",
    axis: "count",
    lines: [
      { field: "reads", ...READS },
      { field: "writes", ...WRITES },
      { field: "others", name: "others", colour: "--other" },
    ],
  },
  {
    name: "bandwidth",
    title: "Bytes a second",
    axis: "bytes",
    lines: [{ field: "readBytes", ...READS }, { field: "writeBytes", ...WRITES }],
  },
  {
    name: "latency",
    title: "Latency",
    axis: "time",
    lines: [
      { field: "p50Ms", name: "half", colour: "--p50" },
      { field: "p90Ms", name: "90 %", colour: "--p90" },
      { field: "p99Ms", name: "99 %", colour: "--p99" },
    ],
  },
];

const AXIS_WIDTH = 62;
const FONT = "11px system-ui, sans-serif";
const CURSORS = "time";

/** The value of a CSS variable. */
export function cssColour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function baseOptions(model: Model, width: number, height: number, onCursor: (plot: Plot) => void) {
  const axis = { stroke: cssColour("--muted"), font: FONT };
  const grid = { stroke: cssColour("--grid"), width: 1 };
  const xAxis = {
    ...axis,
    grid: { show: false },
    ticks: { stroke: cssColour("--grid"), width: 1, size: 4 },
    space: 64,
    size: 24,
    values: (_: Plot, times: readonly number[]) => times.map((time) => timeTick(time)),
    incrs: [5, 10, 15, 30, 60, 120, 300],
  };
  return {
    axis: { ...axis, grid, ticks: { show: false }, size: AXIS_WIDTH, gap: 4 },
    options: {
      ...{ width, height },
      padding: [8, 26, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: CURSORS, scales: ["x", null] },
        drag: { x: false, y: false },
        points: { size: 7 },
        y: false,
      },
      hooks: { setCursor: [onCursor] },
      xAxis,
      xScale: { time: true, range: () => windowOf(model) },
    },
  };
}

/** "09:05", and "09:05:10" where it is no whole minute. */
function timeTick(time: number): string {
  const text = formatTime(time * 1000);
  return text.endsWith(":00") ? text.slice(0, 5) : text;
}

/** The minutes that are shown: the newest moment is at the right. */
function windowOf(model: Model): [number, number] {
  const end = model.times.at(-1) ?? Date.now() / 1000;
  return [end - model.shownSeconds, end];
}

/** A plot with lines. */
export function makeChart(
  kind: ChartKind,
  model: Model,
  target: HTMLElement,
  height: number,
  onCursor: (at: number | null) => void,
): Plot {
  const { options, axis } = baseOptions(model, target.clientWidth, height, (plot) => onCursor(plot.cursor.idx ?? null));
  const { xAxis, xScale, ...rest } = options;
  const yAxis = {
    count: {
      values: (_: Plot, ticks: number[], __: number, ___: number, by: number) => countTicks(ticks, by),
      incrs: COUNT_STEPS,
    },
    bytes: {
      values: (_: Plot, ticks: number[], __: number, ___: number, by: number) => byteTicks(ticks, by),
      incrs: BYTE_STEPS,
    },
    time: {
      // Where there is no room for all, some are null.
      values: (_: Plot, ticks: (number | null)[]) => ticks.map((ms) => ms === null ? "" : formatMs(ms)),
      splits: (_: Plot, __: number, min: number, max: number) => powersOfTen(min, max),
    },
  }[kind.axis];
  const yScale = kind.axis === "time"
    ? { distr: 3, log: 10, range: (_: Plot, min: number | null, max: number | null) => decades(min, max) }
    : {
      range: (
        _: Plot,
        __: number,
        max: number | null,
      ) => [0, Math.max(max ?? 0, kind.axis === "bytes" ? 4096 : 4) * 1.08],
    };
  const series = kind.lines.map(({ name, colour, filled }) => ({
    label: name,
    stroke: cssColour(colour),
    width: 1.5,
    points: { show: kind.axis === "time", size: 3, fill: cssColour(colour) },
    ...(filled ? { fill: `${cssColour(colour)}22` } : {}),
  }));
  return new uPlot(
    {
      ...rest,
      axes: [xAxis, { ...axis, ...yAxis, space: 28 }],
      scales: { x: xScale, y: yScale },
      series: [{}, ...series],
    },
    [[], ...kind.lines.map(() => [])],
    target,
  );
}

/** Whole powers of ten around what there is. */
function decades(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null || !(min > 0)) return [0.01, 10];
  const [from, to] = [Math.floor(Math.log10(min)), Math.ceil(Math.log10(max))];
  return [10 ** from, 10 ** Math.max(to, from + 1)];
}

/** Those from one to another: a line for each, and none between. */
function powersOfTen(min: number, max: number): number[] {
  const [from, to] = [Math.round(Math.log10(min)), Math.round(Math.log10(max))];
  return Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));
}

/** The data of a plot with lines. */
export function chartData(kind: ChartKind, model: Model, disk: Disk): (readonly (number | null)[])[] {
  return [model.times, ...kind.lines.map(({ field }) => disk.columns[field])];
}

/** The map of a disk: its pixels below uPlot's grid. */
export function makeMap(
  model: Model,
  disk: () => Disk,
  target: HTMLElement,
  height: number,
  onCursor: (at: number | null, offsetBytes: number | null) => void,
): Plot {
  const { options, axis } = baseOptions(model, target.clientWidth, height, (plot) => {
    const { idx, top } = plot.cursor;
    onCursor(idx ?? null, top === undefined || top < 0 ? null : plot.posToVal(top, "y"));
  });
  const { xAxis, xScale, ...rest } = options;
  const colours: MapColours = {
    reads: threeNumbers(cssColour("--read")),
    writes: threeNumbers(cssColour("--write")),
    both: threeNumbers(cssColour("--both")),
  };
  const picture = document.createElement("canvas");
  const draw = ({ ctx, bbox }: Plot) => {
    const seconds = Math.round(model.shownSeconds);
    picture.width = seconds;
    picture.height = PIECES;
    picture.getContext("2d")!.putImageData(new ImageData(paint(disk(), model.times, seconds, colours), seconds), 0, 0);
    ctx.save();
    ctx.imageSmoothingEnabled = false;
    ctx.fillStyle = cssColour("--map");
    ctx.fillRect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.drawImage(picture, bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.restore();
  };
  const yAxis = {
    values: (_: Plot, ticks: number[], __: number, ___: number, by: number) => byteTicks(ticks, by),
    incrs: BYTE_STEPS,
  };
  return new uPlot(
    {
      ...rest,
      cursor: { ...rest.cursor, y: true },
      hooks: { ...rest.hooks, drawClear: [draw] },
      axes: [xAxis, { ...axis, ...yAxis, space: 32 }],
      scales: { x: xScale, y: { range: () => [0, disk().description.sizeBytes] } },
      series: [{}, { paths: () => null, points: { show: false } }],
    },
    [[], []],
    target,
  );
}

/** The data of a map: its line is not drawn, but has a point for each moment. */
export function mapData(model: Model): (readonly (number | null)[])[] {
  return [model.times, model.times.map(() => 0)];
}

/** "#1d6fd8" as numbers. */
function threeNumbers(colour: string): [number, number, number] {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)) as [number, number, number];
}

export type { Plot };
