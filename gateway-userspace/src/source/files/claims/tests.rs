//! Who speaks for an object.

use gateway_model::names::ObjectKind;

use super::*;
use crate::source::files::document::{Syntax, parse, split};

fn path(text: &str) -> Arc<Path> {
    Path::new(text).into()
}

fn documents(text: &str) -> Vec<Placed> {
    let pieces = split(text, Syntax::Yaml).into_iter();
    let place = |p: crate::source::files::document::Piece<'_>| Placed {
        line: p.line,
        document: Arc::new(parse(p.text, Syntax::Yaml)),
    };
    pieces.map(place).collect()
}

/// A ConfigMap that can be told apart by its value.
fn map(name: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: '{value}'}}\n"
    )
}

fn broken(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: [\n")
}

fn object(name: &str) -> ObjectRef {
    ObjectRef::new(ObjectKind::ConfigMap, "default", name)
}

/// Events as `+name=value` and `-name`.
fn told(claims: &mut Claims) -> Vec<String> {
    let events = claims.take_events();
    events
        .into_iter()
        .map(|event| match event {
            Event::Apply(value) => {
                let object = value.reference();
                let text = &claims.in_force[&object].text;
                let value = text.rsplit('\'').nth(1).unwrap_or_default();
                format!("+{}={value}", object.name)
            }
            Event::Delete(object) => format!("-{}", object.name),
        })
        .collect()
}

#[test]
fn only_what_changed_is_told() {
    let mut claims = Claims::default();
    let file = path("a.yaml");
    let first = documents(&(map("x", "1") + &map("y", "1")));
    let kept = first[0].clone();
    claims.replace(&file, first);
    assert_eq!(told(&mut claims), ["+x=1", "+y=1"]);
    let mut second = documents(&map("y", "2"));
    second.insert(0, kept);
    claims.replace(&file, second);
    assert_eq!(told(&mut claims), ["+y=2"]);
    claims.remove(&file);
    assert_eq!(told(&mut claims), ["-x", "-y"]);
    assert!(told(&mut claims).is_empty());
}

#[test]
fn the_first_by_path_wins_and_the_next_one_takes_over() {
    let mut claims = Claims::default();
    claims.replace(&path("b.yaml"), documents(&map("x", "b")));
    claims.replace(
        &path("a.yaml"),
        documents(&(map("z", "a") + &map("x", "a"))),
    );
    assert_eq!(told(&mut claims), ["+x=a", "+z=a"]);
    let duplicate = &claims.duplicates()[0];
    assert_eq!(
        (&*duplicate.winner.path, duplicate.winner.line),
        (Path::new("a.yaml"), 6)
    );
    assert_eq!(
        (&*duplicate.loser.path, duplicate.loser.line),
        (Path::new("b.yaml"), 1)
    );
    claims.remove(&path("a.yaml"));
    assert_eq!(told(&mut claims), ["+x=b", "-z"]);
    assert!(claims.duplicates().is_empty());
}

#[test]
fn the_first_in_a_file_wins_also_after_they_changed_places() {
    let mut claims = Claims::default();
    let file = path("a.yaml");
    let mut both = documents(&(map("x", "1") + &map("x", "2")));
    claims.replace(&file, both.clone());
    assert_eq!(told(&mut claims), ["+x=1"]);
    assert_eq!(claims.duplicates().len(), 1);
    both.reverse();
    claims.replace(&file, both);
    assert_eq!(told(&mut claims), ["+x=2"]);
}

#[test]
fn a_broken_document_keeps_its_object_and_hides_no_other() {
    let mut claims = Claims::default();
    let file = path("a.yaml");
    claims.replace(
        &file,
        documents(&(map("x", "1") + &map("y", "1") + &map("z", "1"))),
    );
    told(&mut claims);
    claims.replace(&file, documents(&(broken("x") + &map("y", "2"))));
    assert_eq!(told(&mut claims), ["+y=2", "-z"]);
    let held: Vec<_> = claims
        .held()
        .map(|(_, decoded)| decoded.object.clone())
        .collect();
    assert_eq!(held, [object("x")]);
    claims.replace(&file, documents(&map("y", "2")));
    assert_eq!(told(&mut claims), ["-x"]);
}

#[test]
fn a_broken_document_without_a_name_keeps_everything_of_its_file() {
    let mut claims = Claims::default();
    let file = path("a.yaml");
    claims.replace(&file, documents(&(map("x", "1") + &map("y", "1"))));
    told(&mut claims);
    claims.replace(&file, documents("}{\n"));
    assert!(told(&mut claims).is_empty());
    claims.replace(&file, documents(&map("x", "2")));
    assert_eq!(told(&mut claims), ["+x=2", "-y"]);
}

#[test]
fn a_held_object_gives_way_to_another_file() {
    let mut claims = Claims::default();
    claims.replace(&path("b.yaml"), documents(&map("x", "1")));
    told(&mut claims);
    claims.replace(&path("b.yaml"), documents(&broken("x")));
    assert!(told(&mut claims).is_empty());
    claims.replace(&path("c.yaml"), documents(&map("x", "c")));
    assert_eq!(told(&mut claims), ["+x=c"]);
    assert_eq!(claims.held().count(), 0);
    assert!(claims.duplicates().is_empty());
}

#[test]
fn a_vanishing_file_speaks_last_and_is_no_duplicate() {
    let mut claims = Claims::default();
    claims.replace(&path("a.yaml"), documents(&map("x", "1")));
    told(&mut claims);
    claims.vanish(Path::new("a.yaml"));
    assert!(told(&mut claims).is_empty());
    claims.replace(&path("b.yaml"), documents(&map("x", "2")));
    assert_eq!(told(&mut claims), ["+x=2"]);
    assert!(claims.duplicates().is_empty());
    claims.remove(&path("a.yaml"));
    assert!(told(&mut claims).is_empty());
}

#[test]
fn what_was_remembered_stands_in_for_a_broken_file_only() {
    let mut claims = Claims::default();
    let old = documents(&(map("x", "old") + &map("y", "old")));
    let objects = || {
        old.iter()
            .flat_map(|p| p.document.objects())
            .map(Arc::clone)
            .collect::<Vec<_>>()
    };
    claims.remember(&path("a.yaml"), objects());
    claims.replace(
        &path("a.yaml"),
        documents(&(broken("x") + &map("y", "new"))),
    );
    assert_eq!(told(&mut claims), ["+x=old", "+y=new"]);

    let mut claims = Claims::default();
    claims.remember(&path("a.yaml"), objects());
    claims.replace(&path("a.yaml"), documents(&map("y", "new")));
    assert_eq!(told(&mut claims), ["+y=new"]);
}

#[test]
fn the_same_document_twice_is_counted() {
    let mut claims = Claims::default();
    let file = path("a.yaml");
    let one = documents(&map("x", "1")).remove(0);
    claims.replace(
        &file,
        vec![
            one.clone(),
            Placed {
                line: 9,
                ..one.clone()
            },
        ],
    );
    assert_eq!(told(&mut claims), ["+x=1"]);
    assert_eq!(claims.duplicates().len(), 1);
    claims.replace(&file, vec![one]);
    assert!(told(&mut claims).is_empty());
    assert!(claims.duplicates().is_empty());
}

#[test]
fn a_broken_file_gives_no_copy_that_was_ignored_the_word() {
    let mut claims = Claims::default();
    claims.replace(&path("a.yaml"), documents(&map("x", "a")));
    claims.replace(&path("b.yaml"), documents(&map("x", "b")));
    assert_eq!(told(&mut claims), ["+x=a"]);
    claims.replace(&path("a.yaml"), documents(&broken("x")));
    assert!(told(&mut claims).is_empty());
    assert_eq!(claims.held().count(), 1);
    claims.replace(&path("a.yaml"), documents(&broken("y")));
    assert_eq!(told(&mut claims), ["+x=b"]);
    claims.replace(&path("a.yaml"), documents(&map("x", "a")));
    assert_eq!(told(&mut claims), ["+x=a"]);
    claims.replace(&path("a.yaml"), documents(&broken("x")));
    assert!(told(&mut claims).is_empty());
    claims.replace(&path("b.yaml"), documents(&map("x", "c")));
    assert_eq!(told(&mut claims), ["+x=c"], "somebody has just written it");
}
