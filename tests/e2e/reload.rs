//! Manifests that change: nothing is lost, nothing is served that is not current, nothing bad
//! hides anything good.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::Load;
use gateway_tests::load::Exchange;
use gateway_tests::manifests::{forward, gateway, http_listener, route, service};

use crate::edge::{Edge, Mode};

/// A route whose answers carry a number.
fn numbered(number: u64) -> String {
    let rules = format!(
        "  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: \
         {{set: [{{name: x-number, value: '{number}'}}]}}}}]\n    \
         backendRefs: [{{name: b{}, port: 80}}]\n",
        number % 3
    );
    route("all", &[], &rules)
}

/// Knows which numbers may be served at a time: the one last seen in force and those written since.
#[derive(Debug, Default)]
struct Windows {
    /// Number, when its write began, when it was known to be served by every worker.
    history: Mutex<VecDeque<(u64, Instant, Option<Instant>)>>,
    checked: AtomicU64,
}

impl Windows {
    fn written(&self, number: u64) {
        self.history
            .lock()
            .expect("no panic inside")
            .push_back((number, Instant::now(), None));
    }

    fn served(&self, number: u64) {
        let mut history = self.history.lock().expect("no panic inside");
        if let Some(entry) = history.iter_mut().find(|(n, _, _)| *n == number) {
            entry.2 = Some(Instant::now());
        }
    }

    /// The answer's number was written before the answer came, and no later number was in force
    /// before the request was sent; and its backend is the one of that number.
    fn check(&self, exchange: &Exchange<'_>) -> Result<()> {
        let header = exchange
            .response
            .header("x-number")
            .context("no x-number")?;
        let number: u64 = header.parse()?;
        let backend = exchange.response.header("x-backend").unwrap_or_default();
        ensure!(
            backend == format!("b{}", number % 3),
            "number {number} from backend {backend}"
        );
        let history = self.history.lock().expect("no panic inside");
        let began = history
            .iter()
            .find(|(n, _, _)| *n == number)
            .map(|(_, began, _)| *began);
        let began = began.with_context(|| format!("number {number} was never written"))?;
        ensure!(
            began <= exchange.done,
            "number {number} before it was written"
        );
        let overtaken = history
            .iter()
            .find(|(n, _, served)| *n > number && served.is_some_and(|at| at < exchange.sent));
        ensure!(
            overtaken.is_none(),
            "number {number} after {overtaken:?} was in force"
        );
        self.checked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The most recent revision that every worker serves.
fn revision(edge: &mut Edge) -> Option<f64> {
    edge.sluice().metric("sluice_config_revision", &[]).ok()
}

fn memory_of(edge: &mut Edge) -> Result<u64> {
    Ok(gateway_tests::sys::usage(edge.sluice().pid())?.1)
}

fn a_thousand_changes(mode: Mode) -> Result<()> {
    let mut edge = Edge::plan(mode).documents([numbered(0)]).start()?;
    let windows = Arc::new(Windows::default());
    windows.written(0);
    windows.served(0);
    let check = |load: Load| {
        let windows = Arc::clone(&windows);
        load.check(move |exchange| windows.check(exchange))
            .connections(2)
    };
    let loads = [
        check(edge.load("a.example.com")).start(edge.client())?,
        check(edge.tls_load("a.example.com")?).start(edge.client())?,
        check(edge.load("a.example.com"))
            .new_connections()
            .start(edge.client())?,
    ];
    let mut current = revision(&mut edge).context("no revision")?;
    let mut memory = 0;
    for number in 1..=1000 {
        windows.written(number);
        edge.manifests.write("routes.yaml", &[numbered(number)])?;
        current = gateway_tests::until(&format!("change {number} is applied"), || {
            revision(&mut edge).filter(|now| *now > current)
        })?;
        windows.served(number);
        if number == 200 {
            memory = memory_of(&mut edge)?;
        }
    }
    let grown = memory_of(&mut edge)?.saturating_sub(memory);
    assert!(
        grown < 16 << 20,
        "800 changes cost {} MiB of memory",
        grown >> 20
    );
    for load in loads {
        load.wait_more(10)?;
        load.stop()?.expect_clean()?;
    }
    assert!(
        windows.checked.load(Ordering::Relaxed) > 1000,
        "too few answers to say anything"
    );
    Ok(())
}

#[test]
fn a_thousand_route_changes_under_load_lose_no_request_and_serve_nothing_stale() -> Result<()> {
    a_thousand_changes(Mode::Native)
}

#[test]
fn every_way_of_saving_a_file_is_noticed() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).documents([numbered(0)]).start()?;
    let url = "http://a.example.com/";
    let serves = |number: u64| {
        edge.wait_served(url, |answer| {
            answer.header("x-number") == Some(&number.to_string())
        })
    };
    serves(0)?;
    edge.manifests.write("routes.yaml", &[numbered(1)])?;
    serves(1)?;
    edge.manifests.overwrite("routes.yaml", &numbered(2))?;
    serves(2)?;
    // Removed and written anew, as some editors do.
    edge.manifests.remove("routes.yaml")?;
    edge.wait_served(url, |answer| answer.status == 404)?;
    edge.manifests.overwrite("routes.yaml", &numbered(3))?;
    serves(3)?;
    // In a directory that did not exist.
    edge.manifests.remove("routes.yaml")?;
    edge.manifests
        .write("deep/down/routes.yml", &[numbered(4)])?;
    serves(4)?;
    // The backup and swap files of editors are none of ours.
    edge.manifests
        .overwrite("deep/down/.routes.yml.swp", "{ nonsense")?;
    edge.manifests
        .overwrite("deep/down/routes.yml~", "{ nonsense")?;
    edge.manifests
        .write("deep/down/routes.yml", &[numbered(5)])?;
    serves(5)
}

#[test]
fn the_symlink_swap_of_a_mounted_configmap_is_noticed() -> Result<()> {
    use std::os::unix::fs::symlink;
    let edge = Edge::plan(Mode::Sockets).documents([numbered(0)]).start()?;
    edge.manifests.remove("routes.yaml")?;
    // kubelet: ..data -> ..TIMESTAMP, and each key is a link through ..data; a change makes a new
    // directory and renames a new ..data over the old one.
    let volume = edge.manifests.path("volume");
    std::fs::create_dir(&volume)?;
    for number in 1..=3_u64 {
        let stamp = format!("..2026_11_21_{number}");
        std::fs::create_dir(volume.join(&stamp))?;
        std::fs::write(volume.join(&stamp).join("routes.yaml"), numbered(number))?;
        symlink(&stamp, volume.join("..data_tmp"))?;
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
        if number == 1 {
            symlink("..data/routes.yaml", volume.join("routes.yaml"))?;
        } else {
            std::fs::remove_dir_all(volume.join(format!("..2026_11_21_{}", number - 1)))?;
        }
        edge.wait_served("http://a.example.com/", |answer| {
            answer.header("x-number") == Some(&number.to_string())
        })?;
    }
    Ok(())
}

#[test]
fn one_bad_document_hides_none_of_the_others() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).documents([numbered(0)]).start()?;
    let documents = [
        numbered(1),
        "this: [is not\n".to_owned(),
        route("two", &["two.example.com"], &forward("b2")),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: wrong}\nspec: 5\n".to_owned(),
        route("one", &["one.example.com"], &forward("b1")),
    ];
    let url = "http://a.example.com/";
    edge.apply(&documents, url, |answer| {
        answer.header("x-number") == Some("1")
    })?;
    edge.wait_served("http://two.example.com/", |answer| {
        answer.header("x-backend") == Some("b2")
    })?;
    edge.wait_served("http://one.example.com/", |answer| {
        answer.header("x-backend") == Some("b1")
    })
}

#[test]
fn an_object_that_breaks_keeps_its_last_good_form() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets).documents([numbered(7)]).start()?;
    let before = edge.sluice().log().len();
    edge.manifests.write(
        "routes.yaml",
        &[
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
        metadata: {name: all, namespace: default}\nspec: {rules: [oops\n"
                .to_owned(),
        ],
    )?;
    gateway_tests::until("the mistake is in the log", || {
        edge.sluice().log()[before..]
            .contains("routes.yaml")
            .then_some(())
    })?;
    assert_eq!(
        edge.get("http://a.example.com/")?.header("x-number"),
        Some("7")
    );
    edge.apply(&[numbered(8)], "http://a.example.com/", |answer| {
        answer.header("x-number") == Some("8")
    })
}

#[test]
fn the_last_good_configuration_is_served_when_the_directory_is_broken_at_start() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native)
        .documents([numbered(1)])
        .prepare()?;
    edge.put_sluice(start.ready()?);
    edge.wait_served("http://a.example.com/", |answer| {
        answer.header("x-number") == Some("1")
    })?;
    let start = edge.take_sluice().kill()?;
    for name in [
        "gateway.yaml",
        "routes.yaml",
        "services.yaml",
        "secrets.yaml",
    ] {
        edge.manifests.overwrite(name, "{ broken")?;
    }
    edge.put_sluice(start.ready()?);
    assert_eq!(
        edge.get("http://a.example.com/")?.header("x-number"),
        Some("1")
    );
    assert_eq!(
        edge.get("https://a.example.com/")?.header("x-number"),
        Some("1")
    );
    Ok(())
}

#[test]
fn the_last_good_configuration_is_served_when_the_directory_is_gone_at_start() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Sockets)
        .documents([numbered(1)])
        .prepare()?;
    edge.put_sluice(start.ready()?);
    edge.wait_served("http://a.example.com/", |answer| {
        answer.header("x-number") == Some("1")
    })?;
    let start = edge.take_sluice().kill()?;
    let (dir, away) = (
        edge.manifests.dir().to_owned(),
        edge.world.dir().join("away"),
    );
    std::fs::rename(&dir, &away)?;
    edge.put_sluice(start.ready()?);
    assert_eq!(
        edge.get("http://a.example.com/")?.header("x-number"),
        Some("1")
    );
    std::fs::rename(&away, &dir)?;
    edge.apply(&[numbered(2)], "http://a.example.com/", |answer| {
        answer.header("x-number") == Some("2")
    })
}

#[test]
fn a_change_to_one_of_ten_thousand_routes_is_served_at_once() -> Result<()> {
    const ROUTES: usize = 10_000;
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    let one = |number: usize| {
        route(
            &format!("r{number}"),
            &[&format!("h{number}.example.com")],
            &forward("b0"),
        )
    };
    for file in 0..100 {
        let documents: Vec<String> = (0..ROUTES / 100).map(|i| one(file * 100 + i)).collect();
        edge.manifests
            .write(&format!("many/{file}.yaml"), &documents)?;
    }
    edge.manifests.write("routes.yaml", &[numbered(0)])?;
    edge.put_sluice(start.ready()?);
    edge.wait_served("http://h9999.example.com/", |answer| {
        answer.header("x-backend") == Some("b0")
    })?;

    // Other tests run beside this one; one quiet round of three is enough.
    let mut medians = Vec::new();
    for round in 0..3 {
        medians.push(median_of_changes(&edge, round * 20)?);
        if medians[medians.len() - 1] < Duration::from_millis(20) {
            return Ok(());
        }
    }
    anyhow::bail!("no round had a median below 20 ms: {medians:?}")
}

/// The median of the time from a file write to the first answer that shows it, of 20 changes.
fn median_of_changes(edge: &Edge, first: u64) -> Result<Duration> {
    let mut client = gateway_tests::raw::Raw::connect(edge.client(), edge.at(80))?;
    let mut number = 0;
    let mut times = Vec::new();
    for change in first + 1..=first + 20 {
        let document = numbered(change);
        let started = Instant::now();
        edge.manifests.write("routes.yaml", &[document])?;
        while number != change {
            let answer = client.ask("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")?;
            number = answer.header("x-number").unwrap_or_default().parse()?;
            ensure!(
                started.elapsed() < Duration::from_secs(5),
                "change {change} is not served"
            );
        }
        times.push(started.elapsed());
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("file write to served change: median {median:.1?}, worst {worst:.1?}");
    Ok(median)
}

#[test]
fn a_start_with_nothing_to_serve_waits_for_manifests() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Sockets).prepare()?;
    for name in [
        "gateway.yaml",
        "routes.yaml",
        "services.yaml",
        "secrets.yaml",
    ] {
        edge.manifests.remove(name)?;
    }
    edge.put_sluice(start.spawn()?);
    gateway_tests::until("the admin socket answers", || {
        edge.sluice().admin("/healthz/live").ok()
    })?;
    edge.manifests
        .write("gateway.yaml", &[gateway(&[], &http_listener("http", 80))])?;
    let address = edge.backends[0].address;
    edge.manifests.write(
        "app.yaml",
        &[
            service("app", &[address]),
            route("app", &[], &forward("app")),
        ],
    )?;
    edge.wait_served("http://a.example.com/", |answer| answer.status == 200)
}

#[test]
fn files_that_cannot_be_read_hang_nothing_and_hide_nothing() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).documents([numbered(0)]).start()?;
    let dir = edge.manifests.dir();
    // A pipe that nobody writes to, a link to itself, a link to nowhere, bytes that are no text, a
    // directory with the name of a manifest, and a file that never ends.
    let made = std::process::Command::new("mkfifo")
        .arg(dir.join("pipe.yaml"))
        .status()?;
    ensure!(made.success(), "mkfifo");
    std::os::unix::fs::symlink("loop.yaml", dir.join("loop.yaml"))?;
    std::os::unix::fs::symlink(".", dir.join("circle"))?;
    std::os::unix::fs::symlink("/nonexistent", dir.join("nowhere.yaml"))?;
    std::os::unix::fs::symlink("/dev/zero", dir.join("endless.yaml"))?;
    std::fs::write(dir.join("binary.yaml"), [0xff, 0xfe, 0, 1, 2])?;
    std::fs::create_dir(dir.join("directory.yaml"))?;
    std::fs::write(dir.join("empty.yaml"), "")?;
    std::fs::write(dir.join("alias.yaml"), alias_bomb())?;
    edge.apply(&[numbered(1)], "http://a.example.com/", |answer| {
        answer.header("x-number") == Some("1")
    })
}

/// A document of a few hundred bytes that stands for a billion nodes.
fn alias_bomb() -> String {
    let levels = ('b'..='j').scan('a', |previous, name| {
        let before = std::mem::replace(previous, name);
        Some(format!(
            "{name}: &{name} [{}]\n",
            vec![format!("*{before}"); 9].join(",")
        ))
    });
    std::iter::once("a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned())
        .chain(levels)
        .collect()
}
