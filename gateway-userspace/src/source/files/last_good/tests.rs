//! What is written reads back.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn objects(root: &Path, texts: &[(&str, &str, Syntax)]) -> Objects {
    let of_file = |(file, text, syntax): &(&str, &str, Syntax)| {
        let path: Arc<Path> = root.join(file).into();
        let pieces = document::split(text, *syntax);
        let objects = pieces.iter().flat_map(|piece| {
            document::parse(piece.text, *syntax)
                .objects()
                .map(Arc::clone)
                .collect::<Vec<_>>()
        });
        objects
            .map(move |decoded| (Arc::clone(&path), decoded))
            .collect::<Vec<_>>()
    };
    texts.iter().flat_map(of_file).collect()
}

fn names(files: &BTreeMap<Arc<Path>, Vec<Arc<Decoded>>>, root: &Path) -> Vec<String> {
    let name = |(path, objects): (&Arc<Path>, &Vec<Arc<Decoded>>)| {
        let file = path
            .strip_prefix(root)
            .expect("below")
            .display()
            .to_string();
        objects
            .iter()
            .map(|d| format!("{file} {}", d.object))
            .collect::<Vec<_>>()
    };
    files.iter().flat_map(name).collect()
}

#[test]
fn every_way_of_writing_an_object_reads_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let root = Path::new("/manifests");
    let namespace =
        |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    let json =
        "{\n\t\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"j\"}}";
    let many = format!(
        "{}--- # two\n{}---\r\n{}",
        namespace("a"),
        namespace("b"),
        namespace("c").replace('\n', "\r\n")
    );
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: l}}\n"
    );
    let odd = "dir/odd \"name\"\n.yaml";
    let texts = [
        (odd, namespace("o"), Syntax::Yaml),
        ("j.json", json.to_owned(), Syntax::Json),
        ("list.yaml", list, Syntax::Yaml),
        ("many.yaml", many, Syntax::Yaml),
    ];
    let texts: Vec<_> = texts.iter().map(|(f, t, s)| (*f, t.as_str(), *s)).collect();
    let written = objects(root, &texts);
    assert_eq!(written.len(), 6);
    let path = dir.path().join("last-good/objects.yaml");
    write(&path, root, &written).expect("written");
    let mode = std::fs::metadata(&path).expect("stat").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let expected = [
        format!("{odd} Namespace o"),
        "j.json Namespace j".to_owned(),
        "list.yaml Namespace l".to_owned(),
        "many.yaml Namespace a".to_owned(),
        "many.yaml Namespace b".to_owned(),
        "many.yaml Namespace c".to_owned(),
    ];
    assert_eq!(names(&read(&path, root), root), expected);
}

#[test]
fn nothing_kept_is_nothing_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    assert!(read(&dir.path().join("none.yaml"), dir.path()).is_empty());
    let path = dir.path().join("torn.yaml");
    std::fs::write(&path, "---\n# sluice: from \"a.yaml\nkind").expect("write");
    assert!(read(&path, dir.path()).is_empty());
}
