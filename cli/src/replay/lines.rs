//! Replay to stdout: one JSON object per event.

use super::Sink;
use crate::{
    console::STDOUT_FAILED,
    output::{Printer, Shape},
};
use anyhow::Context as _;
use serde_json::Value;
use std::io::{BufWriter, Stdout, Write as _};
use tapewire_schemas::EventRef;
use tapewire_storage::Registry;

/// Lines on stdout.
pub struct LineSink {
    printer: Printer,
    out: BufWriter<Stdout>,
}

impl LineSink {
    pub fn begin(registry: &Registry) -> Self {
        Self { printer: Printer::new(Shape::Ndjson, registry), out: BufWriter::with_capacity(1 << 16, std::io::stdout()) }
    }
}

impl Sink for LineSink {
    fn take(&mut self, event: &EventRef<'_>) -> anyhow::Result<()> {
        self.printer.print(event, &mut self.out).context(STDOUT_FAILED)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().context(STDOUT_FAILED)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<Option<Value>> {
        // What could not be written is dropped here; that it could not has been said.
        drop(self.out.into_parts());
        Ok(None)
    }
}
