//! Which of the parts that are sound make up the store: a pure choice.

use crate::manifest::Part;

/// Of parts that are sound, those that follow one another without a hole or an overlap up to the newest record, as far back as that goes; of
/// several ways as far back the one with the fewest parts. Where the log begins behind a record, `log_first`, parts that end before it with a
/// hole between are none of it.
pub(crate) fn choose_chain(parts: &[Part], log_first: Option<u64>) -> Vec<Part> {
    let mut sorted: Vec<Part> = parts.to_vec();
    sorted.sort_unstable_by_key(|part| (part.span.last, part.span.first, part.level));
    // Of each part: where the longest chain that ends with it begins, how many parts that has, and the one before it.
    let mut ways: Vec<(u64, usize, Option<usize>)> = Vec::with_capacity(sorted.len());
    for (index, part) in sorted.iter().enumerate() {
        let follows = |other: usize| {
            let before = &sorted[other].span;
            before.last.checked_add(1) == Some(part.span.first) && before.epoch_last <= part.span.epoch_first
        };
        let best = (0..index).filter(|other| follows(*other)).min_by_key(|other| (ways[*other].0, ways[*other].1));
        ways.push(best.map_or((part.span.first, 1, None), |other| (ways[other].0, ways[other].1 + 1, Some(other))));
    }
    let joins = |index: &usize| log_first.is_none_or(|first| sorted[*index].span.last.saturating_add(1) >= first);
    let end = (0..sorted.len()).filter(joins).min_by_key(|index| {
        let part = &sorted[*index];
        (std::cmp::Reverse(part.span.last), ways[*index].0, ways[*index].1)
    });
    let mut chain = Vec::new();
    let mut at = end;
    while let Some(index) = at {
        chain.push(sorted[index]);
        at = ways[index].2;
    }
    chain.reverse();
    chain
}

/// What of `wanted` is in none of `ranges`.
pub(crate) fn holes(wanted: (u64, u64), ranges: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let (mut next, mut found) = (wanted.0, Vec::new());
    for (first, last) in ranges {
        if next > wanted.1 {
            break;
        }
        if first > next {
            found.push((next, (first - 1).min(wanted.1)));
        }
        next = next.max(last.saturating_add(1));
    }
    if next <= wanted.1 {
        found.push((next, wanted.1));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{choose_chain, holes};
    use crate::manifest::{Part, PartSpan};
    use proptest::prelude::*;

    fn part((level, first, last): (u8, u64, u64)) -> Part {
        let span = PartSpan { first, last, bytes: 1, record_bytes: 1, epoch_first: 1, epoch_last: 1, ts_min: 0, ts_max: 1 };
        Part { level, span }
    }

    #[track_caller]
    fn check(parts: &[(u8, u64, u64)], log_first: Option<u64>, expected: &[(u8, u64, u64)]) {
        let parts: Vec<Part> = parts.iter().copied().map(part).collect();
        let chain = choose_chain(&parts, log_first);
        assert_eq!(chain, expected.iter().copied().map(part).collect::<Vec<_>>());
    }

    #[test]
    fn the_longest_way_to_the_newest_is_taken() {
        check(&[], None, &[]);
        check(&[(1, 1, 10), (0, 11, 20)], None, &[(1, 1, 10), (0, 11, 20)]);
        // Behind a hole.
        check(&[(1, 1, 10), (0, 12, 20), (0, 21, 22)], None, &[(0, 12, 20), (0, 21, 22)]);
        // Segments in the place of a table that is damaged, and a table rather than its segments.
        check(&[(0, 1, 5), (0, 6, 10), (0, 11, 20)], None, &[(0, 1, 5), (0, 6, 10), (0, 11, 20)]);
        check(&[(0, 1, 5), (0, 6, 10), (1, 1, 10), (0, 11, 20)], None, &[(1, 1, 10), (0, 11, 20)]);
        // What overlaps does not follow.
        check(&[(1, 1, 12), (0, 11, 20), (0, 5, 10)], None, &[(0, 5, 10), (0, 11, 20)]);
        // The log goes on where the store ends, or the store is none.
        check(&[(1, 1, 10), (0, 11, 20)], Some(21), &[(1, 1, 10), (0, 11, 20)]);
        check(&[(1, 1, 10), (0, 11, 20)], Some(15), &[(1, 1, 10), (0, 11, 20)]);
        check(&[(1, 1, 10), (0, 11, 20)], Some(22), &[]);
    }

    #[test]
    fn holes_are_what_nobody_has() {
        assert_eq!(holes((1, 10), [(3, 4), (8, 20)]), [(1, 2), (5, 7)]);
        assert_eq!(holes((1, 10), []), [(1, 10)]);
        assert_eq!(holes((5, 10), [(1, 7)]), [(8, 10)]);
        assert_eq!(holes((5, 10), [(1, u64::MAX)]), []);
        assert_eq!(holes((1, 10), [(12, 14)]), [(1, 10)]);
    }

    proptest! {
        /// Whatever there is, the choice is whole, and no part could be put before it.
        #[test]
        fn the_choice_is_whole(parts in proptest::collection::vec((0u8..3, 1u64..30, 0u64..10), 0..20), log_first in 1u64..40) {
            let parts: Vec<Part> = parts.into_iter().map(|(level, first, more)| part((level, first, first + more))).collect();
            for log_first in [None, Some(log_first)] {
                let chain = choose_chain(&parts, log_first);
                prop_assert!(chain.windows(2).all(|pair| pair[0].span.last + 1 == pair[1].span.first));
                let joins = |part: &Part| log_first.is_none_or(|first| part.span.last + 1 >= first);
                let newest = parts.iter().filter(|part| joins(part)).map(|part| part.span.last).max();
                prop_assert_eq!(chain.last().map(|part| part.span.last), newest);
                if let Some(first) = chain.first() {
                    prop_assert!(!parts.iter().any(|part| part.span.last + 1 == first.span.first));
                }
            }
        }
    }
}
