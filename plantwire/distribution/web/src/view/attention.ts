/**
 * What makes a person look up: the banner, the sound, the page's title, the screen reader's voice.
 *
 * In: alarms new to this page, the number of active criticals. Out: a banner until it is marked as seen
 * or nothing critical is active; a sound where it was switched on.
 * Guarantees: at most one announcement a second of each urgency, however many alarms come; the sound
 * is off until the person asks for it, and a reload remembers.
 * Not here: the list (`view/alarms`).
 */

import type { View } from "../frame";
import type { Alarm } from "../wire";
import { byId, setText } from "./dom";

const SOUND_KEY = "plantwire.sound";
const ANNOUNCE_EVERY_MS = 1_000;
const SPOKEN_MAX = 3;

export class AttentionView implements View {
  private readonly banner = byId("banner");
  private readonly soundButton = byId<HTMLButtonElement>("sound");
  private critical: readonly Alarm[] = [];
  private readonly unseen = new Set<string>();
  private audio: AudioContext | null = null;
  private soundOn = localStorage.getItem(SOUND_KEY) === "on";
  private readonly urgent = new Announcer(byId("announce-now"));
  private readonly calm = new Announcer(byId("announce"));

  constructor(private readonly invalidate: (view: View) => void) {
    byId("banner-close").addEventListener("click", () => {
      this.unseen.clear();
      this.invalidate(this);
    });
    this.soundButton.addEventListener("click", () => {
      this.soundOn = !this.soundOn;
      localStorage.setItem(SOUND_KEY, this.soundOn ? "on" : "off");
      if (this.soundOn) this.beep();
      this.showSound();
    });
    this.showSound();
  }

  /** Alarms that have just become critical. */
  raise(alarms: readonly Alarm[]): void {
    if (alarms.length === 0) return;
    for (const alarm of alarms) {
      this.unseen.add(alarm.alarmId);
      this.urgent.say(`Critical alarm: ${alarm.message}`);
    }
    if (this.soundOn) this.beep();
    this.invalidate(this);
  }

  /** Any other alarm event that is new. */
  mention(alarm: Alarm): void {
    const what = alarm.kind === "CLEARED" ? "Cleared" : `${capitalise(alarm.severity)} alarm`;
    this.calm.say(`${what}: ${alarm.message}`);
  }

  /** The critical alarms that are active, in the list's order. */
  setCritical(alarms: readonly Alarm[]): void {
    this.critical = alarms;
    const active = new Set(alarms.map((alarm) => alarm.alarmId));
    for (const id of this.unseen) if (!active.has(id)) this.unseen.delete(id);
    this.invalidate(this);
  }

  render(): boolean {
    const unseen = this.critical.filter((alarm) => this.unseen.has(alarm.alarmId));
    const first = unseen[0];
    this.banner.hidden = first === undefined;
    if (first !== undefined) {
      setText(byId("banner-title"), unseen.length === 1 ? "Critical" : `${unseen.length} critical`);
      setText(byId("banner-text"), first.message === "" ? `${first.deviceId} ${first.metric}` : first.message);
    }
    const title = this.critical.length === 0 ? "Plantwire" : `(${this.critical.length}) critical – Plantwire`;
    if (document.title !== title) document.title = title;
    return false;
  }

  private showSound(): void {
    this.soundButton.setAttribute("aria-pressed", String(this.soundOn));
    const text = this.soundButton.querySelector(".tool-text");
    if (text !== null) setText(text, this.soundOn ? "Sound on" : "Sound off");
  }

  private beep(): void {
    this.audio ??= new AudioContext();
    const { audio } = this;
    // A browser lets a page make sound only after the person has touched it; then it simply stays silent.
    void audio.resume().then(() => {
      [880, 660, 880].forEach((pitchHz, index) => {
        const start = audio.currentTime + index * 0.18;
        const tone = audio.createOscillator();
        const volume = audio.createGain();
        tone.frequency.value = pitchHz;
        volume.gain.setValueAtTime(0, start);
        volume.gain.linearRampToValueAtTime(0.18, start + 0.02);
        volume.gain.linearRampToValueAtTime(0, start + 0.15);
        tone.connect(volume).connect(audio.destination);
        tone.start(start);
        tone.stop(start + 0.16);
      });
    });
  }
}

class Announcer {
  private readonly waiting: string[] = [];
  private left = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly region: HTMLElement) {}

  say(text: string): void {
    if (this.waiting.length < SPOKEN_MAX) this.waiting.push(text);
    else this.left += 1;
    this.timer ??= setTimeout(() => this.speak(), ANNOUNCE_EVERY_MS / 4);
  }

  private speak(): void {
    const more = this.left === 0 ? "" : ` And ${this.left} more.`;
    this.region.textContent = this.waiting.join(". ") + more;
    this.waiting.length = 0;
    this.left = 0;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      if (this.waiting.length > 0) this.speak();
    }, ANNOUNCE_EVERY_MS);
  }
}

function capitalise(word: string): string {
  return word.charAt(0) + word.slice(1).toLowerCase();
}
