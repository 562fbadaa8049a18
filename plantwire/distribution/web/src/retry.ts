/**
 * When to try again, and when not to.
 *
 * In: failures so far, a refusal's words. Out: a wait in ms, a verdict. Pure: chance is an argument.
 * Not here: the attempts (`connection`).
 */

export const RECONNECT_MIN_MS = 1_000;
export const RECONNECT_MAX_MS = 30_000;

/** The wait before attempt `failures` + 1: 1 s doubling to 30 s, times 0.5…1.5 by `chance` (0…1). */
export function backoffMs(failures: number, chance: number): number {
  const wait = Math.min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * 2 ** Math.min(failures, 10));
  return Math.min(RECONNECT_MAX_MS, wait * (0.5 + chance));
}

/** Whether the server's refusal is about the token, not about its load. */
export function isTokenRefusal(message: string): boolean {
  return /token|unauthori[sz]ed|forbidden|jwt|signature/i.test(message);
}

/** The library's reason for a lost or failed connection, for people. */
export function reasonInWords(reason: string): string {
  switch (reason) {
    case "ping timeout":
      return "the server fell silent";
    case "transport close":
    case "transport error":
      return "the connection broke";
    case "websocket error":
      return "the server cannot be reached";
    case "io server disconnect":
      return "the server ended the session";
    case "timeout":
      return "the server does not answer";
    default:
      return reason;
  }
}
