//! What the suite prints, taken apart: how each test ended, and what it said last.

use std::collections::{BTreeMap, VecDeque};

/// How many lines of a failed test are shown.
const TAIL: usize = 25;
/// The test function that the suite's tests are parts of.
const ROOT: &str = "TestConformance/";

/// How one test ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    end: End,
    /// What it printed last.
    pub tail: VecDeque<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Unknown,
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    /// It passed.
    pub fn is_passed(&self) -> bool {
        self.end == End::Passed
    }

    /// It failed, or the run broke off inside.
    pub fn is_failed(&self) -> bool {
        matches!(self.end, End::Failed | End::Unknown)
    }

    /// For people.
    pub fn word(&self) -> &'static str {
        match self.end {
            End::Unknown => "did not end",
            End::Passed => "passed",
            End::Failed => "failed",
            End::Skipped => "was skipped",
        }
    }
}

/// Reads line after line.
#[derive(Debug, Default)]
pub struct Outcomes {
    tests: BTreeMap<String, Outcome>,
    /// The test that the lines are of.
    current: Option<String>,
    ended: usize,
}

impl Outcomes {
    /// Takes a line; the name and the outcome of a test that ended with it.
    pub fn line(&mut self, line: &str) -> Option<(String, Outcome)> {
        if let Some(rest) = line.strip_prefix("=== ENDED ") {
            return self.ended(rest);
        }
        if let Some(rest) = line.strip_prefix("=== ") {
            let name = rest.split_whitespace().nth(1).unwrap_or_default();
            self.current = name
                .strip_prefix(ROOT)
                .map(|path| path.split('/').next().unwrap_or(path).to_owned());
            return None;
        }
        let outcome = self.tests.entry(self.current.clone()?).or_default();
        outcome.tail.push_back(line.trim_end().to_owned());
        if outcome.tail.len() > TAIL {
            outcome.tail.pop_front();
        }
        None
    }

    fn ended(&mut self, rest: &str) -> Option<(String, Outcome)> {
        let (name, word) = rest.split_once(' ')?;
        let outcome = self.tests.entry(name.to_owned()).or_default();
        outcome.end = match word.trim() {
            "passed" => End::Passed,
            "failed" => End::Failed,
            _ => End::Skipped,
        };
        self.ended += usize::from(outcome.end != End::Skipped);
        Some((name.to_owned(), outcome.clone()))
    }

    /// How many tests have ended, without those that were skipped.
    pub fn count(&self) -> usize {
        self.ended
    }

    /// All of them, without those that were skipped silently.
    pub fn finish(self) -> BTreeMap<String, Outcome> {
        self.tests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_belong_to_the_test_that_was_named_last() {
        let mut outcomes = Outcomes::default();
        let text = "=== RUN   TestConformance\n    setting up\n=== RUN   TestConformance/A\n    a.go:1: one\n\
                    === RUN   TestConformance/A/part\n    a.go:2: two\n=== PAUSE TestConformance/B\n\
                    === NAME  TestConformance/A\n    a.go:3: three\n=== ENDED A failed\n=== NAME  TestConformance/B\n    b.go:1: x";
        text.lines().for_each(|line| drop(outcomes.line(line)));
        assert_eq!(outcomes.count(), 1);
        let tests = outcomes.finish();
        assert_eq!(
            tests["A"].tail,
            ["    a.go:1: one", "    a.go:2: two", "    a.go:3: three"]
        );
        assert!(tests["A"].is_failed() && tests["B"].is_failed());
        assert_eq!(tests["B"].word(), "did not end");
    }
}
