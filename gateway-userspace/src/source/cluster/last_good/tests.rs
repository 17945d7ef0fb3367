//! What was written is read again, however the writing ended.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use super::writer::Log;
use super::*;

struct Disk {
    dir: tempfile::TempDir,
}

fn name(name: &str) -> ObjectRef {
    ObjectRef::new(ObjectKind::HttpRoute, "shop", name)
}

fn records(pairs: &[(&str, Option<&str>)]) -> Records {
    let record = |(n, text): &(&str, Option<&str>)| {
        let text = text.map(|text| text.as_bytes().into());
        (name(n), text)
    };
    pairs.iter().map(record).collect()
}

impl Disk {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("tempdir"),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("last-good").join(NAME)
    }

    fn log(&self) -> Log {
        Log::create(&self.path()).expect("a log")
    }

    fn objects(&self) -> BTreeMap<String, String> {
        let mut objects = BTreeMap::new();
        LastGood::read(&self.path(), |name, text| {
            let text = String::from_utf8(text.to_vec()).expect("UTF-8");
            objects.insert(name.name.to_string(), text);
        });
        objects
    }

    fn names(&self) -> Vec<String> {
        self.objects().into_keys().collect()
    }
}

#[test]
fn of_each_object_the_last_form_is_read() {
    let disk = Disk::new();
    let mut log = disk.log();
    log.append(&mut records(&[("a", Some("{\"v\":1}")), ("b", Some("{}"))]))
        .expect("append");
    log.publish().expect("publish");
    log.append(&mut records(&[
        ("a", Some("{\"v\":2}")),
        ("b", None),
        ("c", Some("{\"t\":\"\\t\"}")),
    ]))
    .expect("append");
    let expected = [("a", "{\"v\":2}"), ("c", "{\"t\":\"\\t\"}")];
    let expected = expected.map(|(n, t)| (n.to_owned(), t.to_owned()));
    assert_eq!(disk.objects(), BTreeMap::from(expected));
    let mode = std::fs::metadata(disk.path())
        .expect("stat")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_log_counts_only_when_it_is_whole() {
    let disk = Disk::new();
    let mut first = disk.log();
    first
        .append(&mut records(&[("a", Some("{}"))]))
        .expect("append");
    first.publish().expect("publish");
    let mut second = disk.log();
    second
        .append(&mut records(&[("b", Some("{}"))]))
        .expect("append");
    assert_eq!(disk.names(), ["a"]);
    second.publish().expect("publish");
    assert_eq!(disk.names(), ["b"]);
}

#[test]
fn a_line_that_was_cut_off_does_not_count_wherever_it_was_cut() {
    let disk = Disk::new();
    let mut log = disk.log();
    log.append(&mut records(&[("a", Some("{\"v\":1}"))]))
        .expect("append");
    log.publish().expect("publish");
    let whole = std::fs::read(disk.path()).expect("read");
    log.append(&mut records(&[("a", Some("{\"v\":2}")), ("b", Some("{}"))]))
        .expect("append");
    let longer = std::fs::read(disk.path()).expect("read");
    let second = longer[whole.len()..]
        .iter()
        .position(|b| *b == b'\n')
        .expect("a line")
        + 1;
    for cut in whole.len()..longer.len() {
        std::fs::write(disk.path(), &longer[..cut]).expect("write");
        let version = if cut < whole.len() + second { 1 } else { 2 };
        let expected = format!("{{\"v\":{version}}}");
        assert_eq!(disk.objects().get("a"), Some(&expected), "cut at {cut}");
        assert_eq!(disk.objects().len(), 1, "cut at {cut}");
    }
}

#[test]
fn garbage_is_no_object_and_another_format_is_nothing() {
    let disk = Disk::new();
    let mut log = disk.log();
    log.append(&mut records(&[("a", Some("{}"))]))
        .expect("append");
    log.publish().expect("publish");
    let mut text = std::fs::read(disk.path()).expect("read");
    text.extend_from_slice(b"?\tx\n+\tKind\ta\tb\t{}\n\xff\xfe\n+\tHTTPRoute\tshop\n\n");
    std::fs::write(disk.path(), &text).expect("write");
    assert_eq!(disk.names(), ["a"]);
    std::fs::write(disk.path(), "sluice last good objects, 2\n").expect("write");
    assert!(disk.names().is_empty());
}

#[test]
fn what_is_dead_is_left_behind() {
    let disk = Disk::new();
    let mut log = disk.log();
    let long = format!("\"{}\"", "x".repeat(1000));
    log.append(&mut records(&[("quiet", Some("{}"))]))
        .expect("append");
    log.publish().expect("publish");
    let mut longest = 0;
    for _ in 0..3000 {
        log.append(&mut records(&[("busy", Some(&long))]))
            .expect("append");
        log.compact().expect("compact");
        longest = longest.max(std::fs::metadata(disk.path()).expect("stat").len());
    }
    assert!(longest < 2 << 20, "{longest}");
    assert_eq!(disk.names(), ["busy", "quiet"]);
    log.append(&mut records(&[("busy", None)])).expect("append");
    assert_eq!(disk.names(), ["quiet"]);
}

#[test]
fn a_log_that_lost_its_name_leaves_its_successors_alone() {
    let disk = Disk::new();
    let mut old = disk.log();
    old.publish().expect("publish");
    let mut new = disk.log();
    new.append(&mut records(&[("new", Some("{}"))]))
        .expect("append");
    new.publish().expect("publish");
    let long = format!("\"{}\"", "x".repeat(4000));
    for _ in 0..1000 {
        old.append(&mut records(&[("old", Some(&long))]))
            .expect("append");
        old.compact().expect("compact");
    }
    assert_eq!(disk.names(), ["new"]);
}

#[test]
fn a_successor_that_ends_gives_the_name_back() {
    let disk = Disk::new();
    let mut old = disk.log();
    old.append(&mut records(&[("a", Some("{}")), ("b", Some("{}"))]))
        .expect("append");
    old.publish().expect("publish");
    let mut successor = disk.log();
    successor.publish().expect("publish");
    drop(successor);
    assert!(disk.names().is_empty());
    old.append(&mut records(&[("b", None), ("c", Some("{}"))]))
        .expect("append");
    old.compact().expect("compact");
    assert_eq!(disk.names(), ["a", "c"]);
    old.append(&mut records(&[("d", Some("{}"))]))
        .expect("append");
    assert_eq!(disk.names(), ["a", "c", "d"]);
}

#[test]
fn logs_left_behind_are_swept_away_when_they_are_old() {
    let disk = Disk::new();
    let mut log = disk.log();
    let left = disk.path().with_extension("log.dead");
    let young = disk.path().with_extension("log.alive");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::write(&young, "").expect("write");
    let file = File::create(&left).expect("create");
    file.set_modified(old).expect("touch");
    log.publish().expect("publish");
    assert!(!left.exists() && young.exists() && disk.path().exists());
}

#[test]
fn the_thread_writes_what_it_is_given_and_cleans_up() {
    let disk = Disk::new();
    let keep = LastGood::new(disk.path().parent().expect("parent"));
    let mut left = records(&[("a", Some("{}"))]);
    while !keep.hand_over(&mut left, true) {
        std::thread::yield_now();
    }
    while disk.names() != ["a"] {
        std::thread::yield_now();
    }
    drop(keep);
    let files = std::fs::read_dir(disk.path().parent().expect("parent")).expect("list");
    assert_eq!(files.count(), 1);
}
