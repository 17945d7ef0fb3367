//! What the documents promise: every example loads, and the tour of README.md runs as written.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gateway_tests::sluice::{binary, workspace};
use gateway_tests::{Authority, World, manifests, process};

#[test]
fn every_example_passes_the_check() -> Result<()> {
    let ns = gateway_tests::Netns::current()?;
    let examples = workspace().join("deploy/examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(&examples)? {
        let source = entry?.path();
        if !source.is_dir() {
            continue;
        }
        let copy = tempfile::tempdir()?;
        for file in std::fs::read_dir(&source)? {
            let file = file?;
            std::fs::copy(file.path(), copy.path().join(file.file_name()))?;
        }
        let mut says = "no mistakes";
        if source.ends_with("wildcard-canary") {
            add_certificate(copy.path())?;
            // The canary's second rule hides the application's own, as it stood where it came from.
            says = "0 errors, 1 warning\n";
        }
        let mut command = Command::new(binary());
        command.arg("check").arg(copy.path());
        let output = process::output(&ns, command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && text.contains(says),
            "{}: {text}{}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        checked += 1;
    }
    ensure!(
        checked >= 6,
        "only {checked} examples in {}",
        examples.display()
    );
    Ok(())
}

/// What cert-manager writes in a cluster.
fn add_certificate(dir: &Path) -> Result<()> {
    let identity = Authority::new()?.issue(&["*.k8s.lan"])?;
    let secret = manifests::tls_secret("wildcard-tls", &identity);
    let secret = secret.replace("namespace: default", "namespace: istio-system");
    Ok(std::fs::write(dir.join("secret.yaml"), secret)?)
}

/// The shell blocks of README.md that follow the mark of the tour, as one script.
fn tour() -> Result<String> {
    let readme = std::fs::read_to_string(workspace().join("README.md"))?;
    let blocks = readme.split("<!-- tour -->\n```sh\n").skip(1);
    let script: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    ensure!(
        script.len() >= 5,
        "only {} blocks of the tour in README.md",
        script.len()
    );
    Ok(script.concat())
}

#[test]
fn the_tour_of_the_readme_runs_as_written() -> Result<()> {
    let world = World::plan().backends(0).build()?;
    std::os::unix::fs::symlink(workspace().join("deploy"), world.dir().join("deploy"))?;
    let bin = binary();
    let bin = bin.parent().context("the binary is in a directory")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    // Job control, as in a terminal, for %2.
    command.args(["-e", "-m", "-x", "-c", &tour()?]);
    command
        .current_dir(world.dir())
        .env("PATH", format!("{}:{path}", bin.display()));
    command
        .env("SLUICE_STATE_DIR", world.dir().join("state"))
        .env("SLUICE_PIN_DIR", world.pin_dir());
    let log = world.dir().join("tour.log");
    let mut shell = process::Process::start(&world.node.ns, "tour", command, &log)?;
    let status = shell.wait_exit(std::time::Duration::from_secs(90))?;
    let output = shell.output();
    ensure!(status.success(), "{status}:\n{output}");
    // Python lists the directory that it serves.
    ensure!(output.matches("Directory listing").count() >= 3, "{output}");
    Ok(())
}
