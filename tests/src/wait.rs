//! Waiting for a condition; there is no other way to wait here.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long anything may take before a test gives up. Generous, for machines with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks every 2 ms until there is an answer.
///
/// # Errors
/// When there is none within [`PATIENCE`]; `what` says what was waited for.
pub fn until<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> Result<T> {
    until_within(PATIENCE, what, attempt)
}

/// As [`until`], with another limit.
///
/// # Errors
/// When there is no answer within `limit`.
pub fn until_within<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(anyhow!("waited {limit:?} in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until two consecutive readings are equal to the wanted value.
///
/// # Errors
/// When that does not happen within [`PATIENCE`]; the error shows the last reading.
pub fn until_equal<T: PartialEq + Debug>(
    what: &str,
    wanted: &T,
    mut read: impl FnMut() -> T,
) -> Result<()> {
    let mut last = None;
    until(what, || {
        let now = read();
        let found = now == *wanted;
        last = Some(now);
        found.then_some(())
    })
    .map_err(|error| error.context(format!("wanted {wanted:?}, last seen {last:?}")))
}
