//! `cargo xtask tidy`: the rules of this tree that no compiler checks.
//!
//! Each rule is a function from a file (or a manifest) to findings; a finding names the place, what
//! is wrong and how to put it right. What clippy and Cargo can say, they say; it is not repeated here.

mod code;
mod edges;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use self::code::Code;
use crate::workspace::root;

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {}

/// Checks the whole tree; fails when anything was found.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    let root = root();
    let files = files(&root)?;
    let mut findings = Vec::new();
    for path in &files {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            continue; // Not text.
        };
        check(&root, path, &text, &mut findings);
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to say", files.len());
        return Ok(());
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    eprintln!("tidy: {} finding(s)", findings.len());
    std::process::exit(1)
}

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: PathBuf,
    /// 1-based.
    line: usize,
    /// What is wrong.
    what: String,
    /// What to do about it.
    fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}\n    fix: {}",
            self.path.display(),
            self.line,
            self.what,
            self.fix
        )
    }
}

/// Collects the findings of one file.
struct Report<'a> {
    path: &'a Path,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, line: usize, what: impl Into<String>, fix: impl Into<String>) {
        let path = self.path.to_path_buf();
        self.findings.push(Finding {
            path,
            line,
            what: what.into(),
            fix: fix.into(),
        });
    }
}

fn check(root: &Path, path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut report = Report { path, findings };
    rules::workplace_paths(text, &mut report);
    match path.extension().and_then(|e| e.to_str()) {
        Some("rs") => {
            let code = Code::parse(text);
            rules::header(text, &mut report);
            rules::size(&code, &mut report);
            rules::leftovers(&code, &mut report);
            rules::safety(&code, &mut report);
            rules::globs(&code, &mut report);
            edges::sources(&code, &mut report);
        }
        Some("md") => rules::links(root, text, &mut report),
        Some("toml") if path.ends_with("Cargo.toml") => edges::manifest(text, &mut report),
        _ => {}
    }
}

/// The files of the tree, relative to `root`: tracked, or new and not ignored.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output();
    if let Ok(listed) = listed
        && listed.status.success()
    {
        let names = String::from_utf8(listed.stdout).context("a file name that is not UTF-8")?;
        let paths = names.split_terminator('\0').map(PathBuf::from);
        return Ok(paths.filter(|path| root.join(path).is_file()).collect());
    }
    let mut found = Vec::new();
    walk(root, Path::new(""), &mut found)?;
    Ok(found)
}

/// Without git (a source archive): every file outside `target` and hidden directories.
fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !hidden && entry.file_name() != "target" {
                walk(root, &path, found)?;
            }
        } else {
            found.push(path);
        }
    }
    Ok(())
}
