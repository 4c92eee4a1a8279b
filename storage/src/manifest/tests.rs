use super::{Edit, Manifest, PART_BYTES_MAX, PartSpan, Version, log::parse, read_manifest, tree_version};
use crate::{bus::Bus, error::StorageError, tree::TreeEdit};
use proptest::prelude::*;

fn span(first: u64, last: u64) -> PartSpan {
    PartSpan { first, last, bytes: 100, record_bytes: 400, epoch_first: 1, epoch_last: 1, ts_min: 5, ts_max: 9 }
}

fn segment(first: u64, last: u64) -> Edit {
    Edit::AddSegment(span(first, last))
}

#[test]
fn a_manifest_comes_back_and_is_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Bus::open_or_create(directory.path()).unwrap().stream("market");
    let path = directory.path().join("manifest.log");
    assert!(read_manifest(&stream, &path).unwrap().is_none());
    let mut manifest = Manifest::open(&stream, &path).unwrap();
    manifest.log(&[segment(1, 10)]).unwrap();
    manifest.log(&[segment(11, 20), Edit::Tree(TreeEdit::Through(5).encode())]).unwrap();
    manifest
        .log(&[Edit::AddTable { level: 1, span: span(1, 20) }, Edit::RemoveSegment { first: 1 }, Edit::RemoveSegment { first: 11 }])
        .unwrap();
    let read = read_manifest(&stream, &path).unwrap().unwrap();
    assert_eq!((&read.version, read.lines.len(), read.torn_bytes), (manifest.version(), 3, 0));
    assert_eq!(read.version.parts.len(), 1);
    assert_eq!(read.version.find(20).map(|part| part.level), Some(1));
    assert_eq!(read.version.find(21), None);
    // A new writer writes one line that amounts to the same.
    let anew = Manifest::open(&stream, &path).unwrap();
    let again = read_manifest(&stream, &path).unwrap().unwrap();
    let tree = |version| tree_version(version, &path).unwrap();
    assert_eq!((again.lines.len(), &again.version.parts), (1, &read.version.parts));
    assert_eq!(tree(&again.version), tree(&read.version));
    drop((manifest, anew));
    // And goes on behind it.
    Manifest::open(&stream, &path).unwrap().log(&[segment(21, 30)]).unwrap();
    assert_eq!(read_manifest(&stream, &path).unwrap().unwrap().version.last(), 30);
    let other = Bus::open_or_create(directory.path()).unwrap().stream("account");
    assert!(matches!(read_manifest(&other, &path), Err(StorageError::Foreign { .. })));
}

#[test]
fn what_contradicts_is_refused_and_changes_nothing() {
    let mut version = Version::default();
    version.apply(&[segment(5, 10)]).unwrap();
    let before = version.clone();
    for edits in [
        vec![segment(12, 13)],
        vec![segment(10, 13)],
        vec![segment(1, 4)],
        vec![Edit::RemoveSegment { first: 6 }],
        vec![Edit::AddTable { level: 1, span: span(5, 10) }],
        vec![segment(11, 12), Edit::RemoveTable { level: 1, first: 5 }],
    ] {
        assert!(version.apply(&edits).is_err(), "{edits:?}");
        assert_eq!(version, before);
    }
    // Sums of bytes are made everywhere.
    for (bytes, record_bytes) in [(u64::MAX, 1), (1, u64::MAX), (u64::MAX - 99, 1)] {
        let refused = version.apply(&[Edit::AddSegment(PartSpan { bytes, record_bytes, ..span(11, 12) })]).unwrap_err();
        assert!(refused.contains("record 12") && refused.contains("bytes"), "{refused}");
        assert_eq!(version, before);
    }
    version.apply(&[segment(11, 12), Edit::RemoveSegment { first: 5 }, Edit::Keep { first: 11 }]).unwrap();
    assert_eq!((version.kept_from, version.last()), (11, 12));
    version.apply(&[Edit::RemoveSegment { first: 11 }, Edit::Keep { first: 13 }]).unwrap();
    assert_eq!((version.parts.len(), version.last()), (0, 12));
}

/// Numbers that no file has would make sums of them run over.
#[test]
fn a_part_has_a_possible_number_of_bytes() {
    let text = |bytes: u64, record_bytes: u64| {
        let span = "first=1 last=2";
        format!("+segment {span} bytes={bytes} record_bytes={record_bytes} epoch_first=1 epoch_last=1 ts_min=1 ts_max=2")
    };
    assert!(Edit::read(&text(PART_BYTES_MAX, PART_BYTES_MAX)).is_some());
    for (bytes, record_bytes) in [(PART_BYTES_MAX + 1, 1), (1, PART_BYTES_MAX + 1), (u64::MAX, u64::MAX)] {
        assert_eq!(Edit::read(&text(bytes, record_bytes)), None);
    }
}

/// Every cut of a manifest is one of its states, and every changed byte is refused, or is what a crash may leave of the last line.
#[test]
fn any_cut_is_a_state_and_any_flip_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Bus::open_or_create(directory.path()).unwrap().stream("market");
    let path = directory.path().join("manifest.log");
    let mut manifest = Manifest::open(&stream, &path).unwrap();
    let mut states = vec![manifest.version().clone()];
    for index in 0..3u64 {
        manifest.log(&[segment(index * 10 + 1, index * 10 + 10)]).unwrap();
        states.push(manifest.version().clone());
    }
    let bytes = std::fs::read(&path).unwrap();
    let line_ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..=bytes.len() {
        let whole = line_ends.iter().filter(|end| **end <= length).count();
        match parse(&stream, &path, &bytes[..length]) {
            Ok(read) => assert_eq!(read.version, states[whole - 1]),
            Err(error) => assert!(whole == 0, "{length}: {error}"),
        }
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        match parse(&stream, &path, &flipped) {
            Ok(read) => {
                assert!(at >= line_ends[2], "the flip at {at} went unnoticed");
                assert_eq!(read.version, states[2]);
                assert!(read.torn_bytes > 0);
            }
            Err(StorageError::Corrupt { .. } | StorageError::Version { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let directory = tempfile::tempdir().unwrap();
        let stream = Bus::open_or_create(directory.path()).unwrap().stream("market");
        prop_assert!(parse(&stream, directory.path(), &bytes).is_err());
    }

    #[test]
    fn an_edit_comes_back(numbers in any::<[u32; 6]>(), level in 1u8.., tree in proptest::collection::vec(any::<u8>(), 0..20)) {
        let [first, more, bytes, record_bytes, ts_min, ts_max] = numbers.map(u64::from);
        let span = PartSpan { first: first + 1, last: first + 1 + more, bytes, record_bytes, epoch_first: level.into(), epoch_last: level.into(), ts_min, ts_max };
        for edit in [Edit::AddSegment(span), Edit::AddTable { level, span }, Edit::Keep { first }, Edit::Tree(tree.clone()),
            Edit::RemoveSegment { first }, Edit::RemoveTable { level, first }] {
            let mut text = String::new();
            edit.write(&mut text);
            prop_assert_eq!(Edit::read(&text), Some(edit));
        }
    }
}
