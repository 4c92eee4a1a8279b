//! Instruments and accounts in one registry: numbers that stay, and an end that may be torn.

use crate::harness::{STREAM, TestBus};
use std::fs;
use tapewire_schemas::Scale;
use tapewire_storage::{Registry, StorageError, StreamWriter};

fn two() -> Scale {
    Scale::new(2).unwrap()
}

#[test]
fn accounts_and_instruments_share_venues_and_keep_their_numbers() {
    let test = TestBus::in_memory();
    for _ in 0..2 {
        let mut writer = StreamWriter::open(&test.bus, STREAM, &crate::harness::settings()).unwrap();
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
    let mut writer = StreamWriter::open(&test.bus, STREAM, &crate::harness::settings()).unwrap();
    for name in [String::new(), "x".repeat(49)] {
        let refused = writer.registry_mut().define_account("A", &name);
        assert!(matches!(refused, Err(StorageError::Schema { .. })), "{refused:?}");
    }
    assert_eq!(writer.registry_mut().registry().accounts().count(), 0);
}

/// Entries of both lengths, in any order, cut anywhere: every whole one is there, or it is damage.
#[test]
fn a_registry_of_both_kinds_is_read_up_to_where_it_is_torn() {
    for order in ["iai", "aia", "aai", "iia"] {
        let test = TestBus::in_memory();
        let mut writer = StreamWriter::open(&test.bus, STREAM, &crate::harness::settings()).unwrap();
        for (number, what) in order.chars().enumerate() {
            match what {
                'i' => drop(writer.registry_mut().define("A", &format!("S{number}"), two(), two()).unwrap()),
                _ => drop(writer.registry_mut().define_account("A", &format!("N{number}")).unwrap()),
            }
        }
        writer.close().unwrap();
        let stream = test.bus.stream(STREAM);
        let path = stream.directory().join("registry.log");
        let whole = fs::read(&path).unwrap();
        let bytes_of = |what| if what == 'i' { 136 } else { 120 };
        let ends: Vec<usize> = order
            .chars()
            .scan(0, |end, what| {
                Some({
                    *end += bytes_of(what);
                    *end
                })
            })
            .collect();
        assert_eq!(ends.last(), Some(&whole.len()));
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let registry = Registry::open(&stream).unwrap();
            let count = registry.definitions().count() + registry.accounts().count();
            assert_eq!(count, ends.iter().filter(|end| **end <= length).count(), "{length} bytes of {order}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let is_last = at >= ends[ends.len() - 2];
            match Registry::open(&stream) {
                Ok(registry) => {
                    assert!(is_last && registry.definitions().count() + registry.accounts().count() == 2, "byte {at} of {order}")
                }
                Err(error) => assert!(!is_last && matches!(error, StorageError::Corrupt { .. }), "byte {at} of {order}: {error}"),
            }
        }
    }
}
