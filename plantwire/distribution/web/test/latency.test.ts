import assert from "node:assert/strict";
import { test } from "node:test";
import { between, BUDGETS, LatencyLog, percentile, STAGES, summarise, summariseGroup, WHOLE_BUDGET } from "../src/latency";

const stamps = {
  device: 1000,
  gatewayIn: 1004,
  gatewayOut: 1005,
  detectIn: 1008,
  detectOut: 1009.5,
  published: 1010,
  emitted: 1012,
  received: 1013,
  rendered: 1025,
};
const alarm = { alarmId: "a", revision: 1, severity: "CRITICAL" as const, message: "hot" };

test("stages cover the path without gap or overlap", () => {
  STAGES.slice(1).forEach((stage, index) => assert.equal(stage.from, STAGES[index]?.to));
  const log = new LatencyLog();
  log.add(alarm, stamps);
  const [sample] = log.last(1);
  assert.deepEqual(sample?.stagesMs, [4, 1, 3, 1.5, 0.5, 2, 1, 12]);
  assert.equal(sample?.wholeMs, 25);
});

test("the budgets of the groups add up to the whole path's", () => {
  const groups = [...new Set(STAGES.map((stage) => stage.group))];
  assert.equal(groups.reduce((sum, group) => sum + (BUDGETS[group]?.p95Ms ?? Number.NaN), 0), WHOLE_BUDGET.p95Ms);
});

test("a stamp that is missing, zero or out of order measures nothing", () => {
  assert.equal(between({ device: 0, gatewayIn: 5 }, "device", "gatewayIn"), null);
  assert.equal(between({ gatewayIn: 5 }, "device", "gatewayIn"), null);
  assert.equal(between({ device: 6, gatewayIn: 5 }, "device", "gatewayIn"), null);
  assert.equal(between({ device: 5, gatewayIn: 5 }, "device", "gatewayIn"), 0);
});

test("percentiles by nearest rank", () => {
  const values = [5, 1, 4, 2, 3, 10, 9, 8, 7, 6];
  assert.equal(percentile(values, 0.5), 5);
  assert.equal(percentile(values, 0.95), 10);
  assert.equal(percentile([42], 0.5), 42);
  assert.equal(percentile([], 0.5), null);
});

test("a page that is hidden measures up to reception and says nothing of rendering", () => {
  const log = new LatencyLog();
  const { rendered: _, ...unseen } = stamps;
  log.add(alarm, unseen);
  const [sample] = log.last(1);
  assert.equal(sample?.wholeMs, 13);
  assert.equal(sample?.stagesMs.at(-1), null);
});

test("summaries leave out what was not measured", () => {
  const log = new LatencyLog();
  log.add(alarm, stamps);
  log.add(alarm, { ...stamps, device: 2000 });
  const { stages, whole } = summarise(log.last(10));
  assert.deepEqual(stages[0], { count: 1, p50Ms: 4, p95Ms: 4 });
  assert.equal(stages[1]?.count, 2);
  assert.equal(whole.count, 1);
});

test("a group's figure is the percentile of sums, not the sum of percentiles", () => {
  const log = new LatencyLog();
  log.add(alarm, { ...stamps, published: 1011.5 });
  log.add(alarm, stamps);
  assert.deepEqual(summariseGroup(log.last(10), "delivery"), { count: 2, p50Ms: 3.5, p95Ms: 3.5 });
});

test("keeps the last `capacity` samples and filters before it counts", () => {
  const log = new LatencyLog(3);
  for (let revision = 1; revision <= 5; revision += 1) {
    log.add({ ...alarm, revision, severity: revision % 2 === 0 ? "HIGH" : "CRITICAL" }, stamps);
  }
  assert.deepEqual(log.last(10).map((sample) => sample.revision), [3, 4, 5]);
  assert.deepEqual(log.last(2, (sample) => sample.severity === "CRITICAL").map((sample) => sample.revision), [3, 5]);
});
