/**
 * A metric's last minutes, four at most, as a line the height of a row.
 *
 * In: a trend, the time now. Out: one small SVG; its colours are the style sheet's.
 * Guarantees: the newest reading is at the right edge's time; a gap in time is a gap in the line; about
 * two points per pixel column at most.
 * Not here: which sparklines are drawn, and when (`view/devices`).
 *
 * Not a canvas: each one is a layer of its own to the browser, and putting hundreds of layers together
 * cost five times as much per frame as all the rest.
 */

import type { Trend } from "../trend";

const WINDOW_MIN_MS = 60_000;
const WINDOW_MAX_MS = 4 * 60_000;
const GAP_MS = 10_000;
const WIDTH = 42;
const HEIGHT = 20;
const TOP = 3;
const POINT_EVERY_MS = WINDOW_MAX_MS / WIDTH / 2;
const SVG = "http://www.w3.org/2000/svg";

export interface Spark {
  readonly root: SVGSVGElement;
  readonly line: SVGPathElement;
  readonly dot: SVGCircleElement;
}

export function makeSpark(): Spark {
  const root = document.createElementNS(SVG, "svg");
  root.setAttribute("class", "spark");
  root.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  root.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  const dot = document.createElementNS(SVG, "circle");
  dot.setAttribute("r", "1.75");
  root.append(line, dot);
  return { root, line, dot };
}

export function drawSpark(spark: Spark, trend: Trend, nowMs: number): void {
  const { times, values } = trend;
  const first = trend.indexAt(nowMs - WINDOW_MAX_MS);
  spark.root.toggleAttribute("data-empty", first >= times.length);
  if (first >= times.length) return;
  // A page just opened shows its first minute over the whole width, then ever more up to four.
  const windowMs = Math.max(WINDOW_MIN_MS, nowMs - (times[first] as number));

  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = first; i < values.length; i += 1) {
    const value = values[i] as number;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  // A steady value is a line through the middle, not noise blown up to full height.
  const span = Math.max(high - low, Math.max(Math.abs(low), Math.abs(high)) * 0.02) || 1;
  const base = (low + high) / 2 - span / 2;
  const x = (time: number): string => (WIDTH - 3 - ((nowMs - time) / windowMs) * (WIDTH - 4)).toFixed(1);
  const y = (value: number): string => (TOP + (HEIGHT - 2 * TOP) * (1 - (value - base) / span)).toFixed(1);

  let path = "";
  let previousTime = Number.NEGATIVE_INFINITY;
  let bucket = Number.NEGATIVE_INFINITY;
  for (let i = first; i < times.length; i += 1) {
    const time = times[i] as number;
    // Buckets are fixed in time: which readings stand for a pixel does not change as the line moves.
    const bucketNow = Math.floor(time / POINT_EVERY_MS);
    if (bucketNow === bucket && i !== times.length - 1) continue;
    path += `${time - previousTime > GAP_MS ? "M" : "L"}${x(time)} ${y(values[i] as number)}`;
    previousTime = time;
    bucket = bucketNow;
  }
  spark.line.setAttribute("d", path);
  spark.dot.setAttribute("cx", x(times[times.length - 1] as number));
  spark.dot.setAttribute("cy", y(values[values.length - 1] as number));
}
