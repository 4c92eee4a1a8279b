//! The engines that a user would otherwise choose: a workspace of its own, so that nobody else has to build them.

use crate::{Workspace, steps::cargo};
use anyhow::{Context, Result, ensure};
use std::{
    env, fs,
    process::{Command, Stdio},
};

/// The workspace of the peers, and the instruction set that all of it is built for.
const MANIFEST: &str = "benches/peers/Cargo.toml";
const CONFIG: &str = "benches/peers/.cargo/config.toml";
/// Where distributions put libclang, which the bindings of RocksDB are made with: `llvm-14/lib`, `x86_64-linux-gnu`, `lib64`.
const LIBRARY_FOLDERS: [&str; 2] = ["/usr/lib", "/usr"];

/// Builds the peers and runs the measurement, from the root of the repository.
///
/// # Errors
/// What is missing on this machine, and what cargo says.
pub fn peers(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let compiler = Command::new("c++").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has_compiler = compiler.is_ok_and(|status| status.success());
    ensure!(has_compiler && has_libclang()?, "RocksDB takes a C++ compiler and libclang: `apt-get install g++ libclang-dev`");
    let mut words = vec!["run", "--release", "--manifest-path", MANIFEST, "--config", CONFIG, "--", "run"];
    words.extend(arguments.iter().map(String::as_str));
    cargo(workspace, &words)
}

/// Whether there is a libclang where the bindings look for one.
fn has_libclang() -> Result<bool> {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return Ok(true);
    }
    for folder in LIBRARY_FOLDERS {
        for entry in fs::read_dir(folder).with_context(|| format!("list {folder}"))?.flatten() {
            let (folder, library) = (entry.path(), entry.path().join("lib"));
            for files in [fs::read_dir(folder), fs::read_dir(library)].into_iter().flatten() {
                if files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libclang.so")) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
