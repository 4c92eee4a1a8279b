//! Zstandard with one context for each thread: to make one takes longer than most blocks do.

use std::{cell::RefCell, io};
use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `bytes` at a level of Zstandard.
pub(crate) fn compress(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(level)?),
        };
        compressor.set_compression_level(level)?;
        compressor.compress(bytes)
    })
}

/// Decompresses `bytes` into `out`; how many bytes of it they filled.
pub(crate) fn decompress(bytes: &[u8], out: &mut [u8]) -> io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(bytes, out)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_compressed_at_one_level_or_another_comes_back() {
        let bytes: Vec<u8> = (0..50_000u32).flat_map(|number| (number * number).to_le_bytes()).collect();
        let sizes = [1, 19, 1].map(|level| {
            let packed = super::compress(&bytes, level).unwrap();
            let mut out = vec![0; bytes.len()];
            assert_eq!(super::decompress(&packed, &mut out).unwrap(), bytes.len());
            assert_eq!(out, bytes);
            assert!(
                super::decompress(&packed, &mut out[1..]).is_err() && super::decompress(&packed[..packed.len() - 1], &mut out).is_err()
            );
            packed.len()
        });
        // The level is the one that is asked for, not the first one.
        assert!(sizes[1] < sizes[0] && sizes[2] == sizes[0]);
    }
}
