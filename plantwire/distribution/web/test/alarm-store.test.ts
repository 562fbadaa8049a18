import assert from "node:assert/strict";
import { test } from "node:test";
import { AlarmStore, KEEP_CLEARED_MS } from "../src/alarm-store";
import type { Alarm } from "../src/wire";

function alarm(alarmId: string, revision: number, changes: Partial<Alarm> = {}): Alarm {
  return {
    alarmId,
    revision,
    deviceId: "press-1",
    site: "north",
    metric: "temperature",
    value: 101,
    limit: 100,
    severity: "HIGH",
    kind: "RAISED",
    message: "too hot",
    timestamp: 1000,
    raisedAt: 1000,
    count: 1,
    hops: {},
    ...changes,
  };
}

const ids = (store: AlarmStore): string[] => store.sorted().map((entry) => entry.alarm.alarmId);

test("the highest revision wins in any order, and a known one changes nothing", () => {
  const store = new AlarmStore();
  assert.equal(store.apply(alarm("a", 2, { severity: "CRITICAL" }), 0).unseen, true);
  assert.equal(store.apply(alarm("a", 1), 0).unseen, false);
  assert.equal(store.apply(alarm("a", 2, { message: "again" }), 0).unseen, false);
  assert.equal(store.get("a")?.alarm.severity, "CRITICAL");
  assert.equal(store.get("a")?.alarm.message, "too hot");
});

test("a clear that overtakes its raise leaves the alarm cleared", () => {
  const store = new AlarmStore();
  store.apply(alarm("a", 2, { kind: "CLEARED" }), 50);
  store.apply(alarm("a", 1), 60);
  assert.equal(store.get("a")?.active, false);
  assert.equal(store.get("a")?.clearedAtMs, 50);
});

test("the same alarm raised again is active again", () => {
  const store = new AlarmStore();
  store.apply(alarm("a", 1), 0);
  store.apply(alarm("a", 2, { kind: "CLEARED" }), 10);
  store.apply(alarm("a", 3, { count: 2 }), 20);
  assert.equal(store.get("a")?.active, true);
  assert.equal(store.get("a")?.clearedAtMs, null);
  assert.equal(store.get("a")?.alarm.count, 2);
});

test("active before cleared, by severity, then the latest first; cleared by time of clearing", () => {
  const store = new AlarmStore();
  store.apply(alarm("low", 1, { severity: "LOW", raisedAt: 9000 }), 0);
  store.apply(alarm("old-high", 1, { raisedAt: 1000 }), 0);
  store.apply(alarm("new-high", 1, { raisedAt: 2000 }), 0);
  store.apply(alarm("critical", 1, { severity: "CRITICAL", raisedAt: 500 }), 0);
  store.apply(alarm("gone-1", 1, { severity: "CRITICAL", kind: "CLEARED" }), 10);
  store.apply(alarm("gone-2", 1, { severity: "LOW", kind: "CLEARED" }), 20);
  assert.deepEqual(ids(store), ["critical", "new-high", "old-high", "low", "gone-2", "gone-1"]);
  assert.deepEqual(store.activeCounts(), { CRITICAL: 1, HIGH: 2, MEDIUM: 0, LOW: 1, INFO: 0 });
});

test("newly critical: raised so, or become so, but not changed while it is", () => {
  const store = new AlarmStore();
  assert.equal(store.apply(alarm("a", 1), 0).newlyCritical, false);
  assert.equal(store.apply(alarm("a", 2, { severity: "CRITICAL", kind: "SEVERITY_CHANGED" }), 0).newlyCritical, true);
  assert.equal(store.apply(alarm("a", 3, { severity: "CRITICAL" }), 0).newlyCritical, false);
  assert.equal(store.apply(alarm("a", 4, { severity: "CRITICAL", kind: "CLEARED" }), 0).newlyCritical, false);
  assert.equal(store.apply(alarm("a", 5, { severity: "CRITICAL" }), 0).newlyCritical, true);
});

test("what a snapshot no longer lists has cleared, unless it came after connecting", () => {
  const store = new AlarmStore();
  store.apply(alarm("before", 1), 100);
  store.apply(alarm("after", 1), 300);
  store.applySnapshot([alarm("listed", 1)], true, 400, 200);
  assert.equal(store.get("before")?.active, false);
  assert.equal(store.get("before")?.clearedAtMs, 400);
  assert.equal(store.get("after")?.active, true);
  assert.equal(store.get("listed")?.active, true);
});

test("a snapshot older than what came live does not undo it", () => {
  const store = new AlarmStore();
  store.apply(alarm("a", 2, { kind: "CLEARED" }), 300);
  store.applySnapshot([alarm("a", 1)], true, 400, 200);
  assert.equal(store.get("a")?.active, false);
});

test("a snapshot that is not complete clears nothing, and a complete one later does", () => {
  const store = new AlarmStore();
  store.apply(alarm("held", 1), 100);
  const raised = store.applySnapshot([alarm("listed", 1, { severity: "CRITICAL" })], false, 300, 200);
  assert.deepEqual(raised.map((entry) => entry.alarmId), ["listed"]);
  assert.equal(store.get("held")?.active, true);
  store.applySnapshot([alarm("listed", 1)], true, 400, 200);
  assert.equal(store.get("held")?.active, false);
  assert.equal(store.get("listed")?.active, true);
});

test("an alarm taken for cleared comes back when a snapshot lists it", () => {
  const store = new AlarmStore();
  store.apply(alarm("a", 1), 100);
  store.applySnapshot([], true, 300, 200);
  assert.equal(store.get("a")?.active, false);
  store.applySnapshot([alarm("a", 1)], true, 500, 400);
  assert.equal(store.get("a")?.active, true);
});

test("a snapshot names the criticals that this page had not shown", () => {
  const store = new AlarmStore();
  const critical = alarm("c", 1, { severity: "CRITICAL" });
  assert.deepEqual(store.applySnapshot([critical, alarm("h", 1)], true, 0, 0).map((a) => a.alarmId), ["c"]);
  assert.deepEqual(store.applySnapshot([critical], true, 0, 0), []);
});

test("cleared alarms are forgotten after some minutes, active ones are not", () => {
  const store = new AlarmStore();
  store.apply(alarm("active", 1), 0);
  store.apply(alarm("cleared", 1, { kind: "CLEARED" }), 0);
  assert.equal(store.expire(KEEP_CLEARED_MS - 1), false);
  assert.equal(store.expire(KEEP_CLEARED_MS), true);
  assert.deepEqual(ids(store), ["active"]);
});

test("over the bound the oldest cleared goes first, then the least severe, each counted", () => {
  const store = new AlarmStore(2);
  store.apply(alarm("cleared", 1, { kind: "CLEARED" }), 0);
  store.apply(alarm("low", 1, { severity: "LOW" }), 0);
  store.apply(alarm("critical", 1, { severity: "CRITICAL" }), 0);
  assert.deepEqual(ids(store), ["critical", "low"]);
  store.apply(alarm("high", 1), 0);
  assert.deepEqual(ids(store), ["critical", "high"]);
  assert.equal(store.dropped, 2);
});
