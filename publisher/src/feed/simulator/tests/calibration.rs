//! The simulation's own mix against the figures that were measured.

use super::*;
use crate::feed::simulator::calibration::*;

/// What a stream of market events looks like.
#[derive(Default)]
struct Mix {
    trades: u64,
    levels: Vec<u64>,
    trades_before: Vec<u64>,
    taker_runs: Vec<u64>,
    gaps_ns: Vec<u64>,
    bursts: Vec<u64>,
    delta_gaps_ns: Vec<u64>,
    per_100_ms: Vec<u64>,
    snapshot_levels: u64,
}

fn measure(spec: &str) -> Mix {
    let mut feed = simulation(spec);
    let (mut mix, mut since, mut last_recv, mut last_delta, mut origin) = (Mix::default(), 0, None, None, None);
    let (mut run, mut run_at, mut burst) = (0, 0, 1);
    while let Some(event) = feed.next().unwrap() {
        let at = event.stamp.ts_recv;
        match event.payload {
            Payload::Trade(..) => {
                (mix.trades, since) = (mix.trades + 1, since + 1);
                if run > 0 && run_at != event.stamp.ts_event {
                    mix.taker_runs.push(std::mem::take(&mut run));
                }
                (run, run_at) = (run + 1, event.stamp.ts_event);
            }
            Payload::BookDelta(it) => {
                mix.levels.push((it.bids.len() + it.asks.len()) as u64);
                mix.trades_before.push(std::mem::take(&mut since));
                mix.delta_gaps_ns.extend(last_delta.replace(at).map(|before| at - before));
            }
            Payload::BookSnapshot(it) => mix.snapshot_levels = (it.bids.len() + it.asks.len()) as u64,
            _ => continue,
        }
        if let Some(before) = last_recv.replace(at) {
            mix.gaps_ns.push(at - before);
            if at - before < 1_000_000 {
                burst += 1;
            } else {
                mix.bursts.push(std::mem::replace(&mut burst, 1));
            }
        }
        let slot = ((at - *origin.get_or_insert(at)) / 100_000_000) as usize;
        mix.per_100_ms.resize(slot + 1, 0);
        mix.per_100_ms[slot] += 1;
    }
    mix
}

fn mean(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len() as f64
}

#[track_caller]
fn check(what: &str, found: f64, measured: f64, tolerance: f64) {
    assert!((found / measured - 1.0).abs() <= tolerance, "{what}: {found} instead of {measured}, more than {tolerance} off");
}

/// Quantiles of a sorted sample, each within the tolerance of the measured one.
#[track_caller]
fn check_quantiles(what: &str, mut values: Vec<u64>, measured: &[(f64, f64)], tolerance: f64) {
    values.sort_unstable();
    for (share, expected) in measured {
        let found = values[(share * values.len() as f64) as usize] as f64;
        check(&format!("{what} at {share}"), found, *expected, tolerance);
    }
}

/// One instrument as delivered, a million events: the figures of `binance_usdm_btcusdt_synced`, within what is said at each.
#[test]
fn the_mix_is_that_of_a_real_capture() {
    let mix = measure("events=400000,instruments=1");
    assert_eq!(mix.snapshot_levels, 2 * u64::from(BOOK_LEVELS));
    let delta_count = mix.levels.len() as f64;
    // 3.07 (spot) and 3.26 (futures) trades for each depth message.
    check("trades per delta", mix.trades as f64 / delta_count, 3.16, 0.06);
    let quiet = mix.trades_before.iter().filter(|trades| **trades == 0).count() as f64 / delta_count;
    check("intervals without a trade", quiet, 0.563, 0.08);
    check_quantiles("trades of an interval", mix.trades_before.clone(), &[(0.95, 11.0), (0.99, 49.0), (0.998, 136.0)], 0.25);
    assert!(*mix.trades_before.iter().max().unwrap() > 500, "no long tail");
    check("levels per delta", mean(&mix.levels), 67.7, 0.10);
    let levels = [(0.05, 13.0), (0.25, 22.0), (0.5, 34.0), (0.75, 62.0), (0.9, 142.0), (0.95, 252.0), (0.99, 611.0), (0.999, 999.0)];
    check_quantiles("levels of a delta", mix.levels.clone(), &levels, 0.15);
    assert!(*mix.levels.iter().max().unwrap() > 900, "no long tail");
    // Trades with one and the same venue time: 4.05 in the mean, half of them alone, 348 in the longest run.
    check("trades of a taker", mean(&mix.taker_runs), 4.05, 0.15);
    check_quantiles("trades of a taker", mix.taker_runs.clone(), &[(0.5, 1.0)], 0.01);
    check_quantiles("trades of a taker", mix.taker_runs.clone(), &[(0.75, 2.0), (0.9, 7.0), (0.95, 12.0), (0.99, 45.0)], 0.5);
    check_quantiles("time between deltas", mix.delta_gaps_ns, &[(0.05, 49.9e6), (0.5, 52.2e6), (0.95, 56.9e6), (0.99, 66.2e6)], 0.05);
}

/// Bursts: most messages come together with others, few come alone in time; both captures are far from Poisson.
#[test]
fn the_bursts_are_those_of_a_real_capture() {
    let mix = measure("events=400000,instruments=1");
    check_quantiles("time between messages", mix.gaps_ns.clone(), &[(0.1, 500.0), (0.25, 800.0)], 0.4);
    check_quantiles("time between messages", mix.gaps_ns, &[(0.75, 20.3e6), (0.9, 51.4e6), (0.95, 52.7e6)], 0.5);
    check("messages of a burst", mean(&mix.bursts), 2.47, 0.2);
    check_quantiles("messages of a burst", mix.bursts, &[(0.5, 1.0)], 0.01);
    let (mean, count) = (mean(&mix.per_100_ms), mix.per_100_ms.len() as f64);
    check("messages in 100 ms", mean, 8.08, 0.15);
    let variance = mix.per_100_ms.iter().map(|n| (*n as f64 - mean).powi(2)).sum::<f64>() / count;
    // 47 (spot) and 153 (futures); independent messages would have 1.
    assert!((47.0..=200.0).contains(&(variance / mean)), "variance over mean is {}", variance / mean);
}

#[test]
fn quantiles_are_kept() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut values: Vec<u64> = (0..200_000).map(|_| DELTA_LEVELS.draw(&mut rng)).collect();
    values.sort_unstable();
    assert_eq!((DELTA_LEVELS.at(0), DELTA_LEVELS.at(500_000), DELTA_LEVELS.at(999_999)), (1, 34, 1_226));
    check("drawn median", values[100_000] as f64, 34.0, 0.03);
    assert_eq!((INTERVAL_TRADES.at(562_999), INTERVAL_TRADES.at(563_001), INTERVAL_TRADES.at(999_999)), (0, 1, 974));
}
