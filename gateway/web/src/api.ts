// What the gateway says, as it says it: REST in Binance's conventions, and `/api/stats` in the words of `tapewire stat`.

/** An instrument of `/api/v3/exchangeInfo`. */
export interface SymbolInfo {
  symbol: string;
  venue: string;
  venueSymbol: string;
  /** Decimals of prices. */
  quotePrecision: number;
  /** Decimals of quantities. */
  baseAssetPrecision: number;
}

/** Price and quantity, as decimal text. */
export type LevelText = [string, string];

export interface Depth {
  lastUpdateId: number;
  bids: LevelText[];
  asks: LevelText[];
}

/** A trade, of REST or of a stream. */
export interface Trade {
  seq: number;
  /** The venue's time in milliseconds. */
  time: number;
  price: string;
  qty: string;
  isBuyerMaker: boolean;
}

/** A trade of the stream `@trade`. */
export interface TradeMessage {
  seq: number;
  T: number;
  p: string;
  q: string;
  m: boolean;
}

export interface PublisherStats {
  pid: number;
  alive: boolean;
  age_ms: number | null;
  seq_published: number;
  seq_durable: number;
  records_per_s: number;
  not_durable: number;
  not_durable_ms: number | null;
  pages: number;
  pages_ready: number;
  journal_pages: number;
  journal_pages_used: number;
  stalls: number;
  refused: number;
  subscribers: number;
  woken: number;
}

export interface SubscriberStats {
  pid: number;
  alive: boolean;
  tier: string;
  phase: string;
  age_ms: number | null;
  position: number;
  behind: number;
  behind_ms: number | null;
  fill_pages: number | null;
  fill_pages_max: number | null;
  source: string;
  events: number;
  lapped: number;
  healed: number;
  records_healed: number;
  skips: number;
  sequences_skipped: number;
  last_gap: [number, number];
  conflated: number;
}

export interface ConsumerStats {
  name: string;
  state: string;
  pid: number | null;
  acked?: number;
  acked_age_ms?: number | null;
  behind?: number;
  behind_ms?: number | null;
  error?: string;
}

export interface LevelStats {
  level: number;
  files: number;
  bytes: number;
  records: number;
  first_sequence: number;
  last_sequence: number;
}

export interface StoreStats {
  seq_stored: number;
  kept_from: number;
  tailed_now: boolean;
  backlog_segments: number;
  backlog_bytes: number;
  levels: LevelStats[];
  state_files: number;
  state_bytes: number;
  snapshots: number;
  newest_snapshot_age_ms: number | null;
}

export interface StreamStats {
  stream: string;
  epoch: number | null;
  closed_at: number | null;
  oldest: number;
  seq_published: number;
  seq_durable: number;
  segments: number;
  segment_bytes: number;
  disk_free_bytes: number | null;
  written_now: boolean;
  publishers: PublisherStats[];
  subscribers: SubscriberStats[];
  consumers: ConsumerStats[];
  store: StoreStats | null;
}

export interface Stats {
  at_ns: number;
  /** The stream that the gateway hands on. */
  serves: string;
  streams: StreamStats[];
  faults: string[];
}

/** For an answer to come. */
const PATIENCE_MS = 5000;

/** Asks the gateway; an answer that is not what was asked for is an error with its reason. */
export async function ask<T>(path: string): Promise<T> {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!answer.ok) {
    const text = await answer.text();
    throw new Error(reasonOf(text) ?? `${path}: ${answer.status}`);
  }
  return (await answer.json()) as T;
}

function reasonOf(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { msg?: string }).msg;
  } catch {
    return undefined;
  }
}
