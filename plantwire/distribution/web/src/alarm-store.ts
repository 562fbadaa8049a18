/**
 * The alarms a person must see: active ones, and for some minutes those that cleared.
 *
 * In: checked alarm events in any order, snapshots. Out: a sorted list, counts by severity.
 * Guarantees: an alarm shows its highest revision; an event already seen changes nothing; a clear that
 * arrives before its raise wins. Active first, by severity, then the latest first; at most `capacity`
 * alarms: the oldest cleared one goes first, then the least severe; each one dropped is counted.
 * Not here: how an alarm is drawn or announced (`view`).
 */

import { SEVERITIES, SEVERITY_RANK, type Alarm, type Severity } from "./wire";

export const KEEP_CLEARED_MS = 5 * 60_000;

export interface AlarmEntry {
  readonly alarm: Alarm;
  readonly active: boolean;
  /** When it cleared, or was found cleared, ms on the own clock; null while active. */
  readonly clearedAtMs: number | null;
  /** When the last live event came, ms on the own clock; 0 when known from a snapshot only. */
  readonly eventAtMs: number;
}

/** What an event changed. `unseen`: it was new to this page. `newlyCritical`: someone must look now. */
export interface AlarmChange {
  readonly unseen: boolean;
  readonly newlyCritical: boolean;
}

const NO_CHANGE: AlarmChange = { unseen: false, newlyCritical: false };

export class AlarmStore {
  private readonly entries = new Map<string, AlarmEntry>();
  dropped = 0;

  constructor(private readonly capacity = 2_000) {}

  /** Takes a live event. */
  apply(alarm: Alarm, nowMs: number): AlarmChange {
    return this.take(alarm, nowMs, nowMs);
  }

  /**
   * Takes the list of what is active. An alarm held as active and not in a list that is `complete` has
   * cleared while this page did not listen, unless its last event came after `connectedAtMs`.
   * Returns the alarms that became critical unseen.
   */
  applySnapshot(alarms: readonly Alarm[], complete: boolean, nowMs: number, connectedAtMs: number): Alarm[] {
    const listed = new Set<string>();
    const newlyCritical: Alarm[] = [];
    for (const alarm of alarms) {
      listed.add(alarm.alarmId);
      if (this.take(alarm, nowMs, 0).newlyCritical) newlyCritical.push(alarm);
    }
    if (!complete) return newlyCritical;
    for (const [id, entry] of this.entries) {
      if (entry.active && !listed.has(id) && entry.eventAtMs < connectedAtMs) {
        this.entries.set(id, { ...entry, active: false, clearedAtMs: nowMs });
      }
    }
    return newlyCritical;
  }

  /** Forgets what cleared `KEEP_CLEARED_MS` ago; true when something went. */
  expire(nowMs: number): boolean {
    let changed = false;
    for (const [id, entry] of this.entries) {
      if (entry.clearedAtMs !== null && nowMs - entry.clearedAtMs >= KEEP_CLEARED_MS) {
        this.entries.delete(id);
        changed = true;
      }
    }
    return changed;
  }

  get(alarmId: string): AlarmEntry | undefined {
    return this.entries.get(alarmId);
  }

  /** All entries, in the order in which they are shown. */
  sorted(): AlarmEntry[] {
    return [...this.entries.values()].sort(compareEntries);
  }

  activeCounts(): Record<Severity, number> {
    const counts = Object.fromEntries(SEVERITIES.map((severity) => [severity, 0])) as Record<Severity, number>;
    for (const entry of this.entries.values()) if (entry.active) counts[entry.alarm.severity] += 1;
    return counts;
  }

  private take(alarm: Alarm, nowMs: number, eventAtMs: number): AlarmChange {
    const held = this.entries.get(alarm.alarmId);
    if (held !== undefined && alarm.revision <= held.alarm.revision) {
      // The list of active alarms may bring back one that was taken for cleared.
      const revived = eventAtMs === 0 && !held.active && held.alarm.kind !== "CLEARED";
      if (revived) this.entries.set(alarm.alarmId, { ...held, active: true, clearedAtMs: null });
      return NO_CHANGE;
    }
    const active = alarm.kind !== "CLEARED";
    this.entries.set(alarm.alarmId, { alarm, active, clearedAtMs: active ? null : nowMs, eventAtMs });
    if (held === undefined && this.entries.size > this.capacity) this.dropOne();
    const wasCritical = held !== undefined && held.active && held.alarm.severity === "CRITICAL";
    return { unseen: true, newlyCritical: active && alarm.severity === "CRITICAL" && !wasCritical };
  }

  private dropOne(): void {
    const last = this.sorted().at(-1);
    if (last === undefined) return;
    this.entries.delete(last.alarm.alarmId);
    this.dropped += 1;
  }
}

function compareEntries(a: AlarmEntry, b: AlarmEntry): number {
  if (a.active !== b.active) return a.active ? -1 : 1;
  if (!a.active) {
    return (b.clearedAtMs ?? 0) - (a.clearedAtMs ?? 0) || compareIds(a, b);
  }
  return (
    SEVERITY_RANK[a.alarm.severity] - SEVERITY_RANK[b.alarm.severity] ||
    b.alarm.raisedAt - a.alarm.raisedAt ||
    compareIds(a, b)
  );
}

function compareIds(a: AlarmEntry, b: AlarmEntry): number {
  return a.alarm.alarmId < b.alarm.alarmId ? -1 : a.alarm.alarmId > b.alarm.alarmId ? 1 : 0;
}
