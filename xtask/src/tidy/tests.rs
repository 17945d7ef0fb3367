//! Each rule finds its breach, at its line, and leaves the neighbouring lawful form alone.

use std::path::Path;

use super::code::Code;
use super::{Finding, check};

fn findings(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let root = crate::workspace::root();
    check(&root, Path::new(path), text, &mut findings);
    findings
}

/// `(line, beginning of what)` of the only finding.
fn only(path: &str, text: &str) -> (usize, String) {
    let mut findings = findings(path, text);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = findings.remove(0);
    (finding.line, finding.what)
}

#[test]
fn clean_file_has_no_finding() {
    assert_eq!(
        findings(
            "gateway-userspace/model/src/a.rs",
            "//! Things.\n\nuse std::net::IpAddr;\n"
        ),
        []
    );
}

#[test]
fn file_must_open_with_its_subject() {
    assert_eq!(only("a/src/b.rs", "use std::fmt;\n").0, 1);
    assert_eq!(findings("a/src/b.rs", "#![no_std]\n//! Subject.\n"), []);
}

#[test]
fn long_file_is_found_and_its_tests_do_not_count() {
    let long = format!("//! Long.\n{}", "const A: u8 = 1;\n".repeat(600));
    assert!(
        only("a/src/b.rs", &long)
            .1
            .starts_with("601 production lines")
    );
    let tested = format!(
        "//! Ok.\n#[cfg(test)]\nmod tests {{\n{}}}\n",
        "    const A: u8 = 1;\n".repeat(600)
    );
    assert_eq!(findings("a/src/b.rs", &tested), []);
}

#[test]
fn unfinished_work_is_found_in_code_and_comments_only() {
    assert_eq!(only("a/src/b.rs", "//! B.\nfn f() { todo!() }\n").0, 2);
    assert_eq!(only("a/src/b.rs", "//! B.\n// FIXME: later\n").0, 2);
    assert_eq!(
        findings("a/src/b.rs", "//! B.\nconst A: &str = \"TODO todo!()\";\n"),
        []
    );
    assert_eq!(
        only(
            "a/src/tests.rs",
            "//! B.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}\n"
        )
        .0,
        3
    );
}

#[test]
fn model_knows_neither_kubernetes_nor_io() {
    let path = "gateway-userspace/model/src/a.rs";
    assert!(
        only(path, "//! A.\nuse kube::Client;\n")
            .1
            .contains("no Kubernetes")
    );
    assert!(
        only(path, "//! A.\nuse std::{fmt, net::{IpAddr, TcpStream}};\n")
            .1
            .contains("no I/O")
    );
    assert!(
        only(path, "//! A.\nfn f() { std::fs::read(\"x\").ok(); }\n")
            .1
            .contains("no I/O")
    );
    assert_eq!(
        findings(path, "//! A.\n#[cfg(test)]\nmod t {\n    use std::fs;\n}\n"),
        []
    );
}

#[test]
fn l4_sees_only_the_plan() {
    let path = "gateway-userspace/l4/src/a.rs";
    assert_eq!(
        findings(
            path,
            "//! A.\nuse gateway_model::l4_plan::{Frontend, L4Plan};\n"
        ),
        []
    );
    assert_eq!(
        only(
            path,
            "//! A.\nuse gateway_model::{\n    l4_plan::L4Plan,\n    snapshot::Snapshot,\n};\n"
        )
        .0,
        2
    );
}

#[test]
fn manifest_edges_spare_dev_dependencies() {
    let path = "gateway-userspace/proxy/Cargo.toml";
    assert_eq!(
        only(path, "[dependencies]\ngateway-l4.workspace = true\n").0,
        2
    );
    assert_eq!(only(path, "[dependencies.kube]\nversion = \"5\"\n").0, 1);
    assert_eq!(
        findings(
            path,
            "[dependencies]\ntokio = \"1\"\n[dev-dependencies]\naya = \"1\"\n"
        ),
        []
    );
}

#[test]
fn source_module_knows_nobody_who_serves() {
    let text = "//! A.\nuse gateway_proxy::Proxy;\n";
    assert_eq!(only("gateway-userspace/src/source.rs", text).0, 2);
    assert_eq!(only("gateway-userspace/src/source/files.rs", text).0, 2);
    assert_eq!(findings("gateway-userspace/src/run.rs", text), []);
}

#[test]
fn unsafe_of_the_programs_has_a_reason() {
    let bare = "//! A.\nfn f() {\n    unsafe { g() }\n}\n";
    assert_eq!(only("gateway-ebpf/src/a.rs", bare).0, 3);
    let said = "//! A.\nfn f() {\n    // SAFETY: g is safe here.\n    unsafe { g() }\n}\n";
    assert_eq!(findings("gateway-ebpf/src/a.rs", said), []);
}

#[test]
fn glob_imports_are_found_outside_tests() {
    assert_eq!(only("a/src/b.rs", "//! B.\nuse crate::names::*;\n").0, 2);
    assert_eq!(
        findings(
            "a/src/b.rs",
            "//! B.\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n"
        ),
        []
    );
}

#[test]
fn absolute_paths_of_a_machine_are_found() {
    let place = concat!("/ho", "me/me/sluice");
    assert_eq!(only("README.md", &format!("cd {place}\n")).0, 1);
    assert_eq!(
        findings("README.md", &format!("see example.com{place}\n")),
        []
    );
}

#[test]
fn links_to_files_must_lead_somewhere() {
    let text =
        "[a](Cargo.toml) [b](https://example.com/x) [c](#there) `[d](e)`\n[f](missing.md#part)\n";
    let (line, what) = only("README.md", text);
    assert_eq!(line, 2);
    assert!(what.contains("missing.md#part"), "{what}");
}

#[test]
fn literals_and_comments_are_told_from_code() {
    let text = "let a = \"x // y\"; // z\nlet b = r#\"q\"w\"#; let c = '\"'; let d = '\\''; f();\n/* a /* b */ c */ g();\n";
    let code = Code::parse(text);
    assert_eq!(code.code[0].trim_end(), "let a = \"      \";");
    assert!(code.comments[0].trim().starts_with("/ z"));
    assert!(code.code[1].contains("f();") && !code.code[1].contains('w'));
    assert_eq!(code.code[2].trim(), "g();");
}
