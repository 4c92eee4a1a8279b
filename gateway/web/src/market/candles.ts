// Bars of a second or a minute, made of trades.

import type { Trade } from "../api";

/** Bars that are kept. */
const BARS_MAX = 1000;

export interface Bar {
  /** Where it begins, in seconds of the venue's time. */
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
}

export class Candles {
  readonly bars: Bar[] = [];
  /** Whether more than the last bar changed since it was last asked. */
  private isRewritten = true;

  constructor(private readonly seconds: number) {}

  add(trade: Trade): void {
    const begin = Math.floor(trade.time / 1000 / this.seconds) * this.seconds;
    const [price, quantity] = [Number(trade.price), Number(trade.qty)];
    // Venues' times go back now and then, by little.
    const index = this.bars.findLastIndex((it) => it.time <= begin);
    const bar = this.bars[index];
    if (bar?.time === begin) {
      bar.high = Math.max(bar.high, price);
      bar.low = Math.min(bar.low, price);
      bar.close = price;
      bar.volume += quantity;
    } else {
      this.bars.splice(index + 1, 0, { time: begin, open: price, high: price, low: price, close: price, volume: quantity });
      this.isRewritten = true;
    }
    if (this.bars.length > BARS_MAX) {
      this.bars.shift();
    }
    this.isRewritten ||= index < this.bars.length - 1;
  }

  takeRewritten(): boolean {
    const isRewritten = this.isRewritten;
    this.isRewritten = false;
    return isRewritten;
  }
}
