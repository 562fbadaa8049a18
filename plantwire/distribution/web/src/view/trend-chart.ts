/**
 * The large chart of one metric: a line, the band between its least and greatest, the limits in alarm.
 *
 * In: a curve, a range of time, limits. Out: a canvas that fits its place; a callback with what is under the cursor.
 * Not here: whose curve it is, and where it comes from (`view/detail`).
 */

import uPlot from "uplot";
import { formatExact, formatMoment, formatNumber } from "../format";
import type { Curve } from "../history";
import type { Severity } from "../wire";
import { palette } from "./palette";

export interface ActiveLimit {
  readonly severity: Severity;
  readonly limit: number;
}

/** The series by their place; the line is drawn upon the band. */
const HIGH = 1;
const LOW = 2;
const AVERAGE = 3;

export class TrendChart {
  private plot: uPlot | null = null;
  private range: readonly [fromMs: number, toMs: number] = [0, 0];

  constructor(
    private readonly place: HTMLElement,
    private readonly limits: () => readonly ActiveLimit[],
    private readonly onCursor: (text: string) => void,
  ) {
    new ResizeObserver(() => {
      this.plot?.setSize(this.size());
    }).observe(place);
  }

  /** Starts anew, in the theme's present colours. */
  rebuild(unit: string): void {
    this.close();
    const colours = palette();
    const axis = {
      stroke: colours.quiet,
      grid: { stroke: colours.line, width: 1 },
      ticks: { stroke: colours.line, width: 1 },
      font: "12px system-ui, sans-serif",
    };
    const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: false };
    const suffix = unit === "" ? "" : ` ${unit}`;
    this.plot = new uPlot(
      {
        ...this.size(),
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { time: true, range: () => [this.range[0] / 1000, this.range[1] / 1000] },
          y: { range: (_, low, high) => this.valueRange(low, high) },
        },
        axes: [
          { ...axis, values: (_, splits) => splits.map((second) => formatMoment(second * 1000, this.spanMs)), space: 90 },
          { ...axis, size: 64, values: (_, splits) => splits.map((value) => `${formatExact(value)}${suffix}`) },
        ],
        series: [
          {},
          edge,
          edge,
          // A reading that stands alone would be a line without length.
          { stroke: colours.trend, width: 1.75, points: { show: false, size: 4, fill: colours.trend, filter: alone }, spanGaps: false },
        ],
        bands: [{ series: [HIGH, LOW], fill: colours.trendBand }],
        hooks: { draw: [(plot) => this.drawLimits(plot)], setCursor: [(plot) => this.showCursor(plot)] },
      },
      [[], [], [], []],
      this.place,
    );
  }

  show(curve: Curve, fromMs: number, toMs: number): void {
    this.range = [fromMs, toMs];
    this.plot?.setData([curve.times.map((time) => time / 1000), curve.high, curve.low, curve.average]);
  }

  close(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  private get spanMs(): number {
    return this.range[1] - this.range[0];
  }

  private size(): { width: number; height: number } {
    return { width: Math.max(200, this.place.clientWidth), height: Math.max(120, this.place.clientHeight) };
  }

  private valueRange(low: number | null, high: number | null): [number, number] {
    const marks = this.limits().map(({ limit }) => limit);
    const bottom = Math.min(low ?? 0, ...marks);
    const top = Math.max(high ?? 1, ...marks);
    const margin = Math.max((top - bottom) * 0.1, Math.abs(top) * 0.01, 1e-6);
    return [bottom - margin, top + margin];
  }

  private drawLimits(plot: uPlot): void {
    const { ctx: context, bbox } = plot;
    const colours = palette();
    context.save();
    context.lineWidth = Math.max(1, devicePixelRatio);
    context.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const { severity, limit } of this.limits()) {
      const y = Math.round(plot.valToPos(limit, "y", true));
      const colour = colours.severity[severity] ?? colours.ink;
      context.strokeStyle = colour;
      context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      context.beginPath();
      context.moveTo(bbox.left, y);
      context.lineTo(bbox.left + bbox.width, y);
      context.stroke();
      const label = `${severity.toLowerCase()} ${formatExact(limit)}`;
      const right = bbox.left + bbox.width - 8 * devicePixelRatio;
      const width = context.measureText(label).width;
      const half = 9 * devicePixelRatio;
      context.fillStyle = colours.panel;
      context.fillRect(right - width - half / 2, y - half, width + half, 2 * half);
      context.fillStyle = colour;
      context.fillText(label, right, y);
    }
    context.restore();
  }

  private showCursor(plot: uPlot): void {
    const { idx: index } = plot.cursor;
    if (index === null || index === undefined || (plot.cursor.left ?? -1) < 0) return;
    const [time, average, low, high] = [0, AVERAGE, LOW, HIGH].map((series) => plot.data[series]?.[index] ?? null);
    if (typeof time !== "number" || typeof average !== "number") return;
    const isWide = typeof low === "number" && typeof high === "number" && low < high;
    const spread = isWide ? ` (${formatNumber(low)} to ${formatNumber(high)})` : "";
    this.onCursor(`${formatNumber(average)}${spread} at ${formatMoment(time * 1000, this.spanMs)}`);
  }
}

/** The points of a series with a neighbour on neither side. */
function alone(plot: uPlot, series: number): number[] | null {
  const values = plot.data[series] ?? [];
  const found: number[] = [];
  for (let i = 0; i < values.length; i += 1) {
    if (typeof values[i] === "number" && typeof values[i - 1] !== "number" && typeof values[i + 1] !== "number") found.push(i);
  }
  return found.length === 0 ? null : found;
}
