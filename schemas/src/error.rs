//! What is wrong with bytes or numbers.

/// Errors of this crate. Bytes that fail a check are never read further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A page header is not one of this version.
    #[error("not a page of this format: {field} is {found:#x}")]
    PageHeader {
        /// The field that is wrong.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// A record is damaged or of another version.
    #[error("record {sequence} is damaged: {field} is {found:#x}")]
    Record {
        /// The sequence it should have.
        sequence: u64,
        /// The field that is wrong.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// A group of records is not one event.
    #[error("record {sequence} does not continue its group: {reason}")]
    Group {
        /// The record at fault.
        sequence: u64,
        /// Why.
        reason: &'static str,
    },
    /// A name does not fit its field.
    #[error("{field} {text:?} must have 1 to {bytes_max} bytes")]
    Text {
        /// The field.
        field: &'static str,
        /// The text.
        text: String,
        /// Its room.
        bytes_max: usize,
    },
    /// A scale beyond 18 decimals.
    #[error("scale {0} is more than 18 decimals")]
    Scale(u8),
}

/// Why a decimal has no mantissa. Nothing is ever rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecimalError {
    /// Not a decimal number.
    #[error("not a decimal number")]
    Syntax,
    /// More decimals than the scale has.
    #[error("{found} decimals, and the scale has {scale}")]
    TooPrecise {
        /// Significant decimals of the text.
        found: usize,
        /// Decimals of the scale.
        scale: u8,
    },
    /// Beyond ± 9.2e18 at this scale.
    #[error("does not fit 64 bits at a scale of {scale}")]
    Overflow {
        /// Decimals of the scale.
        scale: u8,
    },
}
