//! The rules of the house, held by the house.

use tapewire_xtask::{Workspace, check_floors, check_tidy, refuse};

fn workspace() -> Workspace {
    Workspace::load().expect("the tests run inside the workspace")
}

#[test]
fn every_dependency_goes_to_a_lower_floor() {
    let workspace = workspace();
    assert!(workspace.crates.iter().any(|krate| krate.name == "tapewire-xtask"));
    refuse(&check_floors(&workspace.crates)).unwrap();
}

#[test]
fn every_file_is_tidy() {
    let files = workspace().files().unwrap();
    assert!(files.iter().any(|file| file.path == "xtask/tests/it/main.rs"));
    refuse(&check_tidy(&files)).unwrap();
}
