import assert from "node:assert/strict";
import { test } from "node:test";
import { formatAge, formatExact, formatMoment, formatMs, formatNumber, formatValue } from "../src/format";
import { backoffMs, isTokenRefusal } from "../src/retry";
import { tidyToken, tokenInFragment } from "../src/token";
import { labelOf, parseUnits, setPlantUnits, unitOf } from "../src/units";

test("units come from the plant's table, then from names, and are never guessed", () => {
  setPlantUnits(parseUnits({ conveyor: { speed: "m/s", odd: 7 }, "nab-machine": { temperature: "°F" }, wrong: "x" }));
  assert.equal(unitOf("conveyor", "speed"), "m/s");
  assert.equal(unitOf("motor", "speed"), "");
  assert.equal(unitOf("nab-machine", "temperature"), "°F");
  assert.equal(unitOf("conveyor", "odd"), "");
  assert.equal(unitOf("any", "flow_m3_h"), "m³/h");
  assert.equal(unitOf("any", "vibration_mm_s"), "mm/s");
  assert.equal(unitOf("any", "outlet_c"), "°C");
  assert.equal(unitOf("any", "cycles"), "");
  assert.equal(parseUnits(["no table"]).size, 0);
});

test("labels leave a unit's suffix out", () => {
  assert.equal(labelOf("vibration_mm_s"), "vibration");
  assert.equal(labelOf("bearing_temperature"), "bearing temperature");
});

test("numbers keep about four significant digits and a real minus", () => {
  assert.deepEqual([12345.6, 999.96, 101.25, 45.678, 1.2345, 0.04321, -3.5].map(formatNumber), [
    "12346",
    "1000.0",
    "101.3",
    "45.68",
    "1.23",
    "0.043",
    "−3.50",
  ]);
  assert.equal(formatNumber(0), "0.000");
  assert.equal(formatValue(null), "–");
  assert.equal(formatValue(true), "on");
  assert.equal(formatExact(100), "100");
  assert.equal(formatMs(3.14159), "3.1");
  assert.equal(formatMs(99.96), "100");
  assert.equal(formatMs(null), "–");
});

test("ages", () => {
  assert.deepEqual([0, 59_999, 60_000, 7_500_000, 3 * 86_400_000].map(formatAge), ["0 s", "59 s", "1 min", "2 h 05", "3 d"]);
  assert.equal(formatAge(-5), "0 s");
});

test("a moment is as precise as its axis is long", () => {
  const moment = new Date(2026, 10, 24, 9, 5, 7).getTime();
  const hours = (count: number): string => formatMoment(moment, count * 3_600_000);
  assert.deepEqual([hours(1), hours(8), hours(24), hours(168)], ["09:05:07", "09:05", "11-24 09:05", "11-24 09:05"]);
});

test("the wait grows from 1 s to 30 s and is spread by chance", () => {
  assert.equal(backoffMs(0, 0.5), 1000);
  assert.equal(backoffMs(3, 0.5), 8000);
  assert.equal(backoffMs(99, 0.5), 30_000);
  for (let failures = 0; failures < 20; failures += 1) {
    for (const chance of [0, 0.25, 0.999]) {
      const wait = backoffMs(failures, chance);
      assert.ok(wait >= 500 && wait <= 30_000, `${failures} failures: ${wait} ms`);
    }
  }
});

test("a refusal for the token is told from one for load", () => {
  assert.equal(isTokenRefusal("token expired"), true);
  assert.equal(isTokenRefusal("no token"), true);
  assert.equal(isTokenRefusal("Server at capacity"), false);
  assert.equal(isTokenRefusal("websocket error"), false);
});

test("a token is read from the fragment and tidied", () => {
  assert.equal(tokenInFragment("#token=aa.bb.cc"), "aa.bb.cc");
  assert.equal(tokenInFragment("#view=1&token=aa.bb.cc"), "aa.bb.cc");
  assert.equal(tokenInFragment(""), null);
  assert.equal(tidyToken("  Bearer aa.bb-_.cc\n"), "aa.bb-_.cc");
  assert.equal(tidyToken("<script>"), null);
  assert.equal(tidyToken("two words"), null);
});
