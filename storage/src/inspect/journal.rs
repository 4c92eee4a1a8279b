//! A journal: its header, its counters, and what lies in each slot of the ring.

use super::{
    Fault,
    page::{PageInspection, inspect_bytes},
};
use crate::{
    bus::{Stream, boot_id},
    disk::{Access, DiskFile},
    error::{Result, StorageError},
    journal::{CURRENT_PAGE, JOURNAL_HEADER_BYTES, JOURNAL_MAGIC, JournalHeader, SEQ_DURABLE, SEQ_PUBLISHED, SEQ_STORED, STATE},
};
use std::path::PathBuf;
use tapewire_schemas::{FORMAT_VERSION, PAGE_BYTES, PAGE_MAGIC};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// A journal as its file is.
#[derive(Clone, Debug)]
pub struct JournalInspection {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Version of the format.
    pub version: u32,
    /// Number of the stream.
    pub stream_id: u32,
    /// The writer's epoch.
    pub epoch: u32,
    /// Identity of the bus.
    pub bus_id: u128,
    /// Whether it was made since the machine was started: else the writer's memory is gone, and this is no journal of any writer.
    pub is_of_this_boot: bool,
    /// Pages of the ring.
    pub page_count: u32,
    /// Process id of the writer.
    pub writer_pid: u64,
    /// `open`, `closed`, `failed`, `salvaged`; `None` where it is none of them.
    pub state: Option<&'static str>,
    /// Published as far as the last look of the writer, at most a millisecond old while it lives.
    pub seq_published: u64,
    /// Index of the page written then.
    pub current_page: u64,
    /// Everything up to here is in the log.
    pub seq_durable: u64,
    /// Everything up to here is in the store; 0 where there is none.
    pub seq_stored: u64,
    /// Slots that hold a page, in the order of the pages.
    pub slots: Vec<SlotInspection>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// A slot of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotInspection {
    /// Its number in the ring.
    pub slot: u64,
    /// Index of the page in the epoch.
    pub page_index: u64,
    /// Sequence of the first record, 0 where there is none yet.
    pub first_sequence: u64,
    /// Sequence of the last record, 0 where there is none yet.
    pub last_sequence: u64,
    /// Whether another page was put into the slot while it was read.
    pub is_recycled: bool,
}

/// Epochs whose journals lie in memory, in order.
///
/// # Errors
/// What the file system says.
pub fn list_journals(stream: &Stream) -> Result<Vec<u32>> {
    let directory = stream.bus().memory_directory();
    let names = match stream.disk().list(&directory) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::io("list", &directory)(error)),
    };
    let epoch_of = |name: &String| {
        name.strip_prefix(stream.name())?.strip_prefix('.')?.strip_suffix(".journal").and_then(|epoch| epoch.parse::<u32>().ok())
    };
    let mut epochs: Vec<u32> = names.iter().filter_map(epoch_of).collect();
    epochs.sort_unstable();
    Ok(epochs)
}

/// Looks at the journal of an epoch; `None` where there is none.
///
/// # Errors
/// What the file system says. Damage is no error here: it is told in [`JournalInspection::faults`].
pub fn inspect_journal(stream: &Stream, epoch: u32) -> Result<Option<JournalInspection>> {
    let path = stream.journal_path(epoch);
    let file = match stream.disk().open(&path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", &path)(error)),
    };
    let bytes = file.length().map_err(StorageError::io("read", &path))?;
    let mut head = vec![0; JOURNAL_HEADER_BYTES.min(bytes as usize)];
    file.read_exact_at(&mut head, 0).map_err(StorageError::io("read", &path))?;
    head.resize(JOURNAL_HEADER_BYTES, 0);
    let header = JournalHeader::read_from_prefix(&head).expect("a page of bytes is longer than a header").0;
    let word = |offset: usize| u64::from_le_bytes(head[offset..offset + 8].try_into().expect("eight bytes"));
    let whole = |halves: [u64; 2]| u128::from(halves[0]) | u128::from(halves[1]) << 64;
    let mut journal = JournalInspection {
        bytes,
        version: header.version,
        stream_id: header.stream_id,
        epoch: header.epoch,
        bus_id: whole(header.bus_id),
        is_of_this_boot: whole(header.boot_id) == boot_id(stream.disk())?,
        page_count: header.page_count,
        writer_pid: header.writer_pid,
        state: [None, Some("open"), Some("closed"), Some("failed"), Some("salvaged")].get(word(STATE) as usize).copied().flatten(),
        seq_published: word(SEQ_PUBLISHED),
        current_page: word(CURRENT_PAGE),
        seq_durable: word(SEQ_DURABLE),
        seq_stored: word(SEQ_STORED),
        slots: Vec::new(),
        faults: Vec::new(),
        path,
    };
    journal.check_header(stream, epoch, &header);
    journal.read_slots(file.as_ref())?;
    Ok(Some(journal))
}

impl JournalInspection {
    fn check_header(&mut self, stream: &Stream, epoch: u32, header: &JournalHeader) {
        let needed = JOURNAL_HEADER_BYTES as u64 + u64::from(header.page_count) * PAGE_BYTES as u64;
        let checks = [
            (header.magic == JOURNAL_MAGIC, 0, format!("it begins with {:#x}, and a journal with {JOURNAL_MAGIC:#x}", header.magic)),
            (
                header.version == FORMAT_VERSION,
                4,
                format!("it has format version {}, and this program reads {FORMAT_VERSION}", self.version),
            ),
            (header.stream_id == stream.id(), 8, format!("it says stream {}, and this one is {}", self.stream_id, stream.id())),
            (header.epoch == epoch, 12, format!("it says epoch {}, and its name {epoch}", self.epoch)),
            (self.bus_id == stream.bus().id(), 16, format!("it says bus {:032x}, and this one is {:032x}", self.bus_id, stream.bus().id())),
            (self.is_of_this_boot, 32, "it was made before the machine was started".to_owned()),
            (header.page_count >= 2, 48, format!("it says that its ring has {} pages", self.page_count)),
            (header.page_bytes as usize == PAGE_BYTES, 52, format!("it says that a page has {} bytes", header.page_bytes)),
            (self.state.is_some(), STATE as u64, "it says none of the states that there are".to_owned()),
            (self.bytes >= needed, self.bytes, format!("it ends here and should have {needed} bytes")),
        ];
        let path = &self.path;
        self.faults
            .extend(checks.into_iter().filter(|(is_sound, ..)| !is_sound).map(|(_, offset, reason)| Fault::new(path, offset, reason)));
    }

    /// Reads every slot that the file has room for, whatever the header says.
    fn read_slots(&mut self, file: &dyn DiskFile) -> Result<()> {
        let slot_count = self.bytes.saturating_sub(JOURNAL_HEADER_BYTES as u64) / PAGE_BYTES as u64;
        for slot in 0..slot_count {
            let offset = JOURNAL_HEADER_BYTES as u64 + slot * PAGE_BYTES as u64;
            let mut words = vec![0; PAGE_BYTES / 8].into_boxed_slice();
            file.read_exact_at(words.as_mut_bytes(), offset).map_err(StorageError::io("read", &self.path))?;
            let mut head = [0; 24];
            file.read_exact_at(&mut head, offset).map_err(StorageError::io("read", &self.path))?;
            let is_recycled = head != words.as_bytes()[..24];
            let page = inspect_bytes(&self.path, offset, words, true);
            self.take(slot, slot_count, &page, is_recycled);
        }
        self.slots.sort_unstable_by_key(|it| it.page_index);
        self.check_order();
        Ok(())
    }

    fn take(&mut self, slot: u64, slot_count: u64, page: &PageInspection, is_recycled: bool) {
        let header = &page.header;
        if header.magic == 0 && !is_recycled {
            // Not used yet, or between two pages.
            return;
        }
        let (page_index, first_sequence, last_sequence) = (header.page_index, header.first_sequence, page.last_sequence());
        if is_recycled {
            self.slots.push(SlotInspection { slot, page_index, first_sequence, last_sequence: 0, is_recycled });
            return;
        }
        if header.magic != PAGE_MAGIC || header.version != FORMAT_VERSION {
            self.faults.push(Fault::new(&self.path, page.offset, format!("slot {slot} holds no page: it begins with {:#x}", header.magic)));
            return;
        }
        if page_index % slot_count != slot || header.epoch != self.epoch {
            let reason = format!("slot {slot} holds page {page_index} of epoch {}, which belongs elsewhere", header.epoch);
            self.faults.push(Fault::new(&self.path, page.offset, reason));
        }
        self.faults.extend(page.faults.iter().cloned());
        self.slots.push(SlotInspection { slot, page_index, first_sequence, last_sequence, is_recycled });
    }

    /// Pages that follow one another have sequences that do.
    fn check_order(&mut self) {
        for pair in self.slots.windows(2) {
            let [before, next] = pair else { continue };
            let is_known = !before.is_recycled && !next.is_recycled && next.first_sequence != 0 && before.last_sequence != 0;
            if is_known && next.page_index == before.page_index + 1 && next.first_sequence != before.last_sequence + 1 {
                let offset = JOURNAL_HEADER_BYTES as u64 + next.slot * PAGE_BYTES as u64;
                let reason =
                    format!("page {} begins with {}, and {} is next", next.page_index, next.first_sequence, before.last_sequence + 1);
                self.faults.push(Fault::new(&self.path, offset, reason));
            }
        }
    }
}
