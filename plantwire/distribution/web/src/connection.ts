/**
 * The way to the server: Socket.IO first, HTTP polling when that fails for long.
 *
 * In: a token. Out: snapshots, telemetry and alarms, checked; the state of the connection.
 * Guarantees: reconnects by itself after 1 s, then ever later up to 30 s, with jitter; after 10 attempts
 * in vain it polls every 5 s and goes on trying the socket every 30 s. A refused token ends all
 * attempts. `received` is stamped before anything else is done with an alarm.
 * Not here: what the messages mean (`telemetry-store`, `alarm-store`).
 */

import { io, type Socket } from "socket.io-client";
import { nowMs } from "./clock";
import { poll, TokenRefused, type Polled } from "./polling";
import { backoffMs, isTokenRefusal, reasonInWords } from "./retry";
import {
  parseAlarm,
  parseList,
  parseSnapshot,
  parseSourceStatus,
  parseTelemetry,
  type Alarm,
  type Snapshot,
  type Telemetry,
} from "./wire";

export type ConnectionState = "connecting" | "live" | "reconnecting" | "polling" | "offline" | "signed-out";

const ATTEMPTS_BEFORE_POLLING = 10;
const POLL_EVERY_MS = 5_000;
const POLL_TIMEOUT_MS = 4_000;

export interface ConnectionListener {
  stateChanged(state: ConnectionState, detail: string): void;
  snapshot(snapshot: Snapshot, connectedAtMs: number): void;
  polled(polled: Polled, askedAtMs: number): void;
  telemetry(message: Telemetry): void;
  /** An earlier message that was asked for. */
  caughtUp(message: Telemetry): void;
  alarm(alarm: Alarm, receivedMs: number): void;
  /** `count` messages were not what the contract says. */
  rejected(count: number): void;
  /** The server does not accept the token; `reason` is its word on it. */
  refused(reason: string): void;
  /** Whether the server itself gets live data; `sinceMs` is its own time of the change, or null. */
  sourceChanged(live: boolean, sinceMs: number | null): void;
}

export class Connection {
  private socket: Socket | null = null;
  private token = "";
  private state: ConnectionState = "connecting";
  private failures = 0;
  private connectedAtMs = 0;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private pollTimer: ReturnType<typeof setTimeout> | undefined;
  private pollAbort: AbortController | null = null;

  constructor(private readonly listener: ConnectionListener) {}

  /** Connects with `token`, ending what was there before. */
  open(token: string): void {
    this.close();
    this.token = token;
    this.failures = 0;
    this.setState("connecting", "");
    // Reconnection is our own: the library's does not retry after a refusal by the server.
    const socket = io("/telemetry", {
      transports: ["websocket"],
      auth: { token },
      reconnection: false,
      timeout: 10_000,
      forceNew: true,
    });
    this.socket = socket;
    socket.on("connect", () => this.connected());
    socket.on("connect_error", (error) => this.failed(error.message));
    socket.on("disconnect", (reason) => {
      this.setState("reconnecting", reasonInWords(reason));
      this.retryLater();
    });
    socket.on("initial-state", (raw: unknown) => {
      const snapshot = parseSnapshot(raw);
      if (snapshot === null) {
        this.listener.rejected(1);
        return;
      }
      if (snapshot.rejected > 0) this.listener.rejected(snapshot.rejected);
      this.listener.sourceChanged(snapshot.live, null);
      this.listener.snapshot(snapshot, this.connectedAtMs);
    });
    socket.on("source-status", (raw: unknown) => {
      const status = parseSourceStatus(raw);
      if (status === null) this.listener.rejected(1);
      else this.listener.sourceChanged(status.live, status.since);
    });
    socket.on("session-ended", (raw: unknown) => {
      const reason = (raw as { reason?: unknown } | null)?.reason;
      if (reason === "token-expired") this.signOut("The token has expired.");
    });
    socket.on("telemetry", (raw: unknown) => {
      const message = parseTelemetry(raw);
      if (message === null) this.listener.rejected(1);
      else this.listener.telemetry(message);
    });
    socket.on("catch-up", (raw: unknown) => {
      const messages = parseList(raw, parseTelemetry);
      if (messages.rejected > 0) this.listener.rejected(messages.rejected);
      for (const message of messages.entries) this.listener.caughtUp(message);
    });
    for (const event of ["alarm", "alarm-updated", "alarm-cleared"]) {
      socket.on(event, (raw: unknown) => {
        const receivedMs = nowMs();
        const alarm = parseAlarm(raw);
        if (alarm === null) this.listener.rejected(1);
        else this.listener.alarm(alarm, receivedMs);
      });
    }
  }

  /** Tries again at once, for instance because the network is back. */
  retryNow(): void {
    if (this.socket === null || this.socket.connected) return;
    clearTimeout(this.retryTimer);
    this.socket.connect();
  }

  /** Asks for messages `from` to `to` (both included) of a device; they come by `caughtUp`. */
  requestMissing(deviceId: string, from: number, to: number): void {
    if (this.socket?.connected === true) this.socket.emit("request-missing", { deviceId, from, to });
  }

  close(): void {
    clearTimeout(this.retryTimer);
    this.stopPolling();
    this.socket?.removeAllListeners();
    this.socket?.disconnect();
    this.socket = null;
  }

  /** Ends the connection and says why the person must sign in. */
  signOut(reason: string): void {
    this.close();
    this.setState("signed-out", reason);
    this.listener.refused(reason);
  }

  private connected(): void {
    this.failures = 0;
    this.connectedAtMs = nowMs();
    this.stopPolling();
    this.setState("live", "");
  }

  private failed(reason: string): void {
    if (isTokenRefusal(reason)) {
      this.signOut(reason);
      return;
    }
    this.failures += 1;
    const words = reasonInWords(reason);
    if (this.state === "connecting" || this.state === "live") this.setState("reconnecting", words);
    if (this.failures >= ATTEMPTS_BEFORE_POLLING && this.pollTimer === undefined) void this.pollOn();
    this.retryLater();
  }

  private retryLater(): void {
    clearTimeout(this.retryTimer);
    this.retryTimer = setTimeout(() => this.socket?.connect(), backoffMs(this.failures, Math.random()));
  }

  private async pollOn(): Promise<void> {
    const abort = new AbortController();
    this.pollAbort = abort;
    const askedAtMs = nowMs();
    try {
      const signal = AbortSignal.any([abort.signal, AbortSignal.timeout(POLL_TIMEOUT_MS)]);
      const polled = await poll(fetch, this.token, signal);
      if (abort.signal.aborted) return;
      if (polled.rejected > 0) this.listener.rejected(polled.rejected);
      this.setState("polling", "every 5 s");
      this.listener.polled(polled, askedAtMs);
    } catch (error) {
      if (abort.signal.aborted) return;
      if (error instanceof TokenRefused) {
        this.signOut(error.message);
        return;
      }
      this.setState("offline", "no answer from the server");
    }
    this.pollTimer = setTimeout(() => void this.pollOn(), POLL_EVERY_MS);
  }

  private stopPolling(): void {
    clearTimeout(this.pollTimer);
    this.pollTimer = undefined;
    this.pollAbort?.abort();
    this.pollAbort = null;
  }

  private setState(state: ConnectionState, detail: string): void {
    this.state = state;
    this.listener.stateChanged(state, detail);
  }
}
