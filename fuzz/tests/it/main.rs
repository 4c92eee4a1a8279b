//! Every decoder gets its share of changed inputs, the same ones each time; and what should be found is found.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "tests fail loudly and say what they did")]

use std::process::Command;
use tapewire_fuzz::{Budget, Guarded, Input, Target, fuzz, targets};

const SEED: u64 = 20_240_809;

/// Runs one decoder.
#[track_caller]
fn check(name: &str) {
    let mut target = targets().into_iter().find(|target| target.name == name).expect("there is such a decoder");
    let inputs = target.inputs_per_run;
    let report = fuzz(&mut target, SEED, Budget::Inputs(inputs)).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{name}: seed {SEED}, {} inputs, {} accepted", report.inputs, report.accepted);
    assert_eq!(report.inputs, inputs);
    assert!(report.accepted > inputs / 100, "hardly anything gets through: what is behind the first check is not tried");
    assert!(report.accepted < inputs, "nothing is refused");
}

macro_rules! decoders {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_decoder_has_its_test() {
            let names: Vec<_> = targets().iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

decoders!(
    event,
    page,
    page_header,
    segment,
    segment_of_the_dead,
    journal,
    table,
    manifest,
    footer,
    sst,
    registry,
    bus_id,
    epoch,
    cursor,
    decimal,
    csv,
    loops,
    binance,
    kraken,
    coinbase,
    lean,
    account,
    databento,
);

/// A decoder with a fault: what it does with a length and the bytes behind it.
fn faulty(decode: fn(usize, &[u8]) -> bool) -> Target {
    let decode = move |bytes: &[u8]| bytes.split_first().is_some_and(|(length, rest)| decode(usize::from(*length), rest));
    let seeds = vec![Input { bytes: vec![4, 1, 2, 3, 4, 5], marks: vec![0] }];
    Target { name: "faulty", seeds, repair: |_, _| {}, inputs_per_run: 0, decode: Box::new(decode) }
}

#[test]
fn a_length_that_is_trusted_is_found() {
    let failure = fuzz(&mut faulty(|length, rest| rest[..length].len() == length), SEED, Budget::Inputs(1000)).unwrap_err();
    assert!(failure.said.contains("out of range"), "{failure}");
    // The same seed finds it again at the same input.
    let again = fuzz(&mut faulty(|length, rest| rest[..length].len() == length), SEED, Budget::Inputs(failure.number)).unwrap_err();
    assert_eq!((again.number, &again.input), (failure.number, &failure.input));
    assert!(failure.to_string().contains(&format!("--seed {SEED} --inputs {}", failure.number)));
}

#[test]
fn a_sound_input_that_is_refused_is_found() {
    let failure = fuzz(&mut faulty(|_, _| false), SEED, Budget::Inputs(1)).unwrap_err();
    assert!(failure.number == 0 && failure.said.contains("is refused"), "{failure}");
}

const ROLE: &str = "TAPEWIRE_TEST_ROLE";

/// A child reads the byte behind its input, as a decoder without bounds would.
#[test]
fn a_read_beyond_the_input_is_deadly() {
    let mut room = Guarded::new(4096);
    let held = room.hold(&[7; 24]);
    if std::env::var(ROLE).is_ok_and(|role| role == "beyond") {
        // SAFETY: it is not, and that is what the parent looks for: the process dies here.
        let byte = unsafe { held.as_ptr().add(held.len()).read_volatile() };
        eprintln!("{byte} was read");
        std::process::exit(1);
    }
    assert_eq!(held, [7; 24]);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_read_beyond_the_input_is_deadly"])
        .env(ROLE, "beyond")
        .output()
        .unwrap();
    // Of a signal, or of a checker of memory that saw it coming.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !said.contains("was read"), "{output:?}");
}
