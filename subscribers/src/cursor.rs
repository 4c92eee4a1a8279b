//! Walking events through pages, whatever memory the pages are in.
//!
//! An event whose records lie in one page is read in place. A group that leaves its page is put together in a buffer, and delivered once,
//! at its last record.

use tapewire_schemas::{Behind, EventRef, EventSlot, PageView, RECORDS_OFFSET, RecordRef, SchemaError, Slot};
use zerocopy::IntoBytes;

/// The longest group: 64 MiB, four million levels.
const GROUP_BYTES_MAX: usize = 64 << 20;

/// What a step found.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// An event; the cursor is behind it.
    Event(EventRef<'a>),
    /// Nothing yet.
    Open,
    /// The page is read to its end.
    End,
}

/// Records of a group that began in an earlier page.
#[derive(Debug, Default)]
struct Group {
    words: Vec<u64>,
    first_sequence: u64,
    /// It has been delivered; its bytes are dropped by the next step.
    is_done: bool,
}

impl Group {
    fn clear(&mut self) {
        self.words.clear();
        self.is_done = false;
    }

    fn push(&mut self, bytes: &[u8], sequence: u64) -> Result<(), SchemaError> {
        if self.words.is_empty() {
            self.first_sequence = sequence;
        }
        let from = self.words.len();
        if from * 8 + bytes.len() > GROUP_BYTES_MAX {
            return Err(SchemaError::Group { sequence, reason: "it is longer than 64 MiB" });
        }
        // Record lengths are multiples of eight.
        self.words.resize(from + bytes.len() / 8, 0);
        self.words[from..].as_mut_bytes().copy_from_slice(bytes);
        Ok(())
    }
}

/// A position in a stream, by record.
#[derive(Debug)]
pub(crate) struct EventCursor {
    /// Offset in the current page.
    pub(crate) offset: usize,
    /// Sequence of the record expected at `offset`.
    pub(crate) sequence: u64,
    group: Group,
    /// Groups without a last record, which were dropped.
    pub(crate) groups_cut: u64,
}

/// What to do with records that are not a whole event of one page.
enum Part {
    /// Consumed; go on.
    Taken,
    /// The buffer holds a whole group now.
    Complete,
    /// Not all there yet.
    Open,
}

impl EventCursor {
    pub(crate) fn new(sequence: u64) -> Self {
        Self { offset: RECORDS_OFFSET, sequence, group: Group::default(), groups_cut: 0 }
    }

    /// Whether a group has begun and is not delivered yet.
    pub(crate) fn is_in_group(&self) -> bool {
        !self.group.words.is_empty() && !self.group.is_done
    }

    /// Sequence behind the last event that was delivered: of the group that has begun, or of the next record.
    pub(crate) fn undelivered(&self) -> u64 {
        if self.is_in_group() { self.group.first_sequence } else { self.sequence }
    }

    /// Moves elsewhere; a group that was begun is given up.
    pub(crate) fn reset(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.offset = RECORDS_OFFSET;
        self.group.clear();
    }

    /// The next event in `view`, if it is one record of a common kind and no group is open: nearly always. Else [`Self::next`] knows.
    #[inline(always)]
    pub(crate) fn next_whole<'a>(&mut self, view: PageView<'a>) -> Option<EventRef<'a>> {
        if !self.group.words.is_empty() {
            return None;
        }
        let event = view.whole_event(self.offset, self.sequence)?;
        self.offset += event.bytes().len();
        self.sequence += 1;
        Some(event)
    }

    /// The next event in `view`, if it lies at or below `limit` as a whole.
    #[inline(never)]
    pub(crate) fn next<'a>(&'a mut self, view: PageView<'a>, limit: u64) -> Result<Step<'a>, SchemaError> {
        if self.group.words.is_empty() {
            match view.event(self.offset, self.sequence)? {
                EventSlot::Event(event) if event.last_sequence() > limit => return Ok(Step::Open),
                EventSlot::Event(event) if event.first().is_first() => {
                    self.offset += event.bytes().len();
                    self.sequence = event.last_sequence() + 1;
                    return Ok(Step::Event(event));
                }
                EventSlot::Open => return Ok(Step::Open),
                EventSlot::End => return Ok(Step::End),
                EventSlot::Event(_) | EventSlot::Part { .. } => {}
            }
        }
        self.next_in_group(view, limit)
    }

    #[cold]
    fn next_in_group<'a>(&'a mut self, view: PageView<'a>, limit: u64) -> Result<Step<'a>, SchemaError> {
        if self.group.is_done {
            self.group.clear();
        }
        loop {
            let part = match view.event(self.offset, self.sequence)? {
                EventSlot::Open => return Ok(Step::Open),
                EventSlot::End => return Ok(Step::End),
                EventSlot::Event(event) if event.last_sequence() > limit => return Ok(Step::Open),
                EventSlot::Part { record_count, .. } if self.sequence + u64::from(record_count) - 1 > limit => return Ok(Step::Open),
                EventSlot::Event(event) => {
                    self.cut();
                    self.offset += event.bytes().len();
                    self.sequence = event.last_sequence() + 1;
                    return Ok(Step::Event(event));
                }
                EventSlot::Part { record_count, bytes, behind } => self.take(record_count, bytes, behind)?,
            };
            match part {
                Part::Taken => {}
                Part::Open => return Ok(Step::Open),
                Part::Complete => break,
            }
        }
        self.group.is_done = true;
        EventRef::new(self.group.words.as_bytes(), self.group.first_sequence).map(Step::Event)
    }

    /// A group that will never be complete is dropped, and counted.
    fn cut(&mut self) {
        if !self.group.words.is_empty() {
            self.groups_cut += 1;
            self.group.clear();
        }
    }

    fn take(&mut self, record_count: u32, bytes: &[u8], behind: Behind) -> Result<Part, SchemaError> {
        let begins = RecordRef::new(bytes, self.sequence)?.is_first();
        let (end, next) = (self.offset + bytes.len(), self.sequence + u64::from(record_count));
        if begins {
            self.cut();
            match behind {
                // Its other records are still being written: wait, and read it in place.
                Behind::Open => return Ok(Part::Open),
                Behind::Event => self.groups_cut += 1,
                Behind::PageEnd | Behind::Last => self.group.push(bytes, self.sequence)?,
            }
        } else if !self.group.words.is_empty() {
            self.group.push(bytes, self.sequence)?;
        }
        // Else: the tail of a group whose beginning lies before our start.
        (self.offset, self.sequence) = (end, next);
        Ok(if behind == Behind::Last && !self.group.words.is_empty() { Part::Complete } else { Part::Taken })
    }
}

/// Offset of the record with `sequence` in a page, or of the place where it will be.
pub(crate) fn offset_of(view: PageView<'_>, sequence: u64) -> Result<usize, SchemaError> {
    let mut offset = RECORDS_OFFSET;
    for at in view.first_sequence()..sequence {
        match view.slot(offset, at)? {
            Slot::Record(record) => offset += record.bytes().len(),
            Slot::Open | Slot::End => break,
        }
    }
    Ok(offset)
}

/// Sequence of the first record of the event that `sequence` belongs to; `None` when it begins in an earlier page.
pub(crate) fn event_start(view: PageView<'_>, sequence: u64) -> Result<Option<u64>, SchemaError> {
    let (mut offset, mut start) = (RECORDS_OFFSET, None);
    for at in view.first_sequence()..=sequence {
        match view.slot(offset, at)? {
            Slot::Record(record) => {
                if record.is_first() {
                    start = Some(at);
                }
                offset += record.bytes().len();
            }
            // Not written yet: it will be what it will be.
            Slot::Open | Slot::End => return Ok(Some(sequence)),
        }
    }
    Ok(start)
}
