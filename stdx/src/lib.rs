//! Clock, waiting, cores, processes and fail points: what every floor of Tapewire needs of the machine.
//!
//! Time, randomness and waiting come in through here so that they can be simulated; nothing else in the project calls
//! `SystemTime::now` or `thread::sleep`.

pub mod clock;
pub mod cores;
pub mod failpoint;
#[cfg(feature = "model")]
pub mod model;
pub mod process;
pub mod wait;
pub mod wake;
