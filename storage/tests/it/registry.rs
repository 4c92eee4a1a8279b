//! Instruments and accounts in one registry: numbers that stay, whatever becomes of the file.

use crate::{
    harness::{STREAM, TestBus, TestSequencer, names_with, settings},
    store::{cold, hot, open, prune, settle},
};
use std::{fs, path::PathBuf};
use tapewire_schemas::{Event, Payload, Scale, Side, Stamp, Trade};
use tapewire_storage::{Registry, StorageError, StreamWriter, rebuild_registry};

fn two() -> Scale {
    Scale::new(2).unwrap()
}

#[test]
fn accounts_and_instruments_share_venues_and_keep_their_numbers() {
    let test = TestBus::in_memory();
    for _ in 0..2 {
        let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
        let registry = writer.registry_mut();
        let instrument = registry.define("A", "BTC", two(), two()).unwrap();
        let first = registry.define_account("B", "one").unwrap();
        let second = registry.define_account("A", "one").unwrap();
        assert_eq!((instrument.instrument_id, instrument.venue_id), (1, 1));
        assert_eq!((first.account.account_id, first.venue_id), (1, 2));
        assert_eq!((second.account.account_id, second.venue_id), (2, 1));
        writer.close().unwrap();
    }
    let registry = Registry::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!((registry.definitions().count(), registry.accounts().count()), (1, 2));
    assert_eq!(registry.account(1).unwrap().account.venue(), "B");
    assert!(registry.account(3).is_none());
}

#[test]
fn names_of_accounts_must_fit() {
    let test = TestBus::in_memory();
    let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    for name in [String::new(), "x".repeat(49)] {
        let refused = writer.registry_mut().define_account("A", &name);
        assert!(matches!(refused, Err(StorageError::Schema { .. })), "{refused:?}");
    }
    assert_eq!(writer.registry_mut().registry().accounts().count(), 0);
}

/// Two definitions of instruments and two of accounts, one of them with finer scales than before.
fn defined() -> (TestBus, PathBuf) {
    let test = TestBus::in_memory();
    let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let registry = writer.registry_mut();
    registry.define("A", "S", two(), two()).unwrap();
    registry.define_account("A", "N").unwrap();
    registry.define("A", "S", Scale::MAX, two()).unwrap();
    registry.define_account("B", "N").unwrap();
    writer.close().unwrap();
    let path = test.bus.stream(STREAM).directory().join("registry.log");
    (test, path)
}

/// Instruments and accounts, or where the file is damaged.
fn counts(test: &TestBus) -> Result<(usize, usize), u64> {
    match Registry::open(&test.bus.stream(STREAM)) {
        Ok(registry) => Ok((registry.definitions().count(), registry.accounts().count())),
        Err(StorageError::Registry { offset, .. }) => Err(offset),
        Err(other) => panic!("{other}"),
    }
}

const ENTRIES: [(usize, usize); 4] = [(1024, 1160), (1160, 1280), (1280, 1416), (1416, 1536)];

/// Every bit that says something, and every cut: what was used is never taken for a torn end.
#[test]
fn a_registry_that_is_damaged_anywhere_is_an_error() {
    let (test, path) = defined();
    let whole = fs::read(&path).unwrap();
    assert_eq!((whole.len(), counts(&test)), (1536, Ok((1, 2))));
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(counts(&test).is_err(), "{length} bytes");
    }
    let is_said = |at: usize| at < 32 || (512..544).contains(&at) || at >= 1024;
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << bit;
        fs::write(&path, &damaged).unwrap();
        let entry = ENTRIES.iter().find(|(from, to)| (*from..*to).contains(&at)).map(|(from, _)| *from as u64);
        match counts(&test) {
            Ok(found) => assert!(!is_said(at) && found == (1, 2), "bit {bit} of byte {at}"),
            Err(offset) => assert!(is_said(at) && entry.is_none_or(|entry| entry == offset), "bit {bit} of byte {at}: {offset}"),
        }
    }
    fs::write(&path, [0x5a; 2000]).unwrap();
    assert_eq!(counts(&test), Err(0));
    let refused = StreamWriter::open(&test.bus, STREAM, &settings()).map(drop);
    assert!(matches!(refused, Err(StorageError::Registry { offset: 0, .. })), "{refused:?}");
    fs::remove_file(&path).unwrap();
    let refused = StreamWriter::open(&test.bus, STREAM, &settings()).map(drop);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("registry.log is damaged at byte 0: it is not there") && said.contains("--rebuild-registry"), "{said}");
}

/// What a writer had not finished was never used: the next one cuts it, and gives out the number.
#[test]
fn a_definition_that_was_not_finished_is_cut() {
    let (test, path) = defined();
    let whole = fs::read(&path).unwrap();
    for length in 1..=136 {
        // As a crash leaves it: the entry in part, the slots as they were.
        let torn = [&whole[..], &whole[1024..1024 + length]].concat();
        fs::write(&path, torn).unwrap();
        assert_eq!(counts(&test), Ok((1, 2)));
    }
    let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 1536);
    assert_eq!(writer.registry_mut().define("A", "T", two(), two()).unwrap().instrument_id, 2);
    assert_eq!(counts(&test), Ok((2, 2)));
}

/// The registry that is made from the log is the one that was.
#[test]
fn a_registry_is_made_anew_from_the_log() {
    let test = TestBus::in_memory();
    let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let registry = writer.registry_mut();
    let old = registry.define("A", "S", two(), two()).unwrap();
    let account = registry.define_account("B", "N").unwrap();
    let finer = registry.define("A", "S", Scale::MAX, two()).unwrap();
    let mut sequencer = TestSequencer::new(&writer);
    for event in [old.event(1), account.event(2), old.event(3), finer.event(4)] {
        sequencer.append_event(&event);
    }
    // Dies: the journal has them.
    drop((sequencer, writer));
    let path = test.bus.stream(STREAM).directory().join("registry.log");
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let rebuilt = rebuild_registry(&test.bus, STREAM).unwrap();
    assert_eq!((rebuilt.instruments, rebuilt.accounts, rebuilt.entries, rebuilt.records), (1, 1, 3, 4));
    let found = Registry::open(&test.bus.stream(STREAM)).unwrap();
    assert_eq!((found.get(1), found.account(1), found.has_older()), (Some(&finer), Some(&account), true));
    let entries = |bytes: &[u8]| bytes[1024..].to_vec();
    let rebuilt = fs::read(&path).unwrap();
    assert_eq!(entries(&rebuilt).len(), entries(&whole).len());
    let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    assert_eq!(writer.registry_mut().define("A", "T", two(), two()).unwrap().instrument_id, 2);
    let refused = rebuild_registry(&test.bus, STREAM).map(drop);
    assert!(matches!(refused, Err(StorageError::WriterActive { .. })), "{refused:?}");
}

/// Also where the log does not go back to the definitions any more: the store does.
#[test]
fn a_registry_is_made_anew_from_the_store() {
    let test = TestBus::in_memory();
    let mut writer = StreamWriter::open(&test.bus, STREAM, &settings()).unwrap();
    let registry = writer.registry_mut();
    let (instrument, account) = (registry.define("A", "S", two(), two()).unwrap(), registry.define_account("B", "N").unwrap());
    let mut sequencer = TestSequencer::new(&writer);
    sequencer.append_event(&instrument.event(1));
    sequencer.append_event(&account.event(2));
    let stamp = Stamp { instrument_id: 1, venue_id: 1, ts_event: 5, ts_recv: 5 };
    (0..40_000).for_each(|_| sequencer.append_event(&Event { stamp, payload: Payload::Trade(Trade::default(), Side::Buy) }));
    let last = sequencer.close(writer);
    for settings in [hot(), cold()] {
        settle(&mut open(&test.bus, settings));
        prune(&test.bus);
        let stream = test.bus.stream(STREAM);
        assert!(names_with(stream.directory(), ".log").iter().all(|name| !name.starts_with("wal_00000000000000000001")));
        fs::remove_file(stream.directory().join("registry.log")).unwrap();
        let rebuilt = rebuild_registry(&test.bus, STREAM).unwrap();
        assert_eq!((rebuilt.instruments, rebuilt.accounts, rebuilt.entries, rebuilt.records), (1, 1, 2, last));
        let found = Registry::open(&stream).unwrap();
        assert_eq!((found.get(1), found.account(1)), (Some(&instrument), Some(&account)));
    }
}
