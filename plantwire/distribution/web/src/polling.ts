/**
 * One question to the HTTP interface: the latest values and the active alarms.
 *
 * In: a token, `fetch`. Out: what the answers hold, checked; `TokenRefused`, or another error where there
 * is no answer.
 * Not here: when to ask (`connection`), what follows from it (`telemetry-store`, `alarm-store`).
 */

import { parseAlarm, parseList, parseTelemetry, type Alarm, type Telemetry } from "./wire";

const LATEST = "/api/devices/telemetry/latest";
const ALARMS = "/api/alarms";

export interface Polled {
  /** What the `seq` of the devices count in; null where the server has none or does not tell. */
  readonly epoch: string | null;
  readonly devices: readonly Telemetry[];
  readonly alarms: readonly Alarm[];
  /** False where active alarms may be missing in `alarms`. */
  readonly alarmsComplete: boolean;
  /** How many entries were left out because they were not valid. */
  readonly rejected: number;
}

export class TokenRefused extends Error {}

export async function poll(ask: typeof fetch, token: string, signal: AbortSignal): Promise<Polled> {
  const get = async (path: string): Promise<Response> => {
    const answer = await ask(path, { headers: { Authorization: `Bearer ${token}` }, signal });
    if (answer.status === 401 || answer.status === 403) throw new TokenRefused("the server refuses the token");
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer;
  };
  const [latest, active] = await Promise.all([get(LATEST), get(ALARMS)]);
  const [values, listed] = (await Promise.all([latest.json(), active.json()])) as [unknown, unknown];
  const devices = parseList(values, parseTelemetry);
  const alarms = parseList((listed as { alarms?: unknown } | null)?.alarms, parseAlarm);
  return {
    epoch: latest.headers.get("Plantwire-Epoch"),
    devices: devices.entries,
    alarms: alarms.entries,
    alarmsComplete: active.headers.get("Plantwire-Live") !== "false",
    rejected: devices.rejected + alarms.rejected,
  };
}
