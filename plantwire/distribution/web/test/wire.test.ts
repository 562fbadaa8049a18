import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAlarm, parseList, parseSnapshot, parseSourceStatus, parseTelemetry } from "../src/wire";

const telemetry = { deviceId: "press-1", seq: 3, timestamp: 1000, data: { temperature: 91.5, mode: "AUTO" } };
const alarm = {
  alarmId: "a",
  revision: 1,
  deviceId: "press-1",
  severity: "CRITICAL",
  kind: "RAISED",
  timestamp: 1000,
  value: 101,
  limit: 100,
  message: "hot",
  hops: { device: 1, gatewayIn: 2.5, detectIn: 0, other: 9 },
};

test("takes what the contract describes", () => {
  assert.deepEqual(parseTelemetry(telemetry)?.data, new Map<string, unknown>([["temperature", 91.5], ["mode", "AUTO"]]));
  const parsed = parseAlarm(alarm);
  assert.equal(parsed?.raisedAt, 1000);
  assert.equal(parsed?.count, 1);
  assert.deepEqual(parsed?.hops, { device: 1, gatewayIn: 2.5 });
});

for (const [name, wrong] of [
  ["nothing", null],
  ["a list", []],
  ["no device", { ...telemetry, deviceId: "" }],
  ["a negative sequence", { ...telemetry, seq: -1 }],
  ["a sequence that is no integer", { ...telemetry, seq: 1.5 }],
  ["no time", { ...telemetry, timestamp: Number.NaN }],
  ["a metric that is an object", { ...telemetry, data: { t: {} } }],
  ["a quality that is no number", { ...telemetry, quality: { temperature: "bad" } }],
  ["a quality that is a list", { ...telemetry, quality: [] }],
  ["a metric that is infinite", { ...telemetry, data: { t: Number.POSITIVE_INFINITY } }],
] as const) {
  test(`telemetry with ${name} is refused`, () => assert.equal(parseTelemetry(wrong), null));
}

for (const [name, wrong] of [
  ["no id", { ...alarm, alarmId: undefined }],
  ["no revision", { ...alarm, revision: undefined }],
  ["an unknown severity", { ...alarm, severity: "URGENT" }],
  ["a time that is text", { ...alarm, timestamp: "now" }],
] as const) {
  test(`an alarm with ${name} is refused`, () => assert.equal(parseAlarm(wrong), null));
}

test("a kind added later is passed on", () => assert.equal(parseAlarm({ ...alarm, kind: "SHELVED" })?.kind, "SHELVED"));

test("a prototype name is an ordinary metric name", () => {
  const parsed = parseTelemetry(JSON.parse('{"deviceId":"d","seq":1,"timestamp":1,"data":{"__proto__":1,"constructor":2}}'));
  assert.deepEqual([...(parsed?.data ?? [])], [["__proto__", 1], ["constructor", 2]]);
});

test("a list leaves out and counts what is wrong", () => {
  assert.deepEqual(parseList([alarm, 7, { ...alarm, revision: -1 }], parseAlarm).rejected, 2);
  assert.deepEqual(parseList("no list", parseAlarm), { entries: [], rejected: 1 });
});

test("a snapshot needs an epoch; its entries are checked one by one", () => {
  assert.equal(parseSnapshot({ devices: [], alarms: [] }), null);
  const parsed = parseSnapshot({ epoch: "e", serverTime: 5, devices: [telemetry, {}], alarms: [alarm] });
  assert.equal(parsed?.devices.length, 1);
  assert.equal(parsed?.alarms.length, 1);
  assert.equal(parsed?.rejected, 1);
});

test("a server with an empty history has no epoch; one without live data says so", () => {
  const parsed = parseSnapshot({ epoch: null, serverTime: 5, live: false, devices: [], alarms: [] });
  assert.equal(parsed?.epoch, null);
  assert.equal(parsed?.live, false);
  assert.deepEqual(parseSourceStatus({ live: true, since: 7 }), { live: true, since: 7 });
  assert.equal(parseSourceStatus({ live: "yes" }), null);
});

test("a state that does not say whether its alarms are complete is taken for complete", () => {
  const state = { epoch: "e", serverTime: 5, devices: [], alarms: [] };
  assert.equal(parseSnapshot(state)?.alarmsComplete, true);
  assert.equal(parseSnapshot({ ...state, alarmsComplete: true })?.alarmsComplete, true);
  assert.equal(parseSnapshot({ ...state, alarmsComplete: false })?.alarmsComplete, false);
});
