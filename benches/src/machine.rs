//! The machine line: where the numbers come from.

use serde::Serialize;
use std::fs;

/// What a reader must know of the machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu_model: String,
    core_count: usize,
    kernel: String,
    /// Frequency governor; empty where the system does not tell.
    governor: String,
    ticks_per_ns: f64,
    load_average_1m: f64,
}

impl Machine {
    pub(crate) fn read(ticks_per_ns: f64) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processors = text("/proc/cpuinfo");
        let model = processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(':').nth(1));
        Self {
            cpu_model: model.unwrap_or("unknown").trim().to_owned(),
            core_count: tapewire_stdx::cores::available().len(),
            kernel: text("/proc/sys/kernel/osrelease"),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            ticks_per_ns,
            load_average_1m: text("/proc/loadavg").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0),
        }
    }

    pub(crate) fn line(&self) -> String {
        let governor = if self.governor.is_empty() { "not readable" } else { &self.governor };
        format!(
            "{} · {} cores · kernel {} · governor {governor} · counter {:.3} GHz · load {:.1}",
            self.cpu_model, self.core_count, self.kernel, self.ticks_per_ns, self.load_average_1m
        )
    }
}
