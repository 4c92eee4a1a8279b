//! `tapewire inspect`: what files hold, sound or damaged. What is wrong is listed with its place; then the exit code is 3.

mod store;

use crate::{
    Outcome,
    args::{InspectArguments, InspectJournalArguments, InspectPageArguments, InspectWhat, StreamArguments, WrongArgument},
    console,
    report::progress_bar,
};
use serde_json::{Value, json};
use std::fmt::Write as _;
use tapewire_schemas::{Body, PAGE_BYTES, PageHeader, RecordRef};
use tapewire_storage::{
    Bus, Fault, JournalInspection, PageInspection, SegmentInspection, StorageError, Stream, inspect_journal, inspect_page,
    inspect_segments, list_journals,
};

pub fn run(arguments: &InspectArguments) -> anyhow::Result<Outcome> {
    match &arguments.what {
        InspectWhat::Wal(stream) => run_wal(stream),
        InspectWhat::Journal(settings) => run_journal(settings),
        InspectWhat::Page(settings) => run_page(settings),
        InspectWhat::Manifest(stream) => store::run_manifest(stream),
        InspectWhat::Levels(stream) => store::run_levels(stream),
        InspectWhat::Table(settings) => store::run_table(settings),
        InspectWhat::Sst(stream) => store::run_sst(stream),
        InspectWhat::Footer(settings) => store::run_footer(settings),
    }
}

fn open_stream(arguments: &StreamArguments) -> Result<Stream, StorageError> {
    let stream = Bus::open(&arguments.bus)?.stream(&arguments.stream);
    if stream.directory().is_dir() {
        return Ok(stream);
    }
    Err(StorageError::NoStream { path: arguments.bus.clone(), stream: arguments.stream.clone() })
}

fn outcome(fault_count: usize) -> Outcome {
    if fault_count == 0 { Outcome::Done } else { Outcome::Disagrees }
}

pub fn faults_json<'a>(faults: impl IntoIterator<Item = &'a Fault>) -> Value {
    let fault = |it: &Fault| json!({ "file": it.path.display().to_string(), "offset": it.offset, "reason": it.reason });
    faults.into_iter().map(fault).collect::<Vec<_>>().into()
}

fn run_wal(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    let stream = open_stream(arguments)?;
    let bar = progress_bar(Some(0), "bytes");
    let segments = inspect_segments(&stream, |done_bytes, total_bytes| {
        bar.set_length(total_bytes);
        bar.set_position(done_bytes);
    })?;
    bar.finish_and_clear();
    let faults: Vec<&Fault> = segments.iter().flat_map(|segment| &segment.faults).collect();
    let list: Vec<Value> = segments.iter().map(segment_json).collect();
    console::report(&json!({ "segments": list, "faults": faults_json(faults.iter().copied()) }), arguments.output)?;
    Ok(outcome(faults.len()))
}

fn segment_json(it: &SegmentInspection) -> Value {
    let kinds: serde_json::Map<String, Value> = it.kinds.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
    json!({
        "file": it.path.display().to_string(), "bytes": it.bytes, "first_sequence": it.first_sequence, "last_sequence": it.last_sequence,
        "pages": it.page_count, "sealed_pages": it.sealed_pages, "seals": it.seal_count, "epochs": [it.epochs.0, it.epochs.1],
        "ts_recv": [it.ts_recv.0, it.ts_recv.1], "ts_event": [it.ts_event.0, it.ts_event.1], "records": kinds, "newest": it.is_newest,
    })
}

fn run_journal(arguments: &InspectJournalArguments) -> anyhow::Result<Outcome> {
    let stream = open_stream(&arguments.stream)?;
    let there = list_journals(&stream)?;
    let Some(epoch) = arguments.epoch.or_else(|| there.last().copied()) else {
        // A writer that ended in good order takes its journal with it.
        console::report(&json!({ "journal": null, "epochs": there }), arguments.stream.output)?;
        return Ok(Outcome::Done);
    };
    let Some(journal) = inspect_journal(&stream, epoch)? else {
        let needed = format!("journals are there of epochs {there:?}");
        return Err(WrongArgument { flag: "--epoch", value: epoch.to_string(), needed }.into());
    };
    console::report(&json!({ "journal": journal_json(&journal), "epochs": there }), arguments.stream.output)?;
    Ok(outcome(journal.faults.len()))
}

fn journal_json(it: &JournalInspection) -> Value {
    let slots: Vec<Value> = it
        .slots
        .iter()
        .map(|slot| {
            json!({
                "page": slot.page_index, "slot": slot.slot, "first_sequence": slot.first_sequence, "last_sequence": slot.last_sequence,
                "recycled_meanwhile": slot.is_recycled,
            })
        })
        .collect();
    json!({
        "file": it.path.display().to_string(), "bytes": it.bytes, "version": it.version, "stream_id": it.stream_id, "epoch": it.epoch,
        "bus_id": format!("{:032x}", it.bus_id), "of_this_boot": it.is_of_this_boot, "ring_pages": it.page_count,
        "writer_pid": it.writer_pid, "state": it.state, "seq_published": it.seq_published, "seq_durable": it.seq_durable, "seq_stored": it.seq_stored,
        "current_page": it.current_page, "pages": slots, "faults": faults_json(&it.faults),
    })
}

fn run_page(arguments: &InspectPageArguments) -> anyhow::Result<Outcome> {
    let page = inspect_page(&arguments.file, arguments.page)?;
    let mut shown = page_json(&page);
    shown["file"] = json!(arguments.file.display().to_string());
    if arguments.records {
        let mut records = Vec::new();
        page.records(|at, sequence, record| records.push(record_json(page.offset + at as u64, sequence, record)));
        shown["records"] = records.into();
    }
    if arguments.hex {
        shown["hex"] = hex_lines(page.bytes()).into();
    }
    console::report(&shown, arguments.output)?;
    Ok(outcome(page.faults.len()))
}

fn page_json(page: &PageInspection) -> Value {
    let PageHeader { magic, version, stream_id, epoch, page_index, first_sequence, first_ts_event, page_bytes, .. } = page.header;
    let seals: Vec<Value> = page
        .seals
        .iter()
        .zip(["A", "B"])
        .filter_map(|(seal, slot)| {
            let it = seal.as_ref()?;
            Some(json!({
                "slot": slot, "number": it.seal.number, "holds": it.verdict.is_ok(), "reason": it.verdict.err(),
                "crc32": format!("{:08x}", it.seal.crc32), "covered_bytes": it.seal.covered_bytes, "records": it.seal.record_count,
                "last_sequence": it.seal.last_sequence, "durable_sequence": it.seal.durable_sequence, "complete": it.seal.complete == 1,
                "ts_max": it.seal.ts_max, "late_ns_max": it.seal.late_ns_max,
            }))
        })
        .collect();
    json!({
        "offset": page.offset, "state": page.state.name(),
        "header": {
            "magic": format!("{magic:#010x}"), "version": version, "stream_id": stream_id, "epoch": epoch, "page_index": page_index,
            "first_sequence": first_sequence, "first_ts_event": first_ts_event, "page_bytes": page_bytes,
            "bus_id": format!("{:032x}", page.header.bus_id()),
        },
        "seals": seals, "record_count": page.record_count, "last_sequence": page.last_sequence(),
        "end_offset": page.offset + page.end as u64, "faults": faults_json(&page.faults),
    })
}

/// A record by its bytes: numbers are mantissas, because a page alone need not know their scales.
fn record_json(offset: u64, sequence: u64, record: &RecordRef<'_>) -> Value {
    let body = match record.body() {
        Body::BookDelta(book) | Body::BookSnapshot(book) => {
            json!({ "bids": book.bids.len(), "asks": book.asks.len(), "venue_seq": [book.venue_seq_first, book.venue_seq_last] })
        }
        Body::Instrument(it) => json!({ "venue": it.venue(), "symbol": it.symbol(), "scales": [it.price_scale, it.quantity_scale] }),
        Body::Account(it) => json!({ "account_id": it.account_id, "venue": it.venue(), "name": it.name() }),
        Body::Trade(it) => json!({ "price": it.price, "quantity": it.quantity, "trade_id": it.trade_id, "venue_seq": it.venue_seq }),
        Body::Quote(it) => json!({ "bid": [it.bid_px, it.bid_qty], "ask": [it.ask_px, it.ask_qty] }),
        Body::Control(it) => {
            let code = it.code().map_or_else(|| it.code.to_string(), |code| format!("{code:?}"));
            json!({ "code": code, "epoch": it.epoch, "sequence": it.sequence, "last_sequence": it.last_sequence })
        }
        other => json!(format!("{other:?}")),
    };
    json!({
        "offset": offset, "sequence": sequence, "kind": record.kind().name(), "bytes": record.bytes().len(), "first": record.is_first(),
        "last": record.is_last(), "side": format!("{:?}", record.side()), "venue_id": record.venue_id(),
        "instrument_id": record.instrument_id(), "ts_event": record.ts_event(), "ts_recv": record.ts_recv(), "body": body,
    })
}

/// Bytes in a line.
const HEX_BYTES: usize = 16;

/// Lines of offset, bytes and text; a run of equal lines is one line and a star.
fn hex_lines(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut before: Option<&[u8]> = None;
    for (index, row) in bytes.chunks(HEX_BYTES).enumerate() {
        if before == Some(row) {
            if lines.last().is_none_or(|line| line != "*") {
                lines.push("*".to_owned());
            }
            continue;
        }
        let mut line = format!("{:06x} ", index * HEX_BYTES);
        for byte in row {
            write!(line, " {byte:02x}").expect("writing to a string cannot fail");
        }
        let text: String = row.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        lines.push(format!("{line}  {text}"));
        before = Some(row);
    }
    lines.push(format!("{PAGE_BYTES:06x}"));
    lines
}
