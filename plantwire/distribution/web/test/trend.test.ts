import assert from "node:assert/strict";
import { test } from "node:test";
import { Trend } from "../src/trend";

function filled(capacity: number, readings: readonly (readonly [number, number])[]): Trend {
  const trend = new Trend(capacity);
  for (const [time, value] of readings) trend.add(time, value);
  return trend;
}

test("keeps readings in time order however they arrive", () => {
  const trend = filled(10, [[3, 30], [1, 10], [2, 20], [5, 50], [4, 40]]);
  assert.deepEqual([...trend.times], [1, 2, 3, 4, 5]);
  assert.deepEqual([...trend.values], [10, 20, 30, 40, 50]);
});

test("a reading of a time already held replaces it", () => {
  const trend = filled(10, [[1, 10], [2, 20], [1, 11]]);
  assert.deepEqual([...trend.times], [1, 2]);
  assert.deepEqual([...trend.values], [11, 20]);
});

test("holds the newest `capacity` readings over many turns of the window", () => {
  const trend = new Trend(7);
  for (let time = 1; time <= 1000; time += 1) {
    trend.add(time, time * 2);
    assert.ok(trend.length <= 7);
  }
  assert.deepEqual([...trend.times], [994, 995, 996, 997, 998, 999, 1000]);
  assert.deepEqual([...trend.values], [1988, 1990, 1992, 1994, 1996, 1998, 2000]);
});

test("late readings agree with a plain sorted list, at every window position", () => {
  let seed = 7;
  const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const trend = new Trend(16);
  let model: [number, number][] = [];
  for (let step = 0; step < 2000; step += 1) {
    const time = step + Math.floor(random() * 12) - 6;
    const value = random();
    const full = model.length === 16;
    const known = model.find(([held]) => held === time);
    if (known !== undefined) known[1] = value;
    else if (!full || time > (model[0] as [number, number])[0]) {
      model.push([time, value]);
      model = model.sort((a, b) => a[0] - b[0]).slice(-16);
    }
    trend.add(time, value);
    assert.deepEqual([...trend.times], model.map(([held]) => held));
    assert.deepEqual([...trend.values], model.map(([, held]) => held));
  }
});

test("a reading older than a full window is left out", () => {
  const trend = filled(3, [[5, 1], [6, 2], [7, 3], [4, 9]]);
  assert.deepEqual([...trend.times], [5, 6, 7]);
});

test("indexAt finds the first reading at or after a time", () => {
  const trend = filled(10, [[10, 1], [20, 2], [30, 3]]);
  assert.equal(trend.indexAt(5), 0);
  assert.equal(trend.indexAt(20), 1);
  assert.equal(trend.indexAt(21), 2);
  assert.equal(trend.indexAt(31), 3);
});
