/**
 * Keeps the history of what is looked at up to date.
 *
 * In: what is looked at, a clock's ticks. Out: its history, or why there is none; a callback on change.
 * Guarantees: one question at a time, the one for what is looked at now; an answer to an earlier one is
 * dropped; what was loaded stays while it is asked for again, and when that fails; nobody looking, nothing asked.
 * Not here: the question and its answer (`history`).
 */

import { NoHistory, type History, type Question } from "./history";

/** Until then the page's own readings reach back to the last answer. */
const AGAIN_MIN_MS = 60_000;
const AGAIN_MAX_MS = 5 * 60_000;
const RETRY_MS = 10_000;
const PATIENCE_MS = 15_000;

interface Subject {
  readonly deviceId: string;
  readonly metric: string;
  readonly rangeMs: number;
}

export class HistoryLoader {
  history: History | null = null;
  /** Why there is none, or no newer one; null while all is well. */
  failure: string | null = null;
  private subject: Subject | null = null;
  private nextAtMs = 0;
  private running: AbortController | null = null;
  private patience: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly ask: (question: Question, signal: AbortSignal) => Promise<History>,
    private readonly plantNowMs: () => number,
    private readonly changed: () => void,
  ) {}

  get isLoading(): boolean {
    return this.running !== null && this.history === null;
  }

  /** Something else, or another range of it, is looked at. */
  look(deviceId: string, metric: string, rangeMs: number): void {
    const { subject } = this;
    if (subject?.deviceId === deviceId && subject.metric === metric && subject.rangeMs === rangeMs) return;
    this.leave();
    this.subject = { deviceId, metric, rangeMs };
    this.tick();
  }

  /** Nobody looks any more. */
  leave(): void {
    this.running?.abort();
    clearTimeout(this.patience);
    this.running = null;
    this.subject = null;
    this.history = null;
    this.failure = null;
    this.nextAtMs = 0;
  }

  /** Once a second. */
  tick(): void {
    if (this.subject !== null && this.running === null && this.plantNowMs() >= this.nextAtMs) void this.load(this.subject);
  }

  private async load({ deviceId, metric, rangeMs }: Subject): Promise<void> {
    const running = new AbortController();
    this.running = running;
    this.patience = setTimeout(() => running.abort(), PATIENCE_MS);
    const toMs = this.plantNowMs();
    let history: History | null = null;
    let failure: string | null = null;
    try {
      history = await this.ask({ deviceId, metric, fromMs: toMs - rangeMs, toMs }, running.signal);
    } catch (error) {
      failure = error instanceof NoHistory ? error.message : "the server cannot be reached";
    }
    if (this.running !== running) return; // something else is looked at by now
    clearTimeout(this.patience);
    this.running = null;
    this.failure = failure;
    this.history = history ?? this.history;
    const waitMs = history === null ? RETRY_MS : Math.min(AGAIN_MAX_MS, Math.max(AGAIN_MIN_MS, history.stepMs));
    this.nextAtMs = this.plantNowMs() + waitMs;
    this.changed();
  }
}
