//! Routes that redirect to a path with a number in it: which form of a route is served is seen from its answer alone,
//! without a backend. And what is said of many measured times.

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http1::Wire;

/// Asks a host on an open connection; gives the number that the answer redirects to.
///
/// # Errors
/// When there is no answer, or it is no such redirect.
pub async fn ask(wire: &mut Wire<TcpStream>, host: &str) -> Result<u64> {
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    wire.stream.write_all(head.as_bytes()).await?;
    let response = wire.response("GET").await?;
    let location = response
        .header("location")
        .with_context(|| format!("not a redirect: {response:?}"))?;
    let number = location.rsplit_once("/to-").map(|(_, number)| number);
    Ok(number.context("a redirect elsewhere")?.parse()?)
}

/// A distribution in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub p50: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; zeros without any.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let index = (values.len() * hundredths / 100).min(values.len().saturating_sub(1));
            values.get(index).copied().unwrap_or(0.0)
        };
        Self {
            min: at(0),
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}
