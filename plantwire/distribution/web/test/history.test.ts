import assert from "node:assert/strict";
import { test } from "node:test";
import { askHistory, joinLive, NoHistory, parseHistory, type History } from "../src/history";
import { HistoryLoader } from "../src/history-loader";
import { TokenRefused } from "../src/polling";

const signal = new AbortController().signal;
const QUESTION = { deviceId: "press-1", metric: "Node Control/Töne", fromMs: 1000.7, toMs: 2000.2 };
const point = (timestamp: number, avg: number, spread = 0): object => ({
  timestamp,
  avg,
  min: avg - spread,
  max: avg + spread,
  sum: avg,
  count: 1,
});

function history(stepMs: number, points: readonly (readonly [number, number])[], spread = 0): History {
  const answer = { resolution: "1s", stepMs, to: 15_000, points: points.map(([time, value]) => point(time, value, spread)) };
  const found = parseHistory(answer);
  assert.ok(found);
  return found;
}

function answering(status: number, body: unknown): { ask: typeof fetch; asked: string[] } {
  const asked: string[] = [];
  const ask = ((path: string, options: RequestInit) => {
    asked.push(`${path} ${String((options.headers as Record<string, string>)["Authorization"])}`);
    return Promise.resolve(new Response(typeof body === "string" ? body : JSON.stringify(body), { status }));
  }) as typeof fetch;
  return { ask, asked };
}

test("a question names the metric safely, whole milliseconds, and the token", async () => {
  const { ask, asked } = answering(200, { resolution: "1m", stepMs: 60_000, to: 90_000, points: [point(60_000, 5, 1)] });
  const found = await askHistory(ask, "secret", QUESTION, signal);
  assert.deepEqual(asked, [
    "/api/devices/press-1/history?metric=Node+Control%2FT%C3%B6ne&from=1000&to=2000&points=1000 Bearer secret",
  ]);
  assert.deepEqual(found, {
    resolution: "1m",
    stepMs: 60_000,
    toMs: 90_000,
    times: [60_000],
    low: [4],
    average: [5],
    high: [6],
    count: [1],
  });
});

test("what went wrong is told in words", async () => {
  const reason = async (status: number, body: unknown): Promise<string> =>
    askHistory(answering(status, body).ask, "t", QUESTION, signal).then(
      () => "no error",
      (error: Error) => (error instanceof NoHistory ? error.message : error.name),
    );
  assert.match(await reason(503, { reason: "unavailable" }), /database does not answer/);
  assert.match(await reason(503, { reason: "timeout" }), /slow/);
  assert.match(await reason(503, { reason: "busy" }), /too many/);
  assert.match(await reason(500, "<html>"), /answers 500/);
  assert.match(await reason(200, { points: 5 }), /not understood/);
  for (const status of [401, 403]) {
    await assert.rejects(askHistory(answering(status, {}).ask, "t", QUESTION, signal), TokenRefused);
  }
});

test("an answer that is not the contract's is none", () => {
  const good = { resolution: "1s", stepMs: 1000, to: 5000, points: [] };
  assert.ok(parseHistory(good));
  for (const wrong of [
    null,
    5,
    [],
    { ...good, resolution: 1 },
    { ...good, stepMs: -1 },
    { ...good, stepMs: "1000" },
    { ...good, to: null },
    { ...good, points: {} },
    { ...good, points: [{ ...point(1000, 1), count: -1 }] },
    { ...good, points: [null] },
    { ...good, points: [point(1.5, 1)] },
    { ...good, points: [point(2000, 1), point(1000, 1)] },
    { ...good, points: [point(1000, 1), point(1000, 1)] },
  ]) {
    assert.equal(parseHistory(wrong), null, JSON.stringify(wrong));
  }
  const infinite = parseHistory({ ...good, points: [{ ...point(0, 1), avg: null }, point(1000, 2)] });
  assert.deepEqual(infinite?.times, [1000]);
});

test("readings of the page go on where the stored ones end", () => {
  const stored = history(1000, [[0, 1], [1000, 2], [2000, 3]], 0.5);
  const curve = joinLive(stored, [3000, 4000, 4500], [4, 5, 7], 0);
  assert.deepEqual(curve.times, [0, 1000, 2000, 3000, 4000]);
  assert.deepEqual(curve.average, [1, 2, 3, 4, 6]);
  assert.deepEqual(curve.low, [0.5, 1.5, 2.5, 4, 5]);
  assert.deepEqual(curve.high, [1.5, 2.5, 3.5, 4, 7]);
});

test("the last stored step is drawn from the page's readings where they cover it, and never twice", () => {
  const stored = history(10_000, [[0, 1], [10_000, 2]]);
  // From before the last step on: it was not over when it was asked for.
  assert.deepEqual(joinLive(stored, [9_000, 12_000, 18_000, 21_000], [9, 4, 6, 8], 0).average, [1, 5, 8]);
  // From within it on: what came after it was asked for, at 15 s, is added.
  const joined = joinLive(stored, [12_000, 18_000, 21_000], [4, 6, 8], 0);
  assert.deepEqual(joined.average, [1, (2 + 6) / 2, 8]);
  assert.deepEqual(joined.high, [1, 6, 8]);
  // An extreme that was not stored yet is shown, and does not count twice where it was.
  const late = joinLive(stored, [12_000, 14_000], [4, 9], 0);
  assert.deepEqual([late.average, late.low, late.high], [[1, 2], [1, 2], [1, 9]]);
  assert.deepEqual(joinLive(history(0, [[5, 1], [7, 2]]), [7, 8], [2, 3], 0).average, [1, 2, 3]);
});

test("without stored points the page's own are drawn, and without those the stored", () => {
  assert.deepEqual(joinLive(null, [1, 2, 3], [7, 8, 9], 2).average, [8, 9]);
  assert.deepEqual(joinLive(history(1000, []), [1000], [7], 0).average, [7]);
  assert.deepEqual(joinLive(history(1000, [[1000, 5]]), [], [], 0).average, [5]);
  assert.deepEqual(joinLive(null, [], [], 0).times, []);
});

test("what lies before the range is left out, but for the step that it begins in", () => {
  const stored = history(1000, [[0, 1], [1000, 2], [2000, 3]]);
  assert.deepEqual(joinLive(stored, [], [], 1500).times, [1000, 2000]);
});

test("silence breaks the lines, the usual distance of a slow device does not", () => {
  const dense = history(1000, [[0, 1], [1000, 1], [2000, 1], [60_000, 2], [61_000, 2]], 0.5);
  const curve = joinLive(dense, [], [], 0);
  assert.deepEqual(curve.times, [0, 1000, 2000, 31_000, 60_000, 61_000]);
  for (const line of [curve.low, curve.average, curve.high]) assert.equal(line[3], null);
  const slow = history(1000, [[0, 1], [30_000, 1], [60_000, 1], [90_000, 1], [300_000, 1]]);
  assert.deepEqual(joinLive(slow, [], [], 0).times, [0, 30_000, 60_000, 90_000, 195_000, 300_000]);
});

/** A loader whose questions are answered by hand, on a clock set by hand. */
function loading(): {
  loader: HistoryLoader;
  asked: { metric: string; span: number; resolve: (h: History) => void; reject: (e: Error) => void; signal: AbortSignal }[];
  at: (ms: number) => void;
  changes: () => number;
} {
  let now = 1_000_000;
  let changed = 0;
  const asked: ReturnType<typeof loading>["asked"] = [];
  const loader = new HistoryLoader(
    (question, asking) =>
      new Promise((resolve, reject) => {
        asked.push({ metric: question.metric, span: question.toMs - question.fromMs, resolve, reject, signal: asking });
      }),
    () => now,
    () => {
      changed += 1;
    },
  );
  const at = (ms: number): void => {
    now = 1_000_000 + ms;
    loader.tick();
  };
  return { loader, asked, at, changes: () => changed };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("what is looked at is asked for once, and again when it has aged", async () => {
  const { loader, asked, at, changes } = loading();
  loader.look("press-1", "temperature", 900_000);
  loader.look("press-1", "temperature", 900_000);
  at(1000);
  assert.deepEqual(asked.map(({ metric, span }) => [metric, span]), [["temperature", 900_000]]);
  assert.ok(loader.isLoading);
  asked[0]?.resolve(history(1000, [[0, 1]]));
  await settled();
  assert.equal(changes(), 1);
  assert.deepEqual(loader.history?.average, [1]);
  at(60_000);
  assert.equal(asked.length, 1);
  at(61_001);
  assert.equal(asked.length, 2);
  assert.ok(!loader.isLoading, "what was loaded is shown meanwhile");
  loader.leave();
});

test("a failure keeps what was loaded, says why, and is tried again soon", async () => {
  const { loader, asked, at } = loading();
  loader.look("press-1", "temperature", 900_000);
  asked[0]?.reject(new NoHistory("the database does not answer"));
  await settled();
  assert.deepEqual([loader.history, loader.failure], [null, "the database does not answer"]);
  at(9_000);
  assert.equal(asked.length, 1);
  at(10_000);
  asked[1]?.resolve(history(1000, [[0, 1]]));
  await settled();
  assert.equal(loader.failure, null);
  at(70_001);
  asked[2]?.reject(new TypeError("fetch failed"));
  await settled();
  assert.deepEqual(loader.history?.average, [1]);
  assert.match(loader.failure ?? "", /cannot be reached/);
});

test("an answer for what is no longer looked at is dropped", async () => {
  const { loader, asked, at, changes } = loading();
  loader.look("press-1", "temperature", 900_000);
  loader.look("press-1", "pressure", 900_000);
  assert.ok(asked[0]?.signal.aborted);
  asked[0]?.resolve(history(1000, [[0, 1]]));
  await settled();
  assert.deepEqual([loader.history, changes()], [null, 0]);
  asked[1]?.resolve(history(1000, [[0, 2]]));
  await settled();
  assert.deepEqual(loader.history?.average, [2]);
  loader.leave();
  assert.equal(loader.history, null);
  at(500_000);
  assert.equal(asked.length, 2);
});
