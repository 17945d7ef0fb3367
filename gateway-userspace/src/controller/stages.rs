//! How long each step of a change took, as histograms for `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::Stages;

/// Upper bounds in microseconds.
const BOUNDS_US: [u64; 12] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000,
];

/// One histogram per stage. Written by the controller alone.
#[derive(Debug, Default)]
pub struct StageTimes {
    stages: [Histogram; 6],
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl StageTimes {
    /// Takes the times of one revision.
    pub fn record(&self, stages: &Stages) {
        for (histogram, (_, time)) in self.stages.iter().zip(named(stages)) {
            let bucket = BOUNDS_US.partition_point(|bound| *bound < time);
            histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
            histogram.sum_us.fetch_add(time, Ordering::Relaxed);
        }
    }

    /// Writes the histograms in the text format of Prometheus.
    pub fn write(&self, out: &mut String) {
        const NAME: &str = "sluice_config_stage_seconds";
        let _ = writeln!(
            out,
            "# HELP {NAME} Time of each step from a file event to its being served."
        );
        let _ = writeln!(out, "# TYPE {NAME} histogram");
        for (histogram, (stage, _)) in self.stages.iter().zip(named(&Stages::default())) {
            let mut count = 0;
            for (bucket, bound) in histogram.buckets.iter().zip(BOUNDS_US) {
                count += bucket.load(Ordering::Relaxed);
                let bound = seconds(bound);
                let _ = writeln!(
                    out,
                    "{NAME}_bucket{{stage=\"{stage}\",le=\"{bound}\"}} {count}"
                );
            }
            count += histogram.buckets[BOUNDS_US.len()].load(Ordering::Relaxed);
            let sum = seconds(histogram.sum_us.load(Ordering::Relaxed));
            let _ = writeln!(
                out,
                "{NAME}_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {count}"
            );
            let _ = writeln!(out, "{NAME}_sum{{stage=\"{stage}\"}} {sum}");
            let _ = writeln!(out, "{NAME}_count{{stage=\"{stage}\"}} {count}");
        }
    }
}

fn named(stages: &Stages) -> [(&'static str, u64); 6] {
    [
        ("read", stages.read_us),
        ("translate", stages.translate_us),
        ("compile", stages.compile_us),
        ("proxy", stages.proxy_us),
        ("l4", stages.l4_us),
        ("total", stages.total_us),
    ]
}

/// Microseconds as decimal seconds, without a detour over floating point.
pub fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative() {
        let times = StageTimes::default();
        times.record(&Stages {
            compile_us: 60,
            ..Stages::default()
        });
        times.record(&Stages {
            compile_us: 20_000_000,
            ..Stages::default()
        });
        let mut text = String::new();
        times.write(&mut text);
        let line = |l: &str| text.lines().any(|line| line == l);
        assert!(line(
            "sluice_config_stage_seconds_bucket{stage=\"compile\",le=\"0.00005\"} 0"
        ));
        assert!(line(
            "sluice_config_stage_seconds_bucket{stage=\"compile\",le=\"0.0001\"} 1"
        ));
        assert!(line(
            "sluice_config_stage_seconds_bucket{stage=\"compile\",le=\"10\"} 1"
        ));
        assert!(line(
            "sluice_config_stage_seconds_bucket{stage=\"compile\",le=\"+Inf\"} 2"
        ));
        assert!(line(
            "sluice_config_stage_seconds_sum{stage=\"compile\"} 20.00006"
        ));
    }
}
