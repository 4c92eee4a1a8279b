//! The store's files: manifest, parts by level, tables, footers.

use super::{faults_json, open_stream, outcome};
use crate::{
    Outcome,
    args::{InspectFooterArguments, InspectTableArguments, StreamArguments, WrongArgument},
    console,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tapewire_storage::{
    Fault, LevelsInspection, PartInspection, SstMeta, TableInspection, inspect_footer, inspect_levels, inspect_manifest, inspect_table,
    open_state,
};

pub fn run_manifest(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    let stream = open_stream(arguments)?;
    let Some(manifest) = inspect_manifest(&stream)? else {
        console::report(&json!({ "manifest": null, "lines": [], "faults": [] }), arguments.output)?;
        return Ok(Outcome::Done);
    };
    let line = |it: &tapewire_storage::ManifestLine| json!({ "offset": it.offset, "bytes": it.bytes, "holds": it.holds, "text": it.text });
    let lines: Vec<Value> = manifest.lines.iter().map(line).collect();
    let faults: Vec<Fault> = manifest.fault.into_iter().collect();
    let shown = json!({ "manifest": manifest.path.display().to_string(), "lines": lines, "faults": faults_json(&faults) });
    console::report(&shown, arguments.output)?;
    Ok(outcome(faults.len()))
}

/// So many bytes of records for each byte of a file.
fn ratio(record_bytes: u64, bytes: u64) -> Value {
    if bytes == 0 { Value::Null } else { json!((record_bytes as f64 / bytes as f64 * 1000.0).round() / 1000.0) }
}

pub fn run_sst(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    let stream = open_stream(arguments)?;
    let Some(view) = open_state(&stream)? else {
        console::report(&json!({ "through": null, "tables": [] }), arguments.output)?;
        return Ok(Outcome::Done);
    };
    let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let table = |it: &SstMeta| {
        json!({
            "file": it.file_name(), "level": it.level, "bytes": it.bytes, "entries": it.entry_count, "tombstones": it.tombstone_count,
            "sequences": [it.min_sequence, it.max_sequence], "keys": [hex(&it.min_key), hex(&it.max_key)],
        })
    };
    let tables: Vec<Value> = view.tables().iter().map(table).collect();
    console::report(&json!({ "through": view.through(), "tables": tables }), arguments.output)?;
    Ok(Outcome::Done)
}

pub fn run_levels(arguments: &StreamArguments) -> anyhow::Result<Outcome> {
    let stream = open_stream(arguments)?;
    let Some(found) = inspect_levels(&stream)? else {
        console::report(&json!({ "levels": [], "parts": [], "faults": [] }), arguments.output)?;
        return Ok(Outcome::Done);
    };
    console::report(&levels_json(&found), arguments.output)?;
    Ok(outcome(found.faults.len()))
}

fn levels_json(found: &LevelsInspection) -> Value {
    let mut by_level: BTreeMap<u8, Vec<&PartInspection>> = BTreeMap::new();
    found.parts.iter().for_each(|part| by_level.entry(part.level).or_default().push(part));
    let sums = |parts: &[&PartInspection]| {
        let sum = |of: fn(&PartInspection) -> u64| parts.iter().map(|part| of(part)).sum::<u64>();
        (sum(|it| it.last - it.first + 1), sum(|it| it.bytes), sum(|it| it.record_bytes))
    };
    let levels: Vec<Value> = by_level
        .iter()
        .map(|(level, parts)| {
            let (records, bytes, record_bytes) = sums(parts);
            json!({
                "level": level, "parts": parts.len(), "records": records, "bytes": bytes, "record_bytes": record_bytes,
                "ratio": ratio(record_bytes, bytes), "first_sequence": parts[0].first, "last_sequence": parts[parts.len() - 1].last,
            })
        })
        .collect();
    let part = |it: &PartInspection| {
        json!({
            "file": it.path.display().to_string(), "level": it.level, "first_sequence": it.first, "last_sequence": it.last,
            "bytes": it.bytes, "record_bytes": it.record_bytes, "ratio": ratio(it.record_bytes, it.bytes),
            "epochs": [it.epochs.0, it.epochs.1], "times": (it.times.0 <= it.times.1).then_some([it.times.0, it.times.1]),
        })
    };
    let (records, bytes, record_bytes) = sums(&found.parts.iter().collect::<Vec<_>>());
    json!({
        "levels": levels, "parts": found.parts.iter().map(part).collect::<Vec<_>>(), "kept_from": found.kept_from,
        "seq_stored": found.seq_stored, "records": records, "bytes": bytes, "record_bytes": record_bytes, "ratio": ratio(record_bytes, bytes),
        "file_bytes": found.file_bytes, "space_amplification": found.space_amplification(),
        "orphans": found.orphans.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(), "faults": faults_json(&found.faults),
    })
}

pub fn run_table(arguments: &InspectTableArguments) -> anyhow::Result<Outcome> {
    let table = inspect_table(&arguments.file)?;
    let fault = |(offset, reason): &(u64, String)| Fault { path: arguments.file.clone(), offset: *offset, reason: reason.clone() };
    let faults: Vec<Fault> = table.faults.iter().map(fault).collect();
    let mut shown = table_json(&table);
    shown["file"] = json!(arguments.file.display().to_string());
    shown["faults"] = faults_json(&faults);
    console::report(&shown, arguments.output)?;
    Ok(outcome(faults.len()))
}

fn table_json(it: &TableInspection) -> Value {
    let stripes: Vec<Value> = it
        .stripes
        .iter()
        .map(|it| {
            json!({
                "offset": it.offset, "first_sequence": it.first, "last_sequence": it.last, "epoch": it.epoch, "keys": it.keys,
                "blocks": it.blocks, "block_bytes": it.block_bytes, "order_bytes": it.order_bytes, "record_bytes": it.record_bytes,
                "fence": { "ts_max": it.fence.ts_max, "late_ns_max": it.fence.late_ns_max },
            })
        })
        .collect();
    let series: Vec<Value> = it
        .series
        .iter()
        .map(|((kind, id), it)| {
            json!({
                "kind": kind.name(), "id": id, "rows": it.rows, "blocks": it.blocks, "compressed_blocks": it.compressed_blocks,
                "bytes": it.bytes, "record_bytes": it.record_bytes, "ratio": ratio(it.record_bytes, it.bytes),
                "times": (it.ts_min <= it.ts_max).then_some([it.ts_min, it.ts_max]),
            })
        })
        .collect();
    let filters: Vec<Value> = it
        .filters
        .iter()
        .map(|it| {
            let (ids, bits) = it.keys.unzip();
            json!({ "of": it.name, "offset": it.offset, "bytes": it.bytes, "ids": ids, "bits_per_id": bits })
        })
        .collect();
    json!({
        "bytes": it.bytes, "first_sequence": it.first, "last_sequence": it.last, "epochs": [it.epochs.0, it.epochs.1],
        "times": (it.times.0 <= it.times.1).then_some([it.times.0, it.times.1]), "record_bytes": it.record_bytes,
        "ratio": ratio(it.record_bytes, it.bytes), "directory_bytes": it.directory_bytes, "stripes": stripes, "series": series,
        "filters": filters,
    })
}

pub fn run_footer(arguments: &InspectFooterArguments) -> anyhow::Result<Outcome> {
    let stream = open_stream(&arguments.stream)?;
    let parts = inspect_levels(&stream)?.map(|levels| levels.parts).unwrap_or_default();
    let mut segments = parts.into_iter().filter(|part| part.level == 0);
    let wanted = segments.clone().find(|part| arguments.first.is_none_or(|first| part.first == first));
    let Some(part) = wanted else {
        let there: Vec<String> = segments.by_ref().map(|part| part.first.to_string()).collect();
        let list = if there.is_empty() { "level 0 has no segment".to_owned() } else { format!("segments begin with {}", there.join(", ")) };
        let value = arguments.first.map_or_else(|| "the oldest".to_owned(), |first| first.to_string());
        return Err(WrongArgument { flag: "--first", value, needed: list }.into());
    };
    let path = part.path.with_extension("idx");
    let it = inspect_footer(&stream, &path)?;
    let series: Vec<Value> =
        it.series.iter().map(|(kind, id, records)| json!({ "kind": kind.name(), "id": id, "records": records })).collect();
    let (bytes, ids, bits) = it.filter;
    let shown = json!({
        "file": path.display().to_string(), "bytes": it.file_bytes, "first_sequence": it.first, "last_sequence": it.last,
        "epoch": it.epoch, "pages": it.page_count, "record_bytes": it.record_bytes, "fences": it.fence_count,
        "times": (it.ts_min <= it.ts_max).then_some([it.ts_min, it.ts_max]), "series": series,
        "filter": { "bytes": bytes, "ids": ids, "bits_per_id": bits }, "faults": [],
    });
    console::report(&shown, arguments.stream.output)?;
    Ok(Outcome::Done)
}
