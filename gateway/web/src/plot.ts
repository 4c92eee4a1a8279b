// A line over time.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { el, panel } from "./dom";

const HEIGHT_PX = 200;
/** What is shown at least, where less was seen. */
const SECONDS_MIN = 60;
const AXIS = { stroke: "#93a1b3", grid: { stroke: "#1b232d", width: 1 }, ticks: { stroke: "#263040", width: 1 } };

export type Points = [at: number[], values: (number | null)[]];

export class Plot {
  readonly element: HTMLElement;
  private readonly plot: uPlot;
  private readonly observer: ResizeObserver;

  constructor(widget: string, title: string, options: { color: string; text: (value: number) => string }) {
    const frame = el("div", "frame");
    this.element = panel(widget, title, frame);
    const text = (value: number | null) => (value === null ? "–" : options.text(value));
    this.plot = new uPlot(
      {
        width: 300,
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { x: { range: (_, first, last) => [Math.min(first, last - SECONDS_MIN), last] }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
        axes: [{ ...AXIS, space: 80, size: 30, values: (_, ticks) => ticks.map(timeOfDay) }, { ...AXIS, size: 70, values: (_, ticks) => ticks.map((it) => text(it)) }],
        series: [{}, { label: title, stroke: options.color, width: 1.5, fill: `${options.color}22`, points: { show: false } }],
      },
      [[], []],
      frame,
    );
    this.observer = new ResizeObserver(() => this.plot.setSize({ width: frame.clientWidth, height: HEIGHT_PX }));
    this.observer.observe(frame);
  }

  paint(points: Points): void {
    this.element.dataset["points"] = String(points[0].length);
    this.plot.setData(points);
  }

  stop(): void {
    this.observer.disconnect();
    this.plot.destroy();
  }
}

function timeOfDay(seconds: number): string {
  return new Date(seconds * 1000).toTimeString().slice(0, 8);
}
