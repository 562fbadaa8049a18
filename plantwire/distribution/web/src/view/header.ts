/**
 * The top bar: connection, alarm counts, clock, theme.
 *
 * Out: `data-connection` on the body: connecting, live, reconnecting, polling, offline or signed-out;
 * `data-source` there is `lost` while the server itself gets no data.
 * Not here: how the connection comes to its state (`connection`).
 */

import type { ConnectionState } from "../connection";
import { formatAge, formatDate, formatTime, formatZone } from "../format";
import type { View } from "../frame";
import { SEVERITIES, type Severity } from "../wire";
import { byId, make, setData, setText, severityShape, textIn } from "./dom";
import { setTheme } from "./palette";

const THEME_KEY = "plantwire.theme";

const STATE_WORDS: Readonly<Record<ConnectionState, string>> = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  polling: "Polling",
  offline: "Offline",
  "signed-out": "Signed out",
};

export class HeaderView implements View {
  private readonly counts = new Map<Severity, { item: HTMLElement; text: Text }>();
  private state: ConnectionState = "connecting";
  private detail = "";
  private sinceMs = Date.now();
  private sourceLive = true;
  private sourceSinceMs = 0;

  constructor(
    private readonly invalidate: (view: View) => void,
    private readonly activeCounts: () => Record<Severity, number>,
  ) {
    for (const severity of SEVERITIES) {
      const item = make("li", "count");
      item.dataset["severity"] = severity;
      const text = make("span", "count-number");
      item.append(severityShape(severity), text, make("span", "count-word", severity.toLowerCase()));
      byId("counts").append(item);
      this.counts.set(severity, { item, text: textIn(text) });
    }
    const button = byId("theme");
    const stored = localStorage.getItem(THEME_KEY);
    const preferred = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
    this.applyTheme(stored === "light" || stored === "dark" ? stored : preferred);
    button.addEventListener("click", () => {
      const theme = document.documentElement.dataset["theme"] === "dark" ? "light" : "dark";
      localStorage.setItem(THEME_KEY, theme);
      this.applyTheme(theme);
    });
    this.tick();
  }

  setConnection(state: ConnectionState, detail: string): void {
    if (state !== this.state) this.sinceMs = Date.now();
    this.state = state;
    this.detail = detail;
    // At once, not with the next frame: a hidden page has no frames and its state is still asked for.
    setData(document.body, "connection", state);
    this.invalidate(this);
  }

  /** Whether the server itself gets data; `sinceMs` null for "as of now". */
  setSource(live: boolean, sinceMs: number | null): void {
    if (live === this.sourceLive) return;
    this.sourceLive = live;
    this.sourceSinceMs = sinceMs ?? Date.now();
    setData(document.body, "source", live ? null : "lost");
    this.invalidate(this);
  }

  tick(): void {
    const now = Date.now();
    setText(byId("clock-time"), formatTime(now));
    setText(byId("clock-date"), `${formatDate(now)} ${formatZone(now)}`);
    this.renderConnection();
  }

  render(): boolean {
    const counts = this.activeCounts();
    for (const [severity, { item, text }] of this.counts) {
      setText(text, String(counts[severity]));
      setData(item, "none", counts[severity] === 0 ? "true" : null);
    }
    this.renderConnection();
    return false;
  }

  private renderConnection(): void {
    const live = this.state === "live";
    if (live && !this.sourceLive) {
      setText(byId("connection-state"), "No data");
      setText(byId("connection-detail"), `since ${formatTime(this.sourceSinceMs)}: the server has lost its source`);
      return;
    }
    setText(byId("connection-state"), STATE_WORDS[this.state]);
    const age = live ? "" : ` (${formatAge(Date.now() - this.sinceMs)})`;
    const why = this.detail === "" ? "" : `: ${this.detail}`;
    setText(byId("connection-detail"), `since ${formatTime(this.sinceMs)}${age}${why}`);
  }

  private applyTheme(theme: "light" | "dark"): void {
    setTheme(theme);
    const text = byId("theme").querySelector(".tool-text");
    if (text !== null) setText(text, theme === "dark" ? "Light" : "Dark");
  }
}
