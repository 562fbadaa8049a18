/**
 * The list of alarms.
 *
 * In: the alarm store. Out: rows that carry `data-alarm-id`, `data-severity`, `data-state`
 * (active or cleared) and `data-revision`.
 * Guarantees: a row is made once per alarm, then changed and moved; at most `SHOWN_MAX` rows, and the
 * list says how many it leaves out.
 * Not here: their order (`alarm-store`), their announcement (`view/attention`).
 */

import type { AlarmEntry, AlarmStore } from "../alarm-store";
import { formatAge, formatExact, formatTime } from "../format";
import type { View } from "../frame";
import { kindOf } from "../telemetry-store";
import { unitOf } from "../units";
import { byId, make, setData, setSeverityShape, setText, severityShape, textIn } from "./dom";

const SHOWN_MAX = 200;

interface Row {
  readonly root: HTMLElement;
  readonly shape: SVGSVGElement;
  readonly severity: Text;
  readonly message: Text;
  readonly source: Text;
  readonly reading: Text;
  readonly count: HTMLElement;
  readonly time: Text;
  readonly age: Text;
  entry: AlarmEntry;
}

export class AlarmsView implements View {
  private readonly list = byId("alarm-list");
  private readonly empty = byId("alarms-empty");
  private readonly note = byId("alarms-note");
  private readonly rows = new Map<string, Row>();
  private complete = true;

  constructor(
    private readonly store: AlarmStore,
    private readonly plantNowMs: () => number,
    private readonly onChoose: (deviceId: string, metric: string) => void,
  ) {
    this.list.addEventListener("animationend", (event) => {
      if (event.target instanceof HTMLElement) setData(event.target, "arrived", null);
    });
    this.list.addEventListener("click", (event) => {
      if (!(event.target instanceof Element)) return;
      const id = event.target.closest<HTMLElement>("[data-alarm-id]")?.dataset["alarmId"];
      const row = id === undefined ? undefined : this.rows.get(id);
      if (row !== undefined) this.onChoose(row.entry.alarm.deviceId, row.entry.alarm.metric);
    });
  }

  /** Whether the server has told all that is active; the caller has the list drawn. */
  setComplete(complete: boolean): void {
    this.complete = complete;
  }

  render(): boolean {
    const entries = this.store.sorted();
    const shown = entries.slice(0, SHOWN_MAX);
    const keep = new Set(shown.map((entry) => entry.alarm.alarmId));
    for (const [id, row] of this.rows) {
      if (keep.has(id)) continue;
      row.root.remove();
      this.rows.delete(id);
    }
    let next: Element | null = this.list.firstElementChild;
    for (const entry of shown) {
      const row = this.rows.get(entry.alarm.alarmId) ?? this.addRow(entry);
      if (next !== null && next !== row.root && next.nextElementSibling === row.root) {
        // One row has gone further down: take that one out instead of moving all that follow it up.
        next.remove();
        next = row.root;
      }
      if (row.root === next) next = next.nextElementSibling;
      else this.list.insertBefore(row.root, next);
      this.fill(row, entry);
    }
    this.renderNote(entries, shown.length);
    this.tick();
    return false;
  }

  /** Once a second: ages. */
  tick(): void {
    const nowMs = this.plantNowMs();
    for (const row of this.rows.values()) {
      const { alarm, clearedAtMs } = row.entry;
      const age = formatAge(nowMs - alarm.raisedAt);
      setText(row.age, clearedAtMs === null ? age : "cleared");
    }
  }

  private renderNote(entries: readonly AlarmEntry[], shown: number): void {
    const active = entries.filter((entry) => entry.active).length;
    // "None" would be a claim.
    this.empty.hidden = active > 0 || !this.complete;
    const cleared = entries.length - active;
    const parts = [`${active} active`];
    if (!this.complete) parts.push("more may be: the server does not know all yet");
    if (cleared > 0) parts.push(`${cleared} cleared`);
    if (entries.length > shown) parts.push(`${entries.length - shown} more not listed`);
    if (this.store.dropped > 0) parts.push(`${this.store.dropped} dropped`);
    setText(this.note, parts.join(", "));
  }

  private addRow(entry: AlarmEntry): Row {
    const root = make("li", "alarm");
    root.dataset["alarmId"] = entry.alarm.alarmId;
    const shape = severityShape(entry.alarm.severity);
    const severity = make("span", "visually-hidden");
    const message = make("button", "alarm-message");
    message.type = "button";
    const source = make("span", "alarm-source");
    const reading = make("span", "alarm-reading");
    const count = make("span", "alarm-count");
    count.title = "How often it was raised";
    const time = make("time", "alarm-time");
    const age = make("span", "alarm-age");
    const line = make("div", "alarm-line");
    line.append(source, reading, count);
    const when = make("div", "alarm-when");
    when.append(age, time);
    const body = make("div", "alarm-body");
    body.append(severity, message, line);
    root.append(shape, body, when);
    const row: Row = {
      root,
      shape,
      severity: textIn(severity),
      message: textIn(message),
      source: textIn(source),
      reading: textIn(reading),
      count,
      time: textIn(time),
      age: textIn(age),
      entry,
    };
    this.rows.set(entry.alarm.alarmId, row);
    return row;
  }

  private fill(row: Row, entry: AlarmEntry): void {
    const isEvent = entry.eventAtMs > 0 && row.root.dataset["revision"] !== String(entry.alarm.revision);
    if (isEvent && entry.active) setData(row.root, "arrived", "true");
    row.entry = entry;
    const { alarm } = entry;
    setData(row.root, "severity", alarm.severity);
    setData(row.root, "state", entry.active ? "active" : "cleared");
    setData(row.root, "revision", String(alarm.revision));
    setSeverityShape(row.shape, alarm.severity);
    setText(row.severity, `${alarm.severity.toLowerCase()}${entry.active ? "" : ", cleared"}: `);
    setText(row.message, alarm.message === "" ? `${alarm.deviceId} ${alarm.metric}` : alarm.message);
    setText(row.source, alarm.site === "" ? alarm.deviceId : `${alarm.site} / ${alarm.deviceId}`);
    setText(row.reading, readingOf(entry));
    setText(row.count, alarm.count > 1 ? `×${alarm.count}` : "");
    row.count.hidden = alarm.count <= 1;
    setText(row.time, formatTime(entry.clearedAtMs ?? alarm.raisedAt));
  }
}

function readingOf({ alarm }: AlarmEntry): string {
  const unit = unitOf(kindOf(alarm.deviceId), alarm.metric);
  const spaced = unit === "" ? "" : ` ${unit}`;
  if (alarm.value === null) return alarm.metric;
  const limit = alarm.limit === null ? "" : `, limit ${formatExact(alarm.limit)}${spaced}`;
  return `${formatExact(alarm.value)}${spaced}${limit}`;
}
