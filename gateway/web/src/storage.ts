// What of a stream is on the disk: its log, and the store that the log is taken into.

import type { LevelStats, StoreStats, StreamStats } from "./api";
import { Facts, panel, Table, type Column } from "./dom";
import { bytes, count, milliseconds } from "./format";
import { showStream } from "./streams";
import type { Watch } from "./watch";

const LEVELS: Column<LevelStats>[] = [
  { title: "level", text: (it) => String(it.level) },
  { title: "files", text: (it) => count(it.files) },
  { title: "bytes", text: (it) => bytes(it.bytes) },
  { title: "records", text: (it) => count(it.records) },
  { title: "first sequence", text: (it) => count(it.first_sequence) },
  { title: "last sequence", text: (it) => count(it.last_sequence) },
];

export function showStorage(root: HTMLElement, watch: Watch): () => void {
  const [log, store] = [new Facts(), new Facts()];
  const levels = new Table(LEVELS, "Nothing is in the store.");
  const stored = panel("store", "Store", store.element);
  const none = panel("no-store", "Store");
  none.append("This stream has no store: its log alone is kept.");
  const paint = (stream: StreamStats) => {
    log.paint(logFacts(stream));
    stored.hidden = stream.store === null;
    none.hidden = stream.store !== null;
    if (stream.store) {
      store.paint(storeFacts(stream.store, stream));
    }
    levels.paint(stream.store?.levels ?? []);
  };
  const elements = [panel("log", "Log", log.element), stored, none, panel("levels", "Levels", levels.element)];
  return showStream(root, watch, { elements, paint });
}

function logFacts(stream: StreamStats): [string, string][] {
  return [
    ["segments", count(stream.segments)],
    ["bytes", bytes(stream.segment_bytes)],
    ["oldest kept", count(stream.oldest)],
    ["seq_published", count(stream.seq_published)],
    ["seq_durable", count(stream.seq_durable)],
    ["seq_stored", count(stream.store?.seq_stored)],
    ["disk free", bytes(stream.disk_free_bytes)],
  ];
}

function storeFacts(store: StoreStats, stream: StreamStats): [string, string][] {
  return [
    ["tailed now", store.tailed_now ? "yes" : "no"],
    ["not stored yet", `${count(Math.max(0, stream.seq_durable - store.seq_stored))} records`],
    ["kept from", count(store.kept_from)],
    ["backlog", `${count(store.backlog_segments)} segments, ${bytes(store.backlog_bytes)}`],
    ["state", `${count(store.state_files)} files, ${bytes(store.state_bytes)}`],
    ["snapshots", count(store.snapshots)],
    ["newest snapshot", store.newest_snapshot_age_ms === null ? "–" : `${milliseconds(store.newest_snapshot_age_ms)} ago`],
  ];
}
