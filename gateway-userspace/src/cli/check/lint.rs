//! What is wrong with a directory (errors), and what is allowed but hardly meant (warnings).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cli::status::{all_conditions, troubles_of};
use crate::view::warnings::warnings;
use crate::world::Offline;

/// Whether something must or should be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does not work as written.
    Error,
    /// It works, but hardly as meant.
    Warning,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// What and where.
    pub text: String,
}

/// Everything there is to say, errors first.
pub fn issues(offline: &Offline, now: Timestamp) -> Vec<Issue> {
    let world = &offline.world;
    let mut issues = Vec::new();
    let source = &world.source;
    issues.extend(
        source
            .findings
            .iter()
            .map(|finding| error(finding.to_string())),
    );
    issues.extend(
        world
            .rejected
            .iter()
            .map(|(object, reason)| error(format!("{object}: {reason}"))),
    );
    for (object, status) in world.statuses.iter() {
        let (overlaps, others): (Vec<_>, Vec<_>) = all_conditions(&status)
            .into_iter()
            .partition(|(_, condition)| is_doubt(condition));
        let line = |text: String| format!("{object}: {text}");
        issues.extend(
            troubles_of(&others)
                .into_iter()
                .map(|text| error(line(text))),
        );
        issues.extend(
            troubles_of(&overlaps)
                .into_iter()
                .map(|text| warning(line(text))),
        );
    }
    let unread = source.doubts.iter();
    issues.extend(unread.map(|finding| warning(finding.to_string())));
    let hardly_meant = warnings(world, Some(&offline.objects), now);
    issues.extend(hardly_meant.into_iter().map(warning));
    issues.sort();
    issues.dedup();
    issues
}

/// Whether a condition speaks of something that works, but hardly as meant.
fn is_doubt(condition: &Value) -> bool {
    let kinds = ["OverlappingTLSConfig", "InsecureFrontendValidationMode"];
    condition["type"]
        .as_str()
        .is_some_and(|kind| kinds.contains(&kind))
}

fn error(text: String) -> Issue {
    Issue {
        severity: Severity::Error,
        text,
    }
}

fn warning(text: String) -> Issue {
    Issue {
        severity: Severity::Warning,
        text,
    }
}

#[cfg(test)]
mod tests;
