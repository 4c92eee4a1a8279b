//! `cargo xtask power-cuts`: a publisher at full speed and its store on a file system of their own, and the power goes again and again.
//!
//! The file system is ext4 in an image file behind a loop device. A cut: publisher and store are stopped (SIGSTOP), the image is copied while it is
//! mounted, both are killed and their memory removed; the copy is mounted, which replays the journal of ext4, recovered, settled and verified,
//! and the next publisher goes on there. What ext4 held in memory is lost; what had reached the device is not, flushed or not: a device
//! that loses its own cache is simulated by the tests of `storage`.
//!
//! After each cut the log must hold everything that a progress line of the publisher had called durable, and the store, whose segments leave the
//! log as they are stored, all of it from the first record on, without a hand's turn. It needs root and loop devices;
//! without them it says so and changes nothing.

#![allow(clippy::print_stderr)]

use crate::Workspace;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

/// Flags of `power-cuts`.
#[derive(Clone, Debug, clap::Args)]
pub struct PowerCuts {
    /// Cuts.
    #[arg(long, default_value_t = 50)]
    pub rounds: u32,
    /// Directory for the images, removed at the end.
    #[arg(long, default_value = "/tmp")]
    pub directory: PathBuf,
    /// The binary, built already; otherwise it is built first.
    #[arg(long)]
    pub tapewire: Option<PathBuf>,
    /// Seed of the instants.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const IMAGE_BYTES: &str = "1G";
/// Longest time between the first durable record of a round and its cut.
const RUN_MS_MAX: u64 = 400;
/// Copies of an image that the kernel wrote to meanwhile.
const COPIES_MAX: u32 = 20;
/// Where memory files lie.
const MEMORY_DIRECTORY: &str = "/dev/shm";
const PATIENCE: Duration = Duration::from_secs(60);
/// A bus is begun anew when its file system is so full, percent.
const FULL_PERCENT: u64 = 40;

/// Cuts the power.
///
/// # Errors
/// A record that was durable and is gone, damage, and whatever could not be run.
pub fn power_cuts(workspace: &Workspace, options: &PowerCuts) -> Result<()> {
    if let Some(reason) = missing() {
        eprintln!("xtask: power-cuts skipped: {reason}");
        return Ok(());
    }
    let tapewire = match &options.tapewire {
        Some(path) => path.clone(),
        None => build(workspace)?,
    };
    let home = tempfile::Builder::new().prefix("tapewire-power-cuts-").tempdir_in(&options.directory)?;
    let mut machine = Machine::new(home.path(), tapewire)?;
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let (mut durable_sum, mut beyond) = (0, 0);
    for round in 1..=options.rounds {
        let cut = machine.round(&mut rng).with_context(|| format!("cut {round} with seed {}", options.seed))?;
        eprintln!(
            "xtask: cut {round}: {} durable, {} recovered (+{}), {} stored, {} torn pages, copies {}",
            cut.durable,
            cut.recovered,
            cut.recovered - cut.durable,
            cut.stored,
            cut.torn_pages,
            cut.copies
        );
        durable_sum += cut.durable - cut.before;
        beyond += u64::from(cut.recovered > cut.durable);
    }
    eprintln!("xtask: {} cuts, {durable_sum} durable records, none lost; {beyond} cuts kept more than was called durable", options.rounds);
    Ok(())
}

/// Why this cannot run here.
pub(crate) fn missing() -> Option<&'static str> {
    let says = |program: &str, arguments: &[&str]| output(Command::new(program).args(arguments)).unwrap_or_default();
    if says("id", &["-u"]).trim() != "0" {
        return Some("it needs root");
    }
    says("losetup", &["--find"]).trim().is_empty().then_some("there is no loop device")
}

pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    run(Command::new("cargo").args(["build", "--release", "-p", "tapewire-cli"]).current_dir(&workspace.root))?;
    Ok(workspace.root.join("target/release/tapewire"))
}

/// What a cut left.
struct Cut {
    before: u64,
    durable: u64,
    recovered: u64,
    /// What the store had called stored.
    stored: u64,
    torn_pages: u64,
    copies: u32,
}

/// A machine with one disk, which is mounted.
struct Machine {
    tapewire: PathBuf,
    image: PathBuf,
    copy: PathBuf,
    mount: PathBuf,
    device: String,
}

impl Machine {
    fn new(home: &Path, tapewire: PathBuf) -> Result<Self> {
        let (image, copy, mount) = (home.join("disk"), home.join("copy"), home.join("mount"));
        fs::create_dir(&mount)?;
        run(Command::new("truncate").args(["-s", IMAGE_BYTES]).arg(&image))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image))?;
        let mut machine = Self { tapewire, image, copy, mount, device: String::new() };
        machine.attach()?;
        Ok(machine)
    }

    fn attach(&mut self) -> Result<()> {
        self.device = output(Command::new("losetup").args(["--find", "--show"]).arg(&self.image))?.trim().to_owned();
        run(Command::new("mount").arg(&self.device).arg(&self.mount))
    }

    fn detach(&mut self) -> Result<()> {
        if !self.device.is_empty() {
            let device = std::mem::take(&mut self.device);
            run(Command::new("umount").arg(&self.mount))?;
            run(Command::new("losetup").args(["--detach", &device]))?;
        }
        Ok(())
    }

    fn bus(&self) -> PathBuf {
        self.mount.join("bus")
    }

    /// Publishes, cuts, recovers.
    fn round(&mut self, rng: &mut fastrand::Rng) -> Result<Cut> {
        self.make_room()?;
        let mut publisher = Publisher::start(&self.tapewire, &self.bus(), rng.u64(..))?;
        let before = publisher.wait_durable(0)?;
        publisher.wait_durable(before + 1)?;
        let mut store = StoreProcess::start(&self.tapewire, &self.bus())?;
        Wait::Sleep(Duration::from_micros(rng.u64(..RUN_MS_MAX * 1000))).once();
        stop(publisher.child.id())?;
        stop(store.0.id())?;
        let copies = self.copy_image()?;
        let stored = self.stored()?;
        let durable = publisher.kill()?;
        store.kill()?;
        self.forget_memory()?;
        self.detach()?;
        fs::rename(&self.copy, &self.image)?;
        self.attach()?;
        let tail = self.ask("recover")?;
        let (recovered, lost) = (number(&tail, "last_sequence")?, number(&tail, "lost")?);
        ensure!(recovered >= durable && lost == 0, "{durable} records were durable, and the log ends at {recovered}: {tail}");
        let settled = number(&self.ask_with("store", &[&STORE[..], &["--until-settled"]].concat())?, "seq_stored")?;
        ensure!(stored <= recovered && settled == recovered, "{stored} of {recovered} were stored, and then {settled}");
        let verified = self.ask_with("verify", &["--deep"])?;
        let (last, in_store) = (number(&verified, "last_sequence")?, &verified["store"]);
        ensure!(last == recovered, "recovered up to {recovered}, verified up to {last}");
        let is_whole = number(in_store, "first_sequence")? == 1 && number(in_store, "last_sequence")? == recovered;
        ensure!(is_whole, "the store has not all of {recovered} records: {in_store}");
        Ok(Cut { before, durable, recovered, stored, torn_pages: number(&tail, "torn_pages")?, copies })
    }

    /// A new bus when the old ones have filled the disk.
    fn make_room(&mut self) -> Result<()> {
        let text = output(Command::new("df").args(["--output=pcent"]).arg(&self.mount))?;
        let percent = text.lines().last().and_then(|line| line.trim().trim_end_matches('%').parse::<u64>().ok());
        if percent.context("df says nothing")? > FULL_PERCENT {
            fs::remove_dir_all(self.bus())?;
            run(&mut Command::new("sync"))?;
        }
        Ok(())
    }

    /// Copies the image as it is at one instant: until the kernel has written nothing to it meanwhile.
    fn copy_image(&self) -> Result<u32> {
        for copies in 1..=COPIES_MAX {
            let before = self.writes()?;
            run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&self.copy))?;
            if self.writes()? == before {
                return Ok(copies);
            }
        }
        bail!("the kernel wrote to the image during each of {COPIES_MAX} copies")
    }

    /// What the device has done and is doing: writes, discards, flushes, requests in flight.
    fn writes(&self) -> Result<Vec<u64>> {
        let name = self.device.trim_start_matches("/dev/");
        let path = format!("/sys/block/{name}/stat");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        ensure!(numbers.len() > 8, "{path} has {} numbers", numbers.len());
        Ok(vec![numbers[4], numbers[8]])
    }

    /// What a power loss does to memory files.
    fn forget_memory(&self) -> Result<()> {
        let text = fs::read_to_string(self.bus().join("bus.id"))?;
        let id = text.split("id=").nth(1).and_then(|rest| rest.get(..32)).context("bus.id says no id")?;
        // The journal's directory, and the pages of the transport.
        let (journal, pages) = (format!("tapewire-{id}"), format!("tw_{}_", &id[..12]));
        for entry in fs::read_dir(MEMORY_DIRECTORY)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == journal.as_str() {
                fs::remove_dir_all(&path)?;
            } else if name.starts_with(&pages) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// What the store says that it has; 0 where it has said nothing yet.
    fn stored(&self) -> Result<u64> {
        match fs::read_to_string(self.bus().join("market/stored")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            other => {
                let text = other?;
                let sequence = text.split(' ').find_map(|word| word.strip_prefix("sequence="));
                sequence.and_then(|digits| digits.parse().ok()).with_context(|| format!("the store's mark says {text:?}"))
            }
        }
    }

    fn ask(&self, verb: &str) -> Result<Value> {
        self.ask_with(verb, &[])
    }

    fn ask_with(&self, verb: &str, flags: &[&str]) -> Result<Value> {
        let text = output(Command::new(&self.tapewire).arg(verb).arg(self.bus()).args(flags))?;
        serde_json::from_str(text.lines().last().unwrap_or_default()).with_context(|| format!("{verb} said {text:?}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// A publisher and what it last called durable.
struct Publisher {
    child: Child,
    durable: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Publisher {
    fn start(tapewire: &Path, bus: &Path, seed: u64) -> Result<Self> {
        let mut command = Command::new(tapewire);
        command.arg("publish").arg("--bus").arg(bus).args(["--feed", &format!("sim:seed={seed}"), "--progress-ms", "2"]);
        command.args(["--segment-pages", "32", "--journal-pages", "64", "--seconds", "60"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the publisher")?;
        let lines = BufReader::new(child.stdout.take().context("the publisher has no stdout")?).lines();
        let durable = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&durable);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(|line| line.ok()) {
                let progress: Option<Value> = serde_json::from_str(&line).ok();
                if let Some(sequence) = progress.and_then(|line| line["progress"]["seq_durable"].as_u64()) {
                    // SYNC: a number that only grows; orders nothing.
                    seen.fetch_max(sequence, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { child, durable, reader: Some(reader) })
    }

    fn durable(&self) -> u64 {
        // SYNC: see `start`.
        self.durable.load(Ordering::Relaxed)
    }

    /// Waits until so much is durable.
    fn wait_durable(&mut self, sequence: u64) -> Result<u64> {
        let from = Instant::now();
        while self.durable() < sequence.max(1) {
            ensure!(from.elapsed() < PATIENCE, "nothing becomes durable");
            if let Some(status) = self.child.try_wait()? {
                bail!("the publisher ended: {status}");
            }
            Wait::Sleep(Duration::from_micros(200)).once();
        }
        Ok(self.durable())
    }

    /// Ends it; everything that it had called durable.
    fn kill(&mut self) -> Result<u64> {
        self.child.kill()?;
        self.child.wait()?;
        // The pipe ends with the process: every line that was written has been read then.
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            bail!("the reader of the progress panicked");
        }
        Ok(self.durable())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.reader.is_some()
            && let Err(error) = self.kill()
        {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Small tables, so that a round meets every step of a store; the log goes as far as it is stored.
const STORE: [&str; 8] = ["--hot-bytes", "20000000", "--table-bytes", "8000000", "--merged-bytes", "24000000", "--wal-bytes", "0"];

/// The tail of the stream.
struct StoreProcess(Child);

impl StoreProcess {
    fn start(tapewire: &Path, bus: &Path) -> Result<Self> {
        let mut command = Command::new(tapewire);
        command.arg("store").arg(bus).args(STORE).args(["--interval-ms", "1", "--nice", "0"]);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start the store")?))
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Every thread of a process stands still when this returns.
fn stop(pid: u32) -> Result<()> {
    run(Command::new("kill").args(["-STOP", &pid.to_string()]))?;
    let from = Instant::now();
    loop {
        let mut are_stopped = true;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(task?.path().join("stat"))?;
            are_stopped &= text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
        }
        if are_stopped {
            return Ok(());
        }
        ensure!(from.elapsed() < PATIENCE, "process {pid} does not stop");
        Wait::Sleep(Duration::from_micros(200)).once();
    }
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field].as_u64().with_context(|| format!("no {field} in {value}"))
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// What a command says on stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}: {text}", output.status);
    Ok(text)
}
