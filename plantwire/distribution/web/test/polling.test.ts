import assert from "node:assert/strict";
import { test } from "node:test";
import { poll, TokenRefused } from "../src/polling";
import { TelemetryStore } from "../src/telemetry-store";

interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: unknown;
}

/** A server that gives `latest` and `alarms`, and notes what it was asked. */
function server(latest: Answer, alarms: Answer): { ask: typeof fetch; asked: string[] } {
  const asked: string[] = [];
  const ask = ((path: string, options: RequestInit) => {
    asked.push(`${path} ${String((options.headers as Record<string, string>)["Authorization"])}`);
    const { status = 200, headers = {}, body } = path === "/api/alarms" ? alarms : latest;
    return Promise.resolve(new Response(JSON.stringify(body), { status, headers: { ...headers } }));
  }) as typeof fetch;
  return { ask, asked };
}

const NO_ALARMS: Answer = { headers: { "Plantwire-Live": "true" }, body: { alarms: [] } };
const alarm = { alarmId: "a", revision: 1, deviceId: "press-1", severity: "HIGH", kind: "RAISED", timestamp: 1 };
const signal = new AbortController().signal;

function latest(epoch: string, seq: number, temperature: number): Answer {
  const body = [{ deviceId: "press-1", seq, timestamp: seq, data: { temperature } }];
  return { headers: { "Plantwire-Epoch": epoch, "Plantwire-Live": "true" }, body };
}

test("values polled after a new epoch replace those with higher numbers of the old one", async () => {
  const nothing = (): void => undefined;
  const store = new TelemetryStore({
    deviceAdded: nothing,
    metricAdded: nothing,
    metricChanged: nothing,
    trendChanged: nothing,
  });
  const shown: unknown[] = [];
  for (const [epoch, seq, temperature] of [["a", 100, 50], ["a", 99, 49], ["b", 1, 20], ["b", 2, 21]] as const) {
    const polled = await poll(server(latest(epoch, seq, temperature), NO_ALARMS).ask, "t", signal);
    store.applySnapshot(polled.epoch, polled.devices, 0, 0);
    shown.push(store.devices.get("press-1")?.metrics.get("temperature")?.value);
  }
  assert.deepEqual(shown, [50, 50, 20, 21]);
});

test("both lists are asked for with the token, and what is not valid is counted", async () => {
  const { ask, asked } = server({ body: [{}] }, { body: { alarms: [alarm, 7] } });
  const polled = await poll(ask, "secret", signal);
  assert.deepEqual(asked, ["/api/devices/telemetry/latest Bearer secret", "/api/alarms Bearer secret"]);
  assert.equal(polled.rejected, 2);
  assert.deepEqual(polled.alarms.map((entry) => entry.alarmId), ["a"]);
  assert.equal(polled.epoch, null);
});

test("a list of alarms that is not live may lack some", async () => {
  const lacking: Answer = { headers: { "Plantwire-Live": "false" }, body: { alarms: [] } };
  assert.equal((await poll(server(latest("a", 1, 1), lacking).ask, "t", signal)).alarmsComplete, false);
  assert.equal((await poll(server(latest("a", 1, 1), NO_ALARMS).ask, "t", signal)).alarmsComplete, true);
});

for (const status of [401, 403]) {
  test(`${status} refuses the token`, async () => {
    await assert.rejects(poll(server(latest("a", 1, 1), { status, body: {} }).ask, "t", signal), TokenRefused);
  });
}

test("an answer that is no list, or an error of the server, is no refusal of the token", async () => {
  const failing = poll(server({ status: 503, body: {} }, NO_ALARMS).ask, "t", signal);
  await assert.rejects(failing, (error) => error instanceof Error && !(error instanceof TokenRefused));
  assert.equal((await poll(server({ body: 5 }, { body: null }).ask, "t", signal)).rejected, 2);
});
