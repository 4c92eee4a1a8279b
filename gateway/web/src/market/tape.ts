// The latest trades, the newest above, in the colour of who took.

import type { SymbolInfo } from "../api";
import { el, panel, setClass, setText } from "../dom";
import { clockTime, decimals } from "../format";
import type { Print } from "./feed";

const ROWS = 42;

class Row {
  readonly element = el("div", "print");
  private readonly time = el("span", "time");
  private readonly price = el("span", "price");
  private readonly quantity = el("span");

  constructor() {
    this.element.append(this.time, this.price, this.quantity);
  }

  paint(print: Print | undefined, info: SymbolInfo): void {
    if (!print || "gap" in print) {
      setClass(this.element, print ? "print gap" : "print");
      setText(this.time, print?.gap ?? "");
      setText(this.price, "");
      setText(this.quantity, "");
      return;
    }
    // Where the buyer was in the book, the seller took.
    setClass(this.element, print.isBuyerMaker ? "print sell" : "print buy");
    setText(this.time, clockTime(print.time));
    setText(this.price, decimals(print.price, info.quotePrecision));
    setText(this.quantity, decimals(print.qty, info.baseAssetPrecision));
  }
}

export class Tape {
  readonly element: HTMLElement;
  private readonly rows = Array.from({ length: ROWS }, () => new Row());

  constructor() {
    const heads = el("div", "print heads", el("span", "time", "venue's time"), el("span", "price", "price"), el("span", "", "size"));
    this.element = panel("tape", "Trades", heads, ...this.rows.map((it) => it.element));
  }

  paint(prints: Print[], info: SymbolInfo): void {
    this.rows.forEach((row, index) => row.paint(prints[prints.length - 1 - index], info));
  }
}
