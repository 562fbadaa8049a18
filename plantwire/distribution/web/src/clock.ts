/**
 * The page's clock: ms since the epoch with a fraction, as the hop stamps have it.
 *
 * Guarantees: finer than `Date.now`; follows the system clock when that is set or the machine slept.
 * Not here: the server's clock (its difference is shown, not corrected: a corrected stamp would hide it).
 */

const DRIFT_MAX_MS = 2;
let originMs = performance.timeOrigin;

/** Now, in ms since the epoch. */
export function nowMs(): number {
  const fine = originMs + performance.now();
  const coarse = Date.now();
  // Date.now() is a whole ms: half of one is no drift.
  if (Math.abs(fine - coarse - 0.5) <= DRIFT_MAX_MS) return fine;
  originMs = coarse - performance.now();
  return coarse;
}
