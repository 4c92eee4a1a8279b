//! The framing of a DBN stream, checked before the decoder sees it: the decoder takes half a record for the end of the file, and a record
//! that is shorter than its type for a bug of its caller.

use ::dbn::{RType, v1, v2, v3};
use std::io::{Error, ErrorKind, Read};

/// Bytes before the metadata: `DBN`, the version, and the metadata's length as u32.
const PREFIX_BYTES: usize = 8;
/// A record's length byte counts words of this many bytes.
const WORD_BYTES: u64 = 4;
/// A record begins with its length and its type.
const HEADER_BYTES: usize = 2;
/// Bytes that a gateway may append to each record: when it was sent.
const TS_OUT_BYTES: u64 = 8;
/// The longest metadata that is read.
const METADATA_BYTES_MAX: u32 = 256 << 20;

/// Passes bytes on and follows their framing.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    source: R,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of the record or the metadata that are still to come.
    missing_bytes: u64,
    total_bytes: u64,
    records: u64,
    is_cut: bool,
    refusal: Option<(u64, String)>,
}

impl<R> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            prefix: [0; PREFIX_BYTES],
            prefix_bytes: 0,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            missing_bytes: 0,
            total_bytes: 0,
            records: 0,
            is_cut: false,
            refusal: None,
        }
    }

    /// Whether what was read ends in the middle of something.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut || self.missing_bytes > 0 || self.header_bytes > 0 || self.prefix_bytes < PREFIX_BYTES
    }

    /// Bytes read, decompressed.
    pub(super) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The record that was refused, by its number from 1, and what is wrong with it.
    pub(super) fn refusal(&self) -> Option<&(u64, String)> {
        self.refusal.as_ref()
    }

    /// Follows bytes to their end, or to where the header of a wrong record begins in them: how many, and what is wrong with it.
    fn follow(&mut self, whole: &[u8]) -> Result<(), (usize, String)> {
        self.total_bytes += whole.len() as u64;
        let mut bytes = whole;
        while let Some(first) = bytes.first() {
            let at = whole.len() - bytes.len();
            if self.missing_bytes > 0 {
                let taken = self.missing_bytes.min(bytes.len() as u64);
                self.missing_bytes -= taken;
                bytes = &bytes[taken as usize..];
                continue;
            }
            bytes = &bytes[1..];
            if self.prefix_bytes < PREFIX_BYTES {
                self.prefix[self.prefix_bytes] = *first;
                self.prefix_bytes += 1;
                if self.prefix_bytes == PREFIX_BYTES {
                    self.missing_bytes = self.metadata_bytes().map_err(|problem| (0, problem))?;
                }
                continue;
            }
            self.header[self.header_bytes] = *first;
            self.header_bytes += 1;
            if self.header_bytes == HEADER_BYTES {
                self.records += 1;
                self.header_bytes = 0;
                let begin = (at + 1).saturating_sub(HEADER_BYTES);
                let length = self.record_bytes().map_err(|problem| (begin, problem))?;
                self.missing_bytes = length - HEADER_BYTES as u64;
            }
        }
        Ok(())
    }

    fn metadata_bytes(&self) -> Result<u64, String> {
        let [_, _, _, _, a, b, c, d] = self.prefix;
        let length = u32::from_le_bytes([a, b, c, d]);
        // What is no DBN is for the decoder to name.
        if self.prefix.starts_with(b"DBN") && length > METADATA_BYTES_MAX {
            return Err(format!("has metadata of {length} bytes, and at most {METADATA_BYTES_MAX} are read"));
        }
        Ok(u64::from(length))
    }

    /// Length of the record whose header is there; its type must be known, and as long as that.
    fn record_bytes(&self) -> Result<u64, String> {
        let [length, kind] = self.header;
        let length = u64::from(length) * WORD_BYTES;
        let kind = RType::try_from(kind).map_err(|_| format!("is of the unknown type {kind:#04x}"))?;
        let needed = size_of_type(kind, self.prefix[3]).ok_or_else(|| format!("is of the type {kind:?}, which has no place on the bus"))?;
        if length == needed as u64 || length == needed as u64 + TS_OUT_BYTES {
            return Ok(length);
        }
        Err(format!("has {length} bytes, and {needed} are those of its type {kind:?}"))
    }
}

/// Bytes of a record, by its type and the version of the file; `None` where the bus has no place for it.
fn size_of_type(kind: RType, version: u8) -> Option<usize> {
    let by_version = |first, second, third| Some([first, second, third][usize::from(version.clamp(1, 3)) - 1]);
    match kind {
        RType::Mbp0 => Some(size_of::<v3::TradeMsg>()),
        RType::Mbp1 | RType::Tbbo => Some(size_of::<v3::Mbp1Msg>()),
        RType::Mbp10 => Some(size_of::<v3::Mbp10Msg>()),
        RType::Bbo1S | RType::Bbo1M => Some(size_of::<v3::BboMsg>()),
        RType::Cmbp1 | RType::Tcbbo => Some(size_of::<v3::Cmbp1Msg>()),
        RType::Cbbo1S | RType::Cbbo1M => Some(size_of::<v3::CbboMsg>()),
        RType::InstrumentDef => {
            by_version(size_of::<v1::InstrumentDefMsg>(), size_of::<v2::InstrumentDefMsg>(), size_of::<v3::InstrumentDefMsg>())
        }
        RType::SymbolMapping => {
            by_version(size_of::<v1::SymbolMappingMsg>(), size_of::<v2::SymbolMappingMsg>(), size_of::<v3::SymbolMappingMsg>())
        }
        RType::System => by_version(size_of::<v1::SystemMsg>(), size_of::<v2::SystemMsg>(), size_of::<v3::SystemMsg>()),
        RType::Error => by_version(size_of::<v1::ErrorMsg>(), size_of::<v2::ErrorMsg>(), size_of::<v3::ErrorMsg>()),
        _ => None,
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.refusal.is_none() {
            let count = self.source.read(into).inspect_err(|error| self.is_cut |= error.kind() == ErrorKind::UnexpectedEof)?;
            match self.follow(&into[..count]) {
                Ok(()) => return Ok(count),
                Err((sound_bytes, problem)) => {
                    self.refusal = Some((self.records, problem));
                    // What comes before a wrong record is read first.
                    if sound_bytes > 0 {
                        return Ok(sound_bytes);
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::InvalidData, self.refusal.as_ref().map_or_else(String::new, |(_, problem)| problem.clone())))
    }
}
