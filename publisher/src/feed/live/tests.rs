//! The parts of a live feed that need no venue. What one does is tested at the door, against one that misbehaves.

use super::{
    backoff::Backoff,
    rest::retry_after,
    seen::{SeenTrades, Sort},
    snapshots::Snapshots,
    socket::{Incoming, Socket},
    *,
};
use crate::feed::capture::LiveDecoder;
use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    thread,
};
use tapewire_schemas::Scale;
use tapewire_stdx::wait::Wait;

#[test]
fn pauses_double_up_to_a_maximum_and_differ_by_seed() {
    let milliseconds = Duration::from_millis;
    let pauses = |seed| {
        let mut backoff = Backoff::new(milliseconds(100), milliseconds(1500), seed);
        (0..40).map(|_| backoff.next(None)).collect::<Vec<_>>()
    };
    for (pause, whole) in pauses(7).iter().zip([100, 200, 400, 800, 1500, 1500, 1500]) {
        assert!((milliseconds(whole) / 2..=milliseconds(whole)).contains(pause), "{pause:?} of {whole} ms");
    }
    assert!(pauses(7).iter().all(|pause| *pause <= milliseconds(1500)));
    assert_eq!(pauses(7), pauses(7));
    assert_ne!(pauses(7), pauses(8));
    let mut backoff = Backoff::new(milliseconds(100), milliseconds(1500), 7);
    assert_eq!(backoff.next(Some(milliseconds(90_000))), milliseconds(90_000));
    assert!((0..9).all(|_| backoff.next(None) >= milliseconds(50)));
    backoff.reset();
    assert!(backoff.next(Some(milliseconds(1))) <= milliseconds(100));
}

#[test]
fn retry_after_is_seconds_or_a_date_up_to_the_longest_ban() {
    let check = |text: Option<&str>, date: Option<&str>, expected: Option<u64>| {
        let found = retry_after(|name| if name == "retry-after" { text } else { date });
        assert_eq!(found, expected.map(Duration::from_secs), "{text:?} at {date:?}");
    };
    check(Some(" 17 "), None, Some(17));
    check(Some("0"), None, Some(0));
    check(Some("18446744073709551615"), None, Some(3 * 24 * 3600));
    for text in [None, Some(""), Some("-1"), Some("soon"), Some("Wed, 21 Oct")] {
        check(text, None, None);
    }
    // A date counts from the response's own.
    let at = "Wed, 21 Oct 2015 07:28:00 GMT";
    check(Some(at), Some("Wed, 21 Oct 2015 07:26:30 GMT"), Some(90));
    check(Some(at), Some("Wed, 21 Oct 2015 08:00:00 GMT"), Some(0));
    check(Some("Thu, 22 Oct 2099 07:28:00 GMT"), Some(at), Some(3 * 24 * 3600));
    check(Some(at), None, Some(0));
    check(Some("Thu, 22 Oct 2099 07:28:00 GMT"), Some("now"), Some(3 * 24 * 3600));
}

fn settings(listener: &TcpListener, rest: &str) -> LiveSettings {
    let port = listener.local_addr().unwrap().port();
    let text = format!("binance-spot?symbols=A&scales=2,2&ws=ws://127.0.0.1:{port}&rest=http://127.0.0.1:1&{rest}");
    LiveSettings::parse(&text).unwrap()
}

/// Sends a byte each millisecond until `enough`, or nobody is there, or there were ten seconds of it.
fn trickle(stream: &mut TcpStream, enough: &Stop) {
    for _ in 0..10_000 {
        if enough.is_raised() || stream.write_all(b" ").is_err() {
            return;
        }
        Wait::Sleep(Duration::from_millis(1)).once();
    }
}

/// The protocol above reads until a message is whole; it must let go between two bytes.
#[test]
fn a_message_that_trickles_in_does_not_hold_the_reader() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(&listener, "");
    let enough = Stop::default();
    let for_venue = enough.clone();
    let venue = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        // Text of 10,000 bytes.
        socket.get_mut().write_all(&[0x81, 126, 0x27, 0x10]).unwrap();
        trickle(socket.get_mut(), &for_venue);
    });
    let mut socket = Socket::connect(&settings, &settings.stream_url(), &Stop::default()).unwrap();
    for _ in 0..5 {
        let incoming = socket.read();
        assert!(matches!(incoming, Incoming::Nothing), "{incoming:?}");
    }
    enough.raise();
    venue.join().unwrap();
}

/// Nor may a handshake, above all that of TLS, whose records are long.
#[test]
#[cfg(feature = "tls")]
fn a_handshake_that_trickles_in_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = settings(&listener, "connect_timeout_ms=200");
    let enough = Stop::default();
    let for_venue = enough.clone();
    let venue = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A record of a handshake, 16,384 bytes, of a message of 16,000: it begins as a hello of a server does.
        stream.write_all(&[22, 3, 3, 0x40, 0, 2, 0, 0x3e, 0x80]).unwrap();
        trickle(&mut stream, &for_venue);
    });
    let failure = Socket::connect(&settings, &format!("wss://127.0.0.1:{port}/stream"), &Stop::default()).err();
    // Before the venue had enough of it: not the end of the connection is what was met.
    assert_eq!(failure.map(|it| it.what).as_deref(), Some("the handshake takes too long"));
    enough.raise();
    venue.join().unwrap();
}

/// Without the thread that asks for them no snapshot comes: books would be stale for ever, and nobody would know.
#[test]
fn a_dead_snapshot_thread_ends_the_feed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(&listener, "");
    let venue = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        while socket.read().is_ok() {}
    });
    let scale = Scale::new(2).unwrap();
    let binding = InstrumentBinding { instrument_id: 1, venue_id: 1, price_scale: scale, quantity_scale: scale };
    let definition = FeedInstrument { venue: "V".to_owned(), symbol: "A".to_owned(), price_scale: scale, quantity_scale: scale };
    let (batches_in, batches) = sync_channel(4);
    let (_spares, spares_out) = sync_channel(4);
    let (counters, stop, dead) = (SharedCounters::default(), Stop::default(), Stop::default());
    let receiver = Receiver::new(&settings, &[definition], &[binding], (batches_in, spares_out)).unwrap();
    let snapshots = Snapshots::start(&settings, counters.clone(), dead.clone()).unwrap();
    dead.raise();
    receiver.start_with(snapshots, counters, stop.clone()).unwrap();
    // Books are said to be stale first.
    assert!(batches.recv_timeout(Duration::from_secs(30)).unwrap().is_ok());
    let error = batches.recv_timeout(Duration::from_secs(30)).unwrap().unwrap_err().to_string();
    assert!(error.contains("has lost the thread that asks it for snapshots: it died; start again"), "{error}");
    stop.raise();
    venue.join().unwrap();
}

/// Such a time would make every search by time read from there on, for as long as the stream lives.
#[test]
fn a_time_of_the_far_future_is_none() {
    let scale = Scale::new(2).unwrap();
    let binding = InstrumentBinding { instrument_id: 1, venue_id: 1, price_scale: scale, quantity_scale: scale };
    let symbols = ["AB".to_owned()];
    let mut decoder = LiveDecoder::new(LiveMarket::BinanceSpot.rules(), &symbols, &[binding], "x").unwrap();
    let mut events = LiveEvents::new(&symbols, &[binding]).unwrap();
    let (day_ms, now_ms) = (24 * 60 * 60 * 1000u64, 1_700_000_000_000u64);
    let times = [now_ms, now_ms + day_ms, now_ms + day_ms + 1, 18_446_744_073_709, 0, now_ms - day_ms];
    for (id, time) in (1..).zip(times) {
        let text = format!(r#"{{"stream":"ab@trade","data":{{"e":"trade","s":"AB","t":{id},"p":"1","q":"1","T":{time},"m":true}}}}"#);
        decoder.message(&text, now_ms * 1_000_000).unwrap();
    }
    drop(events.refill(decoder.take(LiveBatch::default())));
    let expected = times.map(|time| if time > now_ms + day_ms { 0 } else { time * 1_000_000 });
    let found: Vec<u64> = std::iter::from_fn(|| events.next().map(|event| event.stamp.ts_event)).collect();
    assert_eq!((found.as_slice(), decoder.implausible_times()), (expected.as_slice(), 2));
}

/// Takes ids, and says which were new.
#[track_caller]
fn check_seen(ids: &[u64], new: &[u64], missing: u64) {
    let mut seen = SeenTrades::default();
    let found: Vec<u64> = ids.iter().copied().filter(|id| seen.insert(*id) == Sort::New).collect();
    assert_eq!((found.as_slice(), seen.missing()), (new, missing), "{ids:?}");
}

#[test]
fn trades_are_new_once() {
    check_seen(&[5, 5, 6, 6, 5], &[5, 6], 0);
    check_seen(&[5, 7, 6, 6, 8], &[5, 7, 6, 8], 0);
    check_seen(&[5, 9, 7, 7], &[5, 9, 7], 2);
    // What lies before the first one was never missed.
    check_seen(&[5, 4, 4, 3], &[5, 4, 3], 0);
    // What is far from the others misses nothing between them.
    check_seen(&[0, u64::MAX, 0, u64::MAX, 2, u64::MAX - 2], &[0, u64::MAX, 2, u64::MAX - 2], 1);
    // Bits of older ids are not taken for those of new ones.
    check_seen(&[0, 4096, 4096, 8192, 12288, 4096 * 2 + 1], &[0, 4096, 8192, 12288, 8193], 12287 - 3);
    // What is older than the window is not published again.
    check_seen(&[1, 2, 5000, 2, 3, 904, 905], &[1, 2, 5000, 905], 4996);
    // Against a model: the same ids in a shuffled order.
    let mut random = fastrand::Rng::with_seed(11);
    let mut ids: Vec<u64> = (100..3000).flat_map(|id| [id; 2]).collect();
    random.shuffle(&mut ids);
    let mut seen = SeenTrades::default();
    assert_eq!(ids.iter().filter(|id| seen.insert(**id) == Sort::New).count(), 2900);
    assert_eq!((seen.missing(), seen.restarts()), (0, 0));
}

/// One id far too large made every later trade a duplicate.
#[test]
fn trades_whose_ids_jump_are_not_lost() {
    let of = |seen: &mut SeenTrades, ids: &mut dyn Iterator<Item = u64>| ids.map(|id| seen.insert(id)).collect::<Vec<_>>();
    let (all_new, all_old) =
        (|sorts: &[Sort]| sorts.iter().all(|it| *it == Sort::New), |sorts: &[Sort]| sorts.iter().all(|it| *it == Sort::Old));
    // One alone costs nothing: neither it nor what follows is lost, and nothing is missing.
    let mut seen = SeenTrades::default();
    assert!(all_new(&of(&mut seen, &mut (1000..1010).chain([u64::MAX]).chain(1010..9000).chain([1 << 50]).chain(9000..9010))));
    assert_eq!(of(&mut seen, &mut [u64::MAX, 9009, 8000].into_iter()), [Sort::New, Sort::Known, Sort::Known]);
    assert_eq!((seen.missing(), seen.restarts()), (0, 0));
    // A venue that counts anew from far away: no trade is lost, and the count goes on there.
    let mut seen = SeenTrades::default();
    assert!(all_new(&of(&mut seen, &mut (3_000_000_000..3_000_000_100).chain(1..100))));
    assert_eq!((seen.insert(99), seen.insert(101), seen.missing(), seen.restarts()), (Sort::Known, Sort::New, 1, 1));
    // From near: what might have been sent before is dropped and said to be, until there is no doubt.
    let mut seen = SeenTrades::default();
    of(&mut seen, &mut (10_000..20_000));
    let sorts = of(&mut seen, &mut (1..100));
    assert!(all_old(&sorts[..7]) && all_new(&sorts[7..]), "{sorts:?}");
    assert_eq!(seen.restarts(), 1);
    // Trades that are sent again behind a new connection, and go on from there, are known.
    let mut seen = SeenTrades::default();
    of(&mut seen, &mut (10_000..20_000));
    assert!(of(&mut seen, &mut (16_000..20_000)).iter().all(|it| *it == Sort::Known));
    // A few older ones between them are dropped each time, and no other count.
    for id in 20_000..20_100 {
        assert_eq!((seen.insert(id), seen.insert(id - 9000)), (Sort::New, Sort::Old));
    }
    assert_eq!((seen.missing(), seen.restarts()), (0, 0));
}

#[test]
fn a_specification_is_read() {
    let it = LiveSettings::parse("binance-spot?symbols=BTCUSDT,ETHUSDT").unwrap();
    assert_eq!(it, LiveSettings::new(LiveMarket::BinanceSpot, vec!["BTCUSDT".to_owned(), "ETHUSDT".to_owned()]));
    let streams = "btcusdt@depth@100ms/btcusdt@trade/ethusdt@depth@100ms/ethusdt@trade";
    assert_eq!(it.stream_url(), format!("wss://stream.binance.com:9443/stream?streams={streams}"));
    let it = LiveSettings::parse(
        "binance-usdm?symbols=BTCUSDT_230630&ws=ws://127.0.0.1:1&rest=http://[::1]:2&streams=trade&scales=2,5&silence_max_ms=700&\
         ping_after_ms=300&backoff_min_ms=3&backoff_max_ms=4&message_bytes_max=5000&queue_messages_max=6&seed=7&snapshot_levels=500",
    )
    .unwrap();
    assert_eq!(it.stream_url(), "ws://127.0.0.1:1/stream?streams=btcusdt_230630@trade");
    let scale = |digits| Scale::new(digits).unwrap();
    assert_eq!((it.rest_url.as_str(), it.scales, it.queue_messages_max), ("http://[::1]:2", Some((scale(2), scale(5))), 6));
    assert_eq!((it.silence_max, it.backoff.1, it.seed), (Duration::from_millis(700), Duration::from_millis(4), 7));
}

#[track_caller]
fn check_refused(text: &str, part: &str) {
    let error = LiveSettings::parse(text).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{part:?} is not understood: ")), "{text}: {error}");
}

#[test]
fn a_wrong_specification_is_refused_by_its_part() {
    check_refused("", "");
    check_refused("binance?symbols=A", "binance");
    check_refused("binance-spot", "symbols=");
    check_refused("binance-spot?symbols=", "symbols=");
    check_refused("binance-spot?symbols=A,,B", "symbols=A,,B");
    check_refused("binance-spot?symbols=btcusdt", "symbols=btcusdt");
    check_refused("binance-spot?symbols=A/B", "symbols=A/B");
    check_refused("binance-spot?symbols=A,A", "symbols=A,A");
    let with = |rest: &str, part: &str| check_refused(&format!("binance-spot?symbols=A&{rest}"), part);
    with("speed", "speed");
    with("speed=1", "speed=1");
    with("streams=kline", "streams=kline");
    with("streams=depth@1/2", "streams=depth@1/2");
    with("ws=http://a", "http://a");
    with("ws=ws://", "ws://");
    with("ws=ws://host/", "ws://host/");
    with("ws=ws://user@host", "ws://user@host");
    with("rest=https://host/path", "https://host/path");
    with("scales=2", "scales=2");
    with("scales=2,19", "scales=2,19");
    with("silence_max_ms=0", "silence_max_ms=0");
    with("silence_max_ms=86400001", "silence_max_ms=86400001");
    with("ping_after_ms=30000", "ping_after_ms");
    with("backoff_min_ms=9&backoff_max_ms=8", "backoff_min_ms");
    with("queue_messages_max=0", "queue_messages_max");
    with("queue_messages_max=-1", "queue_messages_max=-1");
    check_refused(&format!("binance-spot?symbols={}", (0..600).map(|it| format!("S{it}")).collect::<Vec<_>>().join(",")), "symbols");
}
