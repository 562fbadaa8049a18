/**
 * One pass over the page per animation frame, however many messages came in between.
 *
 * In: views that say they are out of date. Out: their `render`, once per frame, in the order in which
 * they were registered; then the callbacks that wait for the picture to be on its way to the screen.
 * Guarantees: nothing is drawn outside a frame; a view that is in date costs nothing.
 * Not here: what a view draws.
 */

export interface View {
  /**
   * Brings the DOM up to date; true when something is left for the next frame. In an `urgent` frame an
   * alarm waits to be seen: what can wait, waits.
   */
  render(urgent: boolean): boolean;
}

export class FrameLoop {
  private readonly views: View[] = [];
  private readonly dirty = new Set<View>();
  private afterPaint: (() => void)[] = [];
  private readonly inFlight: (() => void)[][] = [];
  private readonly painted = new MessageChannel();
  private requested = false;

  constructor() {
    this.painted.port1.onmessage = () => {
      for (const callback of this.inFlight.shift() ?? []) callback();
    };
  }

  register<T extends View>(view: T): T {
    this.views.push(view);
    return view;
  }

  invalidate(view: View): void {
    this.dirty.add(view);
    this.request();
  }

  /** Calls back once the next frame's picture has been handed over. Not while the page is hidden. */
  whenPainted(callback: () => void): void {
    this.afterPaint.push(callback);
    this.request();
  }

  private request(): void {
    if (this.requested) return;
    this.requested = true;
    requestAnimationFrame(() => this.run());
  }

  private run(): void {
    this.requested = false;
    for (const view of this.views) {
      if (!this.dirty.delete(view)) continue;
      if (view.render(this.afterPaint.length > 0)) this.dirty.add(view);
    }
    // A message posted within a frame is handled after that frame was laid out and painted.
    if (this.afterPaint.length > 0) {
      this.inFlight.push(this.afterPaint);
      this.afterPaint = [];
      this.painted.port2.postMessage(null);
    }
    if (this.dirty.size > 0) this.request();
  }
}
