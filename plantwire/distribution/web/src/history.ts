/**
 * Stored telemetry of one metric: a question to the HTTP interface, and its answer joined with what came live.
 *
 * In: a device, a metric, a range; readings of the page itself. Out: flat arrays that a chart can draw.
 * Guarantees: an answer is checked before anything is drawn of it; the right edge is live: no reading of the
 * page later than the stored ones is left out, none is drawn twice; where nothing was measured, nothing is drawn.
 * Not here: when to ask (`history-loader`), drawing (`view/trend-chart`).
 */

import { TokenRefused } from "./polling";

/** How many points a chart asks for: about one for each of its pixels. */
const POINTS = 1_000;
/** Readings closer than this belong together, however dense the others are. */
const GAP_MIN_MS = 10_000;

export interface Question {
  readonly deviceId: string;
  readonly metric: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** Points in the order of time, in parallel arrays; a point is what lies within `stepMs` from its time on. */
export interface History {
  readonly resolution: string;
  /** 0 for single samples. */
  readonly stepMs: number;
  /** Until when was asked: readings before it are in the points. */
  readonly toMs: number;
  readonly times: readonly number[];
  readonly low: readonly number[];
  readonly average: readonly number[];
  readonly high: readonly number[];
  readonly count: readonly number[];
}

/** What a chart draws: `null` breaks a line. Times are ms since the epoch. */
export interface Curve {
  readonly times: number[];
  readonly low: (number | null)[];
  readonly average: (number | null)[];
  readonly high: (number | null)[];
}

/** No history; the text is for people. */
export class NoHistory extends Error {}

export async function askHistory(
  ask: typeof fetch,
  token: string,
  question: Question,
  signal: AbortSignal,
): Promise<History> {
  const parameters = new URLSearchParams({
    metric: question.metric,
    from: String(Math.max(0, Math.floor(question.fromMs))),
    to: String(Math.floor(question.toMs)),
    points: String(POINTS),
  });
  const path = `/api/devices/${encodeURIComponent(question.deviceId)}/history?${parameters}`;
  const answer = await ask(path, { headers: { Authorization: `Bearer ${token}`, Accept: "application/json" }, signal });
  if (answer.status === 401 || answer.status === 403) throw new TokenRefused("the server refuses the token");
  if (!answer.ok) throw new NoHistory(await reasonOf(answer));
  const history = parseHistory(await answer.json());
  if (history === null) throw new NoHistory("the server's answer is not understood");
  return history;
}

async function reasonOf(answer: Response): Promise<string> {
  const problem: unknown = await answer.json().catch(() => null);
  switch ((problem as { reason?: unknown } | null)?.reason) {
    case "unavailable":
      return "the database does not answer";
    case "busy":
      return "the server has too many requests";
    case "timeout":
      return "the database is slow";
    default:
      return `the server answers ${answer.status}`;
  }
}

/** An answer of the interface, or `null` where it is not what the contract says. */
export function parseHistory(raw: unknown): History | null {
  if (typeof raw !== "object" || raw === null) return null;
  const { resolution, stepMs, to, points } = raw as { [name: string]: unknown };
  if (typeof resolution !== "string" || !isTime(stepMs) || !isTime(to) || !Array.isArray(points)) return null;
  const lists = { times: [] as number[], low: [] as number[], average: [] as number[], high: [] as number[], count: [] as number[] };
  const history = { resolution, stepMs, toMs: to, ...lists };
  let before = Number.NEGATIVE_INFINITY;
  for (const point of points as unknown[]) {
    const { timestamp, avg, min, max, count } = (point ?? {}) as { [name: string]: unknown };
    if (!isTime(timestamp) || timestamp <= before || !isTime(count)) return null;
    before = timestamp;
    // A sum that is no longer a number has no place on a chart; its neighbours do.
    if (typeof avg !== "number" || typeof min !== "number" || typeof max !== "number") continue;
    history.times.push(timestamp);
    history.low.push(min);
    history.average.push(avg);
    history.high.push(max);
    history.count.push(count);
  }
  return history;
}

/**
 * What was stored, then what the page has seen since, both from `fromMs` on.
 *
 * The last stored step may have been asked for before it was over. It is drawn from the page's own readings
 * where these cover the whole of it, else as stored, and what the page has seen of it since is added.
 */
export function joinLive(
  history: History | null,
  times: ArrayLike<number>,
  values: ArrayLike<number>,
  fromMs: number,
): Curve {
  const step = history?.stepMs ?? 0;
  const last = history?.times[history.times.length - 1] ?? Number.NEGATIVE_INFINITY;
  const firstLive = times[0] ?? Number.POSITIVE_INFINITY;
  // The steps from here on are the page's own; stored ones end before.
  const border = firstLive <= last ? last : startOf(firstLive, step) <= last ? last + Math.max(step, 1) : startOf(firstLive, step);
  const curve: Curve = { times: [], low: [], average: [], high: [] };
  for (let i = 0; history !== null && i < history.times.length; i += 1) {
    const time = history.times[i] as number;
    if (time >= border) break;
    if (time + step > fromMs || (step === 0 && time >= fromMs)) {
      push(curve, time, history.low[i] as number, history.average[i] as number, history.high[i] as number);
    }
  }
  for (let i = 0; i < times.length; ) {
    const start = startOf(times[i] as number, step);
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    let sum = 0;
    const first = i;
    do {
      const value = values[i] as number;
      low = Math.min(low, value);
      high = Math.max(high, value);
      sum += value;
      i += 1;
    } while (step > 0 && i < times.length && startOf(times[i] as number, step) === start);
    if (start >= border && start + step >= fromMs) push(curve, start, low, sum / (i - first), high);
    else if (step > 0 && start === last && history !== null) widen(curve, history, times, values, first, i, low, high);
  }
  return withGaps(curve, step);
}

/** Adds readings `first`…`end` of the page to the last stored point, which is the curve's last by now. */
function widen(
  curve: Curve,
  history: History,
  times: ArrayLike<number>,
  values: ArrayLike<number>,
  first: number,
  end: number,
  low: number,
  high: number,
): void {
  const at = curve.times.length - 1;
  if (at < 0) return;
  curve.low[at] = Math.min(low, curve.low[at] as number);
  curve.high[at] = Math.max(high, curve.high[at] as number);
  // The stored average has the earlier ones already.
  let count = history.count[history.count.length - 1] as number;
  let sum = (curve.average[at] as number) * count;
  for (let i = first; i < end; i += 1) {
    if ((times[i] as number) < history.toMs) continue;
    sum += values[i] as number;
    count += 1;
  }
  curve.average[at] = sum / count;
}

function startOf(timeMs: number, stepMs: number): number {
  return stepMs === 0 ? timeMs : Math.floor(timeMs / stepMs) * stepMs;
}

function push(curve: Curve, time: number, low: number, average: number, high: number): void {
  curve.times.push(time);
  curve.low.push(low);
  curve.average.push(average);
  curve.high.push(high);
}

/** Breaks the lines where the distance of two points is not what it usually is. */
function withGaps(curve: Curve, stepMs: number): Curve {
  const gap = Math.max(GAP_MIN_MS, 2.5 * stepMs, 3 * usualDistance(curve.times));
  const found: Curve = { times: [], low: [], average: [], high: [] };
  for (let i = 0; i < curve.times.length; i += 1) {
    const time = curve.times[i] as number;
    if (i > 0) {
      const before = curve.times[i - 1] as number;
      if (time - before > gap) {
        found.times.push((before + time) / 2);
        for (const line of [found.low, found.average, found.high]) line.push(null);
      }
    }
    push(found, time, curve.low[i] as number, curve.average[i] as number, curve.high[i] as number);
  }
  return found;
}

function usualDistance(times: readonly number[]): number {
  const distances = times.slice(1).map((time, i) => time - (times[i] as number));
  distances.sort((a, b) => a - b);
  return distances[distances.length >> 1] ?? 0;
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
