/**
 * The dashboard's composition root: what the connection brings goes into the stores, what the stores
 * change is drawn with the next frame.
 *
 * Guarantees: an alarm is stamped when it is received and when its frame was painted; a page that was
 * hidden in between claims no rendering time.
 * Not here: any rule; see the modules it joins.
 */

import "./style/app.css";
import { AlarmStore } from "./alarm-store";
import { nowMs } from "./clock";
import { Connection } from "./connection";
import { FrameLoop, type View } from "./frame";
import { askHistory } from "./history";
import { HistoryLoader } from "./history-loader";
import { LatencyLog } from "./latency";
import { TelemetryStore } from "./telemetry-store";
import { currentToken, forgetToken, keepToken, takeToken } from "./token";
import { parseUnits, setPlantUnits } from "./units";
import { AlarmsView } from "./view/alarms";
import { AttentionView } from "./view/attention";
import { DetailView } from "./view/detail";
import { DevicesView, type DeviceAlarms } from "./view/devices";
import { byId, setText } from "./view/dom";
import { HeaderView } from "./view/header";
import { LatencyView } from "./view/latency";
import { LoginView } from "./view/login";
import type { ActiveLimit } from "./view/trend-chart";
import { SEVERITY_RANK, type Alarm, type Severity } from "./wire";

const SKEW_SHOWN_MS = 1_000;
const UNITS_TIMEOUT_MS = 2_000;
/** How many earlier messages of a device are asked for when it is opened: what the server gives at once. */
const HISTORY_ASKED = 300;

const frames = new FrameLoop();
const invalidate = (view: View): void => frames.invalidate(view);
const alarms = new AlarmStore();
const latencies = new LatencyLog();

let rejected = 0;
/** The server's clock minus this one's, ms; told from where it is large enough to matter. */
let skewMs = 0;
let hiddenAtMs = document.hidden ? nowMs() : Number.NEGATIVE_INFINITY;
const plantNowMs = (): number => nowMs() + skewMs;

const header = frames.register(new HeaderView(invalidate, () => alarms.activeCounts()));
const attention = frames.register(new AttentionView(invalidate));
const alarmsView = frames.register(
  new AlarmsView(alarms, plantNowMs, (deviceId, metric) => {
    const device = telemetry.devices.get(deviceId);
    if (device !== undefined) detail.open(device, device.metrics.has(metric) ? metric : null);
  }),
);
const devicesView = frames.register(
  new DevicesView(invalidate, plantNowMs, (device, metric) => detail.open(device, metric)),
);
const latencyView = frames.register(new LatencyView(invalidate, latencies));
const loader = new HistoryLoader(
  (question, signal) => askHistory(fetch, currentToken() ?? "", question, signal),
  plantNowMs,
  () => detail.tick(),
);
const detail = frames.register(
  new DetailView(invalidate, activeLimits, loader, plantNowMs, (device) => {
    // Once per device: later messages come by themselves.
    connection.requestMissing(device.id, Math.max(1, device.seq - HISTORY_ASKED + 1), device.seq);
  }),
);

const telemetry = new TelemetryStore({
  deviceAdded: (device) => devicesView.deviceAdded(device),
  metricAdded: (metric) => devicesView.metricAdded(metric),
  metricChanged: (metric) => devicesView.metricChanged(metric),
  trendChanged: (metric) => {
    devicesView.trendChanged(metric);
    detail.touched(metric);
  },
});

const connection = new Connection({
  stateChanged: (state, why) => header.setConnection(state, why),
  snapshot: (snapshot, connectedAtMs) => {
    const now = nowMs();
    if (snapshot.serverTime !== null) {
      const difference = snapshot.serverTime - now;
      skewMs = Math.abs(difference) > SKEW_SHOWN_MS ? difference : 0;
    }
    telemetry.applySnapshot(snapshot.epoch, snapshot.devices, now, now + skewMs);
    attention.raise(alarms.applySnapshot(snapshot.alarms, snapshot.alarmsComplete, now, connectedAtMs));
    alarmsView.setComplete(snapshot.alarmsComplete);
    alarmsChanged();
    devicesView.tick(now);
  },
  polled: (polled, askedAtMs) => {
    const now = nowMs();
    telemetry.applySnapshot(polled.epoch, polled.devices, now, now + skewMs);
    attention.raise(alarms.applySnapshot(polled.alarms, polled.alarmsComplete, now, askedAtMs));
    alarmsView.setComplete(polled.alarmsComplete);
    alarmsChanged();
  },
  telemetry: (message) => telemetry.apply(message, nowMs()),
  caughtUp: (message) => telemetry.applyEarlier(message),
  alarm: (alarm, receivedMs) => {
    const change = alarms.apply(alarm, nowMs());
    if (!change.unseen) return;
    if (change.newlyCritical) attention.raise([alarm]);
    else attention.mention(alarm);
    alarmsChanged();
    if (alarm.kind !== "CLEARED") measure(alarm, receivedMs);
  },
  rejected: (count) => {
    rejected += count;
  },
  refused: (reason) => {
    forgetToken();
    login.show(reason);
  },
  sourceChanged: (live, sinceMs) => header.setSource(live, sinceMs),
});

const login = new LoginView((token) => {
  keepToken(token);
  connection.open(token);
});

function measure(alarm: Alarm, receivedMs: number): void {
  const record = (rendered: { rendered?: number }): void => {
    latencies.add(alarm, { ...alarm.hops, received: receivedMs, ...rendered });
    frames.invalidate(latencyView);
  };
  if (document.hidden) {
    record({});
    return;
  }
  frames.whenPainted(() => record(hiddenAtMs >= receivedMs ? {} : { rendered: nowMs() }));
}

function alarmsChanged(): void {
  const perDevice = new Map<string, { worst: Severity; metrics: Map<string, Severity> }>();
  const critical: Alarm[] = [];
  // The worst come first, so the first to name a device or metric is its worst.
  for (const { alarm, active } of alarms.sorted()) {
    if (!active) break;
    if (alarm.severity === "CRITICAL") critical.push(alarm);
    const held = perDevice.get(alarm.deviceId) ?? { worst: alarm.severity, metrics: new Map<string, Severity>() };
    if (!held.metrics.has(alarm.metric)) held.metrics.set(alarm.metric, alarm.severity);
    perDevice.set(alarm.deviceId, held);
  }
  devicesView.setAlarms(perDevice satisfies ReadonlyMap<string, DeviceAlarms>);
  attention.setCritical(critical);
  for (const view of [header, alarmsView]) frames.invalidate(view);
}

function activeLimits(deviceId: string, metric: string): ActiveLimit[] {
  return alarms
    .sorted()
    .filter(({ alarm, active }) => active && alarm.deviceId === deviceId && alarm.metric === metric)
    .flatMap(({ alarm }) => (alarm.limit === null ? [] : [{ severity: alarm.severity, limit: alarm.limit }]))
    .sort((a, b) => SEVERITY_RANK[a.severity] - SEVERITY_RANK[b.severity]);
}

let receivedBefore = 0;
function everySecond(): void {
  const now = nowMs();
  if (alarms.expire(now)) alarmsChanged();
  header.tick();
  alarmsView.tick();
  devicesView.tick(now);
  detail.tick();
  const facts = [`${telemetry.received - receivedBefore} messages/s`];
  receivedBefore = telemetry.received;
  if (telemetry.late > 0) facts.push(`${telemetry.late} late`);
  if (telemetry.dropped > 0) facts.push(`${telemetry.dropped} over the page's bound`);
  if (rejected > 0) facts.push(`${rejected} not understood`);
  if (skewMs !== 0) facts.push(`server clock ${skewMs > 0 ? "+" : "−"}${Math.round(Math.abs(skewMs) / 1000)} s`);
  setText(byId("traffic"), facts.join(", "));
}
setInterval(everySecond, 1_000);

document.addEventListener("visibilitychange", () => {
  hiddenAtMs = document.hidden ? nowMs() : hiddenAtMs;
});
addEventListener("online", () => connection.retryNow());
byId("sign-out").addEventListener("click", () => connection.signOut(""));

/** The plant's units; without the file the page works, with fewer units. */
async function loadUnits(): Promise<void> {
  try {
    const answer = await fetch("units.json", { signal: AbortSignal.timeout(UNITS_TIMEOUT_MS) });
    if (answer.ok) setPlantUnits(parseUnits(await answer.json()));
  } catch (error) {
    console.warn("units.json cannot be read", error);
  }
}

const token = takeToken();
await loadUnits();
if (token === null) connection.signOut("");
else connection.open(token);
