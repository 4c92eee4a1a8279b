//! A live feed and a venue that misbehaves: books end as the venue's own, nothing comes twice, and every loss is said.

use crate::venue::{Act, Market, PATIENCE, RestAct, Venue, market::canonical};
use std::{
    collections::{BTreeMap, HashSet},
    io::Read as _,
    time::{Duration, Instant},
};
use tapewire_publisher::feed::{Feed, FeedError, InstrumentBinding, LiveCounters, LiveFeed, LiveSettings};
use tapewire_schemas::{BookRef, ControlCode, Event, Level, Payload, Scale};

/// Everything in a test has the venue's eight decimals.
const DIGITS: u8 = 8;

/// A book as a subscriber builds it, and the number of its last update; `None` where it is stale.
#[derive(Default)]
struct SeenBook {
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    number: Option<u64>,
}

/// What a subscriber would know, and what it would complain of.
#[derive(Default)]
struct Seen {
    /// By instrument id, which begins at 1.
    books: BTreeMap<u32, SeenBook>,
    trades: BTreeMap<u32, Vec<u64>>,
    gaps: Vec<(u32, u64, u64)>,
    disconnects: u64,
    snapshots: u64,
    ts_recv: u64,
    is_futures: bool,
}

impl Seen {
    #[track_caller]
    fn observe(&mut self, event: &Event<'_>) {
        assert!(event.stamp.ts_recv >= self.ts_recv, "ts_recv steps back at {event:?}");
        self.ts_recv = event.stamp.ts_recv;
        let id = event.stamp.instrument_id;
        match event.payload {
            Payload::Trade(trade, _) => self.trades.entry(id).or_default().push(trade.trade_id),
            Payload::BookSnapshot(levels) => {
                let book = self.books.entry(id).or_default();
                *book = SeenBook::default();
                book.apply(&levels);
                self.snapshots += 1;
            }
            Payload::BookDelta(levels) => {
                let is_futures = self.is_futures;
                let book = self.books.entry(id).or_default();
                let before = book.number.unwrap_or_else(|| panic!("a delta for a stale book: {event:?}"));
                assert!(levels.venue_seq_last >= before, "{event:?} is applied again, or late");
                assert!(is_futures || levels.venue_seq_first <= before + 1, "{event:?} leaves a hole behind {before}");
                book.apply(&levels);
            }
            Payload::Control(control) => match control.code() {
                Some(ControlCode::Gap) => {
                    self.gaps.push((id, control.sequence, control.last_sequence));
                    self.books.entry(id).or_default().number = None;
                }
                Some(ControlCode::VenueDisconnected) => {
                    self.disconnects += 1;
                    self.books.values_mut().for_each(|book| book.number = None);
                }
                other => panic!("{other:?} is no business of a feed"),
            },
            ref other => panic!("nobody sent {other:?}"),
        }
    }
}

impl SeenBook {
    fn apply(&mut self, levels: &BookRef<'_>) {
        let set = |side: &mut BTreeMap<i64, i64>, level: &Level| {
            if level.quantity == 0 {
                side.remove(&level.price)
            } else {
                side.insert(level.price, level.quantity)
            };
        };
        levels.bids.iter().for_each(|level| set(&mut self.bids, level));
        levels.asks.iter().for_each(|level| set(&mut self.asks, level));
        self.number = Some(levels.venue_seq_last);
    }

    fn canonical(&self) -> String {
        canonical(self.bids.iter().rev(), self.asks.iter())
    }
}

fn settings(venue: &Venue, market: &str, symbols: &str, rest: &str) -> LiveSettings {
    let text = format!(
        "{market}?symbols={symbols}&ws={}&rest={}&backoff_min_ms=1&backoff_max_ms=20&message_bytes_max=1048576&{rest}",
        venue.ws_url(),
        venue.rest_url()
    );
    LiveSettings::parse(&text).unwrap()
}

fn open(settings: LiveSettings) -> LiveFeed {
    let mut feed = LiveFeed::open(settings, || false).unwrap();
    let scale = Scale::new(DIGITS).unwrap();
    let bindings: Vec<_> = (1..)
        .zip(feed.definitions())
        .map(|(instrument_id, _)| InstrumentBinding { instrument_id, venue_id: 1, price_scale: scale, quantity_scale: scale })
        .collect();
    feed.bind(&bindings);
    feed
}

/// Reads the feed until everything that the venue sent has come.
#[track_caller]
fn drain(venue: &mut Venue, feed: &mut LiveFeed, is_futures: bool) -> Seen {
    let mut seen = Seen { is_futures, ..Seen::default() };
    let deadline = Instant::now() + PATIENCE;
    loop {
        while let Some(event) = feed.next().unwrap() {
            seen.observe(&event);
        }
        venue.check();
        let counters = feed.live_counters();
        venue.tell_joined(counters.resyncs);
        if venue.is_over() && is_all(venue, &seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "the last messages do not come: {counters:#?}");
        assert!(feed.wait(Duration::from_millis(5)));
    }
}

/// Whether the last trade of each instrument has come: everything before it has, too.
fn is_all(venue: &Venue, seen: &Seen) -> bool {
    let books = venue.books();
    (1..).zip(&books).all(|(id, (symbol, _))| {
        let last = *venue.trades(symbol).last().unwrap();
        seen.trades.get(&id).is_some_and(|trades| trades.contains(&last))
    })
}

/// Runs a script against a feed: the oracle of every test here. Returns what was seen, and what was counted.
#[track_caller]
fn check(markets: Vec<Market>, sessions: Vec<Vec<Act>>, rest_acts: Vec<RestAct>, rest: &str) -> (Seen, LiveCounters) {
    let is_futures = markets[0].is_futures;
    let symbols = markets.iter().map(|market| market.symbol.clone()).collect::<Vec<_>>().join(",");
    let mut venue = Venue::start(markets, sessions, rest_acts);
    let market = if is_futures { "binance-usdm" } else { "binance-spot" };
    let mut feed = open(settings(&venue, market, &symbols, rest));
    let seen = drain(&mut venue, &mut feed, is_futures);
    for (id, (symbol, book)) in (1..).zip(venue.books()) {
        assert!(seen.books[&id].number.is_some(), "the book of {symbol} is stale at the end");
        assert_eq!(seen.books[&id].canonical(), book, "the book of {symbol}");
        let unique: HashSet<u64> = seen.trades[&id].iter().copied().collect();
        assert_eq!(unique.len(), seen.trades[&id].len(), "a trade of {symbol} came twice");
        assert_eq!(unique, venue.trades(&symbol).into_iter().collect::<HashSet<_>>(), "trades of {symbol}");
    }
    let counters = feed.live_counters();
    assert_eq!((counters.feed.gaps, counters.feed.disconnects), (seen.gaps.len() as u64, seen.disconnects));
    assert_eq!(counters.resyncs, seen.snapshots);
    (seen, counters)
}

fn one() -> Vec<Market> {
    vec![Market::generated("BTCUSDT", 7)]
}

fn two() -> Vec<Market> {
    vec![Market::generated("BTCUSDT", 7), Market::generated("ETH_USDT", 8)]
}

/// A session in which all is well until `bad`, before which everything was read.
fn until(joined: u64, bad: Act) -> Vec<Act> {
    vec![Act::Joined(joined), Act::Send(20), Act::Ping, bad]
}

fn last(joined: u64) -> Vec<Act> {
    vec![Act::Joined(joined), Act::Send(20), Act::Finish]
}

#[test]
fn a_good_venue() {
    for markets in [one(), two(), vec![Market::generated("BTCUSDT", 3).futures()]] {
        let count = markets.len() as u64;
        let (seen, counters) =
            check(markets, vec![vec![Act::Joined(count), Act::Send(2000), Act::Fragmented, Act::Ping, Act::Finish]], vec![], "");
        assert_eq!((seen.gaps.len(), seen.disconnects, seen.snapshots), (0, 0, count));
        assert_eq!((counters.connects, counters.missing_trades, counters.duplicate_trades), (1, 0, 0));
        assert!(counters.pings_received >= 2 && counters.messages > 2000 && counters.bytes > 100 * counters.messages, "{counters:?}");
    }
}

#[test]
fn a_lost_connection_is_said_and_made_again() {
    for bad in [Act::Close, Act::Half, Act::Huge, Act::Binary, Act::Text("{\"stream\":".to_owned()), Act::Text("[1,2".to_owned())] {
        let is_told = matches!(bad, Act::Text(_) | Act::Binary);
        let is_huge = matches!(bad, Act::Huge);
        println!("{bad:?}");
        let mut session = until(2, bad);
        if is_told {
            session.push(Act::Dead);
        }
        let (seen, counters) = check(two(), vec![session, last(4)], vec![], "");
        assert_eq!((seen.disconnects, seen.snapshots, seen.gaps.len()), (1, 4, 0));
        assert_eq!((counters.connects, counters.malformed, counters.oversized), (2, u64::from(is_told), u64::from(is_huge)));
    }
}

#[test]
fn messages_that_are_no_depth_messages_are_malformed() {
    let data = |data: &str| Act::Text(format!("{{\"stream\":\"btcusdt@depth@100ms\",\"data\":{data}}}"));
    for bad in [
        data(r#"{"e":"depthUpdate","s":"BTCUSDT"}"#),
        data(r#"{"e":"depthUpdate","s":"BTCUSDT","U":9,"u":8,"b":[],"a":[]}"#),
        data(r#"{"e":"depthUpdate","s":"NOBODY","U":9,"u":9,"b":[],"a":[]}"#),
        data(r#"{"e":"trade","s":"BTCUSDT","t":1,"p":"1e5","q":"1","m":true}"#),
        data(r#"{"e":"trade","s":"BTCUSDT","t":1,"p":"1","q":"-1","m":true}"#),
        data(r#"{"e":"trade","s":"BTCUSDT","t":1,"p":"1.123456789","q":"1","m":true}"#),
        data(r#"{"e":"trade","s":"BTCUSDT","t":1,"p":"99999999999999999999","q":"1","m":true}"#),
        Act::Text(String::new()),
        Act::Text("[".repeat(100_000)),
    ] {
        println!("{bad:.200?}");
        let (seen, counters) = check(one(), vec![vec![Act::Joined(1), Act::Ping, bad, Act::Dead], last(2)], vec![], "");
        assert_eq!((seen.disconnects, counters.malformed, counters.unknown), (1, 1, 0));
    }
}

#[test]
fn a_message_of_an_unknown_type_is_skipped() {
    let unknown = r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT","k":{"t":1}}}"#.to_owned();
    let answer = r#"{"result":null,"id":1}"#.to_owned();
    let acts = vec![
        Act::Joined(1),
        Act::Text(unknown.clone()),
        Act::Text(answer),
        Act::Send(5),
        Act::Text(unknown),
        Act::Text("{}".to_owned()),
        Act::Finish,
    ];
    let (seen, counters) = check(one(), vec![acts], vec![], "");
    assert_eq!((seen.disconnects, counters.unknown, counters.feed.skipped), (0, 3, 1));
}

#[test]
fn a_hole_in_the_numbers_is_said_and_healed_on_the_same_connection() {
    for markets in [one(), vec![Market::generated("BTCUSDT", 3).futures()]] {
        let acts =
            vec![Act::Joined(1), Act::Send(50), Act::Skip(3), Act::Joined(2), Act::Send(9), Act::Skip(1), Act::Joined(3), Act::Finish];
        let (seen, counters) = check(markets, vec![acts], vec![], "");
        assert_eq!((seen.disconnects, counters.connects, seen.gaps.len(), seen.snapshots), (0, 1, 2, 3));
        assert!(seen.gaps.iter().all(|(id, first, last)| *id == 1 && first <= last), "{:?}", seen.gaps);
    }
}

#[test]
fn what_comes_twice_or_late_is_published_once() {
    let (seen, counters) = check(one(), vec![vec![Act::Joined(1), Act::Twice, Act::Twice, Act::Send(20), Act::Finish]], vec![], "");
    assert_eq!((seen.gaps.len(), counters.duplicate_trades), (0, 2));
    assert!(counters.feed.superseded >= 2, "{counters:?}");
    // The second of two depth messages leaves a hole when it comes first.
    let (seen, counters) = check(two(), vec![vec![Act::Joined(2), Act::Swapped, Act::Joined(3), Act::Send(20), Act::Finish]], vec![], "");
    assert_eq!((seen.gaps.len(), counters.duplicate_trades, counters.missing_trades, seen.disconnects), (1, 0, 0, 0));
}

/// A number far too large, once, made every later message of that book, and every later trade, look like one of before.
#[test]
fn numbers_that_fall_back_lose_nothing_silently() {
    for markets in [one(), vec![Market::generated("BTCUSDT", 3).futures()]] {
        let is_spot = !markets[0].is_futures;
        // Messages of spot and futures differ: the far ones are those of spot.
        let far = if is_spot { vec![Act::Far, Act::Joined(2), Act::Send(100)] } else { vec![] };
        let begin = vec![Act::Joined(1), Act::Send(20)];
        let anew = vec![Act::Anew, Act::Joined(2 + u64::from(is_spot)), Act::Send(100), Act::Finish];
        let (seen, counters) = check(markets, vec![[begin, far, anew].concat()], vec![], "");
        assert_eq!((seen.disconnects, counters.connects), (0, 1), "{counters:?}");
        assert_eq!((seen.gaps.len(), seen.snapshots), (1 + usize::from(is_spot), 2 + u64::from(is_spot)), "{counters:?}");
        assert_eq!((counters.missing_trades, counters.old_trades, counters.duplicate_trades), (0, 0, 0), "{counters:?}");
        assert!(counters.feed.superseded >= 64, "{counters:?}");
    }
}

/// A byte now and then is no life: what does not come whole within the silence is given up, and a pause is heard meanwhile.
#[test]
fn a_message_that_never_ends_is_given_up() {
    let (seen, counters) = check(one(), vec![until(1, Act::Trickle), last(2)], vec![], "ping_after_ms=60&silence_max_ms=1500");
    assert_eq!((seen.disconnects, counters.silences, counters.connects), (1, 1, 2), "{counters:?}");
}

#[test]
fn a_silent_venue_is_asked_and_a_dead_one_given_up() {
    let patient = "ping_after_ms=60&silence_max_ms=20000";
    let (seen, counters) = check(one(), vec![vec![Act::Joined(1), Act::Quiet, Act::Quiet, Act::Send(5), Act::Finish]], vec![], patient);
    assert_eq!((seen.disconnects, counters.silences), (0, 0));
    assert!(counters.pings_sent >= 2, "{counters:?}");
    let (seen, counters) = check(one(), vec![until(1, Act::Dead), last(2)], vec![], "ping_after_ms=60&silence_max_ms=1500");
    assert_eq!((seen.disconnects, counters.silences, counters.connects), (1, 1, 2));
    assert!(counters.pings_sent >= 1, "{counters:?}");
}

#[test]
fn a_snapshot_that_cannot_be_used_is_asked_for_again() {
    let half = RestAct::Text(r#"{"lastUpdateId":18446744073709551615,"bids":[["1","1"],["x","1"]],"asks":[]}"#);
    for (bad, rest) in [
        (RestAct::Status(500, None), ""),
        (RestAct::Status(404, None), ""),
        (RestAct::Drop, ""),
        (RestAct::Slow, "request_timeout_ms=150"),
        (RestAct::Text("<html>"), ""),
        (RestAct::Text("{}"), ""),
        (half, ""),
    ] {
        println!("{bad:?}");
        let is_timed = !rest.is_empty();
        let (seen, counters) = check(one(), vec![last(1)], vec![bad.clone(), bad, RestAct::Answer], rest);
        assert_eq!((seen.snapshots, seen.disconnects), (1, 0), "{counters:?}");
        // On a busy machine a proper answer may come too late as well.
        assert!(counters.request_failures == 2 || is_timed && counters.request_failures > 2, "{counters:?}");
    }
    let (seen, counters) = check(one(), vec![last(1)], vec![RestAct::Old, RestAct::Old], "");
    assert_eq!((counters.stale_snapshots, seen.snapshots), (2, 1));
}

/// A snapshot that was asked for on a connection which is gone joins nothing on the next.
#[test]
fn a_late_snapshot_is_no_book() {
    let lost = vec![Act::Send(5), Act::Requested(2), Act::Skip(3), Act::Ping, Act::Half];
    let next = vec![Act::Released, Act::Ping, Act::Ping, Act::Ping, Act::Joined(1), Act::Send(20), Act::Finish];
    let (seen, counters) = check(one(), vec![lost, next], vec![RestAct::Held], "");
    assert_eq!((seen.gaps.len(), seen.snapshots, seen.disconnects), (0, 1, 1), "{counters:?}");
}

/// The venue checks that nobody comes back before it may.
#[test]
fn retry_after_is_obeyed() {
    for status in [429, 418, 503] {
        let (_, counters) = check(two(), vec![last(2)], vec![RestAct::Status(status, Some(1))], "");
        assert_eq!((counters.request_failures, counters.resyncs), (1, 2));
    }
    let (_, counters) = check(one(), vec![vec![Act::Refuse(429, 1)], vec![Act::Hang], last(1)], vec![], "");
    assert_eq!((counters.connect_failures, counters.connects), (2, 1));
}

#[test]
fn one_thing_after_another() {
    let rest = vec![RestAct::Old, RestAct::Answer, RestAct::Status(500, None), RestAct::Drop];
    let sessions = vec![
        vec![Act::Joined(2), Act::Send(30), Act::Skip(2), Act::Joined(3), Act::Twice, Act::Ping, Act::Half],
        vec![Act::Hang],
        vec![Act::Send(10), Act::Ping, Act::Text("no".to_owned()), Act::Dead],
        vec![Act::Joined(5), Act::Swapped, Act::Joined(6), Act::Fragmented, Act::Send(100), Act::Ping, Act::Close],
        vec![Act::Joined(8), Act::Send(300), Act::Skip(1), Act::Joined(9), Act::Send(100), Act::Finish],
    ];
    let (seen, counters) = check(two(), sessions, rest, "");
    assert_eq!(seen.disconnects, 3);
    assert!(seen.gaps.len() >= 3 && counters.connect_failures == 1, "{counters:?}");
}

/// A full queue stops the reading, and loses nothing.
#[test]
fn a_slow_sequencer_slows_the_venue_down() {
    let mut venue = Venue::start(one(), vec![vec![Act::Joined(1), Act::Send(3000), Act::Finish]], vec![]);
    let mut feed = open(settings(&venue, "binance-spot", "BTCUSDT", "queue_messages_max=2"));
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Seen::default();
    while feed.live_counters().queue_stalls == 0 {
        // One event at a time, and only while the queue is not full yet.
        if let Some(event) = feed.next().unwrap() {
            seen.observe(&event);
        }
        venue.tell_joined(feed.live_counters().resyncs);
        if feed.live_counters().resyncs == 0 {
            feed.wait(Duration::from_millis(5));
        }
        venue.check();
        assert!(Instant::now() < deadline, "the queue never fills: {:?}", feed.live_counters());
        if feed.live_counters().resyncs == 1 {
            // From here on nothing is taken, until it is full.
            while feed.live_counters().queue_stalls == 0 {
                assert!(Instant::now() < deadline, "the queue never fills: {:?}", feed.live_counters());
                std::thread::yield_now();
            }
        }
    }
    let rest = drain_into(&mut venue, &mut feed, seen);
    assert_eq!(rest.books[&1].canonical(), venue.books()[0].1);
    assert_eq!(rest.trades[&1], venue.trades("BTCUSDT"));
    assert_eq!((rest.gaps.len(), rest.disconnects), (0, 0));
}

fn drain_into(venue: &mut Venue, feed: &mut LiveFeed, mut seen: Seen) -> Seen {
    let deadline = Instant::now() + PATIENCE;
    while !(venue.is_over() && is_all(venue, &seen)) {
        while let Some(event) = feed.next().unwrap() {
            seen.observe(&event);
        }
        venue.tell_joined(feed.live_counters().resyncs);
        venue.check();
        assert!(Instant::now() < deadline, "the last messages do not come: {:?}", feed.live_counters());
        feed.wait(Duration::from_millis(5));
    }
    seen
}

#[test]
fn what_a_venue_does_not_know_is_refused() {
    let venue = Venue::start(one(), vec![], vec![]);
    let refused = |settings: LiveSettings| LiveFeed::open(settings, || false).unwrap_err();
    let error = refused(settings(&venue, "binance-spot", "NOBODY", ""));
    assert!(matches!(error, FeedError::Venue { .. }) && error.to_string().contains("has no instrument NOBODY"), "{error}");
    let url = venue.rest_url();
    drop(venue);
    let gone = format!("binance-spot?symbols=A&ws=ws://127.0.0.1:1&rest={url}&open_timeout_ms=50&backoff_min_ms=1&backoff_max_ms=9");
    let error = refused(LiveSettings::parse(&gone).unwrap());
    assert!(error.to_string().starts_with(&format!("{url} does not say what its instruments are: ")), "{error}");
}

/// The venue now has finer prices than it said: only a new definition can carry them.
#[test]
fn changed_decimals_end_the_feed() {
    let finer = r#"{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":1,"p":"1.001","q":"1","m":true}}"#;
    let session = vec![Act::Joined(1), Act::Tick("0.00100000"), Act::Text(finer.to_owned()), Act::Dead];
    let mut venue = Venue::start(one(), vec![session], vec![]);
    let mut feed = LiveFeed::open(settings(&venue, "binance-spot", "BTCUSDT", ""), || false).unwrap();
    let scales = feed.definitions().iter().map(|it| (it.price_scale, it.quantity_scale)).collect::<Vec<_>>();
    assert_eq!(scales, [(Scale::new(2).unwrap(), Scale::new(5).unwrap())]);
    let binding = InstrumentBinding { instrument_id: 1, venue_id: 1, price_scale: scales[0].0, quantity_scale: scales[0].1 };
    feed.bind(&[binding]);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match feed.next() {
            Ok(Some(_)) => {}
            Ok(None) => assert!(feed.wait(Duration::from_millis(5)) && Instant::now() < deadline),
            Err(error) => break error,
        }
        let joined = feed.live_counters().resyncs;
        venue.tell_joined(joined);
        venue.check();
    };
    assert!(error.to_string().contains("has changed the decimals of BTCUSDT; start again"), "{error}");
    assert!(matches!(feed.next(), Ok(None)) && !feed.wait(Duration::from_millis(1)));
}

/// Through TLS, streams and requests alike; and only with a certificate that is trusted.
#[cfg(feature = "tls")]
#[test]
fn a_secured_venue() {
    let mut venue = Venue::start(one(), vec![until(1, Act::Half), last(2)], vec![]);
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let (streams, rest) = (secured(&venue.ws_url(), &key), secured(&venue.rest_url(), &key));
    let text = format!("binance-spot?symbols=BTCUSDT&ws=wss://{streams}&rest=https://{rest}&backoff_min_ms=1&backoff_max_ms=20");
    let mut feed = open(LiveSettings::parse(&format!("{text}&ca={}", ca.display())).unwrap());
    let seen = drain(&mut venue, &mut feed, false);
    assert_eq!(seen.books[&1].canonical(), venue.books()[0].1);
    assert_eq!((seen.trades[&1].len(), seen.disconnects), (venue.trades("BTCUSDT").len(), 1));
    let refused = |rest: &str| LiveFeed::open(LiveSettings::parse(&format!("{text}&{rest}")).unwrap(), || false).unwrap_err().to_string();
    assert!(refused("open_timeout_ms=1").contains("UnknownIssuer"), "{}", refused("open_timeout_ms=1"));
    std::fs::write(&ca, "nothing").unwrap();
    assert!(refused(&format!("ca={}", ca.display())).contains("holds no certificate"));
    assert!(refused("ca=no/such/file").contains("no/such/file cannot be read as certificates"));
}

/// The address of something that speaks TLS in front of `url`.
#[cfg(feature = "tls")]
fn secured(url: &str, key: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};
    use std::{
        net::{TcpListener, TcpStream},
        sync::Arc,
        thread,
    };
    let behind = url.split_once("://").unwrap().1.to_owned();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let brief = Some(Duration::from_millis(2));
    thread::spawn(move || {
        for outer in listener.incoming() {
            let (outer, inner, config) = (outer.unwrap(), TcpStream::connect(&behind), Arc::clone(&config));
            // The venue behind has ended.
            let Ok(mut inner) = inner else { return };
            [&outer, &inner].into_iter().for_each(|stream| stream.set_read_timeout(brief).unwrap());
            let mut outer = StreamOwned::new(ServerConnection::new(config).unwrap(), outer);
            thread::spawn(move || while pass(&mut outer, &mut inner) && pass(&mut inner, &mut outer) {});
        }
    });
    format!("localhost:{port}")
}

/// Passes on what is there; `false` at the end.
#[cfg(feature = "tls")]
fn pass(from: &mut impl std::io::Read, to: &mut impl std::io::Write) -> bool {
    let mut bytes = [0; 65536];
    match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(count) => to.write_all(&bytes[..count]).and_then(|()| to.flush()).is_ok(),
        Err(error) => matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

/// A real market, where there is a capture of one.
#[test]
fn a_real_market() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let directory = std::env::var("TAPEWIRE_DATA").unwrap_or_else(|_| default.to_owned());
    for (capture, is_futures) in [("spot_btcusdt_20240808", false), ("usdm_btcusdt_20240808", true)] {
        let Ok(file) = std::fs::File::open(format!("{directory}/raw/hftbacktest_binance/{capture}.gz")) else {
            println!("skipped: no real capture (set TAPEWIRE_DATA to the directory of captures)");
            return;
        };
        let mut lines = String::new();
        flate2::read::GzDecoder::new(file).read_to_string(&mut lines).unwrap();
        let market = Market::recorded(&lines);
        let market = if is_futures { market.futures_recorded() } else { market };
        let sessions = vec![
            vec![Act::Joined(1), Act::Send(3000), Act::Skip(2), Act::Joined(2), Act::Twice, Act::Ping, Act::Half],
            vec![Act::Joined(3), Act::Send(6000), Act::Swapped, Act::Joined(4), Act::Finish],
        ];
        let (seen, counters) = check(vec![market], sessions, vec![], "");
        assert_eq!((seen.disconnects, seen.gaps.len()), (1, 2), "{counters:?}");
    }
}
