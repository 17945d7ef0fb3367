//! `sluice check`: mistakes and doubts about a directory of manifests, and what a change would do.

mod changes;
mod lint;

use std::fmt::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;

use super::status::count;
use super::table::{Cell, Look, Table, paint};
use super::{load, print};
use crate::args::CheckArgs;
use crate::world::{Offline, World};

use changes::Change;
use lint::{Issue, Severity};

/// What `check` has to say.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Objects that were read.
    pub objects: usize,
    /// Files they were read from.
    pub files: usize,
    /// What is wrong or doubtful, errors first.
    pub issues: Vec<Issue>,
    /// What would change; none if nothing was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
}

/// Checks a directory. Exit code 1 if there is an error, 0 if there are only doubts.
pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let offline = load(&args.manifests)?;
    let current = args.against.as_deref().map(load).transpose()?;
    let current = current.as_ref().map(|offline| &offline.world);
    let verdict = Verdict::new(&offline, current, Timestamp::now());
    print(args.output, &verdict, |colours| text(&verdict, colours))?;
    Ok(if verdict.has_errors() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Verdict {
    /// Judges a directory, and compares it with what is served now.
    pub fn new(offline: &Offline, current: Option<&World>, now: Timestamp) -> Self {
        let world = &offline.world;
        Self {
            objects: world.source.objects,
            files: world.source.files(),
            issues: lint::issues(offline, now),
            changes: current.map(|current| changes::changes(current, world)),
        }
    }

    /// Whether something does not work as written.
    pub fn has_errors(&self) -> bool {
        self.issues
            .iter()
            .any(|issue| issue.severity == Severity::Error)
    }
}

/// The verdict for people.
pub fn text(verdict: &Verdict, colours: bool) -> String {
    let mut out = String::new();
    for issue in &verdict.issues {
        let label = match issue.severity {
            Severity::Error => paint("error:", Look::Bad, colours),
            Severity::Warning => paint("warning:", Look::Warn, colours),
        };
        let _ = writeln!(out, "{label} {}", issue.text);
    }
    if let Some(changes) = &verdict.changes {
        out.push_str(&changes_text(changes, colours));
    }
    let of = |severity| {
        verdict
            .issues
            .iter()
            .filter(|issue| issue.severity == severity)
            .count()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let total = format!(
        "{} in {}",
        count(verdict.objects, "object"),
        count(verdict.files, "file")
    );
    let summary = match (errors, warnings) {
        (0, 0) => paint(&format!("{total}: no mistakes"), Look::Good, colours),
        (errors, warnings) => {
            let text = format!(
                "{total}: {}, {}",
                count(errors, "error"),
                count(warnings, "warning")
            );
            paint(
                &text,
                if errors > 0 { Look::Bad } else { Look::Warn },
                colours,
            )
        }
    };
    let _ = writeln!(out, "{summary}");
    out
}

fn changes_text(changes: &[Change], colours: bool) -> String {
    if changes.is_empty() {
        return "nothing that is served would change\n\n".to_owned();
    }
    let mut table = Table::new(["", "WHAT", "NOW", "THEN"], colours);
    for change in changes {
        let (mark, look) = match (&change.now, &change.then) {
            (None, _) => ("+", Look::Good),
            (_, None) => ("-", Look::Bad),
            _ => ("~", Look::Warn),
        };
        table.row([
            Cell::new(mark, look),
            change.what.as_str().into(),
            change.now.as_deref().unwrap_or_default().into(),
            change.then.as_deref().unwrap_or_default().into(),
        ]);
    }
    format!("{}\n", table.render())
}
