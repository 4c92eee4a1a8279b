//! `tapewire completions` and `tapewire man`: both come from the arguments as they are defined.

use crate::{
    Outcome,
    args::{Arguments, CompletionsArguments, ManArguments},
    console,
};
use anyhow::Context as _;
use clap::CommandFactory as _;
use serde_json::json;

pub fn run_completions(arguments: &CompletionsArguments) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "tapewire", &mut script);
    console::result(String::from_utf8(script).context("a script is text")?.trim_end())?;
    Ok(Outcome::Done)
}

pub fn run_man(arguments: &ManArguments) -> anyhow::Result<Outcome> {
    let directory = &arguments.out;
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    clap_mangen::generate_to(Arguments::command(), directory).with_context(|| format!("cannot write to {}", directory.display()))?;
    console::report(&json!({ "manual_pages": directory.display().to_string() }), arguments.output)?;
    Ok(Outcome::Done)
}
