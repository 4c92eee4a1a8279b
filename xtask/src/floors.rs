//! The floors: every dependency between crates goes to a strictly lower one.
//!
//! ```text
//!         python    capi    cli                      floor 5
//!               cluster                              floor 4
//! gateway   query   replication   backup             floor 3   async starts here
//!     publisher       subscribers                    floor 2
//!     transport       storage                        floor 1
//!       schemas         stdx                         floor 0
//! garden: benches  sim  fuzz  examples  xtask        uses every floor, is used by nobody
//! ```
//!
//! Tests may look sideways (a subscriber is tested with a publisher), never upwards. A few libraries belong to one crate, so that
//! replacing them touches nothing else.

use crate::Finding;

/// A crate of the workspace and what it names in its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crate {
    /// Name of the package.
    pub name: String,
    /// Its folder, relative to the root of the workspace.
    pub folder: String,
    /// Everything it depends on, inside the workspace and outside.
    pub dependencies: Vec<Dependency>,
}

/// One line of a dependency table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the package.
    pub name: String,
    /// Which table.
    pub used_by: Use,
}

/// Who uses a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The crate or its build script.
    Build,
    /// Its tests, benches and examples.
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Floor {
    House(u8),
    Garden,
}

/// First words of crate names that only one crate may name, and that crate.
const OWNED: [(&str, &str); 3] = [("iceoryx2", "transport"), ("memmap2", "storage"), ("openraft", "replication")];
/// First words of the names of async runtimes.
const RUNTIMES: [&str; 2] = ["tokio", "async-std"];
/// The lowest floor that may name a runtime.
const ASYNC_FLOOR: u8 = 3;

/// Every broken rule, in the order of the crates.
#[must_use]
pub fn check_floors(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for krate in crates {
        let Some(floor) = floor_of(&krate.name) else {
            findings.push(Finding::new(&krate.name, "has no floor: add it to the table of floors"));
            continue;
        };
        if krate.name != format!("tapewire-{}", krate.folder) {
            findings.push(Finding::new(&krate.name, format!("lies in the folder {:?}: a crate is named after its folder", krate.folder)));
        }
        findings.extend(
            krate.dependencies.iter().filter_map(|it| broken_rule(&krate.folder, floor, it)).map(|why| Finding::new(&krate.name, why)),
        );
    }
    findings
}

fn floor_of(name: &str) -> Option<Floor> {
    Some(match name.strip_prefix("tapewire-")? {
        "schemas" | "stdx" => Floor::House(0),
        "transport" | "storage" => Floor::House(1),
        "publisher" | "subscribers" => Floor::House(2),
        "gateway" | "query" | "replication" | "backup" => Floor::House(3),
        "cluster" => Floor::House(4),
        "python" | "capi" | "cli" => Floor::House(5),
        "benches" | "sim" | "fuzz" | "examples" | "xtask" => Floor::Garden,
        _ => return None,
    })
}

fn broken_rule(folder: &str, floor: Floor, dependency: &Dependency) -> Option<String> {
    let name = &dependency.name;
    if name.starts_with("tapewire-") { inside(floor, dependency) } else { outside(folder, floor, name) }
}

fn inside(floor: Floor, dependency: &Dependency) -> Option<String> {
    let name = &dependency.name;
    let Some(target) = floor_of(name) else {
        return Some(format!("depends on {name}, which has no floor"));
    };
    match (floor, target) {
        (_, Floor::Garden) => Some(format!("depends on {name}: nobody depends on the garden")),
        (Floor::Garden, Floor::House(_)) => None,
        (Floor::House(from), Floor::House(to)) => match dependency.used_by {
            Use::Build if to >= from => Some(format!("depends on {name}: from floor {from} to floor {to} is not downwards")),
            Use::Test if to > from => Some(format!("tests with {name}: from floor {from} to floor {to} is upwards")),
            Use::Build | Use::Test => None,
        },
    }
}

fn outside(folder: &str, floor: Floor, name: &str) -> Option<String> {
    let is_of = |family: &str| name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']));
    if let Some((_, owner)) = OWNED.iter().find(|(family, owner)| is_of(family) && *owner != folder) {
        return Some(format!("depends on {name}: only tapewire-{owner} may name it"));
    }
    match floor {
        Floor::House(from) if from < ASYNC_FLOOR && RUNTIMES.iter().any(|family| is_of(family)) => {
            Some(format!("depends on {name}: no async below floor {ASYNC_FLOOR}"))
        }
        Floor::House(_) | Floor::Garden => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks one crate with one dependency; `expected` is a part of the only finding, empty for none.
    #[track_caller]
    fn check(folder: &str, used_by: Use, dependency: &str, expected: &str) {
        let krate = Crate {
            name: format!("tapewire-{folder}"),
            folder: folder.to_owned(),
            dependencies: vec![Dependency { name: dependency.to_owned(), used_by }],
        };
        let findings = check_floors(&[krate]);
        if expected.is_empty() {
            assert_eq!(findings, []);
        } else {
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].to_string().contains(expected), "{findings:?}");
        }
    }

    #[test]
    fn downwards_is_allowed() {
        check("transport", Use::Build, "tapewire-schemas", "");
        check("cli", Use::Build, "tapewire-stdx", "");
        check("cluster", Use::Build, "tapewire-replication", "");
        check("cli", Use::Build, "anyhow", "");
    }

    #[test]
    fn sideways_and_upwards_are_refused() {
        check("schemas", Use::Build, "tapewire-stdx", "from floor 0 to floor 0 is not downwards");
        check("storage", Use::Build, "tapewire-transport", "from floor 1 to floor 1 is not downwards");
        check("storage", Use::Build, "tapewire-publisher", "from floor 1 to floor 2 is not downwards");
        check("publisher", Use::Build, "tapewire-cli", "from floor 2 to floor 5 is not downwards");
    }

    #[test]
    fn tests_look_sideways_but_not_upwards() {
        check("subscribers", Use::Test, "tapewire-publisher", "");
        check("subscribers", Use::Test, "tapewire-stdx", "");
        check("transport", Use::Test, "tapewire-publisher", "from floor 1 to floor 2 is upwards");
    }

    #[test]
    fn the_garden_sees_all_and_is_seen_by_nobody() {
        check("benches", Use::Build, "tapewire-cli", "");
        check("sim", Use::Build, "tokio", "");
        check("cli", Use::Test, "tapewire-sim", "nobody depends on the garden");
        check("benches", Use::Build, "tapewire-sim", "nobody depends on the garden");
    }

    #[test]
    fn owned_libraries_stay_with_their_owner() {
        check("transport", Use::Build, "iceoryx2", "");
        check("publisher", Use::Build, "iceoryx2", "only tapewire-transport may name it");
        check("publisher", Use::Test, "iceoryx2-bb-posix", "only tapewire-transport may name it");
        check("benches", Use::Build, "iceoryx2", "only tapewire-transport may name it");
        check("storage", Use::Build, "memmap2", "");
        check("transport", Use::Build, "memmap2", "only tapewire-storage may name it");
        check("replication", Use::Build, "openraft", "");
        check("cluster", Use::Build, "openraft", "only tapewire-replication may name it");
        check("stdx", Use::Build, "rustix", "");
    }

    #[test]
    fn async_starts_at_floor_three() {
        check("gateway", Use::Build, "tokio", "");
        check("publisher", Use::Build, "tokio", "no async below floor 3");
        check("subscribers", Use::Test, "tokio-util", "no async below floor 3");
        check("storage", Use::Build, "async-std", "no async below floor 3");
        check("storage", Use::Build, "tokiort", "");
    }

    #[test]
    fn every_crate_has_a_floor_and_its_folders_name() {
        check("attic", Use::Build, "anyhow", "has no floor");
        check("cli", Use::Build, "tapewire-attic", "which has no floor");
        let moved = Crate { name: "tapewire-cli".to_owned(), folder: "tools/cli".to_owned(), dependencies: Vec::new() };
        assert_eq!(check_floors(&[moved])[0].reason, "lies in the folder \"tools/cli\": a crate is named after its folder");
    }
}
