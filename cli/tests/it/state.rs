//! The keyed state of streams that were published, from the log into the tree: real balances, real books.

use crate::{
    bus::TestBus,
    captures::{CAPTURES, data},
    process::run,
};
use serde_json::Value;
use std::path::Path;
use tapewire_schemas::{Body, BookSide, RECORDS_OFFSET, Slot};
use tapewire_storage::{
    Applied, EditLog, Found, LogReader, RealDisk, StateBookState, StateKeeper, StateReader, StorageError, Tree, TreeEdit, TreeIdentity,
    TreePlace, TreeSettings, TreeVersion, TreeView, Worked, WriteBatch,
};

/// The version is taken from the tree itself.
struct NoLog;

impl EditLog for NoLog {
    fn log(&mut self, _: &[TreeEdit]) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Brings a stream into a tree as a tail does, a page at a time, opened again after each `restart_pages` pages; gives its tables.
fn kept(bus: &TestBus, stream: &str, directory: &Path, restart_pages: u64) -> TreeView {
    // Small, so that there are flushes and compactions.
    let settings = TreeSettings { memtable_bytes: 64 << 10, table_bytes: 64 << 10, level1_bytes: 128 << 10, ..TreeSettings::default() };
    let identity = TreeIdentity { bus_id: 1, stream_id: 1 };
    let place = TreePlace { disk: RealDisk::shared(), directory: directory.to_owned(), identity };
    let mut reader = LogReader::open(&bus.open().stream(stream)).unwrap();
    let mut tree = Tree::open(place.clone(), &TreeVersion::default(), settings).unwrap();
    let mut keeper = StateKeeper::default();
    let (mut pages, mut compactions) = (0, 0);
    while reader.seek(keeper.sequence() + 1).unwrap() == Found::Page {
        let view = reader.page().unwrap();
        let (mut offset, mut sequence, mut batch) = (RECORDS_OFFSET, view.first_sequence(), WriteBatch::default());
        while let Slot::Record(record) = view.slot(offset, sequence).unwrap() {
            keeper.apply(&record, sequence, &mut batch).unwrap();
            offset += record.bytes().len();
            sequence += 1;
        }
        pages += 1;
        if pages % 3 == 0 {
            keeper.checkpoint(&mut batch).unwrap();
        }
        while tree.apply(&batch, sequence - 1).unwrap() == Applied::Full {
            let _ = tree.work(&mut NoLog).unwrap();
        }
        let _ = tree.work(&mut NoLog).unwrap();
        compactions += tree.counters().compaction_count;
        if pages % restart_pages == 0 {
            let version = tree.version().clone();
            drop(tree);
            tree = Tree::open(place.clone(), &version, settings).unwrap();
            keeper = StateKeeper::open(&tree.snapshot()).unwrap();
            // What was not flushed comes again.
        }
        if pages > 100_000 {
            panic!("the reading does not end");
        }
    }
    let mut batch = WriteBatch::default();
    keeper.checkpoint(&mut batch).unwrap();
    assert_eq!(tree.apply(&batch, keeper.sequence()).unwrap(), Applied::Yes);
    tree.flush_all(&mut NoLog).unwrap();
    while tree.work(&mut NoLog).unwrap() != Worked::Idle {}
    assert_eq!((keeper.counters().holes, keeper.counters().groups_dropped), (0, 0));
    println!(
        "{stream}: {pages} pages, {} bytes applied, {} tables, {compactions} compactions seen",
        tree.counters().applied_bytes,
        tree.counters().table_count
    );
    let view = TreeView::open(&place, tree.version()).unwrap();
    view.verify().unwrap();
    view
}

#[test]
fn a_real_account_is_kept_with_its_known_balances() {
    let Some(data) = data() else {
        println!("skipped: the account capture (set TAPEWIRE_DATA to its directory)");
        return;
    };
    let text = std::fs::read_to_string(data.join("expected/account_sim_btcusdt.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let bus = TestBus::new();
    let path = data.join("account/account_sim_btcusdt.jsonl.gz");
    run(&bus.publish(&format!("account:{}", path.display()))).exits(0);
    let directory = tempfile::tempdir().unwrap();
    let view = kept(&bus, "account", directory.path(), u64::MAX);
    let state = StateReader::new(&view);
    let accounts = state.accounts().unwrap();
    let Body::Account(account) = accounts[0].record().body() else { panic!("{accounts:?}") };
    assert_eq!((accounts.len(), account.name()), (1, "BINANCE-001"));
    let balances = state.balances(account.account_id).unwrap();
    let Body::AccountUpdate(update) = balances[0].record().body() else { panic!("{balances:?}") };
    let text = |mantissa| format!("{} {}", update.amount_scale().display(mantissa), update.currency.code());
    let total = [text(update.balance), text(update.available)];
    assert_eq!(balances.len(), 1);
    assert_eq!(Value::from(total.to_vec()), Value::from(expected["final_balances"].as_array().unwrap()[..2].to_vec()));
    assert_eq!(update.frozen, 0);
    // Every order of it was filled.
    assert_eq!(state.orders(account.account_id).unwrap(), []);
    assert!(state.instruments().unwrap().len() == 1);
}

/// The books that the tree keeps are those that a reader of the whole stream has.
#[test]
fn real_books_are_kept_as_a_reader_of_everything_has_them() {
    let feeds: Vec<String> = match data() {
        Some(data) => {
            CAPTURES.iter().map(|(capture, _)| format!("csv:{}", data.join(format!("normalized/{capture}.csv.gz")).display())).collect()
        }
        None => {
            println!("skipped: real captures (set TAPEWIRE_DATA to their directory); a simulated one goes through instead");
            vec!["sim:seed=3,events=20000".to_owned()]
        }
    };
    for feed in feeds {
        let bus = TestBus::new();
        run(&bus.publish(&format!("{feed} --speed max"))).exits(0);
        let digest = bus.history();
        let directory = tempfile::tempdir().unwrap();
        let view = kept(&bus, "market", directory.path(), 7);
        let state = StateReader::new(&view);
        let mut compared = 0;
        for (definition, (instrument_id, book)) in state.instruments().unwrap().iter().zip(state.books().unwrap()) {
            let record = definition.record();
            let Body::Instrument(instrument) = record.body() else { panic!("{definition:?}") };
            assert_eq!(record.instrument_id(), instrument_id);
            let expected = &digest["instruments"][instrument.symbol()];
            assert_eq!(Value::from(book.book.level_count(BookSide::Bid)), expected["n_bids"], "{feed}: {}", instrument.symbol());
            assert_eq!(Value::from(book.book.level_count(BookSide::Ask)), expected["n_asks"], "{feed}: {}", instrument.symbol());
            assert_eq!(Value::from(book.book.crc32(usize::MAX)), expected["crc32_dec_full"], "{feed}: {}", instrument.symbol());
            compared += usize::from(book.state == StateBookState::InStep);
        }
        assert_eq!(digest["instruments"].as_object().unwrap().len(), state.books().unwrap().len());
        println!("{feed}: {compared} books in step");
    }
}
