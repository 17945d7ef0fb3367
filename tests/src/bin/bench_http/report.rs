//! The table, the ratios, and the verdict on each of them.

use std::fmt::Write as _;

use serde::Serialize;

use super::scenario::Scenario;

/// One window of one proxy.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    /// CPU microseconds of the proxy per request.
    pub us: f64,
    /// Requests per second.
    pub rps: f64,
    /// CPU time of the proxy over the time in which nothing else had its core.
    pub utilisation: f64,
    /// Requests that failed.
    pub failed: u64,
    /// See [`super::load::Seen`].
    pub p50_us: Option<f64>,
    /// See [`super::load::Seen`].
    pub p99_us: Option<f64>,
    /// At the end of the window.
    pub rss_bytes: u64,
}

/// What one proxy did in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The proxy.
    pub name: String,
    /// In the order of the rounds.
    pub windows: Vec<Window>,
    /// p50 and p99 in microseconds, where they were taken apart from the rounds.
    pub latency: Option<(f64, f64)>,
}

/// What all of them did in one scenario.
#[derive(Debug, Serialize)]
pub struct Result {
    /// Its name.
    pub scenario: &'static str,
    /// Its title.
    pub title: &'static str,
    /// One for each proxy.
    pub rows: Vec<Row>,
    /// One for each goal whose peers took part.
    pub verdicts: Vec<Verdict>,
}

/// A measured ratio beside the one that was promised.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The proxy that is judged.
    pub name: String,
    /// The cheapest of the peers of this goal.
    pub of: String,
    /// Minimum over minimum.
    pub ratio: f64,
    /// The median of the rounds' own ratios.
    pub median_ratio: f64,
    /// The most that is accepted.
    pub accepted: f64,
    /// What is aimed at.
    pub aim: f64,
    /// Whether `ratio` is accepted.
    pub pass: bool,
}

impl Row {
    fn us(&self) -> Vec<f64> {
        self.windows.iter().map(|window| window.us).collect()
    }

    /// The cheapest round.
    pub fn min_us(&self) -> f64 {
        self.us().into_iter().fold(f64::INFINITY, f64::min)
    }

    fn best(&self, of: impl Fn(&Window) -> Option<f64>, pick: fn(f64, f64) -> f64) -> Option<f64> {
        self.windows.iter().filter_map(of).reduce(pick)
    }
}

/// The middle one; of an even number, the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// Holds every proxy whose name begins with `sluice` against the goals of `scenario`.
pub fn judge(scenario: &Scenario, rows: &[Row]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for row in rows.iter().filter(|row| row.name.starts_with("sluice")) {
        for goal in scenario.goals {
            let peers = rows
                .iter()
                .filter(|peer| goal.of.contains(&peer.name.as_str()) && peer.min_us().is_finite());
            let Some(peer) = peers.min_by(|a, b| a.min_us().total_cmp(&b.min_us())) else {
                continue;
            };
            let ratio = row.min_us() / peer.min_us();
            let rounds = row
                .us()
                .into_iter()
                .zip(peer.us())
                .map(|(own, other)| own / other)
                .collect();
            verdicts.push(Verdict {
                name: row.name.clone(),
                of: peer.name.clone(),
                ratio,
                median_ratio: median(rounds),
                accepted: goal.ratio,
                aim: goal.aim,
                pass: ratio <= goal.ratio,
            });
        }
    }
    verdicts
}

/// The table of one scenario.
pub fn table(result: &Result) -> String {
    let mut text = format!("\n{}: {}\n", result.scenario, result.title);
    let head = [
        "proxy",
        "us/req min",
        "median",
        "x null",
        "best rps",
        "p50 us",
        "p99 us",
        "util",
        "RSS MB",
        "failed",
    ];
    let _ = writeln!(
        text,
        "  {:<16}{:>11}{:>9}{:>8}{:>11}{:>9}{:>9}{:>6}{:>8}{:>8}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9]
    );
    let floor = result
        .rows
        .iter()
        .find(|row| row.name == "null")
        .map(Row::min_us);
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
    };
    for row in &result.rows {
        let utilisation = median(
            row.windows
                .iter()
                .map(|window| window.utilisation)
                .collect(),
        );
        let _ = writeln!(
            text,
            "  {:<16}{:>11.2}{:>9.2}{:>8}{:>11}{:>9}{:>9}{:>6.2}{:>8}{:>8}{}",
            row.name,
            row.min_us(),
            median(row.us()),
            cell(floor.map(|floor| row.min_us() / floor), 2),
            cell(row.best(|w| Some(w.rps), f64::max), 0),
            cell(
                row.best(|w| w.p50_us, f64::min)
                    .or(row.latency.map(|(p50, _)| p50)),
                0
            ),
            cell(
                row.best(|w| w.p99_us, f64::min)
                    .or(row.latency.map(|(_, p99)| p99)),
                0
            ),
            utilisation,
            cell(row.best(|w| Some(w.rss_bytes as f64 / 1e6), f64::max), 1),
            row.windows.iter().map(|window| window.failed).sum::<u64>(),
            if utilisation < 0.8 {
                "  (utilisation below 0.8: the load was the limit, us/req is too high)"
            } else {
                ""
            },
        );
    }
    for verdict in &result.verdicts {
        let _ = writeln!(
            text,
            "  {} {:<16} {:.2}x {} (rounds' median {:.2}x), accepted {:.2}x, aim {:.2}x",
            if verdict.pass { "pass " } else { "SHORT" },
            verdict.name,
            verdict.ratio,
            verdict.of,
            verdict.median_ratio,
            verdict.accepted,
            verdict.aim
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Row, Window, judge, median};
    use crate::scenario::SCENARIOS;

    fn row(name: &str, us: &[f64]) -> Row {
        let window = |us: &f64| Window {
            us: *us,
            rps: 1.0,
            utilisation: 1.0,
            failed: 0,
            p50_us: None,
            p99_us: None,
            rss_bytes: 0,
        };
        Row {
            name: name.to_owned(),
            windows: us.iter().map(window).collect(),
            latency: None,
        }
    }

    #[test]
    fn ratio_is_taken_to_the_cheaper_peer_by_its_cheapest_round() {
        let rows = [
            row("nginx", &[12.0, 10.0]),
            row("haproxy", &[11.0, 11.0]),
            row("sluice", &[9.0, 12.0]),
        ];
        let verdicts = judge(&SCENARIOS[0], &rows);
        assert_eq!(
            verdicts.len(),
            1,
            "the goals whose peers are absent are left out"
        );
        assert_eq!((verdicts[0].of.as_str(), verdicts[0].pass), ("nginx", true));
        assert!((verdicts[0].ratio - 0.9).abs() < 1e-9);
        assert!((verdicts[0].median_ratio - 0.975).abs() < 1e-9);
    }

    #[test]
    fn median_of_even_and_odd() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
