//! Small files and registries, and a bus in memory to put them into.

use super::memory::walk;
use crate::{Input, Mutator, Target};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tapewire_schemas::{EventRef, RECORD_HEADER_BYTES, Scale};
use tapewire_storage::{Bus, Cursor, Registry, StreamWriter, WalSettings};
use tempfile::TempDir;
use zerocopy::IntoBytes;

/// A file and what was in it.
type Remembered = (PathBuf, Vec<u8>);

/// A directory in memory, and what was in it and in others once.
pub(super) struct Files {
    directory: TempDir,
    remembered: Vec<(PathBuf, Vec<Remembered>)>,
}

impl Files {
    pub(super) fn new() -> Self {
        let directory = TempDir::new_in("/dev/shm").expect("there is room in memory");
        Self { directory, remembered: Vec::new() }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Remembers the files of a directory as they are.
    pub(super) fn remember(mut self, directory: &Path) -> Self {
        let read = |path: PathBuf| fs::read(&path).ok().map(|bytes| (path, bytes));
        let files = list(directory).into_iter().filter_map(read).collect();
        self.remembered.push((directory.to_owned(), files));
        self
    }

    /// Makes the directories hold what they held.
    pub(super) fn put_back(&self) {
        for (directory, files) in &self.remembered {
            for path in list(directory).iter().filter(|path| !files.iter().any(|(it, _)| it == *path)) {
                fs::remove_file(path).expect("it was listed");
            }
            fs::create_dir_all(directory).expect("there is room");
            files.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("there is room"));
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A bus keeps its memory outside of its directory.
        if let Ok(bus) = Bus::open(self.path()) {
            let _ = fs::remove_dir_all(bus.memory_directory());
        }
    }
}

fn list(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

fn line(name: &str, payload: &str) -> String {
    let text = format!("tapewire {name} v1 {payload}");
    format!("{text} crc={:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// Writes a small file as the bus does.
pub(super) fn write_line(path: &Path, name: &str, payload: &str) {
    fs::write(path, line(name, payload)).expect("there is room");
}

/// Makes most checksums of a line hold again.
fn repair_line(bytes: &mut Vec<u8>, mutator: &mut Mutator) {
    let end = bytes.windows(5).rposition(|window| window == b" crc=");
    if let Some(end) = end.filter(|_| !mutator.happens(1, 8)) {
        let crc = crc32fast::hash(&bytes[..end]);
        bytes.truncate(end);
        bytes.extend_from_slice(format!(" crc={crc:08x}\n").as_bytes());
    }
}

/// Zeros behind the line are no part of it: a file that is written in its place may have been longer.
fn without_padding(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

/// `BUS/bus.id`.
pub(super) fn bus_id() -> Target {
    let files = Files::new();
    let seeds = vec![Input::plain(line("bus", "id=0123456789abcdef00ff00ff00ff00ff"))];
    let decode = move |bytes: &[u8]| {
        fs::write(files.path().join("bus.id"), bytes).expect("there is room");
        let Ok(bus) = Bus::open(files.path()) else { return false };
        assert_eq!(line("bus", &format!("id={:032x}", bus.id())).as_bytes(), without_padding(bytes), "encoded again, it is another line");
        true
    };
    Target { name: "bus_id", seeds, repair: repair_line, inputs_per_run: 120_000, decode: Box::new(decode) }
}

/// `BUS/<stream>/epoch`.
pub(super) fn epoch() -> Target {
    let files = Files::new();
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    let stream = bus.stream("market");
    fs::create_dir_all(stream.directory()).expect("there is room");
    let seeds = [
        "epoch=7 after=0 segment_pages=1024",
        "epoch=3 after=5 segment_pages=2 settled_at=9",
        "epoch=4294967295 after=1 segment_pages=4294967295 closed_at=18446744073709551615",
    ]
    .map(|payload| Input::plain(line("epoch", payload)));
    let decode = move |bytes: &[u8]| {
        let path = files.path().join("market/epoch");
        fs::write(&path, bytes).expect("there is room");
        let Ok(Some(state)) = stream.epoch() else { return false };
        let optional = |key, value: Option<u64>| value.map(|sequence| format!(" {key}={sequence}")).unwrap_or_default();
        let ends = optional("settled_at", state.settled_at) + &optional("closed_at", state.closed_at);
        let payload = format!("epoch={} after={} segment_pages={}{ends}", state.epoch, state.after, state.segment_pages);
        assert_eq!(line("epoch", &payload).as_bytes(), without_padding(bytes), "encoded again, it is another line");
        true
    };
    Target { name: "epoch", seeds: seeds.into(), repair: repair_line, inputs_per_run: 120_000, decode: Box::new(decode) }
}

/// `BUS/<stream>/cursors/<name>`.
pub(super) fn cursor() -> Target {
    let files = Files::new();
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    let stream = bus.stream("market");
    let directory = stream.directory().join("cursors");
    fs::create_dir_all(&directory).expect("there is room");
    let payloads = ["epoch=0 sequence=1 ts_updated=0", "epoch=4294967295 sequence=18446744073709551615 ts_updated=1723161253937085768"];
    let decode = move |bytes: &[u8]| {
        fs::write(directory.join("a"), bytes).expect("there is room");
        let Ok(Some(position)) = Cursor::load(&stream, "a") else { return false };
        let payload = format!("epoch={} sequence={} ts_updated={}", position.epoch, position.sequence, position.ts_updated);
        assert_eq!(line("cursor", &payload).as_bytes(), without_padding(bytes), "encoded again, it is another line");
        let _ = &files;
        true
    };
    let seeds = payloads.map(|payload| Input::plain(line("cursor", payload)));
    Target { name: "cursor", seeds: seeds.into(), repair: repair_line, inputs_per_run: 120_000, decode: Box::new(decode) }
}

/// Where a registry's entries begin, and where the two slots are that say where they end.
const ENTRIES_OFFSET: usize = 1024;
const SLOT_OFFSETS: [usize; 2] = [0, 512];

/// Makes most checksums of a registry hold again: of entries, of all of them, and of the slots.
fn repair_registry(bytes: &mut [u8], mutator: &mut Mutator) {
    let mut at = ENTRIES_OFFSET;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(record) = bytes.get(at + 8..).and_then(|rest| rest.get(..length)) else { break };
        let crc = crc32fast::hash(record);
        if !mutator.happens(1, 8) {
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        }
        at += 8 + length;
    }
    for slot in SLOT_OFFSETS {
        let Some(fields) = bytes.get(slot..slot + 32) else { return };
        let end = u64::from_le_bytes(fields[16..24].try_into().expect("eight bytes"));
        let entries = usize::try_from(end).ok().and_then(|end| bytes.get(ENTRIES_OFFSET..end));
        if let Some(crc) = entries.map(crc32fast::hash).filter(|_| !mutator.happens(1, 16)) {
            bytes[slot + 24..slot + 28].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[slot..slot + 28]);
        if !mutator.happens(1, 16) {
            bytes[slot + 28..slot + 32].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// `BUS/<stream>/registry.log`.
pub(super) fn registry() -> Target {
    let files = Files::new();
    let bus = Bus::open_or_create(files.path()).expect("a new bus");
    let settings = WalSettings { journal_pages: 8, segment_pages: 2, ..WalSettings::default() };
    let mut writer = StreamWriter::open(&bus, "market", &settings).expect("a new stream");
    let registry = writer.registry_mut();
    let scale = |digits| Scale::new(digits).expect("up to 18");
    for (symbol, digits) in [("BTCUSD", 2), ("ETHUSD", 3), ("BTCUSD", 4)] {
        registry.define("VENUE", symbol, scale(digits), scale(8)).expect("a sound definition");
    }
    registry.define_account("VENUE", "desk one").expect("a sound definition");
    registry.define("OTHER", "X", scale(0), scale(18)).expect("a sound definition");
    drop(writer);
    let stream = bus.stream("market");
    let path = stream.directory().join("registry.log");
    let bytes = fs::read(&path).expect("it was written");
    let (mut marks, mut at) = (SLOT_OFFSETS.to_vec(), ENTRIES_OFFSET);
    while let Some(length) = bytes.get(at..at + 4) {
        marks.extend([at, at + 8, at + 40]);
        at += 8 + u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    }
    let decode = move |bytes: &[u8]| {
        fs::write(&path, bytes).expect("there is room");
        let Ok(registry) = Registry::open(&stream) else { return false };
        let check = |event: tapewire_schemas::Event<'_>| {
            let mut words = [0u64; 32];
            let record = event.records().next().expect("a definition is one record").to_bytes(0);
            words.as_mut_bytes()[..record.len()].copy_from_slice(&record);
            walk(&EventRef::new(&words.as_bytes()[..record.len()], 0).expect("what is accepted is sound"));
            let body = &record[RECORD_HEADER_BYTES..];
            assert!(bytes.windows(body.len()).any(|window| window == body), "encoded again, a definition has another body");
        };
        registry.definitions().for_each(|definition| check(definition.event(0)));
        registry.accounts().for_each(|account| check(account.event(0)));
        let _ = &files;
        true
    };
    Target {
        name: "registry",
        seeds: vec![Input { bytes, marks }],
        repair: |bytes, mutator| repair_registry(bytes, mutator),
        inputs_per_run: 100_000,
        decode: Box::new(decode),
    }
}
