// How long to wait before the next try: twice as long each time, up to a bound, and never quite as long as everybody else.

const FIRST_MS = 250;
const MOST_MS = 10_000;

export class Backoff {
  private next = FIRST_MS;

  /** The wait before the next try. */
  wait(): number {
    const wait = this.next * (0.75 + Math.random() / 2);
    this.next = Math.min(this.next * 2, MOST_MS);
    return wait;
  }

  reset(): void {
    this.next = FIRST_MS;
  }
}
