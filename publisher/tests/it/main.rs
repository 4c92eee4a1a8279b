//! What publishing costs: nothing but stores. What a live feed gives, whatever the venue does.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly and say what they skip")]

mod cut_group;
mod durable;
mod gate;
mod hot_path;
mod live;
mod venue;
