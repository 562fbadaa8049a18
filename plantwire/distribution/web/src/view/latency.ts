/**
 * How long the last alarms took: a table of stages against their budget, a bar for each of the last.
 *
 * In: the latency log. Out: figures of the last 200 alarms, bars of the last 20.
 * Guarantees: a stage over its budget says so in words and by a mark, not by colour alone; what was not
 * measured shows a dash.
 * Not here: the measurement (`latency`).
 */

import { formatMs } from "../format";
import type { View } from "../frame";
import {
  BUDGETS,
  percentile,
  STAGES,
  summarise,
  summariseGroup,
  WHOLE_BUDGET,
  type Budget,
  type LatencyLog,
  type LatencySample,
  type Percentiles,
} from "../latency";
import { byId, make, setData, setText, textIn } from "./dom";

const BARS = 20;
const SCALE_MIN_MS = 110;
const OPEN_KEY = "plantwire.latency-open";
const FILTER_KEY = "plantwire.latency-critical";

interface StageRow {
  readonly p50: Text;
  readonly p95: Text;
}

interface BudgetCell {
  readonly group: string;
  readonly budget: Budget;
  readonly cell: HTMLElement;
  readonly mark: Text;
}

interface Bar {
  readonly root: HTMLElement;
  readonly parts: HTMLElement[];
  readonly total: Text;
}

export class LatencyView implements View {
  private readonly rows: StageRow[] = [];
  private readonly budgets: BudgetCell[] = [];
  private readonly bars: Bar[] = [];
  private readonly whole: StageRow;
  private readonly scaleTexts: Text[] = [];
  private readonly filter = byId<HTMLInputElement>("latency-critical");
  private readonly limitLine = make("div", "bars-limit");

  constructor(
    private readonly invalidate: (view: View) => void,
    private readonly log: LatencyLog,
  ) {
    const body = byId("latency-rows");
    let group = "";
    for (const [index, stage] of STAGES.entries()) {
      const row = make("tr");
      const name = make("th");
      name.scope = "row";
      const swatch = make("span", "swatch");
      swatch.dataset["stage"] = stage.key;
      name.append(swatch, stage.label);
      const [p50, p95] = [make("td"), make("td")];
      row.append(name, p50, p95);
      if (stage.group !== group) {
        group = stage.group;
        const span = STAGES.filter((other) => other.group === group).length;
        row.append(this.budgetCell(group, BUDGETS[group] ?? WHOLE_BUDGET, span));
        if (index > 0) row.classList.add("group-start");
      }
      body.append(row);
      this.rows.push({ p50: textIn(p50), p95: textIn(p95) });
    }
    const row = make("tr", "latency-whole");
    const name = make("th", "", "Whole path");
    name.scope = "row";
    const [p50, p95] = [make("td"), make("td")];
    row.append(name, p50, p95, this.budgetCell("whole", WHOLE_BUDGET, 1));
    body.append(row);
    this.whole = { p50: textIn(p50), p95: textIn(p95) };
    this.buildChart();

    const toggle = byId<HTMLButtonElement>("latency-toggle");
    const showBody = (open: boolean): void => {
      byId("latency-body").hidden = !open;
      toggle.setAttribute("aria-expanded", String(open));
      setText(toggle, open ? "Hide" : "Show");
    };
    showBody(localStorage.getItem(OPEN_KEY) !== "false");
    toggle.addEventListener("click", () => {
      const open = byId("latency-body").hidden !== false;
      localStorage.setItem(OPEN_KEY, String(open));
      showBody(open);
    });
    this.filter.checked = localStorage.getItem(FILTER_KEY) === "true";
    this.filter.addEventListener("change", () => {
      localStorage.setItem(FILTER_KEY, String(this.filter.checked));
      this.invalidate(this);
    });
    this.render();
  }

  render(): boolean {
    const keep = this.filter.checked ? (sample: LatencySample) => sample.severity === "CRITICAL" : () => true;
    const samples = this.log.last(this.log.capacity, keep);
    const { stages, whole } = summarise(samples);
    for (const [index, row] of this.rows.entries()) this.fill(row, stages[index]);
    this.fill(this.whole, whole);
    for (const { group, budget, cell, mark } of this.budgets) {
      const { p95Ms } = group === "whole" ? whole : summariseGroup(samples, group);
      const over = p95Ms !== null && p95Ms > budget.p95Ms;
      setData(cell, "over", over ? "true" : null);
      setText(mark, p95Ms === null ? "" : over ? "over" : "ok");
    }
    const what = this.filter.checked ? "critical alarm" : "alarm";
    setText(
      byId("latency-note"),
      samples.length === 0 ? "none yet" : `last ${samples.length} ${what}${samples.length === 1 ? "" : "s"}, ms`,
    );
    this.renderBars(samples.slice(-BARS));
    return false;
  }

  private fill(row: StageRow, figures: Percentiles | undefined): void {
    setText(row.p50, formatMs(figures?.p50Ms ?? null));
    setText(row.p95, formatMs(figures?.p95Ms ?? null));
  }

  private budgetCell(group: string, budget: Budget, span: number): HTMLElement {
    const cell = make("td", "budget");
    cell.rowSpan = span;
    const mark = make("span", "budget-mark");
    cell.append(make("span", "", `${budget.p95Ms} / ${budget.p99Ms}`), mark);
    this.budgets.push({ group, budget, cell, mark: textIn(mark) });
    return cell;
  }

  private buildChart(): void {
    const chart = byId("latency-bars");
    const scale = make("div", "bars-scale");
    for (let line = 0; line < 3; line += 1) {
      const mark = make("span", "bars-mark");
      mark.style.bottom = `${line * 50}%`;
      this.scaleTexts.push(textIn(mark));
      scale.append(mark);
    }
    const field = make("div", "bars-field");
    this.limitLine.append(make("span", "", `${WHOLE_BUDGET.p99Ms} ms`));
    field.append(this.limitLine);
    for (let index = 0; index < BARS; index += 1) {
      const root = make("div", "lat-bar");
      const stack = make("div", "lat-stack");
      const parts = STAGES.map((stage) => {
        const part = make("div", "lat-part");
        part.dataset["stage"] = stage.key;
        return part;
      });
      stack.append(...parts);
      const total = make("span", "lat-total");
      root.append(total, stack);
      field.append(root);
      this.bars.push({ root, parts, total: textIn(total) });
    }
    chart.append(scale, field);
  }

  private renderBars(samples: readonly LatencySample[]): void {
    const totals = samples.map((sample) => sum(sample.stagesMs));
    // One very slow alarm must not flatten the others: its bar is cut off, its number is not.
    const scaleMs = niceScale(Math.max(SCALE_MIN_MS, 1.3 * (percentile(totals, 0.75) ?? 0)));
    for (const [index, text] of this.scaleTexts.entries()) setText(text, String((scaleMs * index) / 2));
    this.limitLine.style.bottom = `${(WHOLE_BUDGET.p99Ms / scaleMs) * 100}%`;
    for (const [index, bar] of this.bars.entries()) {
      const sample = samples[index];
      setData(bar.root, "severity", sample?.severity ?? null);
      setData(bar.root, "cut", (totals[index] ?? 0) > scaleMs ? "true" : null);
      setText(bar.total, sample === undefined ? "" : formatMs(totals[index] ?? null).replace(/\.\d$/, ""));
      bar.root.title = sample === undefined ? "" : describe(sample);
      for (const [stage, part] of bar.parts.entries()) {
        part.style.height = `${(((sample?.stagesMs[stage] ?? 0) / scaleMs) * 100).toFixed(2)}%`;
      }
    }
  }
}

function describe(sample: LatencySample): string {
  const lines = STAGES.map((stage, index) => `${stage.label}: ${formatMs(sample.stagesMs[index] ?? null)} ms`);
  return [`${sample.severity} ${sample.message}`, ...lines, `Whole path: ${formatMs(sample.wholeMs)} ms`].join("\n");
}

function sum(values: readonly (number | null)[]): number {
  return values.reduce<number>((total, value) => total + (value ?? 0), 0);
}

/** The end of the axis: the least of 120, 150, 200, 300, 400, 500 … that holds `value`. */
function niceScale(value: number): number {
  for (let decade = 100; decade < 1e9; decade *= 10) {
    for (const step of [1.2, 1.5, 2, 3, 4, 5, 7.5, 10]) if (step * decade >= value) return step * decade;
  }
  return value;
}
