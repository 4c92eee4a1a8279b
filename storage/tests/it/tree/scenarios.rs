//! Faults that trees of this kind had, each as a scenario.

use super::{Bench, SETTINGS, place};
use std::path::Path;
use tapewire_storage::{Applied, At, Disk, KeyRange, StorageError, Tree, TreeSettings, TreeView, Worked, WriteBatch};

/// File numbers that begin anew at each opening would overwrite a table.
#[test]
fn reopening_and_flushing_keeps_every_key() {
    let mut bench = Bench::new();
    for round in 0..5 {
        for key in 0..10 {
            bench.put(&format!("key {round} {key}"), "x");
        }
        bench.flush();
        bench = bench.reopen();
        bench.check();
    }
    let numbers: Vec<_> = bench.tree.version().tables().map(|table| table.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

/// A table that no version names, left by a crash, has a number too.
#[test]
fn a_number_is_never_used_twice() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.flush();
    let path = Path::new("/sim/state");
    for name in ["sst_3_00000000000000000041.sst", "sst_0_00000000000000000077.sst.tmp", "notes.txt"] {
        bench.disk.open(&path.join(name), tapewire_storage::Access::Create).unwrap();
    }
    bench = bench.reopen();
    assert_eq!(bench.tree.counters().orphan_count, 2);
    bench.put("a", "2");
    bench.flush();
    assert_eq!(bench.disk.list(path).unwrap(), ["notes.txt", "sst_0_00000000000000000001.sst", "sst_0_00000000000000000078.sst"]);
    bench.check();
}

#[test]
fn a_view_removes_nothing() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.flush();
    let orphan = Path::new("/sim/state/sst_3_00000000000000000041.sst");
    bench.disk.open(orphan, tapewire_storage::Access::Create).unwrap();
    bench.check_view();
    assert!(bench.disk.open(orphan, tapewire_storage::Access::Read).is_ok());
}

#[test]
fn an_overwrite_across_two_tables_of_level_0_reads_the_new_value() {
    let mut bench = Bench::new();
    for value in ["old", "new"] {
        bench.put("key", value);
        bench.flush();
        assert_eq!(bench.get("key").as_deref(), Some(value));
    }
    assert_eq!(bench.level_counts()[0], 2);
    bench = bench.reopen();
    assert_eq!(bench.get("key").as_deref(), Some("new"));
    bench.settle();
    assert_eq!(bench.level_counts()[..2], [0, 1]);
    assert_eq!(bench.get("key").as_deref(), Some("new"));
}

#[test]
fn a_deleted_key_stays_deleted_before_and_after_flush_and_reopening() {
    let mut bench = Bench::new();
    bench.put("key", "value");
    bench.put("other", "value");
    bench.flush();
    bench.delete("key");
    assert_eq!(bench.get("key"), None);
    bench.flush();
    assert_eq!(bench.get("key"), None);
    bench = bench.reopen();
    assert_eq!(bench.get("key"), None);
    bench.settle();
    bench = bench.reopen();
    assert_eq!((bench.get("key"), bench.get("other").as_deref()), (None, Some("value")));
    let entries: u64 = bench.tree.version().tables().map(|table| table.entry_count).sum();
    assert_eq!(entries, 1, "value and tombstone are both gone");
    bench.put("key", "again");
    assert_eq!(bench.get("key").as_deref(), Some("again"));
}

/// A tombstone that went before what it hides would bring it back.
#[test]
fn a_tombstone_stays_above_what_it_hides() {
    let mut bench = Bench::new();
    let fill = |bench: &mut Bench, round: usize| {
        for key in 0..40 {
            bench.put(&format!("key {key:02}"), &format!("value {round} {}", "x".repeat(40)));
        }
        bench.flush();
        bench.settle();
    };
    for round in 0..4 {
        fill(&mut bench, round);
    }
    let deep = bench.level_counts().iter().rposition(|count| *count > 0).unwrap();
    assert!(deep >= 2, "{:?}", bench.level_counts());
    for key in (0..40).step_by(2) {
        bench.delete(&format!("key {key:02}"));
        if key % 8 == 0 {
            bench.flush();
            let _ = bench.tree.work(&mut bench.log).unwrap();
            bench.check();
        }
    }
    bench.flush();
    bench.check();
    bench.settle();
    bench.check();
    bench.check_view();
}

#[test]
fn a_snapshot_survives_flush_and_compaction() {
    let mut bench = Bench::new();
    let mut snapshots = Vec::new();
    for round in 0..6 {
        for key in 0..12 {
            if (key + round) % 4 == 3 {
                bench.delete(&format!("key {key}"))
            } else {
                bench.put(&format!("key {key}"), &format!("{round}"))
            };
        }
        snapshots.push(bench.tree.snapshot());
        bench.flush();
        bench.settle();
        for snapshot in &snapshots {
            bench.check_at(At::Snapshot(snapshot), snapshot.sequence());
        }
    }
    let held = entries(&bench);
    drop(snapshots);
    for round in 0..4 {
        bench.put("key 0", &format!("last {round}"));
        bench.flush();
        bench.settle();
    }
    assert!(entries(&bench) < held, "versions that nobody sees any more are gone: {} of {held}", entries(&bench));
    bench.check();
}

fn entries(bench: &Bench) -> u64 {
    bench.tree.version().tables().map(|table| table.entry_count).sum()
}

/// Everything that a flush vouches for is in tables; what is behind it is not, and is applied again.
#[test]
fn through_vouches_for_exactly_what_is_in_tables() {
    let mut bench = Bench::new();
    let mut through = 0;
    for number in 0..200 {
        bench.put(&format!("key {}", number % 30), &format!("{number}"));
        if number % 7 == 0 {
            let _ = bench.tree.work(&mut bench.log).unwrap();
        }
        assert!(bench.tree.version().through() >= through);
        through = bench.tree.version().through();
        bench.check_view();
    }
    assert!(through > 0 && through < 200);
}

/// Records that change nothing move the tree on too, or they would be read again for ever.
#[test]
fn a_flush_of_nothing_still_says_how_far_it_is() {
    let mut bench = Bench::new();
    bench.apply(&vec![]);
    bench.apply(&vec![]);
    bench.flush();
    assert_eq!((bench.tree.version().through(), bench.tree.counters().table_count), (2, 0));
    let end = bench.log.end;
    bench.flush();
    assert_eq!(bench.log.end, end, "nothing new is not logged");
}

#[test]
fn what_is_known_is_passed_over() {
    let mut bench = Bench::new();
    bench.put("key", "1");
    bench.put("key", "2");
    let mut old = WriteBatch::default();
    old.put(b"key", b"old").unwrap();
    assert_eq!(bench.tree.apply(&old, 1).unwrap(), Applied::Known);
    assert_eq!(bench.get("key").as_deref(), Some("2"));
    bench.flush();
    bench = bench.reopen();
    assert_eq!(bench.tree.apply(&old, 1).unwrap(), Applied::Known);
    assert_eq!(bench.get("key").as_deref(), Some("2"));
}

/// The number of entries decides the size of a filter: at every size it keeps away all but one in a hundred.
#[test]
fn filters_are_sized_by_the_real_number_of_keys() {
    let directory = tempfile::tempdir().unwrap();
    for (round, count) in [100_u64, 1_000, 30_000].into_iter().enumerate() {
        let bench = Bench::new();
        let place = tapewire_storage::TreePlace { directory: directory.path().join(round.to_string()), ..place(&bench.disk) };
        std::fs::create_dir(&place.directory).unwrap();
        let place = tapewire_storage::TreePlace { disk: tapewire_storage::RealDisk::shared(), ..place };
        let mut tree = Tree::open(place.clone(), &Default::default(), TreeSettings::default()).unwrap();
        let mut batch = WriteBatch::default();
        (0..count).for_each(|key| batch.put(&key.to_be_bytes(), b"x").unwrap());
        assert_eq!(tree.apply(&batch, 1).unwrap(), Applied::Yes);
        let mut log = super::FileLog::open(&bench.disk).0;
        tree.flush_all(&mut log).unwrap();
        let meta = tree.version().tables().next().unwrap().clone();
        let bytes = std::fs::read(place.directory.join(meta.file_name())).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let footer = bytes.len() - 88;
        let filter = &bytes[number(footer + 40)..number(footer + 48)];
        let filter = tapewire_storage::Filter::open(filter, Path::new("table"), 0).unwrap();
        assert_eq!(filter.key_count(), count);
        let absent = count..count + 50_000;
        let wrong = absent.filter(|key| filter.may_contain(tapewire_storage::FilterBuilder::hash(&key.to_be_bytes()))).count();
        assert!(wrong < 500, "{count} keys: {wrong} of 50,000");
    }
}

/// A get decodes one block, whatever the size of the table: it succeeds although every other block is damaged.
#[test]
fn a_point_get_reads_one_block() {
    let mut bench = Bench::new();
    for key in 0..60 {
        bench.put(&format!("key {key:02}"), &"v".repeat(30));
    }
    // Tables of level 0 are not compressed.
    bench.flush();
    let tables: Vec<_> = bench.tree.version().tables().cloned().collect();
    let mut readable = 0;
    for table in &tables {
        let path = Path::new("/sim/state").join(table.file_name());
        let bytes = bench.disk.bytes(&path);
        let footer = bytes.len() - 88;
        let data_end = u64::from_le_bytes(bytes[footer + 40..footer + 48].try_into().unwrap()) as usize;
        // The upper half of the blocks.
        bench.disk.damage(&path, |bytes| bytes[data_end / 2..data_end - 64].iter_mut().for_each(|byte| *byte ^= 1));
    }
    let view = TreeView::open(&place(&bench.disk), bench.tree.version()).unwrap();
    for key in 0..60 {
        match view.get(format!("key {key:02}").as_bytes()) {
            Ok(value) => {
                assert_eq!(value.unwrap(), "v".repeat(30).into_bytes());
                readable += 1;
            }
            Err(StorageError::Corrupt { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!((10..60).contains(&readable), "{readable} keys are readable");
}

/// A reader learns from the version which tables live; one that opened them before keeps them.
#[test]
fn a_compaction_tells_which_tables_live_and_takes_none_from_a_reader() {
    let mut bench = Bench::new();
    for round in 0..3 {
        bench.put("key", &format!("{round}"));
        bench.flush();
    }
    let old = bench.tree.version().clone();
    let view = TreeView::open(&place(&bench.disk), &old).unwrap();
    bench.put("key", "new");
    bench.flush();
    bench.settle();
    let names: Vec<_> = bench.tree.version().tables().map(|table| table.file_name()).collect();
    assert_eq!(bench.disk.list(Path::new("/sim/state")).unwrap(), names);
    assert_eq!(view.get(b"key").unwrap().unwrap(), b"2");
    view.verify().unwrap();
    // Who comes late with an old version is told that a table is gone, and reads the log again.
    match TreeView::open(&place(&bench.disk), &old) {
        Err(StorageError::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
        other => panic!("{other:?}"),
    }
    bench.check_view();
}

#[test]
fn a_full_tree_says_so_and_takes_more_after_work() {
    let mut bench = Bench::new();
    let changes = vec![(b"key".to_vec(), Some(vec![7; 4_000]))];
    let mut full = 0;
    for sequence in 1..10 {
        bench.model.apply(sequence, &changes);
        while bench.tree.apply(&super::batch(&changes), sequence).unwrap() == Applied::Full {
            full += 1;
            assert_ne!(bench.tree.work(&mut bench.log).unwrap(), Worked::Idle);
        }
    }
    assert!(full > 0);
    assert!(bench.tree.counters().backlog_bytes > 4_000);
    bench.check();
}

/// A writer that never lets up does not pile up tables that every lookup must ask.
#[test]
fn level_0_is_bounded_however_fast_it_grows() {
    let mut bench = Bench::new();
    let mut most = 0;
    for number in 0..400 {
        // One step per batch is too little: the tree is full again and again.
        bench.put(&format!("key {}", number % 50), &"x".repeat(100));
        let _ = bench.tree.work(&mut bench.log).unwrap();
        most = most.max(bench.level_counts()[0]);
    }
    assert_eq!(most, SETTINGS.level0_table_count_max);
    assert!(bench.tree.counters().compaction_count > 0);
    bench.check();
}

#[test]
fn a_tree_of_another_stream_is_refused() {
    let mut bench = Bench::new();
    bench.put("key", "value");
    bench.flush();
    let mut foreign = place(&bench.disk);
    foreign.identity.stream_id = 8;
    let refused = Tree::open(foreign, bench.tree.version(), SETTINGS).unwrap_err();
    assert!(matches!(refused, StorageError::Foreign { .. }), "{refused}");
}

#[test]
fn ranges_and_prefixes_are_what_they_say() {
    let mut bench = Bench::new();
    for key in ["a", "ab", "ab1", "ab2", "ac", "b"] {
        bench.put(key, key);
    }
    bench.flush();
    bench.delete("ab1");
    bench.put("ab3", "ab3");
    let keys = |range| -> Vec<String> {
        let found = bench.tree.range(range, At::Latest).unwrap();
        found.map(|entry| String::from_utf8(entry.unwrap().0).unwrap()).collect()
    };
    assert_eq!(keys(KeyRange::prefix(b"ab")), ["ab", "ab2", "ab3"]);
    assert_eq!(keys(KeyRange::between(b"ab2", b"b")), ["ab2", "ab3", "ac"]);
    assert_eq!(keys(KeyRange::between(b"c", b"a")), Vec::<String>::new());
    assert_eq!(keys(KeyRange::all()).len(), 6);
}

#[test]
fn settings_out_of_range_are_named() {
    let bench = Bench::new();
    let refused = |settings| Tree::open(place(&bench.disk), &Default::default(), settings).unwrap_err().to_string();
    assert!(refused(TreeSettings { level0_table_count: 0, ..SETTINGS }).starts_with("level0_table_count is 0"));
    assert!(refused(TreeSettings { block_bytes: 1, ..SETTINGS }).starts_with("block_bytes is 1"));
    assert!(refused(TreeSettings { level_growth: 1, ..SETTINGS }).starts_with("level_growth is 1"));
}
