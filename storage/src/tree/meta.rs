//! What is said of a table, in its own file and in the manifest, and the changes of the set of tables.

use super::version::{Fields, KEY_BYTES_MAX};
use crate::error::{Reason, Result, StorageError};
use std::{collections::BTreeMap, path::Path};

/// Levels of the tree; level 0 has tables that overlap, every other one has none that do.
pub const LEVEL_COUNT: usize = 7;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SstMeta {
    /// 0 to [`LEVEL_COUNT`] - 1.
    pub level: u8,
    /// No two tables of a tree ever have the same.
    pub number: u64,
    /// Of its file.
    pub bytes: u64,
    /// Versions in it, at least one.
    pub entry_count: u64,
    /// Those among them that say that a key was deleted.
    pub tombstone_count: u64,
    /// Oldest sequence in it.
    pub min_sequence: u64,
    /// Newest sequence in it.
    pub max_sequence: u64,
    /// First key.
    pub min_key: Vec<u8>,
    /// Last key.
    pub max_key: Vec<u8>,
}

impl SstMeta {
    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(self.level, self.number)
    }

    /// Whether the table may have keys from `min` to `max`, both included.
    #[must_use]
    pub fn overlaps(&self, min: &[u8], max: &[u8]) -> bool {
        self.min_key.as_slice() <= max && min <= self.max_key.as_slice()
    }

    /// Bytes of [`Self::encode`].
    pub(crate) fn encoded_bytes(&self) -> usize {
        64 + self.min_key.len() + self.max_key.len()
    }

    /// level u32 · key lengths u16, u16 · number, bytes, entries, tombstones, oldest and newest sequence, zero: u64 each · keys.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&u32::from(self.level).to_le_bytes());
        for key in [&self.min_key, &self.max_key] {
            into.extend_from_slice(&(key.len() as u16).to_le_bytes());
        }
        let numbers = [self.number, self.bytes, self.entry_count, self.tombstone_count, self.min_sequence, self.max_sequence, 0];
        numbers.iter().for_each(|number| into.extend_from_slice(&number.to_le_bytes()));
        into.extend_from_slice(&self.min_key);
        into.extend_from_slice(&self.max_key);
    }

    /// Takes what [`Self::encode`] made, and refuses what no table can be.
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let level = u8::try_from(fields.u32()?).ok().filter(|level| usize::from(*level) < LEVEL_COUNT)?;
        let lengths = fields.u32()?;
        let (min_bytes, max_bytes) = (lengths as usize & 0xFFFF, lengths as usize >> 16);
        let meta = Self {
            level,
            number: fields.u64()?,
            bytes: fields.u64()?,
            entry_count: fields.u64()?,
            tombstone_count: fields.u64()?,
            min_sequence: fields.u64()?,
            max_sequence: fields.u64()?,
            min_key: fields.u64().filter(|zero| *zero == 0).and_then(|_| fields.take(min_bytes))?.to_vec(),
            max_key: fields.take(max_bytes)?.to_vec(),
        };
        let is_key = |key: &Vec<u8>| (1..=KEY_BYTES_MAX).contains(&key.len());
        let holds = meta.entry_count > 0
            && meta.tombstone_count <= meta.entry_count
            && meta.min_sequence <= meta.max_sequence
            && meta.min_key <= meta.max_key
            && is_key(&meta.min_key)
            && is_key(&meta.max_key);
        holds.then_some(meta)
    }
}

pub(crate) fn file_name(level: u8, number: u64) -> String {
    format!("sst_{level}_{number:020}.sst")
}

/// The level and number of a table's file; `None` for other files.
pub(crate) fn parse_file_name(name: &str) -> Option<(u8, u64)> {
    let (level, number) = name.strip_prefix("sst_")?.strip_suffix(".sst")?.split_once('_')?;
    let table = (level.parse().ok()?, number.parse().ok()?);
    (file_name(table.0, table.1) == name).then_some(table)
}

/// A change of what the tree is made of. Those that are logged together hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeEdit {
    /// A table is there, and is durable.
    Add(SstMeta),
    /// A table is gone.
    Remove {
        /// Its level.
        level: u8,
        /// Its number.
        number: u64,
    },
    /// Everything applied up to this sequence is in tables.
    Through(u64),
    /// Numbers below this one were given out.
    Numbers(u64),
}

const ADD: u8 = 1;
const REMOVE: u8 = 2;
const THROUGH: u8 = 3;
const NUMBERS: u8 = 4;

impl TreeEdit {
    /// Its bytes: a tag u8, then the table, or level u8 and number u64, or a u64.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbered = |tag, number: u64| [&[tag][..], &number.to_le_bytes()].concat();
        match self {
            Self::Add(meta) => {
                let mut bytes = vec![ADD];
                meta.encode(&mut bytes);
                bytes
            }
            Self::Remove { level, number } => [&[REMOVE, *level][..], &number.to_le_bytes()].concat(),
            Self::Through(sequence) => numbered(THROUGH, *sequence),
            Self::Numbers(number) => numbered(NUMBERS, *number),
        }
    }

    /// Takes what [`Self::encode`] made, which lies in a file at `offset`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] with file and offset.
    pub fn decode(bytes: &[u8], path: &Path, offset: u64) -> Result<Self> {
        Self::read(bytes).ok_or_else(|| StorageError::corrupt(path, offset, "a change of the tree is not one that can be"))
    }

    /// [`Self::decode`] for those who know the place.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let edit = match fields.u8()? {
            ADD => Self::Add(SstMeta::decode(&mut fields)?),
            REMOVE => Self::Remove { level: fields.u8()?, number: fields.u64()? },
            THROUGH => Self::Through(fields.u64()?),
            NUMBERS => Self::Numbers(fields.u64()?),
            _ => return None,
        };
        fields.0.is_empty().then_some(edit)
    }
}

/// Where changes of the tree are made durable: the store's manifest.
pub trait EditLog {
    /// Makes all of `edits` durable, or none; on return they hold. An error leaves open which: the tree must be opened again.
    ///
    /// # Errors
    /// What the file system says.
    fn log(&mut self, edits: &[TreeEdit]) -> Result<()>;
}

/// What the tree is made of: the sum of its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeVersion {
    tables: BTreeMap<(u8, u64), SstMeta>,
    through: u64,
    next_number: u64,
}

impl TreeVersion {
    /// Adds a change that was read from `path` at `offset`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where it cannot follow the ones before: a number twice, a table removed that is not there, a
    /// sequence that falls back, more bytes together than a number can say. That levels above 0 do not overlap is seen when the tree is opened.
    pub fn apply(&mut self, edit: &TreeEdit, path: &Path, offset: u64) -> Result<()> {
        self.add(edit).map_err(|reason| StorageError::corrupt(path, offset, reason))
    }

    /// [`Self::apply`] for those who know the place.
    pub(crate) fn add(&mut self, edit: &TreeEdit) -> Result<(), Reason> {
        match edit {
            TreeEdit::Add(meta) => {
                if self.tables.keys().any(|(_, number)| *number == meta.number) {
                    return Err(format!("table {} is added a second time", meta.number).into());
                }
                // Whoever sums up any of them later need not ask.
                if self.tables().try_fold(meta.bytes, |sum, table| sum.checked_add(table.bytes)).is_none() {
                    return Err(format!("with table {} the tree has more bytes than a number can say", meta.number).into());
                }
                self.next_number = self.next_number.max(meta.number.saturating_add(1));
                self.tables.insert((meta.level, meta.number), meta.clone());
            }
            TreeEdit::Remove { level, number } => {
                if self.tables.remove(&(*level, *number)).is_none() {
                    return Err(format!("table {number} of level {level} is removed and is not there").into());
                }
            }
            TreeEdit::Through(sequence) => {
                if *sequence < self.through {
                    return Err(format!("the tree has everything up to {}, and then only up to {sequence}", self.through).into());
                }
                self.through = *sequence;
            }
            TreeEdit::Numbers(number) => self.next_number = self.next_number.max(*number),
        }
        Ok(())
    }

    /// Every table, by level and number.
    pub fn tables(&self) -> impl Iterator<Item = &SstMeta> {
        self.tables.values()
    }

    /// The tables of a level, by number.
    pub fn level(&self, level: u8) -> impl DoubleEndedIterator<Item = &SstMeta> {
        self.tables.range((level, 0)..=(level, u64::MAX)).map(|(_, meta)| meta)
    }

    /// A table.
    #[must_use]
    pub fn table(&self, level: u8, number: u64) -> Option<&SstMeta> {
        self.tables.get(&(level, number))
    }

    /// Everything applied up to this sequence is in tables.
    #[must_use]
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Numbers below this one were given out.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The changes that make this out of nothing: for a log that begins anew.
    #[must_use]
    pub fn edits(&self) -> Vec<TreeEdit> {
        let tables = self.tables.values().cloned().map(TreeEdit::Add);
        tables.chain([TreeEdit::Through(self.through), TreeEdit::Numbers(self.next_number)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(level: u8, number: u64) -> SstMeta {
        let (min_key, max_key) = (b"a".to_vec(), b"zz".to_vec());
        SstMeta { level, number, bytes: 9, entry_count: 3, tombstone_count: 1, min_sequence: 4, max_sequence: 5, min_key, max_key }
    }

    fn edits() -> Vec<TreeEdit> {
        vec![TreeEdit::Add(meta(6, 8)), TreeEdit::Remove { level: 0, number: 7 }, TreeEdit::Through(99), TreeEdit::Numbers(12)]
    }

    #[test]
    fn changes_come_back_from_their_bytes() {
        for edit in edits() {
            let bytes = edit.encode();
            assert_eq!(TreeEdit::read(&bytes), Some(edit));
            for at in 0..bytes.len() {
                assert_eq!(TreeEdit::read(&bytes[..at]), None);
            }
            assert_eq!(TreeEdit::read(&[bytes, vec![0]].concat()), None);
        }
    }

    #[test]
    fn tables_that_cannot_be_are_refused() {
        let wrong: [fn(&mut SstMeta); 6] = [
            |meta| meta.entry_count = 0,
            |meta| meta.tombstone_count = 4,
            |meta| meta.min_sequence = 6,
            |meta| meta.min_key = b"zzz".to_vec(),
            |meta| meta.min_key.clear(),
            |meta| meta.level = 7,
        ];
        for act in wrong {
            let mut meta = meta(1, 2);
            act(&mut meta);
            assert_eq!(TreeEdit::read(&TreeEdit::Add(meta).encode()), None);
        }
    }

    #[test]
    fn a_version_is_the_same_again_from_its_own_changes() {
        let mut version = TreeVersion::default();
        for edit in [TreeEdit::Add(meta(0, 7)), TreeEdit::Add(meta(1, 9)), TreeEdit::Remove { level: 1, number: 9 }, TreeEdit::Through(4)] {
            version.add(&edit).unwrap();
        }
        let mut again = TreeVersion::default();
        version.edits().iter().for_each(|edit| again.add(edit).unwrap());
        assert_eq!(again, version);
        // The number of a table that is gone is not given out again.
        assert_eq!(again.next_number(), 10);
    }

    #[test]
    fn changes_that_cannot_follow_are_refused() {
        let mut version = TreeVersion::default();
        version.add(&TreeEdit::Add(meta(0, 7))).unwrap();
        version.add(&TreeEdit::Through(4)).unwrap();
        let huge = TreeEdit::Add(SstMeta { bytes: u64::MAX - 8, ..meta(3, 8) });
        for edit in [TreeEdit::Add(meta(3, 7)), TreeEdit::Remove { level: 1, number: 7 }, TreeEdit::Through(3), huge] {
            let refused = version.apply(&edit, Path::new("manifest.log"), 17).unwrap_err().to_string();
            assert!(refused.starts_with("manifest.log is damaged at byte 17"), "{refused}");
        }
    }

    #[test]
    fn names_are_exact() {
        assert_eq!(parse_file_name(&file_name(3, 42)), Some((3, 42)));
        for name in
            ["sst_3_42.sst", "sst_3_00000000000000000042.sst.tmp", "sst_300_00000000000000000042.sst", "wal_00000000000000000042.log"]
        {
            assert_eq!(parse_file_name(name), None);
        }
    }
}
