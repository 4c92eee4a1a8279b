// Bars and their volume, drawn.

import { CandlestickSeries, ColorType, createChart, HistogramSeries, type UTCTimestamp } from "lightweight-charts";
import { el, panel } from "../dom";
import type { Bar, Candles } from "./candles";

const RISING = "#26a69a";
const FALLING = "#ef5350";

export class Chart {
  readonly element: HTMLElement;
  private readonly chart;
  private readonly prices;
  private readonly volumes;

  constructor(digits: number, controls: HTMLElement) {
    const canvas = el("div", "canvas");
    this.element = panel("chart", "Price", el("div", "frame", canvas));
    this.element.querySelector("h2")!.append(controls);
    this.chart = createChart(canvas, {
      autoSize: true,
      layout: { background: { type: ColorType.Solid, color: "#10151c" }, textColor: "#93a1b3", attributionLogo: true },
      grid: { vertLines: { color: "#1b232d" }, horzLines: { color: "#1b232d" } },
      timeScale: { timeVisible: true, secondsVisible: true, borderColor: "#263040", rightOffset: 2 },
      rightPriceScale: { borderColor: "#263040" },
    });
    this.prices = this.chart.addSeries(CandlestickSeries, {
      upColor: RISING,
      downColor: FALLING,
      wickUpColor: RISING,
      wickDownColor: FALLING,
      borderVisible: false,
      priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits },
    });
    this.volumes = this.chart.addSeries(HistogramSeries, { priceScaleId: "", lastValueVisible: false, priceLineVisible: false });
    this.prices.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.25 } });
    this.volumes.priceScale().applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
  }

  paint(candles: Candles): void {
    const { bars } = candles;
    this.element.dataset["bars"] = String(bars.length);
    const last = bars.at(-1);
    if (candles.takeRewritten()) {
      this.prices.setData(bars.map(priceOf));
      this.volumes.setData(bars.map(volumeOf));
    } else if (last) {
      this.prices.update(priceOf(last));
      this.volumes.update(volumeOf(last));
    }
  }

  stop(): void {
    this.chart.remove();
  }
}

function priceOf(bar: Bar) {
  return { time: bar.time as UTCTimestamp, open: bar.open, high: bar.high, low: bar.low, close: bar.close };
}

function volumeOf(bar: Bar) {
  return { time: bar.time as UTCTimestamp, value: bar.volume, color: `${bar.close >= bar.open ? RISING : FALLING}66` };
}
