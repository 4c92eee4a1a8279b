// Who reads a stream, and how far behind everybody is.

import type { ConsumerStats, StreamStats, SubscriberStats } from "./api";
import { panel, Table, type Column } from "./dom";
import { count, milliseconds } from "./format";
import { showStream } from "./streams";
import type { Watch } from "./watch";

/** A subscriber that is as far behind is marked. */
const LAG_MS = 1000;

const lateness = (ms: number | null | undefined) => ((ms ?? 0) > LAG_MS ? "bad" : "");

const SUBSCRIBERS: Column<SubscriberStats>[] = [
  { title: "pid", text: (it) => String(it.pid) },
  { title: "state", text: (it) => (it.alive ? "alive" : "gone"), className: (it) => (it.alive ? "good" : "bad") },
  { title: "tier", text: (it) => it.tier, className: "text" },
  { title: "phase", text: (it) => it.phase, className: "text" },
  { title: "position", text: (it) => count(it.position), hint: "The sequence that it reads next" },
  { title: "lag", text: (it) => count(it.behind), className: (it) => lateness(it.behind_ms), hint: "Records behind the latest" },
  { title: "lag in time", text: (it) => milliseconds(it.behind_ms), className: (it) => lateness(it.behind_ms) },
  { title: "pages", text: (it) => (it.fill_pages === null ? "–" : `${it.fill_pages} of ${it.fill_pages_max}`), hint: "Of its buffer that wait" },
  { title: "events", text: (it) => count(it.events) },
  { title: "lapped", text: (it) => count(it.lapped), hint: "How often records left shared memory before it read them" },
  { title: "healed", text: (it) => count(it.healed), hint: "How often it read them in the log instead" },
  { title: "gaps", text: (it) => count(it.skips), className: (it) => (it.skips > 0 ? "bad" : ""), hint: "How often it skipped records" },
  { title: "skipped", text: (it) => count(it.sequences_skipped), hint: "Records that it skipped" },
  { title: "last gap", text: (it) => (it.last_gap[1] > 0 ? `${count(it.last_gap[0])} – ${count(it.last_gap[1])}` : "–") },
  { title: "source", text: (it) => it.source, className: "text", hint: "Where its events come from" },
  { title: "conflated", text: (it) => count(it.conflated), hint: "Events that were merged into later ones" },
  { title: "heard", text: (it) => (it.age_ms === null ? "–" : `${milliseconds(it.age_ms)} ago`) },
];

const CONSUMERS: Column<ConsumerStats>[] = [
  { title: "name", text: (it) => it.name, className: "text" },
  { title: "state", text: (it) => it.state, className: (it) => (it.state === "dead" ? "bad" : "good") },
  { title: "pid", text: (it) => (it.pid === null ? "–" : String(it.pid)) },
  { title: "acknowledged", text: (it) => (it.error === undefined ? count(it.acked) : it.error), hint: "The latest sequence that it has dealt with" },
  { title: "ago", text: (it) => milliseconds(it.acked_age_ms) },
  { title: "lag", text: (it) => count(it.behind), hint: "Records behind the latest" },
  { title: "lag in time", text: (it) => milliseconds(it.behind_ms) },
];

export function showSubscribers(root: HTMLElement, watch: Watch): () => void {
  const subscribers = new Table(SUBSCRIBERS, "Nobody subscribes.");
  const consumers = new Table(CONSUMERS, "There are no cursors.");
  const paint = (stream: StreamStats) => {
    subscribers.paint(stream.subscribers);
    consumers.paint(stream.consumers);
  };
  const elements = [panel("subscribers", "Subscribers", subscribers.element), panel("cursors", "Cursors", consumers.element)];
  return showStream(root, watch, { elements, paint });
}
