//! What publishing costs: nothing but stores.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they skip")]

mod durable;
mod gate;
mod hot_path;
