// What is known of one instrument: its book's best levels and its latest trades, from REST first and from streams then.

import { ask, type Depth, type Trade, type TradeMessage } from "../api";
import { StreamSocket, type Link } from "../socket";

/** Trades that are kept. */
export const TRADES_MAX = 500;

/** Something that the tape shows. */
export type Print = Trade | { gap: string };

export interface FeedListener {
  onBook(): void;
  /** Trades that are new, oldest first. */
  onTrades(trades: Trade[]): void;
  /** What was known is not true any more. */
  onReset(): void;
  onLink(): void;
}

export class Feed {
  book: Depth | undefined;
  /** The newest last. */
  prints: Print[] = [];
  link: Link = { state: "connecting" };
  /** When the gateway last said something of this instrument, in milliseconds of `performance.now`. */
  heard = -Infinity;
  /** Why REST did not answer. */
  failure: string | undefined;
  private readonly socket: StreamSocket;
  /** The sequence of the latest trade. */
  private sequence = 0;
  /** Trades of the stream that came before the answer of REST; `undefined` where nothing is waited for. */
  private early: Trade[] | undefined = [];
  /** How often it was connected: answers of connections before are not taken. */
  private turn = 0;

  constructor(
    private readonly name: string,
    private readonly listener: FeedListener,
  ) {
    const onLink = (link: Link) => this.takeLink(link);
    const onMessage = (stream: string, data: unknown) => this.takeMessage(stream, data);
    this.socket = new StreamSocket([`${name}@depth20@100ms`, `${name}@trade`], { onLink, onMessage });
  }

  stop(): void {
    this.turn += 1;
    this.socket.stop();
  }

  private takeLink(link: Link): void {
    this.link = link;
    this.turn += 1;
    if (link.state === "open") {
      this.early = [];
      void this.catchUp(this.turn);
    }
    this.listener.onLink();
  }

  /** Asks for what happened before the stream began. */
  private async catchUp(turn: number): Promise<void> {
    try {
      const trades = await ask<Trade[]>(`/api/v3/trades?symbol=${this.name}&limit=${TRADES_MAX}`);
      if (turn !== this.turn) {
        return;
      }
      this.join(trades);
      // A book of which nothing changes is not in the stream; one that changed is there by now.
      const book = await ask<Depth>(`/api/v3/depth?symbol=${this.name}&limit=20`);
      if (turn === this.turn && (this.book?.lastUpdateId ?? 0) <= book.lastUpdateId) {
        this.takeBook(book);
      }
      this.failure = undefined;
    } catch (error) {
      if (turn === this.turn) {
        this.failure = error instanceof Error ? error.message : String(error);
        this.takeTrades(this.early ?? []);
        this.early = undefined;
      }
    }
    this.listener.onLink();
  }

  private join(trades: Trade[]): void {
    const [first, last] = [trades[0], trades.at(-1)];
    if (last && last.seq < this.sequence) {
      // The history that we know was given up: a new one began.
      this.reset();
    } else if (first && this.sequence > 0 && first.seq > this.sequence && trades.length === TRADES_MAX) {
      this.prints.push({ gap: "trades are missing: disconnected for too long" });
    }
    const early = this.early ?? [];
    this.early = undefined;
    this.takeTrades([...trades, ...early]);
  }

  private reset(): void {
    this.book = undefined;
    this.prints = [];
    this.sequence = 0;
    this.listener.onReset();
  }

  private takeMessage(stream: string, data: unknown): void {
    this.heard = performance.now();
    const event = data as { e?: string; from?: number; to?: number };
    if (stream.endsWith("@trade")) {
      const it = data as TradeMessage;
      const trade = { seq: it.seq, time: it.T, price: it.p, qty: it.q, isBuyerMaker: it.m };
      if (this.early) {
        this.early.push(trade);
      } else {
        this.takeTrades([trade]);
      }
    } else if (stream) {
      this.takeBook(data as Depth);
    } else if (event.e === "gap") {
      this.prints.push({ gap: `not taken in time: ${event.from} to ${event.to}` });
    }
  }

  private takeBook(book: Depth): void {
    this.heard = performance.now();
    this.book = book;
    this.listener.onBook();
  }

  private takeTrades(trades: Trade[]): void {
    const fresh = trades.filter((it) => {
      const isFresh = it.seq > this.sequence;
      this.sequence = Math.max(this.sequence, it.seq);
      return isFresh;
    });
    if (fresh.length > 0) {
      this.prints.push(...fresh);
      this.prints.splice(0, this.prints.length - TRADES_MAX);
      this.listener.onTrades(fresh);
    }
  }
}
