/**
 * The latest readings of every device, and their recent trend.
 *
 * In: checked telemetry in any order, snapshots. Out: devices with metrics, change callbacks.
 * Guarantees: a metric shows the reading with the highest `seq` it was ever given within an epoch;
 * a new epoch starts the count anew; an older reading still finds its place in the trend, which has the
 * numbers of good quality alone. At most
 * `maxDevices` devices and `maxMetrics` metrics each; what is over the bound is dropped and counted.
 * Not here: what a message looks like (`wire`), drawing (`view`).
 */

import { Trend } from "./trend";
import { QUALITY_GOOD, type MetricValue, type Telemetry } from "./wire";

export const STALE_AFTER_MS = 10_000;
export const TREND_CAPACITY = 600;

export class Metric {
  value: MetricValue = null;
  quality = QUALITY_GOOD;
  seq = -1;
  /** The numbers of good quality; present once there was one. */
  trend: Trend | null = null;

  constructor(
    readonly device: Device,
    readonly name: string,
  ) {}
}

export class Device {
  readonly metrics = new Map<string, Metric>();
  seq = -1;
  /** When the newest reading was here or, for a snapshot, when it must have been sent; ms, own clock. */
  seenAtMs = 0;

  constructor(
    readonly id: string,
    readonly kind: string,
  ) {}

  isStale(nowMs: number): boolean {
    return nowMs - this.seenAtMs >= STALE_AFTER_MS;
  }
}

const DEV_EUI = /^[0-9a-f]{16}$/;

/** The kind of a device: its id without the part after the last dash (`press-3` → `press`). */
export function kindOf(deviceId: string): string {
  if (DEV_EUI.test(deviceId)) return "LoRaWAN";
  const dash = deviceId.lastIndexOf("-");
  return dash > 0 ? deviceId.slice(0, dash) : deviceId;
}

export interface TelemetryListener {
  deviceAdded(device: Device): void;
  metricAdded(metric: Metric): void;
  metricChanged(metric: Metric): void;
  trendChanged(metric: Metric): void;
}

export class TelemetryStore {
  readonly devices = new Map<string, Device>();
  /** Messages whose every reading was older than what is shown. */
  late = 0;
  /** Readings and devices left out because a bound was reached. */
  dropped = 0;
  received = 0;
  private epoch: string | null = null;

  constructor(
    private readonly listener: TelemetryListener,
    private readonly maxDevices = 2_000,
    private readonly maxMetrics = 100,
  ) {}

  /** Takes a snapshot; how old a reading is follows from its timestamp and the server's clock. */
  applySnapshot(epoch: string | null, devices: readonly Telemetry[], nowMs: number, serverNowMs: number): void {
    if (epoch !== null && epoch !== this.epoch) {
      this.epoch = epoch;
      for (const device of this.devices.values()) {
        device.seq = -1;
        for (const metric of device.metrics.values()) metric.seq = -1;
      }
    }
    for (const entry of devices) {
      const ageMs = Math.max(0, serverNowMs - entry.timestamp);
      this.take(entry, nowMs - ageMs);
    }
  }

  /** Takes one live message. */
  apply(message: Telemetry, nowMs: number): void {
    this.received += 1;
    if (!this.take(message, nowMs)) this.late += 1;
  }

  /** Takes an earlier message that was asked for; it counts neither as received nor as late. */
  applyEarlier(message: Telemetry): void {
    this.take(message, 0);
  }

  private take(message: Telemetry, seenAtMs: number): boolean {
    const device = this.deviceOf(message.deviceId);
    if (device === null) return true;
    if (message.seq > device.seq) {
      device.seq = message.seq;
      device.seenAtMs = Math.max(device.seenAtMs, seenAtMs);
    }
    let anyNewer = message.data.size === 0;
    for (const [name, quality] of message.quality) {
      if (message.data.has(name)) continue;
      const metric = this.metricOf(device, name);
      if (metric === null || message.seq <= metric.seq) continue;
      anyNewer = true;
      metric.seq = message.seq;
      metric.value = null;
      metric.quality = quality;
      this.listener.metricChanged(metric);
    }
    for (const [name, value] of message.data) {
      const metric = this.metricOf(device, name);
      if (metric === null) continue;
      const quality = message.quality.get(name) ?? QUALITY_GOOD;
      // A value that is not good is shown as what it is, and is no reading, as in stored history.
      if (typeof value === "number" && quality === QUALITY_GOOD) {
        metric.trend ??= new Trend(TREND_CAPACITY);
        metric.trend.add(message.timestamp, value);
        this.listener.trendChanged(metric);
      }
      if (message.seq > metric.seq) {
        anyNewer = true;
        metric.seq = message.seq;
        if (metric.value !== value || metric.quality !== quality) {
          metric.value = value;
          metric.quality = quality;
          this.listener.metricChanged(metric);
        }
      }
    }
    return anyNewer;
  }

  private deviceOf(id: string): Device | null {
    const known = this.devices.get(id);
    if (known !== undefined) return known;
    if (this.devices.size >= this.maxDevices) {
      this.dropped += 1;
      return null;
    }
    const device = new Device(id, kindOf(id));
    this.devices.set(id, device);
    this.listener.deviceAdded(device);
    return device;
  }

  private metricOf(device: Device, name: string): Metric | null {
    const known = device.metrics.get(name);
    if (known !== undefined) return known;
    if (device.metrics.size >= this.maxMetrics) {
      this.dropped += 1;
      return null;
    }
    const metric = new Metric(device, name);
    device.metrics.set(name, metric);
    this.listener.metricAdded(metric);
    return metric;
  }
}
