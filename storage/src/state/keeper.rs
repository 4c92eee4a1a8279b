//! Records in, changes of keys out.

use super::{
    books::KeptBooks,
    keys::{self, Key},
    reader::{StateReader, StateSource},
    values::StateRecord,
};
use crate::{error::Result, tree::WriteBatch};
use tapewire_schemas::{Body, EventRef, OrderState, OrderUpdate, RecordRef};

/// Bytes of the longest event of several records that is put together; more than any writer's pages ahead.
const GROUP_BYTES_MAX: usize = 64 << 20;

/// What a keeper met since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounters {
    /// Book events of instruments that no definition named.
    pub unknown_instruments: u64,
    /// Books that did not fit a new scale and were dropped.
    pub scale_errors: u64,
    /// Events of several records that had no end, or no beginning.
    pub groups_dropped: u64,
    /// Times that records were missing before the next.
    pub holes: u64,
}

/// Records of an event that has not ended.
#[derive(Clone, Debug, Default)]
struct Group {
    first_sequence: u64,
    words: Vec<u64>,
}

/// Derives the state from the records of a stream, which it is given in order. It has no clock and no files.
#[derive(Clone, Debug, Default)]
pub struct StateKeeper {
    books: KeptBooks,
    group: Option<Group>,
    /// The last record that was taken.
    sequence: u64,
    groups_dropped: u64,
    holes: u64,
}

impl StateKeeper {
    /// Takes up what the last checkpoint wrote.
    ///
    /// # Errors
    /// What reading says.
    pub fn open(source: &impl StateSource) -> Result<Self> {
        let reader = StateReader::new(source);
        let mut keeper = Self { sequence: reader.checkpoint()?, ..Self::default() };
        // Scales are those of the books, as of the checkpoint: a definition may be newer.
        for (instrument_id, book) in reader.books()? {
            keeper.books.load(instrument_id, book);
        }
        Ok(keeper)
    }

    /// The last record that was taken; right after [`Self::open`] the one behind which records are to be given again.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last record behind which a keeper may begin that was opened from a checkpoint made now: one within an event of several records is to
    /// be seen again from the event's beginning.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.group.as_ref().map_or(self.sequence, |group| group.first_sequence - 1)
    }

    /// Takes the next record: `batch` gains what it changes, or replaces what it had. An event of several records changes something at its
    /// last one. What was taken already is passed over.
    ///
    /// # Errors
    /// [`crate::StorageError::Setting`] where a value is too long, which no record is.
    pub fn apply(&mut self, record: &RecordRef<'_>, sequence: u64, batch: &mut WriteBatch) -> Result<()> {
        if sequence <= self.sequence {
            return Ok(());
        }
        if sequence != self.sequence + 1 {
            // What was missed may have changed any book.
            self.holes += 1;
            self.drop_group();
            self.books.mark_stale(|_, _| true);
        }
        self.sequence = sequence;
        if record.is_first() && record.is_last() {
            // A group that has not ended never will: its writer died, and this is the next epoch's beginning.
            self.drop_group();
            return self.observe(&EventRef::single(*record, sequence), batch);
        }
        let Some(group) = self.collect(record, sequence) else { return Ok(()) };
        match EventRef::new(zerocopy::IntoBytes::as_bytes(&group.words[..]), group.first_sequence) {
            Ok(event) => self.observe(&event, batch),
            Err(error) => {
                tracing::warn!(%error, sequence, "an event of several records is not one");
                self.groups_dropped += 1;
                Ok(())
            }
        }
    }

    fn drop_group(&mut self) {
        self.groups_dropped += u64::from(self.group.take().is_some());
    }

    /// Adds a record to its group, which is given back when it is whole.
    fn collect(&mut self, record: &RecordRef<'_>, sequence: u64) -> Option<Group> {
        if record.is_first() {
            self.drop_group();
            self.group = Some(Group { first_sequence: sequence, words: Vec::new() });
        }
        let Some(group) = &mut self.group else {
            // Its beginning is not known.
            self.groups_dropped += u64::from(record.is_last());
            return None;
        };
        if (group.words.len() * 8 + record.bytes().len()) > GROUP_BYTES_MAX {
            self.drop_group();
            return None;
        }
        let words = record.bytes().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        group.words.extend(words);
        if record.is_last() { self.group.take() } else { None }
    }

    /// Takes a whole event.
    fn observe(&mut self, event: &EventRef<'_>, batch: &mut WriteBatch) -> Result<()> {
        self.books.observe(event);
        let (record, sequence) = (event.first(), event.last_sequence());
        let value = || StateRecord::encode(sequence, &record);
        match event.body() {
            Body::Trade(_) | Body::Quote(_) => batch.put(&Key::latest(record.instrument_id(), record.kind()), &value()),
            Body::AccountUpdate(update) => batch.put(&Key::account(update.account_id, &update.currency), &value()),
            Body::OrderUpdate(update) => Self::observe_order(update, &value(), batch),
            Body::Instrument(_) => batch.put(&Key::numbered(keys::INSTRUMENT, record.instrument_id()), &value()),
            Body::Account(account) => batch.put(&Key::numbered(keys::ACCOUNT_NAME, account.account_id), &value()),
            Body::Control(_) | Body::BookDelta(_) | Body::BookSnapshot(_) => Ok(()),
        }
    }

    fn observe_order(update: &OrderUpdate, value: &[u8], batch: &mut WriteBatch) -> Result<()> {
        let (order, of_account) = (Key::order(&update.order_id), Key::account_order(update.account_id, &update.order_id));
        let is_over = match update.state() {
            OrderState::Cancelled | OrderState::Rejected => true,
            OrderState::Filled => update.filled >= update.quantity,
            OrderState::Inserted | OrderState::Accepted => false,
        };
        if is_over {
            batch.delete(&order)?;
            return batch.delete(&of_account);
        }
        batch.put(&order, value)?;
        batch.put(&of_account, &value[..8])
    }

    /// Adds every book that changed since the last checkpoint, and the sequence that all books are good for. Apply the batch before the tree is
    /// asked to write its memtable, and at the sequence of the last record.
    ///
    /// # Errors
    /// [`crate::StorageError::Setting`] where a book has more than four million levels.
    pub fn checkpoint(&mut self, batch: &mut WriteBatch) -> Result<()> {
        let sequence = self.settled();
        for (instrument_id, book) in self.books.take_changed() {
            book.sequence = sequence;
            batch.put(&Key::numbered(keys::BOOK, instrument_id), &book.encode())?;
        }
        batch.put(&Key::position(), &sequence.to_le_bytes())
    }

    /// What was met.
    #[must_use]
    pub fn counters(&self) -> StateCounters {
        let (unknown_instruments, scale_errors) = (self.books.unknown_instruments, self.books.scale_errors);
        StateCounters { unknown_instruments, scale_errors, groups_dropped: self.groups_dropped, holes: self.holes }
    }
}
