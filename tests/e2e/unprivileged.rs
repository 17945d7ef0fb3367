//! Without root: the same proxy on ordinary sockets, chosen by itself.

use std::os::unix::fs::chown;

use anyhow::Result;
use gateway_tests::manifests::{Manifests, forward, gateway, http_listener, route, service};
use gateway_tests::sluice::Start;
use gateway_tests::tools::Curl;
use gateway_tests::{Backend, World};

/// `nobody`, as Debian numbers it.
const NOBODY: u32 = 65_534;

#[test]
fn a_user_without_privileges_gets_sockets_mode_by_itself() -> Result<()> {
    let world = World::new()?;
    let backend = Backend::start(&world.node, "own")?;
    let manifests = Manifests::new(world.dir().join("manifests"))?;
    let documents = [
        gateway(&[], &http_listener("http", 8080)),
        service("own", &[backend.address]),
        route("all", &[], &forward("own")),
    ];
    manifests.write("all.yaml", &documents)?;
    let home = world.dir().join("home");
    std::fs::create_dir(&home)?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    // A user may not look into root's build directory, so the binary is copied to where it can.
    let binary = world.dir().join("sluice");
    std::fs::copy(gateway_tests::sluice::binary(), &binary)?;
    let start = Start::new(&world.node.ns, &home)
        .binary(&binary)
        .user(NOBODY);
    let sluice = start
        .manifests(manifests.dir())
        .args(["--workers", "2"])
        .ready()?;
    for ip in [world.node.v4.to_string(), format!("[{}]", world.node.v6)] {
        let answer = Curl::new(&format!("http://{ip}:8080/")).run(&world.client.ns)?;
        assert_eq!(answer.header("x-backend"), Some("own"));
    }
    let l4 = sluice.cli(&["l4"])?.to_lowercase();
    assert!(l4.contains("sockets"), "{l4}");
    assert!(
        sluice.log().contains("sockets"),
        "said once in the log:\n{}",
        sluice.log()
    );
    Ok(())
}
