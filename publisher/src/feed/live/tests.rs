//! The parts of a live feed that need no venue. What one does is tested at the door, against one that misbehaves.

use super::{backoff::Backoff, rest::retry_after, seen::SeenTrades, *};
use tapewire_schemas::Scale;

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
fn retry_after_is_seconds_up_to_the_longest_ban() {
    assert_eq!(retry_after(Some(" 17 ")), Some(Duration::from_secs(17)));
    assert_eq!(retry_after(Some("0")), Some(Duration::ZERO));
    assert_eq!(retry_after(Some("18446744073709551615")), Some(Duration::from_secs(3 * 24 * 3600)));
    for text in [None, Some(""), Some("-1"), Some("Wed, 21 Oct 2015 07:28:00 GMT")] {
        assert_eq!(retry_after(text), None, "{text:?}");
    }
}

/// Takes ids, and says which were new.
#[track_caller]
fn check_seen(ids: &[u64], new: &[u64], missing: u64) {
    let mut seen = SeenTrades::default();
    let found: Vec<u64> = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
    assert_eq!((found.as_slice(), seen.missing()), (new, missing), "{ids:?}");
}

#[test]
fn trades_are_new_once() {
    check_seen(&[5, 5, 6, 6, 5], &[5, 6], 0);
    check_seen(&[5, 7, 6, 6, 8], &[5, 7, 6, 8], 0);
    check_seen(&[5, 9, 7, 7], &[5, 9, 7], 2);
    // What lies before the first one was never missed.
    check_seen(&[5, 4, 4, 3], &[5, 4, 3], 0);
    check_seen(&[0, u64::MAX, 0, u64::MAX], &[0, u64::MAX], u64::MAX - 1);
    // Bits of older ids are not taken for those of new ones.
    check_seen(&[0, 4096, 4096, 8192, 12288, 4096 * 2 + 1], &[0, 4096, 8192, 12288, 8193], 12287 - 3);
    // What is older than the window is not published again.
    check_seen(&[1, 2, 5000, 2, 3, 904, 905], &[1, 2, 5000, 905], 4996);
    // Against a model: the same ids in a shuffled order.
    let mut random = fastrand::Rng::with_seed(11);
    let mut ids: Vec<u64> = (100..3000).flat_map(|id| [id; 2]).collect();
    random.shuffle(&mut ids);
    let mut seen = SeenTrades::default();
    assert_eq!(ids.iter().filter(|id| seen.insert(**id)).count(), 2900);
    assert_eq!(seen.missing(), 0);
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
