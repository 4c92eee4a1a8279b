// `/api/stats` once a second, and what it said in the last minutes.

import { ask, type Stats, type StreamStats } from "./api";
import { Backoff } from "./backoff";

const INTERVAL_MS = 1000;
/** Looks that are kept: ten minutes of them. */
const SAMPLES_MAX = 600;

/** A look at a stream, at a time of this machine in seconds. */
export interface Sample {
  at: number;
  /** Records published in a second; `null` where nobody publishes. */
  rate: number | null;
  /** Of the subscriber that is the farthest behind. */
  behind: number | null;
  behindMs: number | null;
}

export class Watch {
  stats: Stats | undefined;
  /** Why the last question was not answered. */
  failure: string | undefined;
  /** When the last answer came, in milliseconds of `performance.now`. */
  heard = -Infinity;
  private readonly samples = new Map<string, Sample[]>();
  private readonly listeners = new Set<() => void>();
  private readonly backoff = new Backoff();

  start(): void {
    void this.look();
  }

  /** Calls `listener` after every look, and once now. */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    listener();
    return () => this.listeners.delete(listener);
  }

  samplesOf(stream: string): Sample[] {
    return this.samples.get(stream) ?? [];
  }

  /** The stream of a name; where there is none, the one that the gateway hands on. */
  streamOf(name: string | null): StreamStats | undefined {
    const streams = this.stats?.streams ?? [];
    return streams.find((it) => it.stream === name) ?? streams.find((it) => it.stream === this.stats?.serves) ?? streams[0];
  }

  private async look(): Promise<void> {
    let wait = INTERVAL_MS;
    try {
      const before = this.stats;
      this.stats = await ask<Stats>("/api/stats");
      this.failure = undefined;
      this.heard = performance.now();
      this.backoff.reset();
      this.keep(before, this.stats);
    } catch (error) {
      this.failure = error instanceof Error ? error.message : String(error);
      wait = this.backoff.wait();
    }
    for (const listener of this.listeners) {
      listener();
    }
    setTimeout(() => void this.look(), wait);
  }

  private keep(before: Stats | undefined, now: Stats): void {
    if (before?.at_ns === now.at_ns) {
      return;
    }
    for (const stream of now.streams) {
      const samples = this.samples.get(stream.stream) ?? [];
      this.samples.set(stream.stream, samples);
      samples.push(sampleOf(stream, now.at_ns / 1e9));
      if (samples.length > SAMPLES_MAX) {
        samples.shift();
      }
    }
  }
}

function sampleOf(stream: StreamStats, at: number): Sample {
  const publishers = stream.publishers.filter((it) => it.alive);
  const subscribers = stream.subscribers.filter((it) => it.alive);
  const most = (numbers: number[]) => (numbers.length > 0 ? Math.max(...numbers) : null);
  return {
    at,
    rate: publishers.length > 0 ? publishers.reduce((sum, it) => sum + it.records_per_s, 0) : null,
    behind: most(subscribers.map((it) => it.behind)),
    behindMs: most(subscribers.flatMap((it) => it.behind_ms ?? [])),
  };
}
