//! `cargo xtask kill-matrix`: every process of a bus is harmed in every way, one after another, and a table says what each of the others saw.
//!
//! A bus has a publisher, a standby beside it, a tail, and a realtime, a delayed and a historical reader, each a process of its own. One is killed
//! (SIGKILL), stopped for ten seconds (SIGSTOP), or asked to end (SIGTERM); or the disk, or shared memory, is full for three seconds, for all of them.
//! Whoever ended is started again with the same command, and the stream goes on until 20,000 events later everybody has everything. In the
//! end every reader's digest must be the one that the files give, without a hole or a duplicate.
//!
//! Each round has a mount namespace of its own: an ext4 image for the bus, and a small `/dev/shm`. It needs root, `unshare` and loop devices; without
//! them it says so and changes nothing.

#![allow(clippy::print_stderr, clippy::print_stdout)]

use crate::{
    Workspace,
    power_cuts::{build, missing, output, run},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tapewire_stdx::wait::Wait;

/// Flags of `kill-matrix`.
#[derive(Clone, Debug, clap::Args)]
pub struct KillMatrix {
    /// Directory for the images, removed at the end.
    #[arg(long, default_value = "/tmp")]
    pub directory: PathBuf,
    /// The binary, built already; otherwise it is built first.
    #[arg(long)]
    pub tapewire: Option<PathBuf>,
    /// Only rounds whose name has this in it, as in `tail` or `SIGSTOP`.
    #[arg(long, default_value = "")]
    pub only: String,
    /// The round that runs in this namespace; for this program.
    #[arg(long, hide = true, value_name = "ROUND")]
    pub here: Option<String>,
}

const ROLES: [&str; 6] = ["publisher", "standby", "tail", "realtime", "delayed", "historical"];
const READERS: [&str; 3] = ["realtime", "delayed", "historical"];
const HARMS: [&str; 3] = ["SIGKILL", "SIGSTOP", "SIGTERM"];
const FULL: [&str; 2] = ["full disk", "full shared memory"];
const STOPPED: Duration = Duration::from_secs(10);
const FULL_FOR: Duration = Duration::from_secs(3);
/// Events before a harm, and behind it.
const EVENTS: u64 = 20_000;
const FEED: [&str; 4] = ["--feed", "sim:seed=7,instruments=4,levels=20", "--speed", "20000"];
const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes of the disk and of shared memory.
const IMAGE_BYTES: &str = "400M";
const MEMORY_BYTES: &str = "size=300m";

/// Runs every round, and prints the table.
///
/// # Errors
/// A round in which a survivor missed something, or something did not go on by itself, and whatever could not be run.
pub fn kill_matrix(workspace: &Workspace, options: &KillMatrix) -> Result<()> {
    if let Some(reason) = missing() {
        eprintln!("xtask: kill-matrix skipped: {reason}");
        return Ok(());
    }
    let tapewire = options.tapewire.clone().map_or_else(|| build(workspace), |path| Ok(path.canonicalize()?))?;
    if let Some(round) = &options.here {
        return Round::new(&tapewire, &options.directory)?.run(round);
    }
    let harms = ROLES.iter().flat_map(|role| HARMS.iter().map(move |harm| format!("{role} {harm}")));
    let full = FULL.iter().map(|what| format!("everybody {what}"));
    let rounds: Vec<String> = harms.chain(full).filter(|round| round.contains(&options.only)).collect();
    println!("| harmed | how | {} |\n|---|---|{}", ROLES.join(" | "), "---|".repeat(ROLES.len()));
    let mut failed = Vec::new();
    for round in &rounds {
        let home = tempfile::Builder::new().prefix("tapewire-kill-matrix-").tempdir_in(&options.directory)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe()?).arg("kill-matrix");
        command.arg("--tapewire").arg(&tapewire).arg("--directory").arg(home.path()).args(["--here", round]);
        if let Err(error) = run(command.current_dir(&workspace.root)) {
            eprintln!("xtask: {round}: {error:#}");
            failed.push(round.as_str());
        }
    }
    ensure!(failed.is_empty(), "{} of {} rounds failed: {}", failed.len(), rounds.len(), failed.join(", "));
    eprintln!("xtask: {} rounds, every reader had the whole stream, and nobody needed a hand", rounds.len());
    Ok(())
}

/// One process, and what it says.
struct Member {
    command: Vec<String>,
    child: Child,
    last_line: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    starts: u32,
    note: Vec<String>,
}

impl Member {
    fn start(tapewire: &Path, command: Vec<String>) -> Result<Self> {
        let mut child = Command::new(tapewire)
            .args(&command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let errors = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let last_line = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&last_line);
        let name = command[0].clone();
        let reader = std::thread::spawn(move || {
            let said = std::thread::spawn(move || errors.map_while(Result::ok).for_each(|line| eprintln!("  {name}: {line}")));
            for line in lines.map_while(Result::ok) {
                if let Ok(mut last) = seen.lock() {
                    *last = line;
                }
            }
            let _ = said.join();
        });
        Ok(Self { command, child, last_line, reader: Some(reader), starts: 1, note: Vec::new() })
    }

    fn said(&self) -> Value {
        let line = self.last_line.lock().map(|line| line.clone()).unwrap_or_default();
        serde_json::from_str(&line).unwrap_or_default()
    }

    fn signal(&self, name: &str) -> Result<()> {
        run(Command::new("kill").arg(format!("-{}", name.trim_start_matches("SIG"))).arg(self.child.id().to_string()))
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let from = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(from.elapsed() < PATIENCE, "{:?} does not end", self.command);
            pause(5);
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(status)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.reader.is_some() {
            let _ = self.child.kill().and_then(|()| self.child.wait().map(drop));
        }
    }
}

fn pause(milliseconds: u64) {
    Wait::Sleep(Duration::from_millis(milliseconds)).once();
}

/// A bus on a disk of its own, and everybody on it.
struct Round {
    tapewire: PathBuf,
    disk: PathBuf,
    members: BTreeMap<&'static str, Member>,
}

impl Round {
    fn new(tapewire: &Path, home: &Path) -> Result<Self> {
        let (image, disk) = (home.join("image"), home.join("disk"));
        fs::create_dir(&disk)?;
        run(Command::new("truncate").args(["-s", IMAGE_BYTES]).arg(&image))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk))?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", MEMORY_BYTES, "tmpfs", "/dev/shm"]))?;
        Ok(Self { tapewire: tapewire.to_owned(), disk, members: BTreeMap::new() })
    }

    fn bus(&self) -> String {
        self.disk.join("bus").display().to_string()
    }

    fn command(&self, role: &str) -> Vec<String> {
        let bus = self.bus();
        let words: Vec<&str> = match role {
            "publisher" | "standby" => {
                let mut words = vec!["publish", "--bus", &bus];
                words.extend(FEED);
                words.extend(["--progress-ms", "10", "--segment-pages", "8", "--journal-pages", "32"]);
                words.extend(if role == "standby" { &["--standby", "--when-ended", "take-over"][..] } else { &[] });
                words
            }
            "tail" => vec!["store", &bus, "--wal-bytes", "8000000", "--hot-bytes", "4000000", "--interval-ms", "20"],
            tier => vec![
                "digest",
                "--bus",
                &bus,
                "--tier",
                tier,
                "--from",
                "seq:1",
                "--until",
                "never",
                "--progress-ms",
                "20",
                "--output",
                "json",
            ],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn start(&mut self, role: &'static str) -> Result<()> {
        let member = Member::start(&self.tapewire, self.command(role))?;
        self.members.insert(role, member);
        Ok(())
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let from = Instant::now();
        while !is_so(self)? {
            ensure!(from.elapsed() < PATIENCE, "{what} does not come to pass");
            pause(10);
        }
        Ok(())
    }

    /// Events that each reader has.
    fn read(&self) -> impl Iterator<Item = u64> {
        READERS.iter().map(|role| self.members.get(role).and_then(|member| member.said()["progress"]["events"].as_u64()).unwrap_or(0))
    }

    fn least_read(&self) -> u64 {
        self.read().min().unwrap_or(0)
    }

    fn run(mut self, round: &str) -> Result<()> {
        let (role, harm) = round.split_once(' ').context("a round is ROLE HARM")?;
        self.start("publisher")?;
        let epoch = self.disk.join("bus/market/epoch");
        self.until("the stream", |_| Ok(epoch.exists()))?;
        for role in ROLES {
            if role != "publisher" {
                self.start(role)?;
            }
        }
        self.until("the beginning", |it| Ok(it.least_read() > EVENTS))?;
        let at = self.read().max().unwrap_or(0);
        match ROLES.iter().find(|it| **it == role) {
            Some(role) => self.harm(role, harm)?,
            None => self.fill(harm)?,
        }
        self.until("that everybody goes on", |it| {
            it.start_again()?;
            Ok(it.least_read() > at + EVENTS)
        })?;
        self.finish(role, harm)
    }

    fn harm(&mut self, role: &'static str, harm: &str) -> Result<()> {
        let member = self.members.get_mut(role).context("nobody of that name")?;
        member.signal(harm)?;
        if harm == "SIGSTOP" {
            let from = Instant::now();
            while from.elapsed() < STOPPED {
                pause(50);
            }
            // A standby may have ended it.
            if member.child.try_wait()?.is_none() {
                member.signal("SIGCONT")?;
            }
        }
        Ok(())
    }

    /// Fills the disk or shared memory for a while.
    fn fill(&mut self, what: &str) -> Result<()> {
        let path = if what == FULL[0] { self.disk.join("filler") } else { PathBuf::from("/dev/shm/filler") };
        let (mut file, block) = (fs::File::create(&path)?, vec![1u8; 1 << 16]);
        let from = Instant::now();
        while from.elapsed() < FULL_FOR {
            // Whatever becomes free is taken again.
            if file.write(&block).is_err() {
                pause(5);
            }
        }
        drop(file);
        Ok(fs::remove_file(&path)?)
    }

    /// Who has ended is started again, as a service manager would.
    fn start_again(&mut self) -> Result<()> {
        for role in ROLES {
            let Some(member) = self.members.get_mut(role) else { continue };
            let Some(status) = member.child.try_wait()? else { continue };
            let (mut note, starts) = (std::mem::take(&mut member.note), member.starts + 1);
            ensure!(starts < 200, "{role} ends again and again: {status}");
            if !note.iter().any(|it| *it == status.to_string()) {
                note.push(status.to_string());
            }
            let mut command = self.command(role);
            if role == "publisher" {
                // Somebody else may have the stream by now: it waits beside.
                command.extend(["--standby".to_owned(), "--when-ended".to_owned(), "take-over".to_owned()]);
            }
            pause(100);
            let mut member = Member::start(&self.tapewire, command)?;
            (member.starts, member.note) = (starts, note);
            self.members.insert(role, member);
        }
        Ok(())
    }

    /// Ends everybody, and compares.
    fn finish(mut self, harmed: &str, harm: &str) -> Result<()> {
        // The one that waits first, so that nobody takes over.
        for signal in ["SIGTERM", "SIGKILL"] {
            for role in ["publisher", "standby"] {
                let member = self.members.get_mut(role).context("they are there")?;
                if member.child.try_wait()?.is_none() {
                    member.signal(signal)?;
                }
            }
            pause(if signal == "SIGTERM" { 1500 } else { 0 });
        }
        let mut cells = BTreeMap::new();
        for role in ["publisher", "standby"] {
            let member = self.members.get_mut(role).context("they are there")?;
            member.end()?;
            cells.insert(role, ended(member));
        }
        let truth =
            self.ask(&["digest", "--bus", &self.bus(), "--tier", "historical", "--from", "seq:1", "--until", "head", "--output", "json"])?;
        // Recovery may have to complete what a publisher left that was killed.
        let expected = truth["events"].as_u64().context("no events")?;
        self.until("that every reader has everything", |it| Ok(it.least_read() >= expected))?;
        for role in READERS {
            let member = self.members.get_mut(role).context("they are there")?;
            member.signal("SIGTERM")?;
            let status = member.end()?;
            let seen = member.said();
            ensure!(status.success(), "{role} ended with {status}");
            ensure!(seen["sequence_errors"] == 0 && seen["sequences_skipped"] == 0, "{role} has holes: {seen}");
            for field in ["instruments", "by_kind", "first_sequence", "last_sequence", "ids", "levels"] {
                ensure!(seen[field] == truth[field], "{role} saw another {field}: {} and {}", seen[field], truth[field]);
            }
            cells.insert(role, format!("{} events, lapped {}, healed {}{}", seen["events"], seen["lapped"], seen["healed"], ended(member)));
        }
        let tail = self.members.get_mut("tail").context("it is there")?;
        tail.signal("SIGTERM")?;
        ensure!(tail.end()?.success(), "the tail did not end in good order");
        cells.insert("tail", ended(tail));
        self.ask(&["store", &self.bus(), "--until-settled"])?;
        let verified = self.ask(&["verify", &self.bus(), "--deep"])?;
        ensure!(verified["last_sequence"].as_u64() >= truth["last_sequence"].as_u64(), "{verified}");
        let row: Vec<String> = ROLES.iter().map(|role| cells.remove(role).unwrap_or_default()).collect();
        println!("| {harmed} | {harm} | {} |", row.join(" | "));
        Ok(())
    }

    fn ask(&self, words: &[&str]) -> Result<Value> {
        let text = output(Command::new(&self.tapewire).args(words))?;
        match serde_json::from_str(text.lines().last().unwrap_or_default()) {
            Ok(value) => Ok(value),
            Err(_) => bail!("{words:?} said {text:?}"),
        }
    }
}

/// How often a process ended on the way, and how.
fn ended(member: &Member) -> String {
    match member.starts {
        1 => String::new(),
        starts => format!(" ended {} × ({}), went on", starts - 1, member.note.join("; ")),
    }
}
