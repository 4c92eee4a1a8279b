//! The repository as the rules see it: crates from `cargo metadata`, text files from the tree.

use crate::{Crate, Dependency, SourceFile, Use};
use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Endings of the files that the rules read.
const TEXT_ENDINGS: [&str; 11] = [".rs", ".md", ".toml", ".sh", ".yml", ".ts", ".mjs", ".css", ".html", ".svg", "/run"];
/// Folders that hold nothing of the repository's own.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
/// What is built of files that the rules read, and libraries with it: `cargo xtask page` compares it with them.
const BUILT: &str = "gateway/web/dist";
/// Folders below folders: more is a loop or a mistake.
const DEPTH_MAX: usize = 32;

/// The workspace around the current directory.
#[derive(Debug)]
pub struct Workspace {
    /// Its root.
    pub root: PathBuf,
    /// Where cargo builds to.
    pub target: PathBuf,
    /// Its crates.
    pub crates: Vec<Crate>,
    /// Its example programs.
    pub examples: Vec<Program>,
}

/// A program that cargo can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of its package.
    pub package: String,
    /// Option of `cargo run` that chooses it.
    pub option: &'static str,
    /// Name of the program.
    pub name: String,
}

impl Workspace {
    /// Asks cargo for the workspace around the current directory.
    ///
    /// # Errors
    /// When there is none, or cargo cannot read it.
    pub fn load() -> Result<Self> {
        let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
        let packages = metadata.workspace_packages();
        Ok(Self {
            root: metadata.workspace_root.clone().into_std_path_buf(),
            target: metadata.target_directory.clone().into_std_path_buf(),
            crates: packages.iter().map(|package| to_crate(&metadata, package)).collect(),
            examples: packages.iter().flat_map(|package| examples_of(package)).collect(),
        })
    }

    /// Every text file that the rules read, by path.
    ///
    /// # Errors
    /// When a folder cannot be listed, or a file not be read as UTF-8.
    pub fn files(&self) -> Result<Vec<SourceFile>> {
        let mut files = Vec::new();
        collect(&self.root, "", DEPTH_MAX, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

fn to_crate(metadata: &Metadata, package: &Package) -> Crate {
    let folder = package.manifest_path.parent().and_then(|folder| folder.strip_prefix(&metadata.workspace_root).ok());
    let dependencies = package.dependencies.iter().map(|dependency| Dependency {
        name: dependency.name.clone(),
        used_by: if dependency.kind == DependencyKind::Development { Use::Test } else { Use::Build },
    });
    Crate {
        name: package.name.to_string(),
        folder: folder.map(ToString::to_string).unwrap_or_default(),
        dependencies: dependencies.collect(),
    }
}

/// Example targets of any crate, and every program of the crate that is nothing but examples.
fn examples_of(package: &Package) -> Vec<Program> {
    let package_name = package.name.to_string();
    let programs = package.targets.iter().filter_map(|target| {
        let option = match (target.is_example(), target.is_bin()) {
            (true, _) => "--example",
            (_, true) if package_name == "tapewire-examples" => "--bin",
            _ => return None,
        };
        Some(Program { package: package_name.clone(), option, name: target.name.clone() })
    });
    programs.collect()
}

fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<SourceFile>) -> Result<()> {
    anyhow::ensure!(depth > 0, "{prefix} lies more than {DEPTH_MAX} folders deep");
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, kind) = (format!("{prefix}{name}"), entry.file_type()?);
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) && path != BUILT {
            collect(&entry.path(), &format!("{path}/"), depth - 1, files)?;
        } else if kind.is_file() && TEXT_ENDINGS.iter().any(|ending| path.ends_with(ending)) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.push(SourceFile { path, text });
        }
    }
    Ok(())
}
