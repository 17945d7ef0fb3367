//! The load: wrk for HTTP/1.1, h2load for HTTP/2, and a client of our own for full handshakes
//! (wrk resumes its TLS sessions, which some peers offer and others do not).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::process::{LOAD_CORE, pinned};
use super::scenario::{Protocol, Scenario};

/// What one window of load saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Requests that were answered with 2xx.
    pub answered: u64,
    /// Requests that were not: other statuses, resets, timeouts.
    pub failed: u64,
    /// Microseconds; None where the client does not say.
    pub p50_us: Option<f64>,
    /// Microseconds; None where the client does not say.
    pub p99_us: Option<f64>,
}

/// Sends load to `address` for `seconds`, for so many `hosts` if the scenario has any.
pub fn send(
    scenario: &Scenario,
    plain: bool,
    hosts: usize,
    address: SocketAddr,
    seconds: u64,
    dir: &Path,
) -> anyhow::Result<Seen> {
    let openssl = openssl_config(dir)?;
    let duration = format!("{seconds}s");
    let connections = scenario.connections.to_string();
    let scheme = if plain || scenario.protocol == Protocol::Http {
        "http"
    } else {
        "https"
    };
    let url = format!("{scheme}://{address}{}", scenario.path);
    if scenario.fresh {
        let this = std::env::current_exe()?;
        let mut command = pinned(LOAD_CORE, &this.to_string_lossy());
        command.args([
            "handshakes",
            &address.to_string(),
            scenario.path,
            &connections,
            &seconds.to_string(),
        ]);
        return serde_json::from_str(&output(command)?)
            .context("what the handshake client printed");
    }
    if scenario.protocol == Protocol::H2 {
        return h2load(&output(h2load_command(scenario, &url, &duration))?);
    }
    let mut command = pinned(LOAD_CORE, "wrk");
    command.env("OPENSSL_CONF", openssl);
    command.args(["-t1", "-c", &connections, "-d", &duration, "--latency"]);
    if hosts > 0 {
        command.arg("-s").arg(host_script(scenario, hosts, dir)?);
    }
    command.args(["-H", "User-Agent: wrk/4.1", "-H", "Accept: */*", &url]);
    wrk(&output(command)?)
}

/// What wrk runs for each request: it draws one of the hosts that [`host`](super::scenario::host) names.
fn host_script(scenario: &Scenario, hosts: usize, dir: &Path) -> anyhow::Result<PathBuf> {
    let script = r#"request = function()
  return "GET PATH HTTP/1.1\r\nHost: h" .. math.random(0, LAST) .. ".bench.test\r\n"
    .. "User-Agent: wrk/4.1\r\nAccept: */*\r\n\r\n"
end
"#;
    let last = (hosts - 1).to_string();
    let script = script.replace("PATH", scenario.path).replace("LAST", &last);
    let path = dir.join(format!("hosts-{hosts}.lua"));
    std::fs::write(&path, script)?;
    Ok(path)
}

/// p50 and p99 of one more second of HTTP/2, in microseconds; None when nothing was answered.
pub fn h2_latency(
    scenario: &Scenario,
    address: SocketAddr,
    dir: &Path,
) -> anyhow::Result<Option<(f64, f64)>> {
    let log = dir.join("h2load.log");
    std::fs::remove_file(&log).ok();
    let mut command = h2load_command(
        scenario,
        &format!("https://{address}{}", scenario.path),
        "1s",
    );
    command.arg(format!("--log-file={}", log.display()));
    output(command)?;
    // Tab-separated: start in microseconds, status, microseconds to the end of the answer.
    let log = std::fs::read_to_string(&log)?;
    let mut micros: Vec<u32> = log
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse().ok())
        .collect();
    micros.sort_unstable();
    let at = |hundredths: usize| {
        micros
            .get(micros.len() * hundredths / 100)
            .map(|us| f64::from(*us))
    };
    Ok(at(50).zip(at(99)))
}

fn h2load_command(scenario: &Scenario, url: &str, duration: &str) -> Command {
    let mut command = pinned(LOAD_CORE, "h2load");
    command.args([
        "-t1",
        "-c",
        &scenario.connections.to_string(),
        "-m",
        &scenario.streams.to_string(),
        "-D",
        duration,
    ]);
    command.args([
        "--tls13-ciphers=TLS_AES_128_GCM_SHA256",
        "--groups=X25519",
        url,
    ]);
    command
}

/// Gives wrk what h2load takes as flags, so that every proxy does the same cryptography.
fn openssl_config(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("openssl.cnf");
    let text = "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n\
                [tls]\nCiphersuites = TLS_AES_128_GCM_SHA256\nGroups = X25519\n";
    std::fs::write(&path, text)?;
    Ok(path)
}

fn output(mut command: Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}):\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(said)
}

/// Reads the report of `wrk --latency`.
fn wrk(said: &str) -> anyhow::Result<Seen> {
    let total: u64 = number_before(said, " requests in ")
        .with_context(|| format!("wrk said no total:\n{said}"))?;
    let bad = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let bad: u64 = bad
        .map_or(Ok(0), |n| n.trim().parse())
        .context("wrk's count of other statuses")?;
    let sockets = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Socket errors: "));
    let errors: u64 = sockets.map_or(0, |line| {
        line.split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse::<u64>().ok())
            .sum()
    });
    ensure!(
        total >= bad,
        "wrk counts more failures than requests:\n{said}"
    );
    Ok(Seen {
        answered: total - bad,
        failed: bad + errors,
        p50_us: percentile(said, "50%"),
        p99_us: percentile(said, "99%"),
    })
}

/// The latency on wrk's line that begins with `which`, in microseconds.
fn percentile(said: &str, which: &str) -> Option<f64> {
    let value = said
        .lines()
        .find_map(|line| line.trim().strip_prefix(which))?
        .trim();
    let unit = value.find(|c: char| c.is_alphabetic())?;
    let scale = match &value[unit..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    value[..unit].parse::<f64>().ok().map(|value| value * scale)
}

/// Reads the report of `h2load`. Requests that the end of the window cuts off count as neither.
fn h2load(said: &str) -> anyhow::Result<Seen> {
    let statuses = said
        .lines()
        .find_map(|line| line.strip_prefix("status codes: "));
    let statuses = statuses.with_context(|| format!("h2load said no status codes:\n{said}"))?;
    let of = |class: &str| number_before(statuses, &format!(" {class}")).unwrap_or(0);
    let requests = said
        .lines()
        .find_map(|line| line.strip_prefix("requests: "))
        .unwrap_or_default();
    let errored: u64 = number_before(requests, " errored").unwrap_or(0)
        + number_before(requests, " timeout").unwrap_or(0);
    let refused: u64 = of("3xx") + of("4xx") + of("5xx");
    Ok(Seen {
        answered: of("2xx"),
        failed: refused + errored,
        p50_us: None,
        p99_us: None,
    })
}

/// The whole number that stands right before `what`.
fn number_before(text: &str, what: &str) -> Option<u64> {
    let (before, _) = text.split_once(what)?;
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{Seen, h2load, wrk};

    #[test]
    fn wrk_report_is_read() {
        let said = "Running 1s test\n  Latency Distribution\n     50%  553.00us\n     75%    1.00ms\n     99%    1.30ms\n  \
                    5886 requests in 1.10s, 827.72KB read\n  Socket errors: connect 0, read 2, write 0, timeout 1\n  \
                    Non-2xx or 3xx responses: 6\nRequests/sec:   5348.96\n";
        let seen = wrk(said).expect("a report");
        assert_eq!(
            seen,
            Seen {
                answered: 5880,
                failed: 9,
                p50_us: Some(553.0),
                p99_us: Some(1300.0)
            }
        );
    }

    #[test]
    fn h2load_report_is_read() {
        let said = "requests: 4003 total, 4012 started, 4003 done, 4000 succeeded, 3 failed, 3 errored, 0 timeout\n\
                    status codes: 3990 2xx, 0 3xx, 10 4xx, 0 5xx\n";
        let seen = h2load(said).expect("a report");
        assert_eq!((seen.answered, seen.failed), (3990, 13));
    }

    #[test]
    fn silence_is_an_error() {
        assert!(wrk("").is_err() && h2load("").is_err());
    }
}
