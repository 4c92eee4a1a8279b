//! What a venue sends as text: numbers, and captures in the neutral CSV format.

use super::files::Files;
use crate::{Input, Target};
use flate2::{Compression, write::GzEncoder};
use std::{fs, io::Write};
use tapewire_publisher::feed::{CSV_HEADER, CsvFeed, Feed, InstrumentBinding};
use tapewire_schemas::{EventRef, Scale, significant_decimals};
use zerocopy::IntoBytes;

/// `Scale::parse`: the first byte is the scale.
pub(super) fn decimal() -> Target {
    let numbers = ["\x0261837.63", "\x08-0.00000001", "\x009223372036854775807", "\x12-9.223372036854775808", "\x030"];
    let decode = |bytes: &[u8]| {
        let Some((digits, text)) = bytes.split_first() else { return false };
        let (Ok(scale), Ok(text)) = (Scale::new(digits % 19), std::str::from_utf8(text)) else { return false };
        let decimals = significant_decimals(text);
        let Ok(mantissa) = scale.parse(text) else { return false };
        assert!(decimals.is_ok_and(|count| count <= usize::from(scale.digits())), "a number of too many decimals is accepted");
        assert_eq!(scale.parse(&scale.display(mantissa).to_string()), Ok(mantissa), "{text} is another number when it is shown");
        true
    };
    let seeds = numbers.map(Input::plain).into();
    Target { name: "decimal", seeds, repair: |_, _| {}, inputs_per_run: 2_000_000, decode: Box::new(decode) }
}

const ROWS: &str = "
1723161253937085768,1723161255208000000,BINANCE,BTCUSDT,C,,,,,5,2
1723161253937085768,1723161255208000000,BINANCE,BTCUSDT,S,B,61837.63,3.78826,,5,2
1723161253937085768,1723161255208000000,BINANCE,BTCUSDT,S,S,61837.64,0.5,,5,3
1723161253937085769,0,BINANCE,BTCUSDT,L,B,61837.62,0,,6,0
1723161253937085769,0,BINANCE,BTCUSDT,L,S,61838,1,,6,1
1723161253937085770,1723161255208000001,BINANCE,ETHUSDT,T,B,2600.1,0.0001,77,7,1
1723161253937085770,1723161255208000001,BINANCE,ETHUSDT,T,S,2600,10,78,8,1
";

/// `CsvFeed`: rows, messages, and a gzip around them.
pub(super) fn csv() -> Target {
    let text = format!("{CSV_HEADER}{ROWS}");
    let marks = text.match_indices(['\n', ',']).map(|(at, _)| at).collect();
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(text.as_bytes()).expect("memory takes it");
    let seeds = vec![Input { bytes: text.into(), marks }, Input::plain(zipped.finish().expect("memory takes it"))];
    let files = Files::new();
    let decode = move |bytes: &[u8]| {
        let path = files.path().join("capture.csv");
        fs::write(&path, bytes).expect("there is room");
        let Ok(mut feed) = CsvFeed::open(&path) else { return false };
        let binding = |(index, it): (usize, &tapewire_publisher::feed::FeedInstrument)| InstrumentBinding {
            instrument_id: index as u32 + 1,
            venue_id: 1,
            price_scale: it.price_scale,
            quantity_scale: it.quantity_scale,
        };
        let bindings: Vec<_> = feed.definitions().iter().enumerate().map(binding).collect();
        feed.bind(&bindings);
        let (mut count, mut words) = (0, Vec::new());
        while let Some(event) = feed.next().expect("a file that was accepted is read to its end") {
            let records: Vec<u8> = (1..).zip(event.records()).flat_map(|(sequence, draft)| draft.to_bytes(sequence)).collect();
            words.resize(records.len() / 8, 0u64);
            words.as_mut_bytes().copy_from_slice(&records);
            super::memory::walk(&EventRef::new(words.as_bytes(), 1).expect("a feed makes sound events"));
            count += 1;
        }
        assert_eq!(feed.event_count_hint(), Some(count), "the feed gave another number of events than it said");
        true
    };
    Target { name: "csv", seeds, repair: |_, _| {}, inputs_per_run: 60_000, decode: Box::new(decode) }
}
