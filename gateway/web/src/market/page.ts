// One instrument: its depth, its trades, and a chart of them.

import { ask, type SymbolInfo } from "../api";
import { Backoff } from "../backoff";
import { el, setClass, setText } from "../dom";
import { milliseconds } from "../format";
import { Painter } from "../painter";
import { choose, currentRoute } from "../route";
import { Candles } from "./candles";
import { Chart } from "./chart";
import { Feed } from "./feed";
import { Ladder } from "./ladder";
import { Tape } from "./tape";

const INTERVALS = new Map([
  ["1s", 1],
  ["1m", 60],
]);
/** A book of which nothing was heard for so long is marked. */
const STALE_MS = 5000;
const BADGE_INTERVAL_MS = 500;

/** The name that is this instrument's alone: with its venue, where others have the same. */
function nameOf(info: SymbolInfo, all: SymbolInfo[]): string {
  const isAlone = all.filter((it) => it.symbol === info.symbol).length === 1;
  return (isAlone ? info.symbol : `${info.symbol}.${info.venue}`).toLowerCase();
}

/** Shows the page in `root`; what is returned ends it. */
export function showMarket(root: HTMLElement): () => void {
  const shown = new Market(root);
  return () => shown.stop();
}

class Market {
  private timer: number | undefined;
  private isStopped = false;
  private stopInstrument = () => {};
  private readonly backoff = new Backoff();

  constructor(private readonly root: HTMLElement) {
    root.append(el("p", "empty", "Asking for instruments …"));
    void this.load();
  }

  stop(): void {
    this.isStopped = true;
    clearTimeout(this.timer);
    this.stopInstrument();
  }

  private async load(): Promise<void> {
    try {
      const { symbols } = await ask<{ symbols: SymbolInfo[] }>("/api/v3/exchangeInfo");
      if (this.isStopped) {
        return;
      }
      if (symbols.length > 0) {
        this.show(symbols);
        return;
      }
      this.root.replaceChildren(el("p", "empty", "The stream has defined no instrument yet."));
    } catch (error) {
      if (this.isStopped) {
        return;
      }
      this.root.replaceChildren(el("p", "empty", `The gateway does not answer: ${error instanceof Error ? error.message : error}`));
    }
    this.timer = window.setTimeout(() => void this.load(), this.backoff.wait());
  }

  private show(symbols: SymbolInfo[]): void {
    const names = symbols.map((it) => nameOf(it, symbols));
    const wanted = currentRoute().options.get("symbol")?.toLowerCase();
    const index = Math.max(0, wanted === undefined ? 0 : names.indexOf(wanted));
    const picker = el("select");
    picker.setAttribute("aria-label", "Instrument");
    picker.append(...symbols.map((it, at) => new Option(`${it.venueSymbol} · ${it.venue}`, names[at])));
    picker.value = names[index]!;
    picker.onchange = () => choose("symbol", picker.value);
    this.root.replaceChildren(el("div", "bar", picker));
    if (wanted !== undefined && !names.includes(wanted)) {
      this.root.append(el("p", "empty", `There is no instrument ${wanted}: this is ${names[index]}.`));
    }
    this.stopInstrument = showInstrument(this.root, symbols[index]!, names[index]!);
  }
}

function showInstrument(root: HTMLElement, info: SymbolInfo, name: string): () => void {
  const interval = currentRoute().options.get("interval") ?? "1s";
  const seconds = INTERVALS.get(interval) ?? 1;
  const badge = el("span", "badge");
  const [ladder, tape] = [new Ladder(badge), new Tape()];
  const chart = new Chart(info.quotePrecision, intervalPicker(interval));
  let candles = new Candles(seconds);
  root.append(el("div", "market", ladder.element, chart.element, tape.element));

  const paintLadder = new Painter(() => ladder.paint(feed.book, info));
  const paintTape = new Painter(() => tape.paint(feed.prints, info));
  const paintChart = new Painter(() => chart.paint(candles));
  const paintBadge = () => {
    const { text, isStale } = stateOf(feed);
    setText(badge, text);
    setClass(badge, isStale ? "badge stale" : "badge live");
    ladder.element.classList.toggle("is-stale", isStale);
  };
  const feed: Feed = new Feed(name, {
    onBook: () => paintLadder.request(),
    onTrades: (trades) => {
      trades.forEach((it) => candles.add(it));
      paintTape.request();
      paintChart.request();
    },
    onReset: () => {
      candles = new Candles(seconds);
      [paintLadder, paintTape, paintChart].forEach((it) => it.request());
    },
    // Called for the first time while the feed is made.
    onLink: () => queueMicrotask(paintBadge),
  });
  [paintLadder, paintTape].forEach((it) => it.request());
  const timer = window.setInterval(paintBadge, BADGE_INTERVAL_MS);
  return () => {
    clearInterval(timer);
    feed.stop();
    [paintLadder, paintTape, paintChart].forEach((it) => it.stop());
    chart.stop();
  };
}

function intervalPicker(shown: string): HTMLElement {
  const buttons = [...INTERVALS.keys()].map((it) => {
    const button = el("button", it === shown ? "chosen" : "", it);
    button.type = "button";
    button.onclick = () => choose("interval", it);
    return button;
  });
  return el("span", "choice", ...buttons);
}

/** How far what is shown can be believed. */
function stateOf(feed: Feed): { text: string; isStale: boolean } {
  const age = performance.now() - feed.heard;
  if (feed.link.state === "lost") {
    return { text: `stale: ${feed.link.reason}`, isStale: true };
  }
  if (feed.link.state === "connecting") {
    return { text: feed.heard === -Infinity ? "connecting" : "stale: connecting", isStale: true };
  }
  if (!feed.book) {
    return { text: feed.failure ?? "no book yet", isStale: true };
  }
  return age > STALE_MS ? { text: `stale: silent for ${milliseconds(age)}`, isStale: true } : { text: "live", isStale: false };
}
