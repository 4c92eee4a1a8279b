//! Any order of calls, against a map of every version.

use super::{Bench, Changes};
use proptest::prelude::*;
use tapewire_storage::{At, TreeSnapshot};

#[derive(Clone, Debug)]
enum Call {
    Apply(Changes),
    Snapshot,
    DropSnapshot(usize),
    Rotate,
    Work(usize),
    Flush,
    Settle,
    Reopen,
}

fn changes() -> impl Strategy<Value = Changes> {
    let key = prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c', 0xFF]), 1..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..60));
    prop::collection::vec((key, value), 0..8)
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        12 => changes().prop_map(Call::Apply),
        2 => Just(Call::Snapshot),
        2 => any::<usize>().prop_map(Call::DropSnapshot),
        1 => Just(Call::Rotate),
        4 => (1_usize..12).prop_map(Call::Work),
        2 => Just(Call::Flush),
        1 => Just(Call::Settle),
        1 => Just(Call::Reopen),
    ];
    prop::collection::vec(call, 1..120)
}

fn check(bench: &Bench, snapshots: &[TreeSnapshot]) {
    bench.check();
    for snapshot in snapshots {
        bench.check_at(At::Snapshot(snapshot), snapshot.sequence());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_a_map_of_versions(calls in calls()) {
        let mut bench = Bench::new();
        let mut snapshots = Vec::new();
        for call in calls {
            match call {
                Call::Apply(changes) => {
                    bench.apply(&changes);
                    continue;
                }
                Call::Snapshot => snapshots.push(bench.tree.snapshot()),
                Call::DropSnapshot(index) if !snapshots.is_empty() => {
                    let index = index % snapshots.len();
                    snapshots.swap_remove(index);
                }
                Call::DropSnapshot(_) => {}
                Call::Rotate => bench.tree.rotate(),
                Call::Work(count) => (0..count).for_each(|_| {
                    let _ = bench.tree.work(&mut bench.log).unwrap();
                }),
                Call::Flush => bench.flush(),
                Call::Settle => bench.settle(),
                Call::Reopen => {
                    snapshots.clear();
                    bench = bench.reopen();
                }
            }
            check(&bench, &snapshots);
        }
        check(&bench, &snapshots);
        bench.flush();
        bench.settle();
        check(&bench, &snapshots);
        bench.check_view();
    }
}

/// Readers in other threads see whole batches, in order, whatever the writer does meanwhile.
#[test]
fn readers_see_whole_batches_while_the_writer_works() {
    let mut bench = Bench::new();
    let reader = bench.tree.reader();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let keys: Vec<Vec<u8>> = (0..8_u8).map(|key| vec![b'k', key]).collect();
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let (mut looks, mut last) = (0_u64, 0);
            while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                let snapshot = reader.snapshot();
                let of = |key: &Vec<u8>| {
                    let value = reader.get(key, At::Snapshot(&snapshot)).unwrap();
                    value.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().unwrap()))
                };
                let values: Vec<u64> = keys.iter().map(of).collect();
                assert!(values.iter().all(|value| *value == snapshot.sequence()), "{values:?} at {}", snapshot.sequence());
                let latest = reader.get(&keys[3], At::Latest).unwrap().map_or(0, |v| u64::from_le_bytes(v[..8].try_into().unwrap()));
                assert!(latest >= snapshot.sequence() && latest >= last);
                last = latest;
                looks += 1;
            }
            looks
        });
        for sequence in 1..=3_000_u64 {
            let value = [&sequence.to_le_bytes()[..], &[7; 20]].concat();
            bench.apply(&keys.iter().map(|key| (key.clone(), Some(value.clone()))).collect());
            (0..8).for_each(|_| {
                let _ = bench.tree.work(&mut bench.log).unwrap();
            });
        }
        is_over.store(true, std::sync::atomic::Ordering::Release);
        assert!(looker.join().unwrap() > 0);
    });
    assert!(bench.tree.counters().compaction_count > 0);
    bench.check();
}
