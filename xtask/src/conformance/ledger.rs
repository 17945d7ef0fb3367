//! The ledger of tests that are known to fail. Any difference is a finding, better or worse, so that it can only shrink.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use super::outcome::Outcome;

/// Names of tests, each with the reason why it fails.
pub type Ledger = BTreeMap<String, String>;

/// Reads it.
pub fn read(path: &Path) -> anyhow::Result<Ledger> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// What is not as expected, a line each.
pub fn compare(
    expected: &[String],
    outcomes: &BTreeMap<String, Outcome>,
    ledger: &Ledger,
) -> Vec<String> {
    let judge = |name: &String| match (outcomes.get(name), ledger.get(name)) {
        (None, _) => Some(format!(
            "{name} is not a test of this suite, or it broke off before"
        )),
        (Some(outcome), None) if outcome.is_passed() => None,
        (Some(outcome), Some(_)) if outcome.is_failed() => None,
        (Some(outcome), None) => Some(format!("{name} {}", outcome.word())),
        (Some(outcome), Some(reason)) => Some(format!(
            "{name} {}, but the ledger says that it fails ({reason}): take it out",
            outcome.word()
        )),
    };
    expected.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Outcomes;
    use super::*;

    fn outcomes() -> BTreeMap<String, Outcome> {
        let mut outcomes = Outcomes::default();
        for line in [
            "=== ENDED A passed",
            "=== ENDED B failed",
            "=== ENDED C skipped",
        ] {
            outcomes.line(line);
        }
        outcomes.finish()
    }

    fn findings(expected: &[&str], ledger: &[&str]) -> Vec<String> {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let ledger = names(ledger)
            .into_iter()
            .map(|name| (name, "reason".to_owned()))
            .collect();
        compare(&names(expected), &outcomes(), &ledger)
    }

    #[test]
    fn what_ends_as_the_ledger_says_is_no_finding() {
        assert!(findings(&["A", "B"], &["B"]).is_empty());
    }

    #[test]
    fn worse_better_and_missing_are_findings() {
        assert_eq!(findings(&["A", "B"], &[]), ["B failed"]);
        assert!(findings(&["A", "B"], &["A", "B"])[0].contains("take it out"));
        assert_eq!(findings(&["C"], &[]), ["C was skipped"]);
        assert!(findings(&["D"], &[])[0].contains("broke off"));
    }

    #[test]
    fn the_checked_in_ledger_can_be_read() {
        let path = crate::workspace::root().join("tests/conformance/ledger.yaml");
        assert!(
            read(&path)
                .expect("ledger")
                .values()
                .all(|reason| !reason.is_empty())
        );
    }
}
