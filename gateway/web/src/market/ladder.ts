// The best levels of a book, the asks above the bids, each with what lies between it and the middle.

import type { Depth, LevelText, SymbolInfo } from "../api";
import { el, panel, setText } from "../dom";
import { count, decimals } from "../format";

const LEVELS = 20;

class Row {
  readonly element: HTMLElement;
  private readonly bar = el("i");
  private readonly price = el("span", "price");
  private readonly quantity = el("span");
  private readonly cumulated = el("span");

  constructor(side: string) {
    this.element = el("div", `level ${side}`, this.bar, this.price, this.quantity, this.cumulated);
  }

  paint(level: { price: string; quantity: string; cumulated: string; share: number } | undefined): void {
    setText(this.price, level?.price ?? "");
    setText(this.quantity, level?.quantity ?? "");
    setText(this.cumulated, level?.cumulated ?? "");
    this.bar.style.transform = `scaleX(${level?.share.toFixed(3) ?? 0})`;
  }
}

export class Ladder {
  readonly element: HTMLElement;
  /** From the middle outwards. */
  private readonly asks = Array.from({ length: LEVELS }, () => new Row("ask"));
  private readonly bids = Array.from({ length: LEVELS }, () => new Row("bid"));
  private readonly spread = el("strong", "spread");
  private readonly imbalance = el("span", "imbalance");
  private readonly sequence = el("span", "sequence");

  constructor(badge: HTMLElement) {
    const heads = el("div", "level heads", el("span", "", "price"), el("span", "", "size"), el("span", "", "cumulated"));
    this.sequence.title = "The sequence of the bus that the book is at";
    this.imbalance.title = "The share of the bids in the size of the levels shown";
    const middle = el("div", "middle", el("span", "", "spread ", this.spread), this.imbalance, this.sequence);
    const rows = [...this.asks].reverse().map((it) => it.element);
    this.element = panel("ladder", "Depth", heads, ...rows, middle, ...this.bids.map((it) => it.element));
    this.element.querySelector("h2")!.append(badge);
  }

  paint(book: Depth | undefined, info: SymbolInfo): void {
    const [bids, asks] = [sideOf(book?.bids ?? []), sideOf(book?.asks ?? [])];
    const most = Math.max(bids.at(-1)?.cumulated ?? 0, asks.at(-1)?.cumulated ?? 0);
    const paint = (rows: Row[], side: Level[]) => rows.forEach((row, index) => row.paint(textsOf(side[index], info, most)));
    paint(this.bids, bids);
    paint(this.asks, asks);
    const [bid, ask] = [book?.bids[0], book?.asks[0]];
    setText(this.spread, bid && ask ? (Number(ask[0]) - Number(bid[0])).toFixed(info.quotePrecision) : "–");
    const [bidSize, askSize] = [bids.at(-1)?.cumulated ?? 0, asks.at(-1)?.cumulated ?? 0];
    setText(this.imbalance, bidSize + askSize > 0 ? `bids ${((100 * bidSize) / (bidSize + askSize)).toFixed(0)} %` : "");
    setText(this.sequence, book ? `seq ${count(book.lastUpdateId)}` : "no book yet");
  }
}

interface Level {
  text: LevelText;
  cumulated: number;
}

function sideOf(levels: LevelText[]): Level[] {
  let cumulated = 0;
  return levels.slice(0, LEVELS).map((text) => {
    cumulated += Number(text[1]);
    return { text, cumulated };
  });
}

function textsOf(level: Level | undefined, info: SymbolInfo, most: number) {
  return (
    level && {
      price: decimals(level.text[0], info.quotePrecision),
      quantity: decimals(level.text[1], info.baseAssetPrecision),
      cumulated: level.cumulated.toFixed(info.baseAssetPrecision),
      share: level.cumulated / most,
    }
  );
}
