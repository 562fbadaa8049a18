/**
 * Units and labels of metrics, from their names.
 *
 * In: a metric name such as `temperature`, `bearing_temperature` or `flow_m3_h`. Out: a label, and a
 * unit where the name tells one.
 * Guarantees: a name that tells no unit gets none; no unit is guessed from a value.
 * Not here: numbers (`format`).
 */

const SUFFIX_UNITS: readonly (readonly [suffix: string, unit: string])[] = [
  ["_m3_h", "m³/h"],
  ["_m3h", "m³/h"],
  ["_l_min", "l/min"],
  ["_mm_s", "mm/s"],
  ["_m_s", "m/s"],
  ["_degc", "°C"],
  ["_celsius", "°C"],
  ["_c", "°C"],
  ["_degf", "°F"],
  ["_bar", "bar"],
  ["_mbar", "mbar"],
  ["_kpa", "kPa"],
  ["_pa", "Pa"],
  ["_kwh", "kWh"],
  ["_kw", "kW"],
  ["_w", "W"],
  ["_kv", "kV"],
  ["_v", "V"],
  ["_ma", "mA"],
  ["_a", "A"],
  ["_hz", "Hz"],
  ["_rpm", "rpm"],
  ["_kn", "kN"],
  ["_nm", "Nm"],
  ["_mm", "mm"],
  ["_m", "m"],
  ["_kg", "kg"],
  ["_pct", "%"],
  ["_percent", "%"],
  ["_ppm", "ppm"],
  ["_ms", "ms"],
  ["_s", "s"],
];

// Quantities by the last word of the name, in the unit that Plantwire's simulated plant uses.
const WORD_UNITS: Readonly<Record<string, string>> = {
  temperature: "°C",
  pressure: "bar",
  vibration: "mm/s",
  speed: "rpm",
  current: "A",
  voltage: "V",
  power: "kW",
  energy: "kWh",
  flow: "m³/h",
  level: "%",
  humidity: "%",
  load: "%",
  torque: "Nm",
  frequency: "Hz",
  force: "kN",
};

/** The unit that a metric's name tells, or "". */
export function unitOf(metric: string): string {
  const name = metric.toLowerCase();
  for (const [suffix, unit] of SUFFIX_UNITS) if (name.endsWith(suffix) && name.length > suffix.length) return unit;
  const word = name.slice(Math.max(name.lastIndexOf("_"), name.lastIndexOf("/"), name.lastIndexOf(" ")) + 1);
  return WORD_UNITS[word] ?? "";
}

/** The metric's name for people: without a unit's suffix, words apart. */
export function labelOf(metric: string): string {
  const name = metric.toLowerCase();
  const suffix = SUFFIX_UNITS.find(([ending]) => name.endsWith(ending) && name.length > ending.length);
  const bare = suffix === undefined ? metric : metric.slice(0, metric.length - suffix[0].length);
  return bare.replaceAll("_", " ");
}
