//! Tables of the keyed-state tree: files that the real tree wrote, changed, and asked for all they have.

use super::{
    files::Files,
    table::{number, seal},
};
use crate::{Input, Mutator, Target};
use std::{collections::BTreeMap, fs, path::Path};
use tapewire_storage::{
    Applied, Compression, EditLog, KeyRange, RealDisk, StorageError, Tree, TreeEdit, TreeIdentity, TreePlace, TreeSettings, TreeVersion,
    TreeView, WriteBatch,
};

const FOOTER_BYTES: usize = 88;
/// Bytes behind each stored block: compression, length, CRC-32.
const TRAILER_BYTES: usize = 12;
/// How the manifest's change begins that adds a table; what follows are the facts that the table has of itself.
const ADD: u8 = 1;

/// Changes as they are logged.
#[derive(Debug, Default)]
struct Edits(Vec<TreeEdit>);

impl EditLog for Edits {
    fn log(&mut self, edits: &[TreeEdit]) -> Result<(), StorageError> {
        self.0.extend_from_slice(edits);
        Ok(())
    }
}

/// The bytes of a table of so many keys, some with several versions and some deleted.
fn write(place: &TreePlace, key_count: u64, compression: Compression) -> Vec<u8> {
    let settings = TreeSettings { block_bytes: 128, compression: [compression; 7], ..TreeSettings::default() };
    let mut tree = Tree::open(place.clone(), &TreeVersion::default(), settings).expect("a new tree");
    let mut before = None;
    for sequence in 1..=key_count * 3 {
        let key = format!("key/{:03}", sequence * 7 % key_count);
        let mut batch = WriteBatch::default();
        match sequence.is_multiple_of(5) {
            true => batch.delete(key.as_bytes()),
            false => batch.put(key.as_bytes(), format!("value {sequence} value {sequence}").as_bytes()),
        }
        .expect("it is short");
        assert_eq!(tree.apply(&batch, sequence).expect("it is short"), Applied::Yes);
        if sequence == key_count {
            // Who still looks at it keeps the older versions in the table.
            before = Some(tree.snapshot());
        }
    }
    let mut log = Edits::default();
    tree.flush_all(&mut log).expect("there is room");
    let added = log.0.iter().find_map(|edit| if let TreeEdit::Add(meta) = edit { Some(meta.file_name()) } else { None });
    let path = place.directory.join(added.expect("it was not empty"));
    drop(before);
    let bytes = fs::read(&path).expect("it was written");
    fs::remove_file(&path).expect("it was written");
    bytes
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Makes every checksum hold again that can be found, and lets the file say how long it is; `None` where its parts cannot be found.
fn reseal(bytes: &mut [u8], mutator: &mut Mutator) -> Option<()> {
    let (length, end) = (bytes.len() as u64, bytes.len().checked_sub(FOOTER_BYTES)?);
    let [filter, index, facts] = [40, 48, 56].map(|at| number(bytes, end + at));
    let (filter, index, facts) = (filter?, index?, facts?);
    let table: [u8; 8] = *bytes.get(end + 32..)?.first_chunk()?;
    let (mut at, mut block_at) = (index, 0usize);
    while at < facts {
        let key_bytes = varint(bytes, &mut at)?;
        varint(bytes, &mut at)?;
        at = at.checked_add(key_bytes)?;
        let block_end = block_at.checked_add(varint(bytes, &mut at)?)?;
        let crc_at = block_end.checked_sub(4).filter(|crc_at| *crc_at + 4 >= block_at + TRAILER_BYTES)?;
        if !mutator.happens(1, 32) {
            let place = [table, (block_at as u64).to_le_bytes()].concat();
            seal(bytes, block_at..crc_at, &place, crc_at)?;
        }
        block_at = block_end;
    }
    seal(bytes, filter.checked_add(8)?..index, &[], filter.checked_add(4)?)?;
    if !mutator.happens(1, 32) {
        bytes.get_mut(facts.checked_add(16)?..facts.checked_add(24)?)?.copy_from_slice(&length.to_le_bytes());
        bytes.get_mut(end + 64..end + 72)?.copy_from_slice(&length.to_le_bytes());
    }
    seal(bytes, index..facts, &[], end + 72)?;
    seal(bytes, facts..end, &[], end + 76)?;
    seal(bytes, end + 8..end + FOOTER_BYTES, &[], end + 4)
}

/// Reads everything of a table that says these facts of itself; whether all of it is sound.
fn read(place: &TreePlace, bytes: &[u8]) -> Option<()> {
    let end = bytes.len().checked_sub(FOOTER_BYTES)?;
    let facts = bytes.get(number(bytes, end + 56)?..end)?;
    let nowhere = Path::new("facts");
    let encoded = [&[ADD][..], facts].concat();
    let edit = TreeEdit::decode(&encoded, nowhere, 0).ok()?;
    assert_eq!(edit.encode(), encoded, "encoded again, the facts are other bytes");
    let TreeEdit::Add(meta) = &edit else { return None };
    let path = place.directory.join(meta.file_name());
    fs::write(&path, bytes).expect("there is room");
    let mut version = TreeVersion::default();
    version.apply(&edit, nowhere, 0).expect("the first table of a tree");
    let opened = TreeView::open(place, &version);
    // What is open stays so.
    fs::remove_file(&path).expect("it was written");
    let view = opened.ok()?;
    let is_sound = view.verify().is_ok();
    // Also what is damaged is asked.
    let found = view.range(KeyRange::all()).and_then(Iterator::collect::<Result<BTreeMap<Vec<u8>, Vec<u8>>, _>>);
    let asked = view.get(b"key/003").is_ok() && view.get(&meta.min_key).is_ok() && view.get(&meta.max_key).is_ok();
    if is_sound {
        let found = found.expect("what is sound can be read");
        assert!(asked && found.len() as u64 <= meta.entry_count - meta.tombstone_count, "there is more than was counted");
        for (key, value) in found.iter() {
            assert_eq!(view.get(key).expect("what is sound can be read").as_ref(), Some(value), "a key has two values");
        }
    }
    is_sound.then_some(())
}

/// A table of the tree.
pub(super) fn sst() -> Target {
    let files = Files::new();
    let identity = TreeIdentity { bus_id: 0xb05, stream_id: 7 };
    let place = TreePlace { disk: RealDisk::shared(), directory: files.path().to_owned(), identity };
    let seed = |(key_count, compression)| {
        let bytes = write(&place, key_count, compression);
        let end = bytes.len() - FOOTER_BYTES;
        let parts = [40, 48, 56].into_iter().filter_map(|at| number(&bytes, end + at));
        let marks = parts.chain([0, end, end + 40]).collect();
        Input { bytes, marks }
    };
    let seeds = [(2, Compression::None), (40, Compression::None), (40, Compression::Lz4), (40, Compression::Zstd(1))].map(seed).to_vec();
    let repair = |bytes: &mut Vec<u8>, mutator: &mut Mutator| {
        if !mutator.happens(1, 16) {
            let _ = reseal(bytes, mutator);
        }
    };
    let decode = move |bytes: &[u8]| {
        let _ = &files;
        read(&place, bytes).is_some()
    };
    Target { name: "sst", seeds, repair, inputs_per_run: 120_000, decode: Box::new(decode) }
}
