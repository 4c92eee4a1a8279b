//! placeholder
use crate::{Outcome, args::DemoArguments};
pub fn run(_arguments: &DemoArguments) -> anyhow::Result<Outcome> {
    Ok(Outcome::Done)
}
