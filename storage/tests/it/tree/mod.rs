//! The keyed-state tree from outside: a model beside it, every crash, every damage.

mod crash;
mod damage;
mod model;
mod scenarios;

use crate::sim_disk::SimDisk;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tapewire_storage::{
    Access, Applied, At, Compression, Disk, EditLog, KeyRange, StorageError, Tree, TreeEdit, TreeIdentity, TreePlace, TreeSettings,
    TreeVersion, TreeView, Worked, WriteBatch,
};

const DIRECTORY: &str = "/sim/state";

/// Everything small: a few keys fill blocks, tables and levels.
pub const SETTINGS: TreeSettings = TreeSettings {
    memtable_bytes: 3_000,
    waiting_count_max: 2,
    block_bytes: 64,
    table_bytes: 400,
    level0_table_count: 2,
    level0_table_count_max: 4,
    level1_bytes: 700,
    level_growth: 2,
    filter_bits_per_key: 12,
    step_bytes: 150,
    compression: [
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(1),
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(1),
        Compression::None,
    ],
};

pub fn place(disk: &SimDisk) -> TreePlace {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    TreePlace { disk, directory: PathBuf::from(DIRECTORY), identity: TreeIdentity { bus_id: 0xB05, stream_id: 7 } }
}

/// A disk with the tree's directory.
fn new_disk() -> SimDisk {
    let disk = SimDisk::default();
    disk.create_dir(Path::new(DIRECTORY)).unwrap();
    disk.sync_dir(Path::new("/sim")).unwrap();
    disk
}

/// A log of changes in a file: length u32, CRC-32 of place and bytes, then each change with its length.
#[derive(Debug)]
pub struct FileLog {
    pub disk: SimDisk,
    end: u64,
}

impl FileLog {
    const PATH: &'static str = "/sim/changes";

    /// Begins where the last whole change ends.
    pub fn open(disk: &SimDisk) -> (Self, TreeVersion) {
        let path = Path::new(Self::PATH);
        let (mut version, mut end) = (TreeVersion::default(), 0_usize);
        let Ok(file) = disk.open(path, Access::Read) else {
            disk.open(path, Access::Create).unwrap().sync_data().unwrap();
            disk.sync_dir(Path::new("/sim")).unwrap();
            return (Self { disk: disk.clone(), end: 0 }, version);
        };
        let mut bytes = vec![0; file.length().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        while let Some(head) = bytes.get(end..end + 8) {
            let Some(frame) = bytes.get(end + 8..end + 8 + number(head) as usize) else { break };
            if frame.is_empty() || number(&head[4..]) != Self::crc(end as u64, frame) {
                break;
            }
            let mut rest = frame;
            while !rest.is_empty() {
                let (edit, next) = rest[4..].split_at(number(rest) as usize);
                let edit = TreeEdit::decode(edit, path, end as u64).unwrap();
                version.apply(&edit, path, end as u64).unwrap();
                rest = next;
            }
            end += 8 + frame.len();
        }
        (Self { disk: disk.clone(), end: end as u64 }, version)
    }

    fn crc(end: u64, frame: &[u8]) -> u32 {
        // A plain sum of products is enough to tell a torn frame here.
        frame.iter().fold(end as u32 ^ 0x9E37_79B9, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)).rotate_left(5))
    }
}

impl EditLog for FileLog {
    fn log(&mut self, edits: &[TreeEdit]) -> Result<(), StorageError> {
        let encoded = edits.iter().map(TreeEdit::encode);
        let frame: Vec<u8> = encoded.flat_map(|edit| [&(edit.len() as u32).to_le_bytes(), edit.as_slice()].concat()).collect();
        let head = [frame.len() as u32, Self::crc(self.end, &frame)].map(u32::to_le_bytes).concat();
        let path = PathBuf::from(Self::PATH);
        let io = |source| StorageError::Io { operation: "log", path: path.clone(), source };
        let file = self.disk.open(&path, Access::Write).map_err(io)?;
        let bytes = [head, frame].concat();
        file.write_all_at(&bytes, self.end).map_err(io)?;
        file.sync_data().map_err(io)?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

/// Changes of keys at a sequence.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A key's versions, oldest first.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

/// Every version of every key.
#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Versions>,
    /// The event log: what was ever applied.
    history: Vec<(u64, Changes)>,
}

impl Model {
    fn apply(&mut self, sequence: u64, changes: &Changes) {
        let last: BTreeMap<_, _> = changes.iter().cloned().collect();
        for (key, value) in last {
            self.keys.entry(key).or_default().push((sequence, value));
        }
        self.history.push((sequence, changes.clone()));
    }

    fn at(&self, sequence: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let newest = |versions: &Versions| versions.iter().rev().find(|version| version.0 <= sequence)?.1.clone();
        self.keys.iter().filter_map(|(key, versions)| Some((key.clone(), newest(versions)?))).collect()
    }
}

fn batch(changes: &Changes) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key, value).unwrap(),
            None => batch.delete(key).unwrap(),
        }
    }
    batch
}

/// A tree on a disk, its log, and a model beside it.
#[derive(Debug)]
pub struct Bench {
    pub disk: SimDisk,
    log: FileLog,
    tree: Tree,
    model: Model,
}

impl Bench {
    pub fn new() -> Self {
        Self::on(new_disk(), Model::default())
    }

    /// Opens what a disk has, and applies again what its tables do not have.
    fn on(disk: SimDisk, model: Model) -> Self {
        let (log, version) = FileLog::open(&disk);
        let tree = Tree::open(place(&disk), &version, SETTINGS).unwrap();
        let mut bench = Self { disk, log, tree, model };
        let through = bench.tree.applied();
        for index in 0..bench.model.history.len() {
            let (sequence, changes) = bench.model.history[index].clone();
            if sequence > through {
                bench.apply_to_tree(sequence, &changes);
            }
        }
        bench
    }

    fn reopen(self) -> Self {
        drop(self.tree);
        Self::on(self.disk, self.model)
    }

    fn apply_to_tree(&mut self, sequence: u64, changes: &Changes) {
        while self.tree.apply(&batch(changes), sequence).unwrap() == Applied::Full {
            assert_ne!(self.tree.work(&mut self.log).unwrap(), Worked::Idle);
        }
    }

    fn apply(&mut self, changes: &Changes) -> u64 {
        let sequence = self.tree.applied() + 1;
        self.model.apply(sequence, changes);
        self.apply_to_tree(sequence, changes);
        sequence
    }

    fn put(&mut self, key: &str, value: &str) -> u64 {
        self.apply(&vec![(key.into(), Some(value.into()))])
    }

    fn delete(&mut self, key: &str) -> u64 {
        self.apply(&vec![(key.into(), None)])
    }

    fn get(&self, key: &str) -> Option<String> {
        self.tree.get(key.as_bytes(), At::Latest).unwrap().map(|value| String::from_utf8(value).unwrap())
    }

    fn flush(&mut self) {
        self.tree.flush_all(&mut self.log).unwrap();
    }

    /// Works until there is nothing to do.
    fn settle(&mut self) {
        while self.tree.work(&mut self.log).unwrap() != Worked::Idle {}
    }

    /// Compares every key, and the whole in order.
    fn check_at(&self, at: At<'_>, sequence: u64) {
        let expected = self.model.at(sequence);
        let found: Vec<_> = self.tree.range(KeyRange::all(), at).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>(), "in order, at {sequence}");
        for key in self.model.keys.keys() {
            assert_eq!(self.tree.get(key, at).unwrap().as_ref(), expected.get(key), "{key:?} at {sequence}");
        }
    }

    fn check(&self) {
        self.check_at(At::Latest, u64::MAX);
    }

    /// What another process sees: everything up to the last flush, and sound.
    fn check_view(&self) {
        let (_, version) = FileLog::open(&self.disk);
        assert_eq!(version, *self.tree.version());
        let view = TreeView::open(&place(&self.disk), &version).unwrap();
        view.verify().unwrap();
        let expected = self.model.at(view.through());
        let found: BTreeMap<_, _> = view.range(KeyRange::all()).unwrap().map(Result::unwrap).collect();
        assert_eq!(found, expected);
        for key in self.model.keys.keys() {
            assert_eq!(view.get(key).unwrap().as_ref(), expected.get(key));
        }
    }

    fn level_counts(&self) -> Vec<usize> {
        (0..7).map(|level| self.tree.version().level(level).count()).collect()
    }
}
