//! The machine line: where the numbers come from.

use serde::Serialize;
use std::fs;

/// What a reader must know of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    cpu_model: String,
    core_count: usize,
    memory_mib: u64,
    kernel: String,
    load_average_1m: f64,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processors = text("/proc/cpuinfo");
        let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(':').nth(1));
        let memory = text("/proc/meminfo");
        let memory_kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Self {
            cpu_model: model.unwrap_or("unknown").trim().to_owned(),
            core_count: tapewire_stdx::cores::available().len(),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: text("/proc/sys/kernel/osrelease"),
            load_average_1m: text("/proc/loadavg").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { cpu_model, core_count, memory_mib, kernel, load_average_1m } = self;
        format!("{cpu_model} · {core_count} cores · {memory_mib} MiB · kernel {kernel} · load {load_average_1m:.1} at the end")
    }
}
