//! What is compacted next: a choice by what is said of the tables, and nothing else.

use super::{
    meta::{LEVEL_COUNT, SstMeta, TreeVersion},
    place::TreeSettings,
};

/// Tables of level 0 that one compaction takes at most.
const LEVEL0_COUNT_MAX: usize = 8;

/// Tables that become tables of the next level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compaction {
    /// Level and number; those of the upper level first, newest first.
    pub(crate) inputs: Vec<(u8, u64)>,
    /// Of the tables that come out of it.
    pub(crate) level: u8,
}

/// The compaction that is due most, if one is.
///
/// A level is due by how much it exceeds what it may have: level 0 by tables, which every lookup asks, others by bytes. Where none is, a
/// table that is more than half tombstones goes down, until it meets what they delete.
pub(crate) fn choose(version: &TreeVersion, settings: &TreeSettings) -> Option<Compaction> {
    let due = (0..LEVEL_COUNT as u8 - 1).map(|level| (excess(version, settings, level), level));
    // Of equals the upper one.
    let (percent, level) = due.max_by_key(|(percent, level)| (*percent, std::cmp::Reverse(*level)))?;
    if percent >= 100 {
        let uppers = if level == 0 { oldest_of_level0(version) } else { vec![version.level(level).next()?] };
        return Some(compaction(version, &uppers));
    }
    let is_last = |meta: &SstMeta| usize::from(meta.level) == LEVEL_COUNT - 1;
    let is_dead = |meta: &&SstMeta| meta.level > 0 && !is_last(meta) && meta.tombstone_count > meta.entry_count / 2;
    version.tables().find(is_dead).map(|meta| compaction(version, &[meta]))
}

/// How much a level has of what it may have, percent; 100 and more is due.
fn excess(version: &TreeVersion, settings: &TreeSettings, level: u8) -> u64 {
    if level == 0 {
        return version.level(0).count() as u64 * 100 / settings.level0_table_count as u64;
    }
    let bytes: u64 = version.level(level).map(|meta| meta.bytes).sum();
    // Exactly what it may have is not too much.
    (u128::from(bytes.saturating_sub(1)) * 100 / u128::from(settings.level_bytes(level))) as u64
}

/// Bytes that are to be compacted, about.
pub(crate) fn backlog_bytes(version: &TreeVersion, settings: &TreeSettings) -> u64 {
    let bytes = |level| version.level(level).map(|meta| meta.bytes).sum::<u64>();
    let level0 = if excess(version, settings, 0) >= 100 { bytes(0) } else { 0 };
    level0 + (1..LEVEL_COUNT as u8 - 1).map(|level| bytes(level).saturating_sub(settings.level_bytes(level))).sum::<u64>()
}

/// Newest first. What remains above is newer than all of them.
fn oldest_of_level0(version: &TreeVersion) -> Vec<&SstMeta> {
    let mut tables: Vec<_> = version.level(0).take(LEVEL0_COUNT_MAX).collect();
    tables.reverse();
    tables
}

fn compaction(version: &TreeVersion, uppers: &[&SstMeta]) -> Compaction {
    let level = uppers[0].level + 1;
    let min = uppers.iter().map(|meta| &meta.min_key).min().expect("a compaction has a table");
    let max = uppers.iter().map(|meta| &meta.max_key).max().expect("a compaction has a table");
    let lowers = version.level(level).filter(|meta| meta.overlaps(min, max));
    let inputs = uppers.iter().copied().chain(lowers).map(|meta| (meta.level, meta.number)).collect();
    Compaction { inputs, level }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::meta::TreeEdit;

    const SETTINGS: TreeSettings = TreeSettings {
        level0_table_count: 4,
        level0_table_count_max: 20,
        level1_bytes: 100,
        level_growth: 10,
        memtable_bytes: 1,
        waiting_count_max: 1,
        block_bytes: 64,
        table_bytes: 1,
        filter_bits_per_key: 10,
        step_bytes: 1,
        compression: [crate::tree::block::Compression::None; LEVEL_COUNT],
    };

    fn table(level: u8, number: u64, bytes: u64, keys: &str) -> SstMeta {
        let (min_key, max_key) = (keys.as_bytes()[..1].to_vec(), keys.as_bytes()[1..].to_vec());
        SstMeta { level, number, bytes, entry_count: 10, tombstone_count: 0, min_sequence: 1, max_sequence: 2, min_key, max_key }
    }

    fn check(tables: &[SstMeta], expected: Option<(u8, &[(u8, u64)])>) {
        let mut version = TreeVersion::default();
        for table in tables {
            version.add(&TreeEdit::Add(table.clone())).unwrap();
        }
        let expected = expected.map(|(level, inputs)| Compaction { inputs: inputs.to_vec(), level });
        assert_eq!(choose(&version, &SETTINGS), expected);
    }

    #[test]
    fn nothing_is_due_in_a_small_tree() {
        check(&[], None);
        check(&[table(0, 1, 50, "az"), table(0, 2, 50, "az"), table(0, 3, 50, "az"), table(1, 4, 100, "az")], None);
    }

    #[test]
    fn level_0_goes_down_with_what_it_overlaps() {
        let level0 = (1..5).map(|number| table(0, number, 1, "fk"));
        let lower = [table(1, 7, 10, "ae"), table(1, 8, 10, "gh"), table(1, 9, 10, "kz")];
        let tables: Vec<_> = level0.chain(lower).collect();
        check(&tables, Some((1, &[(0, 4), (0, 3), (0, 2), (0, 1), (1, 8), (1, 9)])));
    }

    #[test]
    fn of_a_long_level_0_the_oldest_go_first() {
        let tables: Vec<_> = (1..12).map(|number| table(0, number, 1, "az")).collect();
        check(&tables, Some((1, &[(0, 8), (0, 7), (0, 6), (0, 5), (0, 4), (0, 3), (0, 2), (0, 1)])));
    }

    #[test]
    fn the_level_that_exceeds_most_is_due() {
        let tables = [table(1, 1, 150, "az"), table(2, 2, 2_000, "am"), table(2, 3, 1_000, "nz"), table(3, 4, 10, "bc")];
        check(&tables, Some((3, &[(2, 2), (3, 4)])));
    }

    #[test]
    fn the_last_level_may_have_any_size() {
        check(&[table(6, 1, u64::MAX / 2, "az")], None);
    }

    #[test]
    fn tombstones_go_down_until_the_last_level() {
        let dead = |level| SstMeta { tombstone_count: 6, ..table(level, 5, 1, "cd") };
        check(&[dead(2), table(3, 6, 1, "az")], Some((3, &[(2, 5), (3, 6)])));
        check(&[dead(6)], None);
        check(&[dead(0)], None);
    }
}
