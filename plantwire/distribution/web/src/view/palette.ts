/**
 * Colours of the style sheet, for what is drawn on a canvas.
 *
 * Guarantees: read once per theme, not once per drawing.
 * Not here: the colours themselves (`style/tokens.css`).
 */

export interface Palette {
  readonly ink: string;
  readonly panel: string;
  readonly quiet: string;
  readonly line: string;
  readonly trend: string;
  readonly trendBand: string;
  readonly severity: Readonly<Record<string, string>>;
}

let current: Palette | null = null;
const listeners: (() => void)[] = [];

export function palette(): Palette {
  current ??= read();
  return current;
}

/** Calls back after each change of theme. */
export function onThemeChange(callback: () => void): void {
  listeners.push(callback);
}

export function setTheme(theme: "light" | "dark"): void {
  document.documentElement.dataset["theme"] = theme;
  current = null;
  for (const callback of listeners) callback();
}

function read(): Palette {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  return {
    ink: colour("--ink"),
    panel: colour("--panel"),
    quiet: colour("--ink-quiet"),
    line: colour("--line"),
    trend: colour("--trend"),
    trendBand: colour("--trend-band"),
    severity: {
      CRITICAL: colour("--critical"),
      HIGH: colour("--high"),
      MEDIUM: colour("--medium"),
      LOW: colour("--low"),
      INFO: colour("--info"),
    },
  };
}
