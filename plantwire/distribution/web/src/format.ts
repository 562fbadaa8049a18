/**
 * Numbers, times and ages as text of a steady width.
 *
 * Guarantees: cheap enough for every value of every frame (no Intl object is made per call).
 * Not here: units (`units`).
 */

import { QUALITY_BAD, QUALITY_GOOD, QUALITY_STALE, type MetricValue } from "./wire";

const MISSING = "–";

/** What to say of a value that is not good; null where it is. */
export function qualityNote(quality: number): string | null {
  if (quality === QUALITY_GOOD) return null;
  if (quality === QUALITY_STALE) return "stale";
  return quality === QUALITY_BAD ? "bad" : `quality ${quality}`;
}

/** A reading with about four significant digits. */
export function formatValue(value: MetricValue): string {
  if (typeof value === "number") return formatNumber(value);
  if (value === null) return MISSING;
  return typeof value === "boolean" ? (value ? "on" : "off") : value;
}

export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 5e-4)) return value.toExponential(2).replace("-", "−");
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 2 : 3;
  return value.toFixed(digits).replace("-", "−");
}

/** A limit or the value of an alarm: no more digits than it has. */
export function formatExact(value: number | null): string {
  return value === null ? MISSING : String(Math.round(value * 1000) / 1000).replace("-", "−");
}

/** A latency in ms, one decimal below 100. */
export function formatMs(value: number | null): string {
  if (value === null) return MISSING;
  return value < 99.95 ? value.toFixed(1) : Math.round(value).toString();
}

/** An age such as `8 s`, `4 min`, `2 h 05`. */
export function formatAge(ageMs: number): string {
  const seconds = Math.max(0, Math.floor(ageMs / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${pad(minutes % 60)}`;
  return `${Math.floor(hours / 24)} d`;
}

/** Local time of day, `10:42:07`. */
export function formatTime(timeMs: number): string {
  const time = new Date(timeMs);
  return `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
}

/** A moment on an axis of `spanMs`: `10:42:07`, `10:42` from some hours on, `11-24 10:42` from a day on. */
export function formatMoment(timeMs: number, spanMs: number): string {
  if (spanMs < 4 * 3_600_000) return formatTime(timeMs);
  const minute = formatTime(timeMs).slice(0, 5);
  return spanMs < 20 * 3_600_000 ? minute : `${formatDate(timeMs).slice(5)} ${minute}`;
}

/** Local date, `2026-11-24`. */
export function formatDate(timeMs: number): string {
  const time = new Date(timeMs);
  return `${time.getFullYear()}-${pad(time.getMonth() + 1)}-${pad(time.getDate())}`;
}

/** The local zone's distance from UTC, `UTC+02:00`. */
export function formatZone(timeMs: number): string {
  const minutes = -new Date(timeMs).getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const sign = minutes < 0 ? "−" : "+";
  return `UTC${sign}${pad(Math.floor(Math.abs(minutes) / 60))}:${pad(Math.abs(minutes) % 60)}`;
}

function pad(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}
