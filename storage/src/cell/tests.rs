use super::*;
use std::mem::offset_of;

fn stream() -> (tempfile::TempDir, Stream) {
    let directory = tempfile::tempdir().unwrap();
    let bus = Bus::open_or_create(directory.path()).unwrap();
    (directory, bus.stream("market"))
}

/// What is left in memory goes with the bus.
struct Memory(Bus);

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.memory_directory());
    }
}

fn cells(bus: &Bus) -> Vec<CellReport> {
    list_cells(bus).unwrap().into_iter().map(Result::unwrap).collect()
}

#[test]
fn the_layout_is_the_drawn_one() {
    let fields = [
        (offset_of!(CellHeader, version), 4),
        (offset_of!(CellHeader, role), 8),
        (offset_of!(CellHeader, pid), 12),
        (offset_of!(CellHeader, bus_id), 16),
        (offset_of!(CellHeader, stream_id), 32),
        (offset_of!(CellHeader, epoch), 36),
        (offset_of!(CellHeader, tier), 40),
        (offset_of!(CellHeader, started_ns), 48),
        (offset_of!(CellHeader, stream_name), 64),
        (offset_of!(PublisherNumbers, seq_published), 8),
        (offset_of!(PublisherNumbers, seq_durable), 16),
        (offset_of!(PublisherNumbers, pages), 24),
        (offset_of!(PublisherNumbers, pages_ready), 32),
        (offset_of!(PublisherNumbers, stalls), 40),
        (offset_of!(PublisherNumbers, refused), 48),
        (offset_of!(PublisherNumbers, subscribers), 56),
        (offset_of!(PublisherNumbers, woken), 64),
        (offset_of!(PublisherNumbers, records_per_s), 72),
        (offset_of!(PublisherNumbers, journal_pages), 80),
        (offset_of!(PublisherNumbers, journal_pages_used), 88),
        (offset_of!(PublisherNumbers, moved_ns), 96),
        (offset_of!(PublisherNumbers, alone_ns), 104),
        (offset_of!(SubscriberNumbers, position), 8),
        (offset_of!(SubscriberNumbers, source), 16),
        (offset_of!(SubscriberNumbers, events), 24),
        (offset_of!(SubscriberNumbers, events_live), 32),
        (offset_of!(SubscriberNumbers, lapped), 40),
        (offset_of!(SubscriberNumbers, gap_from), 48),
        (offset_of!(SubscriberNumbers, gap_to), 56),
        (offset_of!(SubscriberNumbers, healed), 64),
        (offset_of!(SubscriberNumbers, records_healed), 72),
        (offset_of!(SubscriberNumbers, skips), 80),
        (offset_of!(SubscriberNumbers, sequences_skipped), 88),
        (offset_of!(SubscriberNumbers, joined), 96),
        (offset_of!(SubscriberNumbers, batches), 104),
        (offset_of!(SubscriberNumbers, groups_cut), 112),
        (offset_of!(SubscriberNumbers, conflated), 120),
        (offset_of!(SubscriberNumbers, page_index), 128),
        (offset_of!(SubscriberNumbers, pages_max), 136),
        (offset_of!(SubscriberNumbers, attached_ns), 144),
        (offset_of!(SubscriberNumbers, asked_from), 152),
        (offset_of!(SubscriberNumbers, joined_at), 160),
    ];
    for (found, drawn) in fields {
        assert_eq!(found, drawn);
    }
    assert_eq!((CELL_BYTES, CELL_MAGIC.to_le_bytes()), (512, *b"TWCL"));
}

#[test]
fn everyone_sees_what_a_cell_tells() {
    let (_directory, stream) = stream();
    let _memory = Memory(stream.bus().clone());
    assert!(cells(stream.bus()).is_empty());
    let publisher = Cell::create(&stream, CellRole::Publisher { epoch: 3 }).unwrap();
    let subscribers = [1, 2].map(|tier| Cell::create(&stream, CellRole::Subscriber { tier }).unwrap());
    publisher.tell_publisher(&PublisherNumbers { updated_ns: 1, seq_published: 2, woken: 9, ..PublisherNumbers::default() });
    subscribers[1].tell_subscriber(&SubscriberNumbers { position: 7, conflated: 5, ..SubscriberNumbers::default() });
    let mut seen = cells(stream.bus());
    seen.sort_by_key(|cell| match cell.identity.role {
        CellRole::Publisher { .. } => 0,
        CellRole::Subscriber { tier } => tier,
    });
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|cell| cell.is_alive && cell.identity.pid == std::process::id() && cell.identity.stream_name == "market"));
    assert_eq!(seen[0].identity.role, CellRole::Publisher { epoch: 3 });
    let told = PublisherNumbers { updated_ns: 1, seq_published: 2, woken: 9, ..PublisherNumbers::default() };
    assert_eq!(seen[0].numbers, CellNumbers::Publisher(told));
    assert_eq!(seen[1].numbers, CellNumbers::Subscriber(SubscriberNumbers::default()));
    let CellNumbers::Subscriber(numbers) = seen[2].numbers else { panic!("{:?}", seen[2]) };
    assert_eq!((numbers.position, numbers.conflated), (7, 5));
    drop((publisher, subscribers));
    assert!(cells(stream.bus()).is_empty());
}

#[test]
fn a_dead_cell_is_seen_as_such_and_swept() {
    let (_directory, stream) = stream();
    let _memory = Memory(stream.bus().clone());
    let cell = Cell::create(&stream, CellRole::Subscriber { tier: 1 }).unwrap();
    let (dead, half) = (cell.path.with_file_name("market.1.0.cell"), cell.path.with_file_name("market.1.1.cell.tmp"));
    // As a kill leaves it: complete, and nobody holds its lock. And as a kill while it was made.
    std::fs::copy(&cell.path, &dead).unwrap();
    std::fs::write(&half, "TWCL").unwrap();
    let alive = |cells: &[CellReport]| cells.iter().filter(|cell| cell.is_alive).count();
    let seen = cells(stream.bus());
    assert_eq!((seen.len(), alive(&seen)), (2, 1));
    let another = Cell::create(&stream, CellRole::Subscriber { tier: 1 }).unwrap();
    let seen = cells(stream.bus());
    assert_eq!((seen.len(), alive(&seen)), (2, 2));
    assert!(!dead.exists() && !half.exists() && another.path.exists());
}

#[test]
fn what_is_no_cell_is_named() {
    let (_directory, stream) = stream();
    let _memory = Memory(stream.bus().clone());
    let cell = Cell::create(&stream, CellRole::Subscriber { tier: 1 }).unwrap();
    let bytes = std::fs::read(&cell.path).unwrap();
    let path = cell.path.with_file_name("other.cell");
    let check = |at: usize, value: u8, expected: &str| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        std::fs::write(&path, &bytes).unwrap();
        let errors: Vec<String> =
            list_cells(stream.bus()).unwrap().into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected) && errors[0].contains("other.cell"), "{errors:?}");
    };
    check(0, 0, "format");
    check(4, 2, "v2");
    check(8, 9, "neither a publisher's nor a subscriber's");
    check(64, 0xff, "not text");
    std::fs::write(&path, &bytes[..100]).unwrap();
    assert!(list_cells(stream.bus()).unwrap().into_iter().any(|cell| cell.is_err_and(|error| error.to_string().contains("512 bytes"))));
}
