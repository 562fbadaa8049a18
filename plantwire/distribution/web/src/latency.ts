/**
 * How long an alarm took, hop by hop, and the statistics of the last ones.
 *
 * In: an alarm's hop stamps with the page's own `received` and `rendered`. Out: ms per stage,
 * percentiles, the last samples.
 * Guarantees: a stage with a missing stamp, or with stamps in the wrong order (clocks that differ),
 * is not measured and enters no figure; at most `capacity` samples are kept, the oldest go first.
 * Not here: taking the stamps (`connection`, `main`), drawing (`view/latency`).
 */

import type { Hops, Severity } from "./wire";

export interface Stamps extends Hops {
  readonly received?: number;
  readonly rendered?: number;
}

export interface Budget {
  readonly p95Ms: number;
  readonly p99Ms: number;
}

export interface Stage {
  readonly key: string;
  readonly label: string;
  readonly from: keyof Stamps;
  readonly to: keyof Stamps;
  /** Stages of one group share one budget. */
  readonly group: string;
}

export const STAGES: readonly Stage[] = [
  { key: "device", label: "Device → gateway", from: "device", to: "gatewayIn", group: "device" },
  { key: "normalise", label: "Normalisation", from: "gatewayIn", to: "gatewayOut", group: "normalise" },
  { key: "broker", label: "Broker", from: "gatewayOut", to: "detectIn", group: "broker" },
  { key: "evaluate", label: "Evaluation", from: "detectIn", to: "detectOut", group: "evaluate" },
  { key: "publish", label: "Publish", from: "detectOut", to: "published", group: "delivery" },
  { key: "distribute", label: "Distribution", from: "published", to: "emitted", group: "delivery" },
  { key: "deliver", label: "Delivery", from: "emitted", to: "received", group: "delivery" },
  { key: "render", label: "Rendering", from: "received", to: "rendered", group: "render" },
];

/** What each group of stages may take; of the whole path, for a critical alarm. */
export const BUDGETS: Readonly<Record<string, Budget>> = {
  device: { p95Ms: 10, p99Ms: 20 },
  normalise: { p95Ms: 3, p99Ms: 5 },
  broker: { p95Ms: 5, p99Ms: 10 },
  evaluate: { p95Ms: 15, p99Ms: 30 },
  delivery: { p95Ms: 30, p99Ms: 50 },
  render: { p95Ms: 10, p99Ms: 20 },
};
export const WHOLE_BUDGET: Budget = { p95Ms: 73, p99Ms: 100 };

export interface LatencySample {
  readonly alarmId: string;
  readonly revision: number;
  readonly severity: Severity;
  readonly message: string;
  readonly atMs: number;
  /** ms of each of `STAGES`, in that order; null where not measured. */
  readonly stagesMs: readonly (number | null)[];
  /** First stamp of the device to the last of the page; null where either is missing. */
  readonly wholeMs: number | null;
}

export interface Percentiles {
  readonly count: number;
  readonly p50Ms: number | null;
  readonly p95Ms: number | null;
}

/** ms between two stamps, or null where one is missing or they are in the wrong order. */
export function between(stamps: Stamps, from: keyof Stamps, to: keyof Stamps): number | null {
  const start = stamps[from];
  const end = stamps[to];
  if (start === undefined || end === undefined || start <= 0 || end < start) return null;
  return end - start;
}

/** The `fraction` percentile (0…1) by nearest rank of values in any order; null of none. */
export function percentile(values: readonly number[], fraction: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(fraction * sorted.length));
  return sorted[rank - 1] ?? null;
}

export class LatencyLog {
  private readonly kept: LatencySample[] = [];

  constructor(readonly capacity = 200) {}

  add(alarm: { alarmId: string; revision: number; severity: Severity; message: string }, stamps: Stamps): void {
    const last: keyof Stamps = stamps.rendered === undefined ? "received" : "rendered";
    this.kept.push({
      alarmId: alarm.alarmId,
      revision: alarm.revision,
      severity: alarm.severity,
      message: alarm.message,
      atMs: stamps[last] ?? 0,
      stagesMs: STAGES.map((stage) => between(stamps, stage.from, stage.to)),
      wholeMs: between(stamps, "device", last),
    });
    if (this.kept.length > this.capacity) this.kept.shift();
  }

  /** The last `count` samples that `keep` accepts, oldest first. */
  last(count: number, keep: (sample: LatencySample) => boolean = () => true): LatencySample[] {
    return this.kept.filter(keep).slice(-count);
  }
}

/** Percentiles of each stage, in the order of `STAGES`, and of the whole path. */
export function summarise(samples: readonly LatencySample[]): { stages: Percentiles[]; whole: Percentiles } {
  const of = (pick: (sample: LatencySample) => number | null): Percentiles => {
    const values = samples.map(pick).filter((value) => value !== null);
    return { count: values.length, p50Ms: percentile(values, 0.5), p95Ms: percentile(values, 0.95) };
  };
  return {
    stages: STAGES.map((_, index) => of((sample) => sample.stagesMs[index] ?? null)),
    whole: of((sample) => sample.wholeMs),
  };
}

/** Percentiles of the sum over a group's stages, from samples that measured all of them. */
export function summariseGroup(samples: readonly LatencySample[], group: string): Percentiles {
  const indexes = STAGES.flatMap((stage, index) => (stage.group === group ? [index] : []));
  const sums: number[] = [];
  for (const sample of samples) {
    const parts = indexes.map((index) => sample.stagesMs[index] ?? null);
    if (parts.every((part) => part !== null)) sums.push(parts.reduce((sum, part) => sum + part, 0));
  }
  return { count: sums.length, p50Ms: percentile(sums, 0.5), p95Ms: percentile(sums, 0.95) };
}
