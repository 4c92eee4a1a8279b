//! What records are kept together by in the store: their kind, and what they concern.

use tapewire_schemas::{Body, Kind, RecordRef};

/// All records of one kind of one instrument, or of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// The kind.
    pub kind: Kind,
    /// `account_id` of account and order updates and of account definitions, `instrument_id` of everything else; 0 where there is none.
    pub id: u32,
}

impl Series {
    /// The series of a record.
    #[must_use]
    #[inline]
    pub fn of(record: &RecordRef<'_>) -> Self {
        let kind = record.kind();
        let id = match kind {
            Kind::AccountUpdate | Kind::OrderUpdate | Kind::Account => account_id(record),
            _ => record.instrument_id(),
        };
        Self { kind, id }
    }

    /// As numbers that sort.
    #[must_use]
    pub(crate) fn wire(self) -> (u32, u32) {
        (self.kind as u32, self.id)
    }

    /// By kind, then id.
    #[must_use]
    #[inline]
    pub(crate) fn sort_key(self) -> u64 {
        u64::from(self.kind as u8) << 32 | u64::from(self.id)
    }
}

#[cold]
fn account_id(record: &RecordRef<'_>) -> u32 {
    match record.body() {
        Body::AccountUpdate(update) => update.account_id,
        Body::OrderUpdate(update) => update.account_id,
        Body::Account(account) => account.account_id,
        _ => 0,
    }
}
