//! A real directory, followed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::symlink;

use super::*;
use crate::source::{Report, Source};

/// No event of a healthy system takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    dir: tempfile::TempDir,
    source: Source,
    objects: BTreeMap<String, String>,
    report: Arc<Report>,
}

fn map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: '{value}'}}\n"
    )
}

impl World {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(dir.path().join("m")).expect("mkdir");
        prepare(&dir.path().join("m"));
        let source = Source::files(&dir.path().join("m"), None).expect("starts");
        let mut world = Self {
            dir,
            source,
            objects: BTreeMap::new(),
            report: Arc::default(),
        };
        world.take();
        world
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.root().join(file), text).expect("write");
    }

    fn take(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("runtime");
        let update = runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.source.updates.recv()).await })
            .expect("an update")
            .expect("a source");
        self.report = update.report;
        for event in update.events {
            match event {
                Event::Apply(gateway_translate::Object::ConfigMap(map)) => {
                    let value = format!("{:?}", map);
                    let at = value.find("\"key\": ").map_or(0, |at| at + 7);
                    let value = value[at..].chars().filter(|c| c.is_ascii_alphanumeric());
                    let value: String = value.take_while(|c| c.is_ascii_alphanumeric()).collect();
                    self.objects.insert(map.meta.object.name.to_string(), value);
                }
                Event::Apply(other) => panic!("{other:?}"),
                Event::Delete(object) => {
                    self.objects.remove(&*object.name);
                }
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.objects.keys().map(String::as_str).collect()
    }

    /// Takes updates until the objects are these.
    fn until(&mut self, names: &[&str]) {
        while self.names() != names {
            self.take();
        }
    }

    /// Takes updates until the report has so many findings.
    fn until_findings(&mut self, count: usize) {
        while self.report.findings.len() != count {
            self.take();
        }
    }
}

#[test]
fn files_come_change_and_go() {
    let mut world =
        World::new(|root| std::fs::write(root.join("a.yaml"), map("a", "1")).expect("write"));
    assert_eq!(world.names(), ["a"]);
    world.write("b.yml", &map("b", "1"));
    world.until(&["a", "b"]);
    world.write("b.yml", &(map("b", "1") + "---\n" + &map("c", "1")));
    world.until(&["a", "b", "c"]);
    world.write("notes.txt", &map("no", "1"));
    std::fs::remove_file(world.root().join("a.yaml")).expect("rm");
    world.until(&["b", "c"]);
}

#[test]
fn an_editors_rename_on_save_never_takes_the_object_away() {
    let mut world =
        World::new(|root| std::fs::write(root.join("a.yaml"), map("a", "old")).expect("write"));
    let (file, backup) = (world.root().join("a.yaml"), world.root().join("a.yaml~"));
    // A save that took longer than the grace, because somebody was stopped meanwhile, shows nothing.
    let mut turns = 0..5;
    let is_kept = turns.any(|turn| {
        let (done, started) = (format!("done-{turn}"), Instant::now());
        std::fs::rename(&file, &backup).expect("rename");
        std::fs::write(&file, map("a", "new") + "---\n" + &map(&done, "1")).expect("write");
        std::fs::remove_file(&backup).expect("rm");
        let mut deleted = false;
        while !world.names().contains(&done.as_str()) {
            world.take();
            deleted |= !world.names().contains(&"a");
        }
        let in_time = started.elapsed() < GRACE;
        assert!(!(in_time && deleted));
        in_time
    });
    assert!(is_kept, "no save was seen within the grace");

    let temporary = world.root().join(".a.yaml.tmp");
    std::fs::write(&temporary, map("a", "newer") + "---\n" + &map("again", "1")).expect("write");
    std::fs::rename(&temporary, &file).expect("rename");
    world.until(&["a", "again"]);
}

/// A directory with one file that has been read, and time that passes as the test says.
struct Still {
    _dir: tempfile::TempDir,
    file: PathBuf,
    follower: Follower,
    now: Instant,
}

impl Still {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, text).expect("write");
        let mut follower = Follower::new(dir.path(), None);
        follower.read_all();
        Self {
            _dir: dir,
            file,
            follower,
            now: Instant::now(),
        }
    }

    /// The names that changed, of those that are gone with a `-`, after something happened to the file.
    fn seen(&mut self) -> Vec<String> {
        let files = [self.file.clone()].into();
        let dirty = Dirty {
            files,
            ..Dirty::default()
        };
        named(self.follower.look(dirty, self.now))
    }

    /// The same after so much time.
    fn after(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        named(self.follower.look_again(self.now))
    }
}

fn named(events: Vec<Event>) -> Vec<String> {
    let names = events.into_iter().map(|event| match event {
        Event::Apply(gateway_translate::Object::ConfigMap(map)) => map.meta.object.name.to_string(),
        Event::Apply(other) => panic!("{other:?}"),
        Event::Delete(object) => format!("-{}", object.name),
    });
    names.collect()
}

#[test]
fn a_file_that_is_gone_or_empty_for_a_moment_keeps_its_objects() {
    let nothing: [String; 0] = [];
    let empty = |file: &Path| std::fs::write(file, "\n").expect("write");
    let remove = |file: &Path| std::fs::remove_file(file).expect("rm");
    for lose in [&empty as &dyn Fn(&Path), &remove] {
        let mut still = Still::new(&map("a", "1"));
        lose(&still.file);
        assert_eq!(still.seen(), nothing);
        assert_eq!(still.after(GRACE / 2), nothing);
        std::fs::write(&still.file, map("a", "2") + "---\n" + &map("b", "1")).expect("write");
        assert_eq!(still.seen(), ["a", "b"]);
        assert_eq!(still.after(GRACE), nothing);

        lose(&still.file);
        assert_eq!(still.seen(), nothing);
        // It has come back, and nobody said so yet.
        std::fs::write(&still.file, map("b", "2")).expect("write");
        assert_eq!(still.after(GRACE), ["-a", "b"]);

        lose(&still.file);
        assert_eq!(still.seen(), nothing);
        assert_eq!(still.after(GRACE), ["-b"]);
        assert!(still.follower.objects().is_empty());
    }
}

#[test]
fn a_name_that_is_given_to_another_file_may_lead_to_half_of_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, map("a", "1")).expect("write");
    let mut watch = Watch::new().expect("a watch");
    watch.directory(dir.path()).expect("watched");
    let names = |dirty: Dirty| (dirty.files.len(), dirty.names.len());
    std::fs::rename(&file, dir.path().join("a.yaml~")).expect("rename");
    let mut half = std::fs::File::create(&file).expect("create");
    half.write_all(map("a", "2").as_bytes()).expect("write");
    assert_eq!(names(watch.take()), (0, 1));
    half.write_all(map("b", "1").as_bytes()).expect("write");
    drop(half);
    assert_eq!(names(watch.take()), (1, 0));
    std::fs::rename(dir.path().join("a.yaml~"), &file).expect("rename");
    assert_eq!(names(watch.take()), (1, 0));
    std::fs::hard_link(&file, dir.path().join("b.yaml")).expect("link");
    assert_eq!(names(watch.take()), (1, 0));
}

#[test]
fn a_file_renamed_keeps_its_objects() {
    let mut world =
        World::new(|root| std::fs::write(root.join("a.yaml"), map("a", "1")).expect("write"));
    std::fs::rename(world.root().join("a.yaml"), world.root().join("z.yaml")).expect("rename");
    world.write("done.yaml", &map("done", "1"));
    world.until(&["a", "done"]);
    std::fs::remove_file(world.root().join("z.yaml")).expect("rm");
    world.until(&["done"]);
}

#[test]
fn kubernetes_symlink_swap_is_one_change() {
    let publish = |root: &Path, version: &str, text: &str| {
        let directory = root.join(format!("..{version}"));
        std::fs::create_dir(&directory).expect("mkdir");
        std::fs::write(directory.join("a.yaml"), text).expect("write");
        symlink(format!("..{version}"), root.join("..data_tmp")).expect("symlink");
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).expect("rename");
    };
    let mut world = World::new(|root| {
        publish(root, "v1", &map("a", "1"));
        symlink("..data/a.yaml", root.join("a.yaml")).expect("symlink");
    });
    assert_eq!(world.names(), ["a"]);
    for (old, new) in [("v1", "v2"), ("v2", "v3")] {
        publish(
            &world.root(),
            new,
            &(map("a", new) + "---\n" + &map(new, "1")),
        );
        std::fs::remove_dir_all(world.root().join(format!("..{old}"))).expect("rm");
        world.until(&["a", new]);
    }
    assert!(world.report.findings.is_empty());
}

#[test]
fn the_directory_itself_may_be_a_link_that_is_swapped() {
    let dir = tempfile::tempdir().expect("tempdir");
    for version in ["v1", "v2"] {
        std::fs::create_dir(dir.path().join(version)).expect("mkdir");
        std::fs::write(dir.path().join(version).join("a.yaml"), map(version, "1")).expect("write");
    }
    let current = dir.path().join("current");
    symlink("v1", &current).expect("symlink");
    let source = Source::files(&current, None).expect("starts");
    let mut world = World {
        dir,
        source,
        objects: BTreeMap::new(),
        report: Arc::default(),
    };
    world.until(&["v1"]);
    symlink("v2", world.dir.path().join("next")).expect("symlink");
    std::fs::rename(world.dir.path().join("next"), &current).expect("rename");
    world.until(&["v2"]);
}

#[test]
fn directories_come_move_and_go() {
    let mut world = World::new(|_| {});
    let outside = world.dir.path().join("outside");
    std::fs::create_dir_all(outside.join("deep/er")).expect("mkdir");
    std::fs::write(outside.join("deep/er/x.yaml"), map("x", "1")).expect("write");
    std::fs::rename(&outside, world.root().join("in")).expect("rename");
    world.until(&["x"]);
    world.write("in/deep/y.yaml", &map("y", "1"));
    world.until(&["x", "y"]);
    std::fs::rename(world.root().join("in/deep"), world.root().join("moved")).expect("rename");
    world.write("moved/er/z.yaml", &map("z", "1"));
    world.until(&["x", "y", "z"]);
    std::fs::create_dir(world.root().join("new")).expect("mkdir");
    world.write("new/w.yaml", &map("w", "1"));
    world.until(&["w", "x", "y", "z"]);
    std::fs::remove_dir_all(world.root().join("moved")).expect("rm");
    world.until(&["w"]);
    std::fs::rename(world.root().join("new"), world.dir.path().join("gone")).expect("rename");
    world.until(&[]);
}

#[test]
fn a_broken_file_is_reported_with_its_line_and_served_as_it_was() {
    let good = map("a", "1") + "---\n" + &map("b", "1");
    let mut world = World::new(|root| std::fs::write(root.join("a.yaml"), &good).expect("write"));
    world.write(
        "a.yaml",
        &(map("a", "2") + "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndata: [\n"),
    );
    world.until_findings(1);
    assert_eq!(world.names(), ["a", "b"]);
    let finding = &world.report.findings[0];
    assert_eq!(
        (finding.file.as_deref(), finding.document),
        (Some(Path::new("a.yaml")), Some(2))
    );
    assert!(finding.line.is_some_and(|line| line >= 9), "{finding}");
    assert_eq!(world.report.held.len(), 1);
    world.write("a.yaml", &good);
    world.until_findings(0);
    assert!(world.report.held.is_empty());
    world.write("twice.yaml", &map("a", "3"));
    world.until_findings(1);
    let text = world.report.findings[0].to_string();
    assert!(
        text.starts_with("twice.yaml:1: ConfigMap default/a: ") && text.contains("a.yaml:1"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_read_is_reported_and_served_as_it_was() {
    let mut world = World::new(|root| {
        std::fs::write(root.join("a.yaml"), map("a", "1")).expect("write");
        symlink("../elsewhere.txt", root.join("dangling.yaml")).expect("symlink");
    });
    assert_eq!(world.report.findings.len(), 1);
    std::fs::write(world.root().join("a.yaml"), b"\xff\xfe\x00bad").expect("write");
    world.until_findings(2);
    assert_eq!(world.names(), ["a"]);
    world.write("../elsewhere.txt", &map("b", "1"));
    world.write("a.yaml", &map("a", "1"));
    world.until_findings(0);
    world.until(&["a", "b"]);
}

#[test]
fn the_directory_may_go_and_come_back() {
    let mut world =
        World::new(|root| std::fs::write(root.join("a.yaml"), map("a", "1")).expect("write"));
    let away = world.dir.path().join("away");
    std::fs::rename(world.root(), &away).expect("rename");
    while world.report.unreadable.is_none() {
        world.take();
    }
    assert_eq!(world.names(), ["a"]);
    std::fs::write(away.join("b.yaml"), map("b", "1")).expect("write");
    std::fs::rename(&away, world.root()).expect("rename");
    world.until(&["a", "b"]);
    assert!(world.report.unreadable.is_none());
}

#[test]
fn a_burst_is_followed_to_its_end_also_when_events_are_lost() {
    let mut world = World::new(|_| {});
    let queue: usize = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .expect("readable")
        .trim()
        .parse()
        .expect("a number");
    world.write("first.yaml", &map("first", "1"));
    // Nobody takes the next update, so the thread waits and the kernel's queue runs over.
    for n in 0..=queue {
        world.write(
            &format!("f{}.yaml", n % 50),
            &map(&format!("f{}", n % 50), "1"),
        );
    }
    world.write("last.yaml", &map("last", "1"));
    let mut expected: Vec<_> = (0..50)
        .map(|n| format!("f{n}"))
        .chain(["first".into(), "last".into()])
        .collect();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    world.until(&expected);
}

#[test]
fn a_rescan_can_be_asked_for() {
    let mut world =
        World::new(|root| std::fs::write(root.join("a.yaml"), map("a", "1")).expect("write"));
    world.source.rescan().request();
    world.write("b.yaml", &map("b", "1"));
    world.until(&["a", "b"]);
}

#[test]
fn the_last_good_configuration_stands_in_for_a_file_that_is_broken_at_start() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (root, state) = (dir.path().join("m"), dir.path().join("last-good"));
    std::fs::create_dir(&root).expect("mkdir");
    std::fs::write(
        root.join("a.yaml"),
        map("a", "1") + "---\n" + &map("b", "1"),
    )
    .expect("write");
    std::fs::write(root.join("gone.yaml"), map("gone", "1")).expect("write");
    let start = |dir: tempfile::TempDir| {
        let source = Source::files(&root, Some(state.clone())).expect("starts");
        World {
            dir,
            source,
            objects: BTreeMap::new(),
            report: Arc::default(),
        }
    };
    let mut world = start(dir);
    world.until(&["a", "b", "gone"]);
    let deadline = Instant::now() + PATIENCE;
    while !state.join("objects.yaml").exists() {
        assert!(Instant::now() < deadline, "nothing is kept");
        std::thread::yield_now();
    }
    let World { dir, source, .. } = world;
    drop(source);
    std::fs::write(root.join("a.yaml"), map("b", "2") + "---\n}{\n").expect("write");
    std::fs::remove_file(root.join("gone.yaml")).expect("rm");
    let mut world = start(dir);
    world.take();
    assert_eq!(world.names(), ["a", "b"]);
    assert_eq!(world.report.held.len(), 1);
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(state.join("objects.yaml"))
        .expect("kept")
        .contains("gone")
    {
        assert!(Instant::now() < deadline, "nothing new is kept");
        std::thread::yield_now();
    }
    let World { dir, source, .. } = world;
    drop(source);
    std::fs::remove_dir_all(&root).expect("rm");
    let mut world = start(dir);
    world.take();
    assert!(world.report.unreadable.is_some());
    assert_eq!(world.names(), ["a", "b"]);
}
