/**
 * What the server sends, checked once at the edge.
 *
 * In: anything a socket event or an HTTP answer carries. Out: typed messages, or `null` where a
 * message is not what the contract says; the caller counts it.
 * Guarantees: nothing behind this module looks at unchecked data.
 * Not here: ordering and merging (`telemetry-store`, `alarm-store`).
 */

export const SEVERITIES = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "INFO"] as const;
export type Severity = (typeof SEVERITIES)[number];

/** Rank of a severity: 0 is the most severe. */
export const SEVERITY_RANK: Readonly<Record<Severity, number>> = {
  CRITICAL: 0,
  HIGH: 1,
  MEDIUM: 2,
  LOW: 3,
  INFO: 4,
};

/** OPC quality as Sparkplug B uses it. */
export const QUALITY_GOOD = 192;
export const QUALITY_BAD = 0;
export const QUALITY_STALE = 500;

export type MetricValue = number | string | boolean | null;

/** One device's readings at one moment; times are ms since the epoch. */
export interface Telemetry {
  readonly deviceId: string;
  readonly seq: number;
  readonly timestamp: number;
  readonly data: ReadonlyMap<string, MetricValue>;
  /** OPC quality of the metrics that are not good; one that is not in `data` has no value now. */
  readonly quality: ReadonlyMap<string, number>;
}

/** Times at which an alarm passed each hop, ms since the epoch; 0 or absent means not stamped. */
export interface Hops {
  readonly device?: number;
  readonly gatewayIn?: number;
  readonly gatewayOut?: number;
  readonly detectIn?: number;
  readonly detectOut?: number;
  readonly published?: number;
  readonly emitted?: number;
}

const HOP_NAMES = [
  "device",
  "gatewayIn",
  "gatewayOut",
  "detectIn",
  "detectOut",
  "published",
  "emitted",
] as const satisfies readonly (keyof Hops)[];

/** One change of one alarm; (alarmId, revision) names it. */
export interface Alarm {
  readonly alarmId: string;
  readonly revision: number;
  readonly deviceId: string;
  readonly site: string;
  readonly metric: string;
  readonly value: number | null;
  readonly limit: number | null;
  readonly severity: Severity;
  readonly kind: string;
  readonly message: string;
  readonly timestamp: number;
  readonly raisedAt: number;
  readonly count: number;
  readonly hops: Hops;
}

/** Everything the server knows at the moment of connection. */
export interface Snapshot {
  /** Changes when the server's history was lost; null while it has none. */
  readonly epoch: string | null;
  /** Whether the server itself gets live data. */
  readonly live: boolean;
  readonly serverTime: number | null;
  readonly devices: readonly Telemetry[];
  readonly alarms: readonly Alarm[];
  /** False where active alarms may be missing in `alarms`, so that none may be taken for cleared. */
  readonly alarmsComplete: boolean;
  /** How many entries were left out because they were not valid. */
  readonly rejected: number;
}

type Bag = Readonly<Record<string, unknown>>;

function isBag(value: unknown): value is Bag {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= 256;
}

function numberOrNull(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function isMetricValue(value: unknown): value is MetricValue {
  if (typeof value === "number") return Number.isFinite(value);
  return value === null || typeof value === "string" || typeof value === "boolean";
}

/** A `telemetry` message, or an entry of `initial-state`, `catch-up` or the latest values. */
export function parseTelemetry(raw: unknown): Telemetry | null {
  if (!isBag(raw) || !isName(raw["deviceId"]) || !isCount(raw["seq"]) || !isTime(raw["timestamp"])) return null;
  if (!isBag(raw["data"])) return null;
  const data = new Map<string, MetricValue>();
  for (const [name, value] of Object.entries(raw["data"])) {
    if (!isName(name) || !isMetricValue(value)) return null;
    data.set(name, value);
  }
  const quality = parseQuality(raw["quality"]);
  if (quality === null) return null;
  return { deviceId: raw["deviceId"], seq: raw["seq"], timestamp: raw["timestamp"], data, quality };
}

const ALL_GOOD: ReadonlyMap<string, number> = new Map();

function parseQuality(raw: unknown): ReadonlyMap<string, number> | null {
  if (raw === undefined) return ALL_GOOD;
  if (!isBag(raw)) return null;
  const quality = new Map<string, number>();
  for (const [name, code] of Object.entries(raw)) {
    if (!isName(name) || !isCount(code)) return null;
    quality.set(name, code);
  }
  return quality;
}

/** An alarm of any kind; a severity that is not known makes it invalid. */
export function parseAlarm(raw: unknown): Alarm | null {
  if (!isBag(raw)) return null;
  const { alarmId, revision, deviceId, severity, kind, timestamp } = raw;
  if (!isName(alarmId) || !isName(deviceId) || !isName(kind) || !isCount(revision) || !isTime(timestamp)) return null;
  const known = SEVERITIES.find((name) => name === severity);
  if (known === undefined) return null;
  return {
    alarmId,
    revision,
    deviceId,
    site: typeof raw["site"] === "string" ? raw["site"] : "",
    metric: typeof raw["metric"] === "string" ? raw["metric"] : "",
    value: numberOrNull(raw["value"]),
    limit: numberOrNull(raw["limit"]),
    severity: known,
    kind,
    message: typeof raw["message"] === "string" ? raw["message"].slice(0, 500) : "",
    timestamp,
    raisedAt: isTime(raw["raisedAt"]) ? raw["raisedAt"] : timestamp,
    count: isCount(raw["count"]) ? raw["count"] : 1,
    hops: parseHops(raw["hops"]),
  };
}

function parseHops(raw: unknown): Hops {
  const hops: { -readonly [name in keyof Hops]: Hops[name] } = {};
  if (!isBag(raw)) return hops;
  for (const name of HOP_NAMES) {
    const value = raw[name];
    if (isTime(value) && value > 0) hops[name] = value;
  }
  return hops;
}

/** A list of messages; entries that are not valid are left out and counted. */
export function parseList<T>(raw: unknown, parse: (entry: unknown) => T | null): { entries: T[]; rejected: number } {
  if (!Array.isArray(raw)) return { entries: [], rejected: 1 };
  const entries: T[] = [];
  let rejected = 0;
  for (const candidate of raw) {
    const entry = parse(candidate);
    if (entry === null) rejected += 1;
    else entries.push(entry);
  }
  return { entries, rejected };
}

/** `initial-state`, or null where it is not an object that names an epoch or has null for it. */
export function parseSnapshot(raw: unknown): Snapshot | null {
  if (!isBag(raw)) return null;
  const { epoch } = raw;
  if (typeof epoch !== "string" && epoch !== null) return null;
  const devices = parseList(raw["devices"], parseTelemetry);
  const alarms = parseList(raw["alarms"], parseAlarm);
  return {
    epoch,
    live: raw["live"] !== false,
    serverTime: isTime(raw["serverTime"]) ? raw["serverTime"] : null,
    devices: devices.entries,
    alarms: alarms.entries,
    alarmsComplete: raw["alarmsComplete"] !== false,
    rejected: devices.rejected + alarms.rejected,
  };
}

/** `source-status`: whether the server gets live data, and since when (ms, the server's clock). */
export function parseSourceStatus(raw: unknown): { live: boolean; since: number | null } | null {
  if (!isBag(raw) || typeof raw["live"] !== "boolean") return null;
  return { live: raw["live"], since: isTime(raw["since"]) ? raw["since"] : null };
}
