//! Tables that somebody changed or cut: an error that names file and place, never a wrong answer.

use super::{Bench, place};
use std::path::{Path, PathBuf};
use tapewire_storage::{KeyRange, StorageError, TreeVersion, TreeView};

/// One table, of level 0 and of a compressed level.
fn tables() -> Vec<(Bench, PathBuf, TreeVersion)> {
    let make = |is_compacted: u8| {
        let mut bench = Bench::new();
        for round in 0..2 + is_compacted {
            for key in 0..8 {
                if key == 3 {
                    bench.delete(&format!("key {key}"))
                } else {
                    bench.put(&format!("key {key}"), &format!("value {round}"))
                };
            }
            if is_compacted > 0 {
                bench.flush();
            }
        }
        bench.flush();
        if is_compacted > 0 {
            bench.settle();
        }
        let version = bench.tree.version().clone();
        assert_eq!(version.tables().count(), 1);
        let path = Path::new("/sim/state").join(version.tables().next().unwrap().file_name());
        (bench, path, version)
    };
    vec![make(0), make(1)]
}

/// `true` where damage was said; what is read without an error is right.
fn is_refused(bench: &Bench, path: &Path, version: &TreeVersion) -> bool {
    let is_said = |error: StorageError| match error {
        StorageError::Corrupt { path: at, .. } | StorageError::Version { path: at, .. } | StorageError::Foreign { path: at, .. } => {
            at == path
        }
        other => panic!("{other}"),
    };
    let view = match TreeView::open(&place(&bench.disk), version) {
        Ok(view) => view,
        Err(error) => return is_said(error),
    };
    let expected = bench.model.at(u64::MAX);
    let mut is_refused = false;
    for key in bench.model.keys.keys() {
        match view.get(key) {
            Ok(value) => assert_eq!(value.as_ref(), expected.get(key)),
            Err(error) => is_refused |= is_said(error),
        }
    }
    let whole: Result<Vec<_>, _> = view.range(KeyRange::all()).and_then(Iterator::collect);
    match whole {
        Ok(found) => assert_eq!(found, expected.into_iter().collect::<Vec<_>>()),
        Err(error) => is_refused |= is_said(error),
    }
    if let Err(error) = view.verify() {
        is_refused |= is_said(error);
    }
    is_refused
}

#[test]
fn every_changed_byte_is_found() {
    for (bench, path, version) in tables() {
        assert!(!is_refused(&bench, &path, &version));
        let bytes = bench.disk.bytes(&path);
        for at in 0..bytes.len() {
            bench.disk.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8));
            assert!(is_refused(&bench, &path, &version), "byte {at} of {}", bytes.len());
            bench.disk.damage(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        }
    }
}

#[test]
fn a_table_cut_at_every_byte_is_refused() {
    for (bench, path, version) in tables() {
        let bytes = bench.disk.bytes(&path);
        for at in 0..bytes.len() {
            bench.disk.damage(&path, |bytes| bytes.truncate(at));
            assert!(is_refused(&bench, &path, &version), "cut at {at} of {}", bytes.len());
            bench.disk.damage(&path, |cut| cut.clone_from(&bytes));
        }
        bench.disk.damage(&path, |bytes| bytes.push(0));
        assert!(is_refused(&bench, &path, &version), "longer by a byte");
    }
}

/// Two tables that changed places are each sound by themselves.
#[test]
fn a_table_in_place_of_another_is_refused() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.put("key", "value");
        bench.tree.rotate();
        let _ = bench.tree.work(&mut bench.log).unwrap();
    }
    let version = bench.tree.version().clone();
    let paths: Vec<_> = version.tables().map(|table| Path::new("/sim/state").join(table.file_name())).collect();
    let bytes = bench.disk.bytes(&paths[0]);
    bench.disk.damage(&paths[1], |other| other.clone_from(&bytes));
    let refused = TreeView::open(&place(&bench.disk), &version).unwrap_err();
    assert!(matches!(&refused, StorageError::Corrupt { path, .. } if *path == paths[1]), "{refused}");
}
