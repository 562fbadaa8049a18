/**
 * Units and labels of metrics.
 *
 * In: the plant's table (`units.json` beside the page), a metric's name such as `flow_m3_h`.
 * Out: a label, and a unit where one is known.
 * Guarantees: nothing is guessed: a metric that neither the table nor its own name gives a unit has none.
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

/** Units by kind of device and metric. */
export type UnitTable = ReadonlyMap<string, ReadonlyMap<string, string>>;

let plant: UnitTable = new Map();

/** A units file: `{kind: {metric: unit}}`; what is not of that form is left out. */
export function parseUnits(raw: unknown): UnitTable {
  const table = new Map<string, ReadonlyMap<string, string>>();
  for (const [kind, metrics] of entriesOf(raw)) {
    const units = new Map<string, string>();
    for (const [metric, unit] of entriesOf(metrics)) {
      if (typeof unit === "string" && unit.length <= 12) units.set(metric, unit);
    }
    table.set(kind, units);
  }
  return table;
}

/** Makes `table` the plant's units, before anything is drawn. */
export function setPlantUnits(table: UnitTable): void {
  plant = table;
}

/** The unit of a metric by the plant's table, else as its name tells it, else "". */
export function unitOf(kind: string, metric: string): string {
  const told = plant.get(kind)?.get(metric);
  if (told !== undefined) return told;
  const name = metric.toLowerCase();
  return SUFFIX_UNITS.find(([suffix]) => name.endsWith(suffix) && name.length > suffix.length)?.[1] ?? "";
}

function entriesOf(raw: unknown): [string, unknown][] {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw) ? Object.entries(raw) : [];
}

/** The metric's name for people: without a unit's suffix, words apart. */
export function labelOf(metric: string): string {
  const name = metric.toLowerCase();
  const suffix = SUFFIX_UNITS.find(([ending]) => name.endsWith(ending) && name.length > ending.length);
  const bare = suffix === undefined ? metric : metric.slice(0, metric.length - suffix[0].length);
  return bare.replaceAll("_", " ");
}
