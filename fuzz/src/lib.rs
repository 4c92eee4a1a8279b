//! Mutated input for every decoder: what comes from shared memory, disk or a venue is never trusted, and this is where that is tried.
//!
//! # How it works
//! Each [`Target`] is a decoder with sound inputs of its own making: golden records, pages and files that the real writer wrote. [`fuzz`]
//! changes them, a few bits, words or pieces at a time, repairs the checksums of most (so that what is behind a checksum is reached
//! too), and gives them to the decoder. Inputs that are accepted are changed further.
//!
//! Everything follows from one seed: a failure names seed and number of the input, and the same call finds it again.
//!
//! # What a decoder must do
//! * It never panics, whatever it is given.
//! * It never reads out of bounds: inputs in memory end where the next page of memory may not be touched ([`Guarded`]).
//! * What it accepts can be read to the end by every accessor.
//! * What it accepts, encoded again, is the same bytes.
//!
//! It runs on stable Rust and measures no coverage. The tests give every decoder a bounded share; `cargo xtask fuzz --seconds N` goes on
//! for as long as it is told, with a seed of its own each time.
//!
//! ```
//! let mut targets = tapewire_fuzz::targets();
//! let report = tapewire_fuzz::fuzz(&mut targets[0], 1, tapewire_fuzz::Budget::Inputs(1000))?;
//! assert!(report.accepted > 0 && report.accepted < report.inputs);
//! # Ok::<(), tapewire_fuzz::Failure>(())
//! ```

mod guarded;
mod mutate;
mod run;
mod target;
mod targets;

pub use guarded::Guarded;
pub use mutate::Mutator;
pub use run::{Budget, Failure, Report, fuzz};
pub use target::{Input, Target};
pub use targets::targets;
