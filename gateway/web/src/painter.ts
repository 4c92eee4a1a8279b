// When a widget is painted: at most ten times a second, and not while nobody sees it.

const INTERVAL_MS = 100;

/** Calls `paint` some time after `request`, however often that is called. */
export class Painter {
  private timer: number | undefined;
  private painted = -Infinity;
  private isDue = false;
  private readonly onVisible = () => this.isDue && this.plan();

  constructor(private readonly paint: () => void) {
    document.addEventListener("visibilitychange", this.onVisible);
  }

  request(): void {
    this.isDue = true;
    this.plan();
  }

  stop(): void {
    document.removeEventListener("visibilitychange", this.onVisible);
    clearTimeout(this.timer);
    this.timer = -1;
  }

  private plan(): void {
    // A hidden page keeps what it hears, and is painted when it is seen again.
    if (this.timer !== undefined || document.hidden) {
      return;
    }
    const wait = Math.max(0, this.painted + INTERVAL_MS - performance.now());
    this.timer = window.setTimeout(() => {
      this.timer = undefined;
      this.isDue = false;
      this.painted = performance.now();
      this.paint();
    }, wait);
  }
}
