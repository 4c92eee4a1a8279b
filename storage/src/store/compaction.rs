//! What to compact next: a pure choice over the files that there are.
//!
//! Level 0 stays as it is while it has at most `hot_bytes_max`: read in place, without decoding. Beyond, the oldest segments become a table of
//! level 1, which is quick to write. Tables of level 1 whose time window is over, or that have become many, become one table of level 2, which
//! is small; blocks are copied then, not made again. A table of level 2 is never written again: so every record is written three times in all,
//! the WAL's own write included.

use super::settings::StoreSettings;
use crate::manifest::{Part, Version};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compaction {
    /// These level-0 segments become a table of level 1.
    Seal(Vec<Part>),
    /// These tables of level 1 become one of level 2.
    Merge(Vec<Part>),
}

/// Chooses, oldest first.
pub(crate) fn choose(version: &Version, settings: &StoreSettings) -> Option<Compaction> {
    choose_seal(version, settings).map(Compaction::Seal).or_else(|| choose_merge(version, settings).map(Compaction::Merge))
}

/// The oldest segments, as far as level 0 has more bytes than it may keep and they make one table.
fn choose_seal(version: &Version, settings: &StoreSettings) -> Option<Vec<Part>> {
    let segments: Vec<Part> = version.parts.iter().copied().filter(|part| part.level == 0).collect();
    let mut too_many =
        segments.iter().map(|part| part.span.bytes).sum::<u64>().checked_sub(settings.hot_bytes_max).filter(|more| *more > 0)?;
    let (mut chosen, mut record_bytes) = (Vec::new(), 0);
    for part in segments {
        record_bytes += part.span.record_bytes;
        if too_many == 0 || !follows(&chosen, &part) || (!chosen.is_empty() && record_bytes > settings.table_bytes()) {
            break;
        }
        too_many = too_many.saturating_sub(part.span.bytes);
        chosen.push(part);
    }
    Some(chosen)
}

/// Whether a part lies right behind those that are chosen. Levels lie one behind another, but where a repair put segments into the place of a
/// table: then parts of a level may have others between them.
pub(super) fn follows(chosen: &[Part], part: &Part) -> bool {
    chosen.last().is_none_or(|last| last.span.last + 1 == part.span.first)
}

/// The oldest tables of level 1 of one time window, where it is over, or they are enough.
fn choose_merge(version: &Version, settings: &StoreSettings) -> Option<Vec<Part>> {
    let tables: Vec<Part> = version.parts.iter().copied().filter(|part| part.level == 1).collect();
    let window = |part: &Part| part.span.ts_max / settings.window_ns.max(1);
    let first = tables.first()?;
    let (mut chosen, mut record_bytes) = (Vec::new(), 0);
    for part in tables.iter().take_while(|part| window(part) == window(first)) {
        if !follows(&chosen, part) || (!chosen.is_empty() && record_bytes + part.span.record_bytes > settings.merged_bytes()) {
            return Some(chosen);
        }
        record_bytes += part.span.record_bytes;
        chosen.push(*part);
    }
    let is_window_over = tables.len() > chosen.len();
    let is_full = record_bytes >= settings.merged_bytes();
    (is_window_over || is_full).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::{Compaction, choose};
    use crate::{
        manifest::{Edit, Part, PartSpan, Version},
        store::settings::StoreSettings,
    };
    use proptest::prelude::*;

    fn settings() -> StoreSettings {
        StoreSettings {
            hot_bytes_max: 250,
            table_record_bytes_max: 200,
            merged_record_bytes_max: 400,
            window_ns: 1000,
            ..StoreSettings::default()
        }
    }

    /// Parts of 10 records and 100 bytes, each with a level and a latest time.
    fn version(parts: &[(u8, u64)]) -> Version {
        let mut version = Version::default();
        for (index, (level, ts_max)) in parts.iter().enumerate() {
            let first = index as u64 * 10 + 1;
            let span = PartSpan {
                first,
                last: first + 9,
                bytes: 100,
                record_bytes: 100,
                epoch_first: 1,
                epoch_last: 1,
                ts_min: *ts_max,
                ts_max: *ts_max,
            };
            let edit = if *level == 0 { Edit::AddSegment(span) } else { Edit::AddTable { level: *level, span } };
            version.apply(&[edit]).unwrap();
        }
        version
    }

    fn firsts(parts: &[Part]) -> Vec<u64> {
        parts.iter().map(|part| part.span.first).collect()
    }

    #[track_caller]
    fn check(parts: &[(u8, u64)], expected: Option<(bool, &[u64])>) {
        let chosen = match choose(&version(parts), &settings()) {
            Some(Compaction::Seal(parts)) => Some((true, firsts(&parts))),
            Some(Compaction::Merge(parts)) => Some((false, firsts(&parts))),
            None => None,
        };
        assert_eq!(chosen, expected.map(|(is_seal, firsts)| (is_seal, firsts.to_vec())));
    }

    #[test]
    fn level_0_keeps_what_it_may() {
        check(&[], None);
        check(&[(0, 1), (0, 1)], None);
        check(&[(0, 1); 3], Some((true, &[1])));
        check(&[(0, 1); 4], Some((true, &[1, 11])));
        check(&[(0, 1); 9], Some((true, &[1, 11])));
    }

    #[test]
    fn windows_merge_when_they_are_over_or_full() {
        check(&[(1, 5), (1, 999)], None);
        check(&[(1, 5), (1, 999), (1, 1000)], Some((false, &[1, 11])));
        check(&[(2, 5), (1, 6), (0, 1000)], None);
        check(&[(1, 5); 4], Some((false, &[1, 11, 21, 31])));
        check(&[(1, 5); 6], Some((false, &[1, 11, 21, 31])));
        check(&[(2, 5), (2, 5)], None);
    }

    /// As after a repair.
    #[test]
    fn only_what_lies_side_by_side_becomes_one() {
        check(&[(0, 1), (1, 1), (0, 1), (0, 1)], Some((true, &[1])));
        check(&[(1, 5), (1, 5), (0, 5), (1, 5)], Some((false, &[1, 11])));
        check(&[(1, 5), (2, 5), (1, 5)], Some((false, &[1])));
        check(&[(2, 5), (1, 5), (0, 5), (0, 5)], None);
    }

    proptest! {
        /// Whatever there is, it comes to an end, and then level 0 is within its bound.
        #[test]
        fn it_comes_to_rest(times in proptest::collection::vec(0u64..5000, 0..30)) {
            let mut times = times;
            times.sort_unstable();
            let mut version = version(&times.iter().map(|ts| (0, *ts)).collect::<Vec<_>>());
            for _ in 0..200 {
                let Some(job) = choose(&version, &settings()) else { break };
                let (parts, level) = match job {
                    Compaction::Seal(parts) => (parts, 1),
                    Compaction::Merge(parts) => (parts, 2),
                };
                let (first, last) = (parts[0].span, parts[parts.len() - 1].span);
                let sum = |of: fn(&PartSpan) -> u64| parts.iter().map(|part| of(&part.span)).sum::<u64>();
                let span = PartSpan { last: last.last, bytes: sum(|s| s.bytes), record_bytes: sum(|s| s.record_bytes), ts_max: last.ts_max, ..first };
                let removed = parts.iter().map(|part| match part.level {
                    0 => Edit::RemoveSegment { first: part.span.first },
                    level => Edit::RemoveTable { level, first: part.span.first },
                });
                let edits: Vec<Edit> = removed.chain([Edit::AddTable { level, span }]).collect();
                version.apply(&edits).unwrap();
            }
            prop_assert_eq!(choose(&version, &settings()), None);
            prop_assert!(version.parts.iter().filter(|part| part.level == 0).map(|part| part.span.bytes).sum::<u64>() <= 250);
            prop_assert!(version.parts.is_sorted_by_key(|part| std::cmp::Reverse(part.level)));
        }
    }
}
