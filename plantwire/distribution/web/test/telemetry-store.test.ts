import assert from "node:assert/strict";
import { test } from "node:test";
import { kindOf, STALE_AFTER_MS, TelemetryStore, type TelemetryListener } from "../src/telemetry-store";
import type { MetricValue, Telemetry } from "../src/wire";

function message(
  deviceId: string,
  seq: number,
  data: Record<string, MetricValue>,
  timestamp = seq * 1000,
  quality: Record<string, number> = {},
): Telemetry {
  return { deviceId, seq, timestamp, data: new Map(Object.entries(data)), quality: new Map(Object.entries(quality)) };
}

function recording(): { changes: string[]; listener: TelemetryListener } {
  const changes: string[] = [];
  return {
    changes,
    listener: {
      deviceAdded: (device) => changes.push(`+${device.id}`),
      metricAdded: (metric) => changes.push(`+${metric.device.id}/${metric.name}`),
      metricChanged: (metric) => changes.push(`${metric.device.id}/${metric.name}=${String(metric.value)}`),
      trendChanged: () => undefined,
    },
  };
}

function valueOf(store: TelemetryStore, deviceId: string, metric: string): MetricValue | undefined {
  return store.devices.get(deviceId)?.metrics.get(metric)?.value;
}

test("a message with a lower sequence does not overwrite a newer reading, but enters the trend", () => {
  const store = new TelemetryStore(recording().listener);
  store.apply(message("press-1", 2, { temperature: 92 }), 0);
  store.apply(message("press-1", 1, { temperature: 91 }), 0);
  assert.equal(valueOf(store, "press-1", "temperature"), 92);
  assert.equal(store.late, 1);
  assert.deepEqual([...(store.devices.get("press-1")?.metrics.get("temperature")?.trend?.values ?? [])], [91, 92]);
});

test("a late message still gives the metrics that no newer one carried", () => {
  const store = new TelemetryStore(recording().listener);
  store.apply(message("press-1", 5, { temperature: 92 }), 0);
  store.apply(message("press-1", 4, { temperature: 91, pressure: 7 }), 0);
  assert.equal(valueOf(store, "press-1", "temperature"), 92);
  assert.equal(valueOf(store, "press-1", "pressure"), 7);
  assert.equal(store.late, 0);
  assert.equal(store.devices.get("press-1")?.seq, 5);
});

test("the same message twice changes nothing", () => {
  const { changes, listener } = recording();
  const store = new TelemetryStore(listener);
  store.apply(message("press-1", 1, { temperature: 91 }), 0);
  const before = changes.length;
  store.apply(message("press-1", 1, { temperature: 99 }), 0);
  assert.equal(changes.length, before);
  assert.equal(valueOf(store, "press-1", "temperature"), 91);
});

test("a new epoch starts the sequence anew; the same epoch does not", () => {
  const store = new TelemetryStore(recording().listener);
  store.applySnapshot("a", [message("press-1", 100, { temperature: 50 })], 0, 0);
  store.applySnapshot("a", [message("press-1", 99, { temperature: 49 })], 0, 0);
  assert.equal(valueOf(store, "press-1", "temperature"), 50);
  store.applySnapshot("b", [message("press-1", 1, { temperature: 20 })], 0, 0);
  assert.equal(valueOf(store, "press-1", "temperature"), 20);
  assert.equal(store.devices.get("press-1")?.seq, 1);
});

test("a polled list, which has no epoch, keeps to the sequence", () => {
  const store = new TelemetryStore(recording().listener);
  store.applySnapshot("a", [message("press-1", 10, { temperature: 50 })], 0, 0);
  store.applySnapshot(null, [message("press-1", 11, { temperature: 51 })], 0, 0);
  assert.equal(valueOf(store, "press-1", "temperature"), 51);
  store.applySnapshot("a", [message("press-1", 9, { temperature: 49 })], 0, 0);
  assert.equal(valueOf(store, "press-1", "temperature"), 51);
});

test("a device is stale 10 s after its last message, and a snapshot's age counts", () => {
  const store = new TelemetryStore(recording().listener);
  const now = 1_000_000;
  store.apply(message("press-1", 1, { t: 1 }), now);
  store.applySnapshot("a", [message("press-2", 1, { t: 1 }, 500_000)], now, 500_000 + STALE_AFTER_MS - 1);
  const [one, two] = ["press-1", "press-2"].map((id) => store.devices.get(id));
  assert.equal(one?.isStale(now + STALE_AFTER_MS - 1), false);
  assert.equal(one?.isStale(now + STALE_AFTER_MS), true);
  assert.equal(two?.isStale(now), false);
  assert.equal(two?.isStale(now + 1), true);
});

test("text shows but makes no trend", () => {
  const store = new TelemetryStore(recording().listener);
  store.apply(message("press-1", 1, { mode: "AUTO" }), 0);
  assert.equal(valueOf(store, "press-1", "mode"), "AUTO");
  assert.equal(store.devices.get("press-1")?.metrics.get("mode")?.trend, null);
});

test("the trend has the numbers of good quality alone, while the newest value shows whatever it is", () => {
  const trends: string[] = [];
  const { listener } = recording();
  const store = new TelemetryStore({ ...listener, trendChanged: (metric) => trends.push(metric.name) });
  const metric = () => store.devices.get("press-1")?.metrics.get("temperature");
  store.apply(message("press-1", 1, { temperature: 10 }, 1000, { temperature: 0 }), 0);
  assert.equal(metric()?.trend, null);
  store.apply(message("press-1", 2, { temperature: 92 }, 2000), 0);
  store.apply(message("press-1", 3, { temperature: 92 }, 9000, { temperature: 500 }), 0);
  store.apply(message("press-1", 4, { temperature: 7, pressure: 5 }, 9500, { temperature: 0 }), 0);
  store.apply(message("press-1", 5, { temperature: 93 }, 9900, { temperature: 192 }), 0);
  assert.deepEqual([...(metric()?.trend?.times ?? [])], [2000, 9900]);
  assert.deepEqual([...(metric()?.trend?.values ?? [])], [92, 93]);
  assert.deepEqual(trends, ["temperature", "pressure", "temperature"]);
  store.apply(message("press-1", 6, { temperature: 8 }, 10_000, { temperature: 0 }), 0);
  assert.deepEqual([metric()?.value, metric()?.quality], [8, 0]);
});

test("devices and metrics over the bound are dropped and counted", () => {
  const store = new TelemetryStore(recording().listener, 1, 1);
  store.apply(message("a-1", 1, { x: 1, y: 2 }), 0);
  store.apply(message("a-2", 1, { x: 1 }), 0);
  assert.equal(store.devices.size, 1);
  assert.equal(store.devices.get("a-1")?.metrics.size, 1);
  assert.equal(store.dropped, 2);
});

test("the kind is the id before the last dash", () => {
  assert.equal(kindOf("press-1"), "press");
  assert.equal(kindOf("hall-2-fan-3"), "hall-2-fan");
  assert.equal(kindOf("boiler"), "boiler");
  assert.equal(kindOf("-1"), "-1");
});

test("a metric goes stale with its value, loses it, and is good again", () => {
  const { changes, listener } = recording();
  const store = new TelemetryStore(listener);
  const metric = () => store.devices.get("press-1")?.metrics.get("temperature");
  store.apply(message("press-1", 1, { temperature: 92 }), 0);
  assert.equal(metric()?.quality, 192);
  store.apply(message("press-1", 2, { temperature: 92 }, 2000, { temperature: 500 }), 0);
  assert.deepEqual([metric()?.value, metric()?.quality], [92, 500]);
  store.apply(message("press-1", 3, {}, 3000, { temperature: 0 }), 0);
  assert.deepEqual([metric()?.value, metric()?.quality], [null, 0]);
  store.apply(message("press-1", 2, {}, 2000, { temperature: 500 }), 0);
  assert.equal(metric()?.quality, 0);
  store.apply(message("press-1", 4, { temperature: 93 }), 0);
  assert.deepEqual([metric()?.value, metric()?.quality], [93, 192]);
  assert.equal(changes.filter((change) => change.includes("temperature=")).length, 4);
});

test("LoRaWAN devices are of one kind", () => {
  assert.equal(kindOf("24e124136b502217"), "LoRaWAN");
  assert.equal(kindOf("hall:line:press-1"), "hall:line:press");
});
