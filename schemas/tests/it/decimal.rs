//! Decimal text and mantissas, against an oracle of strings and 128-bit integers.

use proptest::prelude::*;
use tapewire_schemas::{Decimal, DecimalError, Scale, SchemaError, significant_decimals};

fn scale(digits: u8) -> Scale {
    Scale::new(digits).unwrap()
}

/// Canonical text of `mantissa / 10^digits`, made by placing a point in the digits.
fn oracle_text(mantissa: i128, digits: usize) -> String {
    let padded = format!("{:0width$}", mantissa.unsigned_abs(), width = digits + 1);
    let (whole, decimals) = padded.split_at(padded.len() - digits);
    let decimals = decimals.trim_end_matches('0');
    let sign = if mantissa < 0 { "-" } else { "" };
    if decimals.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{decimals}") }
}

/// The mantissa of plain decimal text, in 128 bits; `None` where digits would be lost.
fn oracle_mantissa(text: &str, digits: usize) -> Option<i128> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let (kept, lost) = decimals.split_at(decimals.len().min(digits));
    lost.bytes().all(|byte| byte == b'0').then(|| format!("{whole}{kept:0<digits$}").parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mantissas_become_text_and_return(mantissa: i64, digits in 0u8..=18) {
        let text = scale(digits).display(mantissa).to_string();
        prop_assert_eq!(&text, &oracle_text(mantissa.into(), digits.into()));
        prop_assert_eq!(scale(digits).parse(&text), Ok(mantissa));
        let significant = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        prop_assert_eq!(significant_decimals(&text), Ok(significant));
    }

    #[test]
    fn small_mantissas_too(mantissa in -100_000i64..100_000, digits in 0u8..=18) {
        let text = scale(digits).display(mantissa).to_string();
        prop_assert_eq!(&text, &oracle_text(mantissa.into(), digits.into()));
        prop_assert_eq!(scale(digits).parse(&text), Ok(mantissa));
    }

    #[test]
    fn text_becomes_the_mantissa_of_the_oracle(text in "-?[0-9]{1,20}(\\.[0-9]{1,20})?", digits in 0u8..=18) {
        let expected = oracle_mantissa(&text, digits.into());
        match scale(digits).parse(&text) {
            Ok(mantissa) => prop_assert_eq!(Some(i128::from(mantissa)), expected),
            Err(DecimalError::TooPrecise { found, .. }) => {
                prop_assert_eq!(expected, None);
                prop_assert_eq!(significant_decimals(&text), Ok(found));
            }
            Err(DecimalError::Overflow { .. }) => prop_assert!(i64::try_from(expected.unwrap()).is_err()),
            Err(error) => prop_assert!(false, "{} {}", text, error),
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,24}", digits in 0u8..=18) {
        let is_number = scale(18).parse(&text) != Err(DecimalError::Syntax);
        prop_assert_eq!(scale(digits).parse(&text) != Err(DecimalError::Syntax), is_number);
        prop_assert_eq!(significant_decimals(&text).is_ok(), is_number);
    }

    #[test]
    fn rescaling_keeps_the_value(mantissa: i64, from in 0u8..=18, to in 0u8..=18) {
        let (product, divisor) = (i128::from(mantissa) * 10i128.pow(to.into()), 10i128.pow(from.into()));
        match scale(from).rescale(mantissa, scale(to)) {
            Ok(found) => prop_assert_eq!(i128::from(found) * divisor, product),
            Err(DecimalError::Overflow { .. }) => prop_assert!(i64::try_from(product / divisor).is_err()),
            Err(_) => prop_assert!(product % divisor != 0),
        }
    }

    #[test]
    fn wide_decimals_become_text(mantissa: i128, digits in 0u32..=38) {
        prop_assert_eq!(Decimal::new(mantissa, digits).to_string(), oracle_text(mantissa, digits as usize));
    }
}

#[test]
fn the_ends_of_the_range() {
    assert_eq!(scale(10).parse("0.0000019799"), Ok(19_799), "a real price of ten decimals");
    assert_eq!(scale(0).parse("1000000000000000"), Ok(1_000_000_000_000_000));
    assert_eq!(scale(3).parse("1000000000000000"), Ok(1_000_000_000_000_000_000));
    assert_eq!(scale(4).parse("1000000000000000"), Err(DecimalError::Overflow { scale: 4 }));
    assert_eq!(scale(18).parse("0.1234567890123456789"), Err(DecimalError::TooPrecise { found: 19, scale: 18 }));
    assert_eq!(scale(18).parse("0.1234567890123456780"), Ok(123_456_789_012_345_678));
    assert_eq!(scale(18).parse("9.223372036854775807"), Ok(i64::MAX));
    assert_eq!(scale(18).parse("9.223372036854775808"), Err(DecimalError::Overflow { scale: 18 }));
    assert_eq!(scale(18).parse("-9.223372036854775808"), Ok(i64::MIN));
    assert_eq!(scale(18).parse("-9.223372036854775809"), Err(DecimalError::Overflow { scale: 18 }));
    assert_eq!(scale(0).parse("-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(scale(0).display(i64::MIN).to_string(), "-9223372036854775808");
    assert_eq!(scale(18).display(i64::MIN).to_string(), "-9.223372036854775808");
    assert_eq!(scale(5).parse("-0.00"), Ok(0));
    assert_eq!(scale(5).display(0).to_string(), "0");
    assert_eq!(scale(0).parse(&format!("{}7", "0".repeat(100))), Ok(7));
    assert_eq!(scale(1).rescale(i64::MIN, scale(1)), Ok(i64::MIN));
    assert_eq!(scale(1).rescale(i64::MIN, scale(2)), Err(DecimalError::Overflow { scale: 2 }));
    assert_eq!(scale(2).rescale(-150, scale(1)), Ok(-15));
    assert_eq!(scale(2).rescale(-151, scale(1)), Err(DecimalError::TooPrecise { found: 2, scale: 1 }));
    assert_eq!(Scale::new(19), Err(SchemaError::Scale(19)));
}

#[test]
fn what_is_no_number() {
    for text in ["", "-", ".", "1.", ".5", "-.5", "+1", "--1", "1e5", "1,5", " 1", "1 ", "0x1", "1.2.3", "1.-2", "inf", "NaN", "٣"] {
        assert_eq!(scale(18).parse(text), Err(DecimalError::Syntax), "{text:?}");
        assert_eq!(significant_decimals(text), Err(DecimalError::Syntax), "{text:?}");
    }
}
