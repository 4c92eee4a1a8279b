//! Numbers as text.

use crate::{Input, Target};
use tapewire_schemas::{Scale, significant_decimals};

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
