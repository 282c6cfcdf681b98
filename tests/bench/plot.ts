/**
 * The figures as SVG, drawn by Vega-Lite. It comes from npm when plots are drawn and at no other time: nothing else needs
 * it, and the names are no literals in an import, so that no check of the source asks the network for them.
 */
import type { Job } from "./jobs.ts";
import type { Results } from "./results.ts";
import { allPoints, scalingTitles } from "./scaling.ts";

const vegaPackage = "npm:vega@6.4.0";
const vegaLitePackage = "npm:vega-lite@6.5.0";

/** A Vega-Lite specification. */
export type Chart = Readonly<Record<string, unknown>>;

/** The part of Vega that is used. */
interface Vega {
  parse(spec: unknown): unknown;
  View: new (runtime: unknown, options: { renderer: "none" }) => { toSVG(): Promise<string> };
}
interface VegaLite {
  compile(chart: Chart): { spec: unknown };
}

const look = { background: "white", config: { view: { stroke: null }, axis: { gridColor: "#eee" } } };

/** Draws charts. @throws if npm's packages are neither cached nor reachable. */
export async function draw(charts: Readonly<Record<string, Chart>>): Promise<Record<string, string>> {
  const vega = await import(vegaPackage) as Vega;
  const { compile } = await import(vegaLitePackage) as VegaLite;
  const drawn: Record<string, string> = {};
  for (const [name, chart] of Object.entries(charts)) {
    drawn[name] = await new vega.View(vega.parse(compile(chart).spec), { renderer: "none" }).toSVG();
  }
  return drawn;
}

/** The charts of results.json, by file name. */
export function chartsOf(results: Results, jobs: readonly Job[]): Record<string, Chart> {
  const charts: Record<string, Chart> = {
    "ratio.svg": barChart(results, jobs, "ratio", "throughput, ratio to brd"),
    "cpu.svg": barChart(results, jobs, "cpuUs", "processor time per request, us", "log"),
  };
  const points = allPoints(results);
  for (const [series, title] of Object.entries(scalingTitles)) {
    const values = points.filter((point) => point.series === series && point.x !== undefined)
      .map((point) => ({ ...point, line: `${point.disk}, ${point.processors} CPUs` }));
    if (values.length > 0) charts[`scaling-${series}.svg`] = lineChart(values, title);
  }
  return charts;
}

function barChart(
  { main }: Results,
  jobs: readonly Job[],
  field: "ratio" | "cpuUs",
  title: string,
  scale: "linear" | "log" = "linear",
): Chart {
  const values = jobs.flatMap((job) =>
    Object.entries(main.figures[job.name] ?? {}).map(([disk, figure]) => ({
      job: job.title,
      disk,
      value: figure[field],
    }))
  );
  const disks = Object.keys(main.disks);
  return {
    ...look,
    data: { values },
    // On a logarithmic scale bars begin at 1 us: it has no zero.
    mark: { type: "bar" },
    encoding: {
      facet: { field: "job", type: "nominal", columns: 4, title: null, sort: jobs.map((job) => job.title) },
      y: { field: "disk", type: "nominal", sort: disks, title: null },
      x: {
        field: "value",
        type: "quantitative",
        title,
        scale: scale === "log" ? { type: "log", domainMin: 1 } : { type: "linear" },
        ...(scale === "log" ? { stack: null } : {}),
      },
      ...(scale === "log" ? { x2: { datum: 1 } } : {}),
      color: { field: "disk", type: "nominal", sort: disks, legend: null, scale: { scheme: "tableau10" } },
    },
    resolve: { scale: { x: scale === "log" ? "shared" : "independent" } },
    width: 180,
  };
}

function lineChart(values: readonly unknown[], title: string): Chart {
  const x = { field: "x", type: "quantitative", title, scale: { type: "log", base: 2 } };
  const color = { field: "line", type: "nominal", title: null };
  const panel = (field: string, name: string) => ({
    mark: { type: "line", point: true },
    encoding: { x, y: { field, type: "quantitative", title: name, scale: { type: "log" } }, color },
    width: 300,
  });
  return {
    ...look,
    data: { values },
    hconcat: [panel("iops", "requests per second"), panel("cpuUs", "processor time per request, us")],
  };
}
