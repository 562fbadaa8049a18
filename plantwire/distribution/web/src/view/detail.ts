/**
 * One metric of one device, large, over a range of time up to now.
 *
 * In: a device and a metric to begin with, changes of trends, active limits, history. Out: a chart that follows.
 * Guarantees: the list of alarms stays in sight (on wide screens); Escape closes and gives the focus
 * back to where it was; without history the page's own readings are shown, and why there are no others.
 * Not here: the readings; what came before this page was opened is asked for when a device is opened first.
 * How history is asked for (`history-loader`), the chart itself (`view/trend-chart`).
 */

import { formatAge, formatNumber, formatValue, qualityNote } from "../format";
import type { View } from "../frame";
import { joinLive } from "../history";
import type { HistoryLoader } from "../history-loader";
import type { Device, Metric } from "../telemetry-store";
import { labelOf, unitOf } from "../units";
import { byId, make, setText, textIn } from "./dom";
import { onThemeChange } from "./palette";
import { TrendChart, type ActiveLimit } from "./trend-chart";

const MINUTE_MS = 60_000;
const RANGES: readonly (readonly [label: string, rangeMs: number])[] = [
  ["15 min", 15 * MINUTE_MS],
  ["1 h", 60 * MINUTE_MS],
  ["8 h", 8 * 60 * MINUTE_MS],
  ["1 d", 24 * 60 * MINUTE_MS],
  ["7 d", 7 * 24 * 60 * MINUTE_MS],
];

export class DetailView implements View {
  private readonly root = byId("faceplate");
  private readonly title = byId("faceplate-title");
  private readonly note = byId("faceplate-note");
  private readonly choices = byId("faceplate-metrics");
  private readonly chart: TrendChart;
  private readonly rangeButtons = new Map<number, HTMLButtonElement>();
  private readonly buttons = new Map<string, { button: HTMLButtonElement; value: Text }>();
  private device: Device | null = null;
  private metricName: string | null = null;
  private rangeMs = 15 * MINUTE_MS;
  private cameFrom: Element | null = null;
  private readonly opened = new Set<Device>();

  constructor(
    private readonly invalidate: (view: View) => void,
    private readonly limitsOf: (deviceId: string, metric: string) => readonly ActiveLimit[],
    private readonly loader: HistoryLoader,
    private readonly plantNowMs: () => number,
    private readonly onFirstOpened: (device: Device) => void,
  ) {
    this.chart = new TrendChart(
      byId("faceplate-plot"),
      () => this.limits(),
      (text) => setText(this.note, text),
    );
    for (const [label, rangeMs] of RANGES) this.addRange(label, rangeMs);
    byId("faceplate-close").addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.device !== null) this.close();
    });
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
    this.chart.close();
    this.loader.leave();
    if (this.cameFrom instanceof HTMLElement && this.cameFrom.isConnected) this.cameFrom.focus();
    this.cameFrom = null;
  }

  /** A metric has changed. */
  touched(metric: Metric): void {
    if (metric.device === this.device) this.invalidate(this);
  }

  /** Once a second, and when history has come. */
  tick(): void {
    if (this.device === null) return;
    this.loader.tick();
    this.invalidate(this);
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
    this.showTrend(metric);
    return false;
  }

  private showTrend(metric: Metric | undefined): void {
    const { history, failure, isLoading } = this.loader;
    const { times = [], values = [] } = metric?.trend ?? {};
    const toMs = Math.max(this.plantNowMs(), times[times.length - 1] ?? 0);
    // Without history the page's own few minutes fill the chart.
    const isAlone = history === null && failure !== null && times.length > 0;
    const fromMs = isAlone ? Math.max(times[0] as number, toMs - this.rangeMs) : toMs - this.rangeMs;
    const curve = joinLive(history, times, values, fromMs);
    this.chart.show(curve, fromMs, toMs);
    const facts = [];
    if (curve.times.length > 0) {
      const spanMs = (curve.times[curve.times.length - 1] as number) - (curve.times[0] as number);
      facts.push(`${formatNumber(least(curve.low))} to ${formatNumber(-least(curve.high, -1))} over ${formatAge(spanMs)}`);
    } else {
      facts.push(isLoading ? "loading" : "no numbers in this time");
    }
    if (history !== null && history.stepMs > 1000) facts.push(`each point ${formatAge(history.stepMs)}`);
    if (failure !== null) {
      facts.push(history === null ? `no history, only what this page has seen: ${failure}` : `history may be old: ${failure}`);
    }
    setText(this.note, facts.join(", "));
  }

  private addRange(label: string, rangeMs: number): void {
    const button = make("button", "range-button", label);
    button.type = "button";
    button.addEventListener("click", () => {
      this.rangeMs = rangeMs;
      this.rebuild();
    });
    byId("faceplate-ranges").append(button);
    this.rangeButtons.set(rangeMs, button);
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

  private rebuild(): void {
    const { device, metricName } = this;
    for (const [rangeMs, button] of this.rangeButtons) {
      button.setAttribute("aria-pressed", String(rangeMs === this.rangeMs));
    }
    this.chart.rebuild(device === null || metricName === null ? "" : unitOf(device.kind, metricName));
    if (device === null || metricName === null) this.loader.leave();
    else this.loader.look(device.id, metricName, this.rangeMs);
    this.invalidate(this);
  }

  private limits(): readonly ActiveLimit[] {
    return this.device === null || this.metricName === null ? [] : this.limitsOf(this.device.id, this.metricName);
  }
}

/** The least of the numbers, each times `sign`. */
function least(values: readonly (number | null)[], sign = 1): number {
  let found = Number.POSITIVE_INFINITY;
  for (const value of values) if (value !== null && value * sign < found) found = value * sign;
  return found;
}
