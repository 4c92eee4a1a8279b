//! Being full, being second and being different are answers.

use crate::bus::Bus;
use tapewire_transport::{PageReader, PageSender, TransportError};

#[test]
fn a_second_publisher_is_refused_while_the_first_lives() {
    let bus = Bus::new();
    let first = PageSender::create(&bus.0, 1).unwrap();
    let error = PageSender::create(&bus.0, 2).unwrap_err();
    assert!(matches!(&error, TransportError::AnotherPublisher { stream } if *stream == bus.0.service_name()), "{error}");
    drop(first);
    PageSender::create(&bus.0, 2).unwrap();
}

#[test]
fn one_reader_too_many_is_refused_until_one_goes() {
    let mut bus = Bus::new();
    bus.0.subscribers_max = 2;
    let first = PageReader::connect(&bus.0).unwrap();
    let _second = PageReader::connect(&bus.0).unwrap();
    let error = PageReader::connect(&bus.0).unwrap_err();
    assert!(matches!(error, TransportError::TooManySubscribers { subscribers_max: 2, .. }), "{error}");
    drop(first);
    PageReader::connect(&bus.0).unwrap();
}

#[test]
fn other_settings_are_refused_while_somebody_uses_the_stream() {
    let bus = Bus::new();
    let reader = PageReader::connect(&bus.0).unwrap();
    let mut larger = bus.0.clone();
    larger.lag_pages_max *= 2;
    let error = PageSender::create(&larger, 1).unwrap_err();
    assert!(matches!(error, TransportError::Incompatible { .. }), "{error}");
    // Nobody uses it any more: the next one makes it as it likes.
    drop(reader);
    PageSender::create(&larger, 1).unwrap();
}

#[test]
fn settings_out_of_range_are_named() {
    let bus = Bus::new();
    assert!(matches!(PageSender::create(&bus.0, 0).unwrap_err(), TransportError::Config { field: "epoch", .. }));
    let mut config = bus.0.clone();
    config.pages_ahead = 0;
    assert!(matches!(PageSender::create(&config, 1).unwrap_err(), TransportError::Config { field: "pages_ahead", .. }));
    assert!(matches!(PageReader::connect(&config).unwrap_err(), TransportError::Config { field: "pages_ahead", .. }));
}

#[test]
fn a_pool_beyond_the_machine_is_an_error_before_anything_exists() {
    let mut bus = Bus::new();
    (bus.0.lag_pages_max, bus.0.subscribers_max) = (4096, 256);
    let needed = bus.0.pool_bytes();
    let free = rustix::fs::statvfs("/dev/shm").unwrap();
    if free.f_bavail * free.f_frsize > needed {
        println!("skipped: this machine has room for the largest pool, {needed} bytes");
        return;
    }
    let error = PageSender::create(&bus.0, 1).unwrap_err();
    assert!(matches!(error, TransportError::SharedMemoryFull { needed_bytes, .. } if needed_bytes >= needed), "{error}");
    assert!(!bus.segments().iter().any(|segment| segment.file_name().to_string_lossy().ends_with(".data")));
}
