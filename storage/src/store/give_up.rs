//! Giving up: the oldest part goes where it is too old or the store too large.
//!
//! By the same choice as the log's ([`RetentionPolicy`]): a cursor or a reader that still needs a part keeps it, up to a bound; beyond it the part
//! goes, it is said whose it was, and a reader's claim is ended. That the log may have the records still counts for nothing here: whoever prunes
//! it counts on the store.

use super::{
    StoreTail,
    age::{is_older, telling_part, ts_written, ts_youngest},
    tail::{StoreStep, removal},
};
use crate::{
    error::Result,
    manifest::{Edit, Part},
    retention::{Hold, RetentionChoice, RetentionPolicy, RetentionState, SegmentState, StoreHold, end_claims, holds},
};
use tapewire_stdx::failpoint::{FailPoint, pass};

impl StoreTail {
    /// Gives up the oldest part, where it is too old or the store too large, and nobody may keep it.
    pub(super) fn give_up(&mut self, ts_now: u64) -> Result<StoreStep> {
        let version = self.version();
        let Some(part) = version.parts.first().copied().filter(|_| version.parts.len() > 1) else { return Ok(StoreStep::Idle) };
        if !self.is_unwanted(&part, ts_now) {
            return Ok(StoreStep::Idle);
        }
        let choice = self.choose(ts_now)?;
        if choice.delete_count == 0 {
            if !std::mem::replace(&mut self.is_held, true) {
                tracing::info!(stream = self.stream.name(), held_by = ?choice.held_by, "parts of the store are kept beyond age and size");
            }
            return Ok(StoreStep::Idle);
        }
        self.is_held = false;
        let (first, last) = (part.span.first, part.span.last);
        // What it amounts to is kept: the state takes it in first, before anything more is taken, with the rest of an event that ends behind it.
        if self.state.settled() < last {
            let is_more = self.state.take(&mut self.manifest)?;
            return Ok(if is_more { StoreStep::State { through: self.state.sequence() } } else { StoreStep::Idle });
        }
        // A restart, and whoever starts with the state, go on behind what is in its files.
        if self.state.saved() < last {
            match self.state.save(&mut self.manifest) {
                Err(error) if error.is_no_room() => tracing::warn!(%error, "a part goes before the state of it is written out"),
                other => drop(other?),
            }
        }
        self.overrule(&choice, last + 1)?;
        self.manifest.log(&[removal(&part), Edit::Keep { first: last + 1 }])?;
        pass(FailPoint::StoreDropLogged);
        self.remove_parts(&[part])?;
        self.counters.drops += 1;
        Ok(StoreStep::Dropped { first, last })
    }

    /// Whether the oldest part is too old, or the store too large. Nobody asks the file system as long as the records' times say it.
    fn is_unwanted(&self, part: &Part, ts_now: u64) -> bool {
        let version = self.version();
        let is_old = self.settings().age_ns_max.zip(telling_part(&version.parts)).is_some_and(|(age_ns_max, telling)| {
            let is_older = |ts_written| is_older(&part.span, ts_written, (ts_now, age_ns_max));
            is_older(None) || is_older(ts_written(&self.stream, &self.files, telling))
        });
        let bytes: u64 = version.parts.iter().map(|part| part.span.bytes).sum();
        is_old || self.settings().bytes_max.is_some_and(|bytes_max| bytes > bytes_max)
    }

    fn choose(&self, ts_now: u64) -> Result<RetentionChoice> {
        let settings = self.settings();
        let policy = RetentionPolicy {
            age_ns_max: settings.age_ns_max,
            bytes_max: settings.bytes_max,
            held_bytes_max: settings.held_bytes_max,
            store: StoreHold::None,
            cursor_age_ns_max: None,
        };
        // Before the parts: who comes later finds what is kept then.
        let holds = holds(&self.stream)?;
        let parts = &self.version().parts;
        let (newest, complete) = parts.split_last().expect("the caller has found one");
        let segment = |(index, part): (usize, &Part)| {
            let ts_written = telling_part(&parts[index..]).and_then(|telling| ts_written(&self.stream, &self.files, telling));
            SegmentState { first_sequence: part.span.first, bytes: part.span.bytes, ts_written: Some(ts_youngest(&part.span, ts_written)) }
        };
        let state = RetentionState {
            complete: complete.iter().enumerate().map(segment).collect(),
            newest_sequence: newest.span.first,
            newest_bytes: newest.span.bytes,
            holds,
            seq_stored: 0,
            stored: None,
            ts_now,
        };
        Ok(policy.choose(&state))
    }

    /// Ends the claims to what lies before `oldest`.
    fn overrule(&self, choice: &RetentionChoice, oldest: u64) -> Result<()> {
        let overruled: Vec<Hold> = choice.overruled.iter().filter(|hold| hold.sequence < oldest).cloned().collect();
        for Hold { holder, sequence } in &overruled {
            tracing::warn!(
                stream = self.stream.name(),
                ?holder,
                sequence,
                oldest,
                "records that are still needed leave the store: the bound is reached"
            );
        }
        if overruled.is_empty() { Ok(()) } else { end_claims(&self.stream, &overruled, oldest) }
    }
}
