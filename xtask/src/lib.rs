//! The automation of the repository: what `cargo xtask` does, and the rules of the house as pure functions.
//!
//! [`Workspace`] reads crates and files; [`check_floors`] and [`check_tidy`] look at them and return [`Finding`]s; [`test`] runs those
//! two and every other check in order. The same two functions run as tests over the real tree, so the rules hold wherever the tests do.
//!
//! # Invariants
//! * The rules do not read files and start no process: they see only what they are given.
//! * The rules never repair: a finding says where and why, a person decides.

mod clients;
mod finding;
mod floors;
mod kill_matrix;
mod memory;
mod page;
mod peers;
mod power_cuts;
mod steps;
mod tidy;
mod workspace;

pub use finding::{Finding, refuse};
pub use floors::{Crate, Dependency, Use, check_floors};
pub use kill_matrix::{KillMatrix, kill_matrix};
pub use memory::memcheck;
pub use page::{page, page_browser};
pub use peers::peers;
pub use power_cuts::{PowerCuts, power_cuts};
pub use steps::{floors, fuzz, test, tidy};
pub use tidy::{SourceFile, check_tidy};
pub use workspace::{Program, Workspace};
