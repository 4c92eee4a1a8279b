//! What a subscriber wants to see; applied before the callback.

use tapewire_schemas::{Body, EventRef, Kind};

/// Instruments, accounts and kinds to deliver. Definitions and control records pass every filter: without them nothing can be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    kinds: u32,
    instruments: IdSet,
    accounts: IdSet,
    /// First time wanted, and the first that is not any more; nanoseconds since the UNIX epoch.
    times: Option<(u64, u64)>,
}

/// One bit per id; empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct IdSet(Vec<u64>);

impl IdSet {
    fn of(ids: &[u32]) -> Self {
        let words = ids.iter().max().map_or(0, |max| *max as usize / 64 + 1);
        let mut set = Self(vec![0; words.max(1)]);
        for id in ids {
            set.0[*id as usize / 64] |= 1 << (id % 64);
        }
        set
    }

    #[inline]
    fn accepts(&self, id: u32) -> bool {
        self.0.is_empty() || self.0.get(id as usize / 64).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self { kinds: u32::MAX, instruments: IdSet::default(), accounts: IdSet::default(), times: None }
    }
}

impl Filter {
    /// Only these kinds, and what is needed to decode them.
    #[must_use]
    pub fn with_kinds(mut self, kinds: &[Kind]) -> Self {
        let context = Kind::ALL.into_iter().filter(|kind| kind.is_context());
        self.kinds = context.chain(kinds.iter().copied()).fold(0, |bits, kind| bits | 1 << kind as u32);
        self
    }

    /// Only these instruments. What an account holds concerns none.
    #[must_use]
    pub fn with_instruments(mut self, instrument_ids: &[u32]) -> Self {
        self.instruments = IdSet::of(instrument_ids);
        self
    }

    /// Of private events only those of these accounts.
    #[must_use]
    pub fn with_accounts(mut self, account_ids: &[u32]) -> Self {
        self.accounts = IdSet::of(account_ids);
        self
    }

    /// Only events with `from <= time < until` (see [`tapewire_schemas::RecordRef::time`]), nanoseconds since the UNIX epoch. Market events
    /// without a time lie in no range.
    #[must_use]
    pub fn with_times(mut self, from: u64, until: u64) -> Self {
        self.times = Some((from, until));
        self
    }

    /// Whether the event is wanted.
    #[must_use]
    #[inline]
    pub fn accepts(&self, event: &EventRef<'_>) -> bool {
        let kind = event.kind();
        if self.kinds & (1 << kind as u32) == 0 {
            return false;
        }
        if let Some((from, until)) = self.times
            && kind.is_timed()
            && !event.first().time().is_some_and(|time| (from..until).contains(&time))
        {
            return false;
        }
        kind.is_context() || (self.instruments.accepts(event.instrument_id()) && (!kind.is_private() || self.accepts_account(event)))
    }

    fn accepts_account(&self, event: &EventRef<'_>) -> bool {
        match event.body() {
            Body::AccountUpdate(update) => self.accounts.accepts(update.account_id),
            Body::OrderUpdate(order) => self.accounts.accepts(order.account_id),
            _ => true,
        }
    }
}
