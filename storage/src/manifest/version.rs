//! The files of the store at one moment.

use super::edit::{Edit, PartSpan};

/// A file of events: a level-0 segment with its footer, or a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// 0 is a segment.
    pub(crate) level: u8,
    pub(crate) span: PartSpan,
}

/// What the manifest amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// Number of the last line.
    pub(crate) number: u64,
    /// Oldest first; each begins behind the one before it.
    pub(crate) parts: Vec<Part>,
    /// Where the parts begin: what was before it was given up. 0 where there was never a part.
    pub(crate) kept_from: u64,
    /// Changes of the keyed-state tree, oldest first.
    pub(crate) tree: Vec<Vec<u8>>,
}

impl Version {
    /// Last sequence; 0 where there is none.
    pub(crate) fn last(&self) -> u64 {
        self.parts.last().map_or(self.kept_from.saturating_sub(1), |part| part.span.last)
    }

    /// The part that holds a sequence.
    pub(crate) fn find(&self, sequence: u64) -> Option<&Part> {
        let at = self.parts.partition_point(|part| part.span.last < sequence);
        self.parts.get(at).filter(|part| part.span.first <= sequence)
    }

    /// Applies the edits of one line: all, or says what contradicts. Bytes of all parts together are a number.
    pub(crate) fn apply(&mut self, edits: &[Edit]) -> Result<(), String> {
        let before = self.parts.clone();
        let result = edits.iter().try_for_each(|edit| self.apply_one(edit)).and_then(|()| self.check());
        match result {
            Ok(()) => self.number += 1,
            Err(_) => self.parts = before,
        }
        result
    }

    fn apply_one(&mut self, edit: &Edit) -> Result<(), String> {
        match edit {
            Edit::AddSegment(span) => self.add(Part { level: 0, span: *span }),
            Edit::AddTable { level, span } => self.add(Part { level: *level, span: *span }),
            Edit::RemoveSegment { first } => self.remove(0, *first)?,
            Edit::RemoveTable { level, first } => self.remove(*level, *first)?,
            Edit::Keep { first } => self.kept_from = *first,
            Edit::Tree(bytes) => self.tree.push(bytes.clone()),
        }
        Ok(())
    }

    /// In its place; [`Self::check`] looks whether it overlaps.
    fn add(&mut self, part: Part) {
        if self.kept_from == 0 {
            self.kept_from = part.span.first;
        }
        let at = self.parts.partition_point(|other| (other.span.first, other.level) < (part.span.first, part.level));
        self.parts.insert(at, part);
    }

    fn remove(&mut self, level: u8, first: u64) -> Result<(), String> {
        let at = self.parts.iter().position(|part| (part.level, part.span.first) == (level, first));
        let at = at.ok_or_else(|| format!("it takes a part away that is not there: level {level}, first {first}"))?;
        self.parts.remove(at);
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let mut next = self.kept_from;
        let (mut bytes, mut record_bytes) = (0u64, 0u64);
        for Part { level, span } in &self.parts {
            // Whoever sums up any of them later need not ask.
            let sums = bytes.checked_add(span.bytes).zip(record_bytes.checked_add(span.record_bytes));
            (bytes, record_bytes) =
                sums.ok_or_else(|| format!("the parts up to record {} have more bytes than a number can say", span.last))?;
            if span.first != next {
                return Err(format!("a part of level {level} begins with {}, expected {next}", span.first));
            }
            next = span.last + 1;
        }
        Ok(())
    }

    /// The edits that make this version of nothing.
    pub(super) fn edits(&self) -> Vec<Edit> {
        let keep = (self.kept_from > 0).then_some(Edit::Keep { first: self.kept_from });
        let parts = self.parts.iter().map(|part| match part.level {
            0 => Edit::AddSegment(part.span),
            level => Edit::AddTable { level, span: part.span },
        });
        keep.into_iter().chain(parts).chain(self.tree.iter().cloned().map(Edit::Tree)).collect()
    }
}
