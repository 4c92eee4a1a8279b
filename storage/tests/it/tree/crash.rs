//! A life of a tree, ended before every single write, sync, renaming and removal, or disturbed there.

use super::{Bench, Changes, FileLog, Model, SETTINGS, new_disk, place};
use crate::sim_disk::{Fault, Image, SimDisk, Step};
use fastrand::Rng;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tapewire_storage::{Applied, At, KeyRange, StorageError, Tree, Worked};

/// Batches of a life.
const LAST: u64 = 120;

/// What is applied in a life: puts, overwrites and deletes, enough for several compactions.
fn history() -> Vec<(u64, Changes)> {
    let mut rng = Rng::with_seed(11);
    (1..=LAST)
        .map(|sequence| {
            let changes = (0..rng.usize(0..5)).map(|_| {
                let value = (rng.u32(..10) < 7).then(|| vec![rng.u8(..); rng.usize(0..120)]);
                (vec![b'k', rng.u8(..20)], value)
            });
            (sequence, changes.collect())
        })
        .collect()
}

/// Lives: what `through` said last is what must hold.
fn live(disk: &SimDisk, through: &AtomicU64) -> Result<(), StorageError> {
    let (mut log, version) = FileLog::open(disk);
    let mut tree = Tree::open(place(disk), &version, SETTINGS)?;
    for (sequence, changes) in history() {
        while tree.apply(&super::batch(&changes), sequence)? == Applied::Full {
            let _ = tree.work(&mut log)?;
        }
        if sequence % 9 == 0 {
            tree.rotate();
        }
        for _ in 0..3 {
            let _ = tree.work(&mut log)?;
        }
        through.store(tree.version().through(), Ordering::Release);
    }
    tree.flush_all(&mut log)?;
    through.store(tree.version().through(), Ordering::Release);
    while tree.work(&mut log)? != Worked::Idle {}
    Ok(())
}

fn model() -> Model {
    let mut model = Model::default();
    history().iter().for_each(|(sequence, changes)| model.apply(*sequence, changes));
    model
}

/// Goes on where the disk is: everything vouched for is there, the rest is applied again, and nothing else is needed.
fn check_continues(image: Image, kept: u64) {
    let disk = SimDisk::new(image);
    let (_, version) = FileLog::open(&disk);
    assert!(version.through() >= kept, "{} was vouched for, {} is there", kept, version.through());
    let tree = Tree::open(place(&disk), &version, SETTINGS).unwrap();
    let found: Vec<_> = tree.range(KeyRange::all(), At::Latest).unwrap().map(Result::unwrap).collect();
    assert_eq!(found, model().at(version.through()).into_iter().collect::<Vec<_>>());
    drop(tree);
    let mut bench = Bench::on(disk, model());
    bench.check();
    bench.put("after", "the crash");
    bench.flush();
    bench.settle();
    bench.check();
    bench.check_view();
}

/// The steps of an undisturbed life.
fn whole_life() -> (SimDisk, usize) {
    let (disk, through) = (new_disk(), Arc::new(AtomicU64::new(0)));
    let begun = disk.log().len();
    let seen = through.clone();
    disk.watch(Arc::new(move || seen.load(Ordering::Acquire)));
    live(&disk, &through).unwrap();
    (disk, begun)
}

#[test]
fn a_power_loss_before_every_step_takes_nothing_that_was_vouched_for() {
    let (disk, begun) = whole_life();
    let (log, mut image, mut rng) = (disk.log(), Image::default(), Rng::with_seed(5));
    // The file of changes is made first.
    let made = begun + 3;
    for (step, (change, kept)) in log.iter().enumerate() {
        if step >= made {
            check_continues(image.crash(&mut rng), *kept);
            check_continues(image.crash(&mut rng), *kept);
        }
        image.apply(change);
    }
    check_continues(image.crash(&mut rng), LAST);
    println!("{} steps of a life, two power losses before each", log.len() - made);
    assert!(log.len() > 150, "a life has {} steps", log.len());
}

#[test]
fn the_death_of_the_process_before_every_step_loses_nothing() {
    let (disk, begun) = whole_life();
    for step in begun + 3..disk.log().len() {
        let (disk, through) = (new_disk(), AtomicU64::new(0));
        disk.fail_at(step, Fault::Dead);
        // A life whose last step is a removal does not miss it.
        let _ = live(&disk, &through);
        assert!(disk.has_failed());
        check_continues(disk.image(), through.load(Ordering::Acquire));
    }
}

/// The device fails once: the call says so, nothing wrong is read, and going on needs nothing but the next call or opening.
#[test]
fn an_error_at_every_step_is_said_and_survived() {
    let (disk, begun) = whole_life();
    let steps = disk.log().len();
    let mut said = 0;
    for step in begun + 3..steps {
        let fault = [Fault::Io, Fault::NoSpace, Fault::Short][step % 3];
        let failing = new_disk();
        failing.fail_at(step, fault);
        let (log, version) = FileLog::open(&failing);
        let tree = Tree::open(place(&failing), &version, SETTINGS).unwrap();
        let mut bench = Bench { disk: failing, log, tree, model: model() };
        for (sequence, changes) in history() {
            bench = loop {
                match bench.tree.apply(&super::batch(&changes), sequence) {
                    Ok(Applied::Full) => bench = work(bench, &mut said),
                    Ok(_) => break bench,
                    Err(StorageError::Poisoned { .. }) => bench = again(bench, sequence),
                    Err(other) => panic!("{other}"),
                }
            };
            if sequence % 9 == 0 {
                bench.tree.rotate();
            }
            for _ in 0..3 {
                bench = work(bench, &mut said);
            }
        }
        while let Err(error) = finish(&mut bench) {
            said += usize::from(!matches!(error, StorageError::Poisoned { .. }));
            bench = again(bench, u64::MAX);
        }
        bench.check();
        bench.check_view();
    }
    // A table that is not removed is no error: the next opening removes it.
    let missed = disk.log()[begun + 3..].iter().filter(|(step, _)| matches!(step, Step::Remove(_))).count();
    assert_eq!(said + missed, steps - begun - 3);
}

fn finish(bench: &mut Bench) -> Result<(), StorageError> {
    bench.tree.flush_all(&mut bench.log)?;
    while bench.tree.work(&mut bench.log)? != Worked::Idle {}
    Ok(())
}

fn work(mut bench: Bench, said: &mut usize) -> Bench {
    match bench.tree.work(&mut bench.log) {
        Ok(_) | Err(StorageError::Poisoned { .. }) => {}
        Err(_) => *said += 1,
    }
    bench
}

/// Opens again, and applies everything before `sequence`.
fn again(bench: Bench, sequence: u64) -> Bench {
    let (disk, model) = (bench.disk, Model::default());
    drop(bench.tree);
    let mut bench = Bench::on(disk, model);
    for (number, changes) in history() {
        if number < sequence && number > bench.tree.applied() {
            bench.apply_to_tree(number, &changes);
        }
    }
    bench.model = self::model();
    bench
}
