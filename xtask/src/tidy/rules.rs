//! The rules that look at one file alone.

use std::path::{Component, Path, PathBuf};

use super::Report;
use super::code::Code;

/// Production lines that a file may have.
const MAX_LINES: usize = 600;
/// Lines that a file of tests may have.
const MAX_TEST_LINES: usize = 1000;

/// Every source file says what lives in it.
pub fn header(text: &str, report: &mut Report<'_>) {
    let first = text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!"));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        report.add(
            1,
            "the file does not open with `//!`",
            "say what lives here, and what deliberately does not",
        );
    }
}

/// A file holds one noun.
pub fn size(code: &Code, report: &mut Report<'_>) {
    let (kind, lines, limit) = if is_test_file(report.path) {
        ("lines of tests", code.code.len(), MAX_TEST_LINES)
    } else {
        ("production lines", code.production_lines(), MAX_LINES)
    };
    if lines > limit {
        let what = format!("{lines} {kind}, more than {limit}");
        report.add(limit + 1, what, "cut it along its nouns: `foo.rs` + `foo/`");
    }
}

/// Nothing unfinished and no test that is skipped.
pub fn leftovers(code: &Code, report: &mut Report<'_>) {
    for (i, line) in code.code.iter().enumerate() {
        for word in ["todo!", "unimplemented!"] {
            if line.contains(word) {
                report.add(i + 1, format!("`{word}`"), "finish it, or leave it out");
            }
        }
        if line.contains("#[ignore") || (line.contains("cfg_attr(") && line.contains("ignore")) {
            let fix = "let it run; a test that lacks a privilege fails and says how to get it";
            report.add(i + 1, "a skipped test", fix);
        }
    }
    for (i, line) in code.comments.iter().enumerate() {
        for word in ["TODO", "FIXME", "XXX"] {
            if words(line).any(|w| w == word) {
                report.add(
                    i + 1,
                    format!("`{word}` in a comment"),
                    "do it now, or open an issue and leave no mark here",
                );
            }
        }
    }
}

/// The eBPF crate is outside of the workspace, where clippy asks for this.
pub fn safety(code: &Code, report: &mut Report<'_>) {
    if !report.path.starts_with("gateway-ebpf") {
        return;
    }
    for (i, line) in code.code.iter().enumerate() {
        if !(line.contains("unsafe {") || line.contains("unsafe impl")) {
            continue;
        }
        // The comment stands on the line or above the statement, which may begin some lines earlier.
        let said = code.comments[i.saturating_sub(8)..=i]
            .iter()
            .any(|c| c.contains("SAFETY:"));
        if !said {
            report.add(
                i + 1,
                "`unsafe` without a reason",
                "write `// SAFETY:` above it",
            );
        }
    }
}

/// A name should be found by looking at the imports.
pub fn globs(code: &Code, report: &mut Report<'_>) {
    if is_test_file(report.path) {
        return;
    }
    for path in code.paths() {
        if path.path.ends_with("::*")
            && !path.path.contains("prelude")
            && !path.path.contains("bindings")
        {
            report.add(
                path.line,
                format!("glob import `{}`", path.path),
                "name what is used",
            );
        }
    }
}

/// No path of somebody's machine.
pub fn workplace_paths(text: &str, report: &mut Report<'_>) {
    const PLACES: [&str; 5] = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/tmp/", "bash"),
    ];
    for (i, line) in text.lines().enumerate() {
        for place in PLACES {
            // `https://host/work/` is a URL's path, `net/work/` a relative one.
            let absolute = line.match_indices(place).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| {
                    c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '}' | ')')
                })
            });
            if absolute {
                let fix = "make it relative, a setting, or a directory of the system";
                report.add(
                    i + 1,
                    format!("an absolute path of one machine: `{place}`"),
                    fix,
                );
            }
        }
    }
}

/// A Markdown link to a file finds it.
pub fn links(root: &Path, text: &str, report: &mut Report<'_>) {
    let base = report.path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut fenced = false;
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in link_targets(line) {
            let file = target.split(['#', '?']).next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let path = match file.strip_prefix('/') {
                Some(from_root) => PathBuf::from(from_root),
                None => base.join(file),
            };
            if !root.join(normal(&path)).exists() {
                report.add(
                    i + 1,
                    format!("a link to `{target}`, which is not there"),
                    "correct the path, or drop the link",
                );
            }
        }
    }
}

/// The targets of `[text](target)` and `[name]: target`, code spans left out.
fn link_targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    for (i, span) in line.split('`').enumerate() {
        if i % 2 == 0 {
            let inline = span
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split_once(')'));
            targets.extend(
                inline.map(|(target, _)| target.split_whitespace().next().unwrap_or_default()),
            );
        }
    }
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(target.trim());
    }
    targets
}

/// Whether everything in the file is a test.
pub fn is_test_file(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name == "tests.rs");
    let below = path
        .parent()
        .is_some_and(|dir| dir.components().any(|c| c.as_os_str() == "tests"));
    let library = path.starts_with("tests/src");
    named || (below && !library)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric())
}

/// Resolves `.` and `..` without asking the file system.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
