//! Decimal text ↔ mantissa at a scale, exactly: what does not fit is an error, never a rounding.

use crate::{DecimalError, SchemaError};
use std::fmt;

/// Decimals of a price or quantity: 0 to 18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scale(u8);

const POWERS: [i64; 19] = {
    let mut powers = [1i64; 19];
    let mut at = 1;
    while at < 19 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

impl Scale {
    /// The finest scale.
    pub const MAX: Self = Self(18);

    /// A scale of that many decimals.
    ///
    /// # Errors
    /// [`SchemaError::Scale`] beyond 18.
    pub fn new(digits: u8) -> Result<Self, SchemaError> {
        if digits > Self::MAX.0 { Err(SchemaError::Scale(digits)) } else { Ok(Self(digits)) }
    }

    /// Number of decimals.
    #[must_use]
    pub fn digits(self) -> u8 {
        self.0
    }

    /// 10 to the power of the scale.
    #[must_use]
    pub fn factor(self) -> i64 {
        POWERS[usize::from(self.0)]
    }

    /// The mantissa of a decimal: an optional minus, digits, optionally a point and digits. Trailing zeros do not count.
    ///
    /// # Errors
    /// [`DecimalError`]: not a number, too precise for the scale, or too large for 64 bits.
    pub fn parse(self, text: &str) -> Result<i64, DecimalError> {
        let (negative, whole, decimals) = split(text)?;
        if decimals.len() > usize::from(self.0) {
            return Err(DecimalError::TooPrecise { found: decimals.len(), scale: self.0 });
        }
        let overflow = DecimalError::Overflow { scale: self.0 };
        // Accumulated below zero: i64::MIN has no positive counterpart.
        let mut mantissa = 0i64;
        for digit in whole.bytes().chain(decimals.bytes()) {
            mantissa = mantissa.checked_mul(10).and_then(|m| m.checked_sub(i64::from(digit - b'0'))).ok_or(overflow)?;
        }
        let missing = usize::from(self.0) - decimals.len();
        mantissa = mantissa.checked_mul(POWERS[missing]).ok_or(overflow)?;
        if negative { Ok(mantissa) } else { mantissa.checked_neg().ok_or(overflow) }
    }

    /// The same value at another scale.
    ///
    /// # Errors
    /// [`DecimalError`] where it would overflow or lose digits.
    pub fn rescale(self, mantissa: i64, to: Self) -> Result<i64, DecimalError> {
        if to.0 >= self.0 {
            let overflow = DecimalError::Overflow { scale: to.0 };
            return mantissa.checked_mul(POWERS[usize::from(to.0 - self.0)]).ok_or(overflow);
        }
        let divisor = POWERS[usize::from(self.0 - to.0)];
        if mantissa % divisor == 0 {
            Ok(mantissa / divisor)
        } else {
            Err(DecimalError::TooPrecise { found: usize::from(self.0), scale: to.0 })
        }
    }

    /// A mantissa as canonical text: no trailing zeros, no point without decimals, no minus zero.
    #[must_use]
    pub fn display(self, mantissa: i64) -> Decimal {
        Decimal::new(i128::from(mantissa), u32::from(self.0))
    }
}

/// Canonical decimal text of `mantissa / 10^digits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    mantissa: i128,
    digits: u32,
}

impl Decimal {
    /// A value of up to 38 decimals.
    #[must_use]
    pub fn new(mantissa: i128, digits: u32) -> Self {
        Self { mantissa, digits }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut magnitude, mut digits) = (self.mantissa.unsigned_abs(), self.digits as usize);
        while digits > 0 && magnitude.is_multiple_of(10) {
            magnitude /= 10;
            digits -= 1;
        }
        if self.mantissa < 0 {
            f.write_str("-")?;
        }
        if digits == 0 {
            return write!(f, "{magnitude}");
        }
        let factor = 10u128.pow(digits as u32);
        write!(f, "{}.{:0digits$}", magnitude / factor, magnitude % factor)
    }
}

/// Decimals that `text` needs: those after the point, without trailing zeros.
///
/// # Errors
/// [`DecimalError::Syntax`] where it is no number.
pub fn significant_decimals(text: &str) -> Result<usize, DecimalError> {
    split(text).map(|(_, _, decimals)| decimals.len())
}

/// Sign, digits before the point, digits after it without trailing zeros.
fn split(text: &str) -> Result<(bool, &str, &str), DecimalError> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(decimals) || digits.ends_with('.') {
        return Err(DecimalError::Syntax);
    }
    Ok((negative, whole, decimals.trim_end_matches('0')))
}
