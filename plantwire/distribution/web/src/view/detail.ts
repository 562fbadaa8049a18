/**
 * One metric of one device, large.
 *
 * In: a device and a metric to begin with, changes of trends, active limits. Out: a chart that follows.
 * Guarantees: the list of alarms stays in sight (on wide screens); Escape closes and gives the focus
 * back to where it was.
 * Not here: the readings; what came before this page was opened is asked for when a device is opened first.
 */

import uPlot from "uplot";
import { formatAge, formatExact, formatNumber, formatTime, formatValue, qualityNote } from "../format";
import type { View } from "../frame";
import type { Device, Metric } from "../telemetry-store";
import { labelOf, unitOf } from "../units";
import type { Severity } from "../wire";
import { byId, make, setText, textIn } from "./dom";
import { onThemeChange, palette } from "./palette";

export interface ActiveLimit {
  readonly severity: Severity;
  readonly limit: number;
}

export class DetailView implements View {
  private readonly root = byId("faceplate");
  private readonly title = byId("faceplate-title");
  private readonly note = byId("faceplate-note");
  private readonly choices = byId("faceplate-metrics");
  private readonly place = byId("faceplate-plot");
  private readonly buttons = new Map<string, { button: HTMLButtonElement; value: Text }>();
  private device: Device | null = null;
  private metricName: string | null = null;
  private plot: uPlot | null = null;
  private cameFrom: Element | null = null;
  private readonly opened = new Set<Device>();

  constructor(
    private readonly invalidate: (view: View) => void,
    private readonly limitsOf: (deviceId: string, metric: string) => readonly ActiveLimit[],
    private readonly onFirstOpened: (device: Device) => void,
  ) {
    byId("faceplate-close").addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.device !== null) this.close();
    });
    new ResizeObserver(() => {
      this.plot?.setSize(this.size());
    }).observe(this.place);
    onThemeChange(() => {
      if (this.device !== null) this.rebuild();
    });
  }

  /** Opens on `metric`, or on the first that has a trend. */
  open(device: Device, metric: string | null): void {
    this.cameFrom ??= document.activeElement;
    if (device !== this.device) {
      this.device = device;
      this.choices.replaceChildren();
      this.buttons.clear();
    }
    if (!this.opened.has(device) && device.seq > 0) {
      this.opened.add(device);
      this.onFirstOpened(device);
    }
    const first = [...device.metrics.values()].find((candidate) => candidate.trend !== null);
    this.metricName = metric ?? first?.name ?? null;
    this.root.hidden = false;
    this.rebuild();
    this.title.focus();
  }

  close(): void {
    this.root.hidden = true;
    this.device = null;
    this.plot?.destroy();
    this.plot = null;
    if (this.cameFrom instanceof HTMLElement && this.cameFrom.isConnected) this.cameFrom.focus();
    this.cameFrom = null;
  }

  /** A metric has changed. */
  touched(metric: Metric): void {
    if (metric.device === this.device) this.invalidate(this);
  }

  tick(): void {
    if (this.device !== null) this.invalidate(this);
  }

  render(): boolean {
    const { device } = this;
    if (device === null) return false;
    const metric = this.metricName === null ? undefined : device.metrics.get(this.metricName);
    for (const each of device.metrics.values()) {
      const { value, button } = this.buttons.get(each.name) ?? this.addChoice(each);
      const unit = unitOf(device.kind, each.name);
      const note = qualityNote(each.quality);
      const text = unit === "" ? formatValue(each.value) : `${formatValue(each.value)} ${unit}`;
      setText(value, note === null ? text : `${text} (${note})`);
      button.setAttribute("aria-pressed", String(each === metric));
      button.disabled = each.trend === null;
    }
    setText(this.title, metric === undefined ? device.id : `${device.id}, ${labelOf(metric.name)}`);
    const { trend } = metric ?? {};
    if (trend === undefined || trend === null || trend.length === 0) {
      setText(this.note, "no numbers yet");
      return false;
    }
    const { times, values } = trend;
    const spanMs = (times[times.length - 1] as number) - (times[0] as number);
    const [low, high] = extent(values);
    setText(this.note, `${formatNumber(low)} to ${formatNumber(high)} over ${formatAge(spanMs)}`);
    this.plot?.setData([times.map((time) => time / 1000), values.slice()]);
    return false;
  }

  private addChoice(metric: Metric): { button: HTMLButtonElement; value: Text } {
    const button = make("button", "metric-button");
    button.type = "button";
    const value = make("span", "metric-value");
    button.append(make("span", "metric-name", labelOf(metric.name)), value);
    button.addEventListener("click", () => {
      this.metricName = metric.name;
      this.rebuild();
    });
    this.choices.append(button);
    const choice = { button, value: textIn(value) };
    this.buttons.set(metric.name, choice);
    return choice;
  }

  private size(): { width: number; height: number } {
    return { width: Math.max(200, this.place.clientWidth), height: Math.max(120, this.place.clientHeight) };
  }

  private rebuild(): void {
    this.plot?.destroy();
    const colours = palette();
    const unit = this.device === null || this.metricName === null ? "" : unitOf(this.device.kind, this.metricName);
    const axis = {
      stroke: colours.quiet,
      grid: { stroke: colours.line, width: 1 },
      ticks: { stroke: colours.line, width: 1 },
      font: "12px system-ui, sans-serif",
    };
    this.plot = new uPlot(
      {
        ...this.size(),
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 6 } },
        scales: { x: { time: true }, y: { range: (_, low, high) => this.range(low, high) } },
        axes: [
          { ...axis, values: (_, splits) => splits.map((second) => formatTime(second * 1000)), space: 90 },
          { ...axis, size: 64, values: (_, splits) => splits.map((value) => `${formatExact(value)}${unit === "" ? "" : ` ${unit}`}`) },
        ],
        series: [{}, { stroke: colours.trend, width: 1.75, fill: colours.trendFill, points: { show: false }, spanGaps: false }],
        hooks: { draw: [(plot) => this.drawLimits(plot)], setCursor: [(plot) => this.showCursor(plot)] },
      },
      [[], []],
      this.place,
    );
    this.invalidate(this);
  }

  private limits(): readonly ActiveLimit[] {
    return this.device === null || this.metricName === null ? [] : this.limitsOf(this.device.id, this.metricName);
  }

  private range(low: number | null, high: number | null): [number, number] {
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
    const index = plot.cursor.idx;
    const time = index === null || index === undefined ? undefined : plot.data[0][index];
    const value = index === null || index === undefined ? undefined : plot.data[1]?.[index];
    if (time === undefined || value === undefined || value === null || (plot.cursor.left ?? -1) < 0) return;
    setText(this.note, `${formatNumber(value)} at ${formatTime(time * 1000)}`);
  }
}

function extent(values: Float64Array): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
