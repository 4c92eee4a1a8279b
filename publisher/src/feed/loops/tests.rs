//! Passes against the feed itself, moved by hand.

use super::*;
use crate::feed::{AccountFeed, CsvFeed, SimulatorFeed, SimulatorSpec};

const HEADER: &str = "recv_ns,exch_ns,venue,instrument,kind,side,price,size,id,seq,flags";
const ROWS: &str = "100,90,V,A,C,,,,,7,2\n100,90,V,A,S,B,1.5,5,,7,3\n160,0,V,A,L,B,1.5,0,,9,0\n160,0,V,A,L,S,2,3,,9,1\n\
                    200,150,V,B,T,B,1,2,41,,1\n200,150,V,A,T,S,1,2,11,,1\n300,250,V,A,T,S,1,2,13,12,1\n";

fn csv(rows: &str) -> Box<dyn Feed> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    std::fs::write(&path, format!("{HEADER}\n{rows}")).unwrap();
    Box::new(CsvFeed::open(path).unwrap())
}

fn binding((id, it): (u32, &FeedInstrument), finer: u8) -> InstrumentBinding {
    let scale = |scale: Scale| Scale::new(scale.digits() + finer).unwrap();
    InstrumentBinding { instrument_id: id, venue_id: 3, price_scale: scale(it.price_scale), quantity_scale: scale(it.quantity_scale) }
}

fn all(feed: &mut dyn Feed, finer: u8) -> Vec<String> {
    let bindings: Vec<_> = (5..).zip(feed.definitions()).map(|it| binding(it, finer)).collect();
    feed.bind(&bindings);
    let mut events = Vec::new();
    while let Some(event) = feed.next().unwrap() {
        events.push(format!("{event:?}"));
    }
    events
}

#[test]
fn one_pass_is_the_feed_itself() {
    for finer in [0, 2] {
        assert_eq!(all(&mut LoopFeed::new(csv(ROWS), 1).unwrap(), finer), all(csv(ROWS).as_mut(), finer));
    }
    let simulated = || Box::new(SimulatorFeed::new(SimulatorSpec::parse("events=3000,instruments=3").unwrap()).unwrap());
    assert_eq!(all(&mut LoopFeed::new(simulated(), 1).unwrap(), 0), all(simulated().as_mut(), 0));
}

#[test]
fn passes_go_on_where_the_last_ended() {
    let mut feed = LoopFeed::new(csv(ROWS), 3).unwrap();
    assert_eq!(feed.event_count_hint(), Some(15));
    let events = all(&mut feed, 0);
    assert_eq!(events.len(), 15);
    // 200 ns from the first to the last, and the mean of four gaps; ids of A are 11 to 13, its sequences 7 to 12, the id of B is 41.
    assert_eq!(period_ns(100, 300, 5), Some(250));
    let moved_by_hand = [250u64, 500].map(|later| {
        let (nth, id) = (later / 250, |id: u64, size: u64| id + size * (later / 250));
        ROWS.replace("100,90", &format!("{},{}", 100 + later, 90 + later))
            .replace("160,0", &format!("{},0", 160 + later))
            .replace("200,150", &format!("{},{}", 200 + later, 150 + later))
            .replace("300,250", &format!("{},{}", 300 + later, 250 + later))
            .replace(",,7,", &format!(",,{},", id(7, 6)))
            .replace(",,9,", &format!(",,{},", id(9, 6)))
            .replace(",13,12,", &format!(",{},{},", id(13, 3), id(12, 6)))
            .replace(",11,,", &format!(",{},,", id(11, 3)))
            .replace(",41,,", &format!(",{},,", 41 + nth))
    });
    let expected: Vec<_> = [ROWS.to_owned()].iter().chain(&moved_by_hand).flat_map(|rows| all(csv(rows).as_mut(), 0)).collect();
    assert_eq!(events, expected);
    assert!(feed.next().unwrap().is_none());
}

/// Two trades whose times are as far apart as times can be.
const FAR_APART: &str = "1,1,V,A,T,B,1,1,,,1\n18446744073709551615,2,V,A,T,B,1,1,,,1\n";

#[test]
fn a_pass_has_a_longest() {
    let of_at_most = |events_max| LoopFeed::of_at_most(events_max, csv(ROWS), 2);
    assert_eq!(of_at_most(5).unwrap().event_count_hint(), Some(10));
    let error = of_at_most(4).unwrap_err().to_string();
    assert_eq!(error, "the feed cannot be repeated: a pass of it has more than 4 events; repeat a shorter capture");
}

#[track_caller]
fn check_refused(source: Box<dyn Feed>, loop_count: u64, part: &str) {
    let error = LoopFeed::new(source, loop_count).expect_err("this cannot be repeated").to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn what_cannot_be_repeated_is_refused() {
    check_refused(csv("1,1,V,A,T,B,1,1,,,1\n2,2,V,A,L,B,1,1,,,1\n"), 2, "the book of A does not begin with a snapshot; begin the capture");
    check_refused(csv(ROWS), 0, "no pass is asked for");
    check_refused(csv(ROWS), 1 << 60, "its times would leave 64 bits in 1152921504606846976 passes; ask for fewer");
    check_refused(
        csv("1,1,V,A,T,B,1,1,1,,1\n2,2,V,A,T,B,1,1,9223372036854775807,,1\n"),
        3,
        "its trade ids would leave 64 bits in 3 passes",
    );
    // Once an overflow: from the first time to the last there are all 64 bits, and the pause between two passes comes on top.
    let far = |loop_count| check_refused(csv(FAR_APART), loop_count, "its times would leave 64 bits in");
    (1..3).for_each(far);
    assert_eq!((period_ns(1, u64::MAX, 2), period_ns(2, 1, 2), period_ns(0, u64::MAX, u64::MAX)), (None, None, None));
    let simulated = |spec| Box::new(SimulatorFeed::new(SimulatorSpec::parse(spec).unwrap()).unwrap());
    check_refused(simulated("events=10,accounts=1"), 2, "it has accounts");
    check_refused(simulated(""), 2, "it has no end");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blank");
    std::fs::write(&path, "\n").unwrap();
    let nothing = LoopFeed::new(Box::new(AccountFeed::open(&path).unwrap()), 7);
    assert!(nothing.unwrap().next().unwrap().is_none());
}

#[test]
fn passes_wait_for_bindings() {
    let mut feed = LoopFeed::new(csv(ROWS), 2).unwrap();
    assert!(feed.next().unwrap_err().to_string().contains("2 instruments and 0 are bound"));
    let definitions = feed.definitions().to_vec();
    feed.bind(&(1..).zip(&definitions).map(|it| InstrumentBinding { price_scale: Scale::MAX, ..binding(it, 0) }).collect::<Vec<_>>());
    assert!(feed.next().unwrap().is_some());
}
