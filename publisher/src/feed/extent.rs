//! The scale that a set of decimal texts needs, found without knowing it before.

use super::ValueFault;
use tapewire_schemas::{Scale, significant_decimals};

/// Scales of 0 to 18 decimals.
const SCALE_COUNT: usize = 19;

/// Decimals and magnitude of the values of one column: the largest mantissa for each number of decimals, and where it stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent<At> {
    largest: [(i64, At); SCALE_COUNT],
    digits: u8,
}

/// A value that does not fit the scale which others need.
#[derive(Debug)]
pub(super) struct Misfit<At> {
    pub(super) at: At,
    pub(super) value: String,
    pub(super) fault: ValueFault,
}

impl<At: Copy + Default> Extent<At> {
    /// Takes a value: its mantissa at the scale that it needs alone.
    #[inline]
    pub(super) fn observe(&mut self, text: &str, at: At) -> Result<i64, ValueFault> {
        let found = significant_decimals(text)?;
        let scale = u8::try_from(found).ok().and_then(|digits| Scale::new(digits).ok());
        let scale = scale.ok_or(ValueFault::TooPrecise { found })?;
        let value = scale.parse(text)?;
        self.observe_at(scale, value, at);
        Ok(value)
    }

    /// Takes a mantissa at a scale that is needed whatever the value is.
    #[inline]
    pub(super) fn observe_at(&mut self, scale: Scale, value: i64, at: At) {
        let largest = &mut self.largest[usize::from(scale.digits())];
        if value.unsigned_abs() > largest.0.unsigned_abs() {
            *largest = (value, at);
        }
        self.digits = self.digits.max(scale.digits());
    }

    /// The scale that all values need, if all of them fit it.
    pub(super) fn scale(&self) -> Result<Scale, Misfit<At>> {
        let scale_of = |digits: u8| Scale::new(digits).expect("every digit count seen is a scale");
        let needed = scale_of(self.digits);
        for (digits, (value, at)) in self.largest.iter().enumerate().take(usize::from(self.digits) + 1) {
            let from = scale_of(digits as u8);
            from.rescale(*value, needed).map_err(|error| Misfit {
                at: *at,
                value: from.display(*value).to_string(),
                fault: error.into(),
            })?;
        }
        Ok(needed)
    }
}
