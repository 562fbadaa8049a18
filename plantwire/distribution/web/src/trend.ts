/**
 * The last readings of one metric, in time order, in flat arrays that a chart can draw as they are.
 *
 * In: (time in ms, value). Out: `times` and `values` as views, oldest first.
 * Guarantees: times ascend strictly; at most `capacity` readings, the oldest go first; a reading that
 * arrives late is put where it belongs, one with a time already held replaces it.
 * Not here: what is drawn (`view/sparkline`, `view/detail`).
 */
export class Trend {
  // Twice the capacity: the window slides, and is moved back once per `capacity` readings.
  private readonly allTimes: Float64Array;
  private readonly allValues: Float64Array;
  private start = 0;
  private end = 0;

  constructor(private readonly capacity: number) {
    this.allTimes = new Float64Array(capacity * 2);
    this.allValues = new Float64Array(capacity * 2);
  }

  get length(): number {
    return this.end - this.start;
  }

  /** Times in ms since the epoch, ascending. A view: valid until the next `add`. */
  get times(): Float64Array {
    return this.allTimes.subarray(this.start, this.end);
  }

  /** Values, parallel to `times`. A view: valid until the next `add`. */
  get values(): Float64Array {
    return this.allValues.subarray(this.start, this.end);
  }

  add(timeMs: number, value: number): void {
    let at = this.end;
    while (at > this.start && (this.allTimes[at - 1] as number) >= timeMs) at -= 1;
    if (at < this.end && this.allTimes[at] === timeMs) {
      this.allValues[at] = value;
      return;
    }
    if (this.length === this.capacity) {
      if (at === this.start) return; // older than all that is kept
      this.start += 1;
    }
    if (this.end === this.allTimes.length) {
      this.allTimes.copyWithin(0, this.start, this.end);
      this.allValues.copyWithin(0, this.start, this.end);
      at -= this.start;
      this.end -= this.start;
      this.start = 0;
    }
    if (at < this.end) {
      this.allTimes.copyWithin(at + 1, at, this.end);
      this.allValues.copyWithin(at + 1, at, this.end);
    }
    this.allTimes[at] = timeMs;
    this.allValues[at] = value;
    this.end += 1;
  }

  /** Index of the first reading at or after `timeMs`; `length` where there is none. */
  indexAt(timeMs: number): number {
    let low = this.start;
    let high = this.end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.allTimes[middle] as number) < timeMs) low = middle + 1;
      else high = middle;
    }
    return low - this.start;
  }
}
