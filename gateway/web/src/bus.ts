// What goes through the bus: rates and lags over time, and the publisher's numbers.

import type { PublisherStats, StreamStats } from "./api";
import { Facts, panel, Table, type Column } from "./dom";
import { bytes, count, milliseconds } from "./format";
import { Plot } from "./plot";
import { showStream } from "./streams";
import type { Sample, Watch } from "./watch";

const COLUMNS: Column<PublisherStats>[] = [
  { title: "pid", text: (it) => String(it.pid) },
  { title: "state", text: (it) => (it.alive ? "alive" : "gone"), className: (it) => (it.alive ? "good" : "bad") },
  { title: "records/s", text: (it) => count(it.records_per_s), hint: "Records that it published in the last second" },
  { title: "published", text: (it) => count(it.seq_published), hint: "The latest sequence" },
  { title: "not durable", text: (it) => count(it.not_durable), hint: "Records that are published and not on the disk yet" },
  { title: "for", text: (it) => milliseconds(it.not_durable_ms), hint: "How long the oldest of them has waited" },
  { title: "pages ready", text: (it) => `${count(it.pages_ready)} of ${count(it.pages)}`, hint: "Pages of shared memory" },
  { title: "journal", text: (it) => `${count(it.journal_pages_used)} of ${count(it.journal_pages)}`, hint: "Pages of the journal's ring in use" },
  { title: "stalls", text: (it) => count(it.stalls), hint: "Waits for the log" },
  { title: "refused", text: (it) => count(it.refused), hint: "Events that were not published" },
  { title: "subscribers", text: (it) => count(it.subscribers), hint: "Over shared memory" },
  { title: "woken", text: (it) => count(it.woken), hint: "How often sleeping subscribers were woken" },
  { title: "heard", text: (it) => (it.age_ms === null ? "–" : `${milliseconds(it.age_ms)} ago`) },
];

export function showBus(root: HTMLElement, watch: Watch): () => void {
  const facts = new Facts();
  const rate = new Plot("rate", "Records published in a second", { color: "#4cc2ff", text: count });
  const lag = new Plot("lag", "Lag of the slowest subscriber", { color: "#ffb454", text: milliseconds });
  const behind = new Plot("behind", "Records that the slowest subscriber is behind", { color: "#c792ea", text: count });
  const publishers = new Table(COLUMNS, "Nobody publishes.");
  const plots: [Plot, (it: Sample) => number | null][] = [
    [rate, (it) => it.rate],
    [lag, (it) => it.behindMs],
    [behind, (it) => it.behind],
  ];
  const paint = (stream: StreamStats) => {
    facts.paint(factsOf(stream));
    publishers.paint(stream.publishers);
    const samples = watch.samplesOf(stream.stream);
    for (const [plot, value] of plots) {
      plot.paint([samples.map((it) => it.at), samples.map(value)]);
    }
  };
  const elements = [panel("stream", "Stream", facts.element), ...plots.map(([it]) => it.element), panel("publishers", "Publishers", publishers.element)];
  return showStream(root, watch, { elements, paint, stop: () => plots.forEach(([it]) => it.stop()) });
}

function factsOf(stream: StreamStats): [string, string][] {
  return [
    ["epoch", `${count(stream.epoch)}${stream.closed_at === null ? "" : `, closed at ${count(stream.closed_at)}`}`],
    ["oldest kept", count(stream.oldest)],
    ["published", count(stream.seq_published)],
    ["durable", count(stream.seq_durable)],
    ["written now", stream.written_now ? "yes" : "no"],
    ["disk free", bytes(stream.disk_free_bytes)],
  ];
}
