use crate::feed::Feed;
#[test]
fn speed() {
    for spec in ["events=3000000,instruments=1", "events=3000000,instruments=8,accounts=4", "events=3000000,instruments=8,levels=50"] {
        let mut feed = super::simulation(spec);
        let t = std::time::Instant::now();
        let mut n = 0u64;
        let mut l = 0u64;
        while let Some(e) = feed.next().unwrap() {
            n += 1;
            if let tapewire_schemas::Payload::BookDelta(b) = e.payload {
                l += (b.bids.len() + b.asks.len()) as u64;
            }
        }
        eprintln!("{spec}: {} M/s, levels {}", n as f64 / t.elapsed().as_secs_f64() / 1e6, l as f64 / n as f64);
    }
}
