//! Where `front` hangs, and that it drops there what it must.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_l4::{Attach, Hook, L4Error, Mode, Outcome, Settings};
use gateway_tests::bed::plan;
use gateway_tests::bpf;

use crate::wire::{CLIENT, INTERFACE, VIP, Wire, Workers, counted, front};

/// A packet that is dropped is not answered.
const SILENCE: Duration = Duration::from_millis(300);

#[test]
fn native_xdp_drops_and_passes() {
    drops_and_passes(Attach::Native, Hook::XdpNative);
}

#[test]
fn generic_xdp_drops_and_passes() {
    drops_and_passes(Attach::Generic, Hook::XdpGeneric);
}

#[test]
fn tc_drops_and_passes() {
    drops_and_passes(Attach::Tc, Hook::Tcx);
}

#[test]
fn native_xdp_comes_first() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let l4 = wire.start(Attach::Auto).await;
        let attached = front(&l4);
        assert_eq!((attached.hook, attached.note), (Hook::XdpNative, None));
        l4.detach().await.expect("detach");
        wire.has_no_xdp();
    });
}

fn drops_and_passes(attach: Attach, hook: Hook) {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = wire.start(attach).await;
        assert_eq!(front(&l4).hook, hook);
        let with = |deny: &[&'static str]| {
            plan(
                &[
                    (Some(VIP[0]), 443, &[], deny),
                    (Some(VIP[1]), 443, &[], deny),
                ],
                &VIP,
            )
        };
        l4.apply(&with(&[])).await.expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        for vip in VIP {
            wire.connect(vip, 443);
        }
        l4.apply(&with(&CLIENT)).await.expect("apply");
        for vip in VIP {
            let before = counted(&l4, "denied");
            wire.try_connect(vip, 443, SILENCE).expect_err("dropped");
            assert!(counted(&l4, "denied") > before, "{vip}");
        }
        l4.apply(&with(&["203.0.113.0/24"])).await.expect("apply");
        for vip in VIP {
            wire.connect(vip, 443);
        }
        assert!(counted(&l4, "permitted") > 0);
        l4.detach().await.expect("detach");
    });
}

#[test]
fn a_foreign_program_stays_and_front_goes_to_tc() {
    let wire = Wire::new();
    let pinned = foreign_program(&wire);
    wire.node
        .ip(&[&format!(
            "link set dev {INTERFACE} xdp pinned {}",
            pinned.display()
        )])
        .expect("attach");
    std::fs::remove_file(&pinned).expect("unpin");
    wire.node.block_on(async {
        let l4 = wire.start(Attach::Auto).await;
        let attached = front(&l4);
        assert_eq!(attached.hook, Hook::Tcx);
        let note = attached.note.expect("a note");
        assert!(
            note.contains("no native XDP: foreign, which is not ours"),
            "{note}"
        );
        l4.detach().await.expect("detach");
        assert!(wire.has_xdp(), "the foreign program is still there");
    });
}

#[test]
fn our_own_program_left_by_netlink_is_removed() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let first = wire.start(Attach::Tc).await;
        let object = gateway_tests::bed::load(gateway_l4::object().expect("an object"), &first);
        let mut object = object.expect("the programs");
        first.detach().await.expect("detach");
        let pin = wire
            .pin_dir
            .with_extension("")
            .with_file_name(format!("{}-left", file_name(&wire.pin_dir)));
        object
            .program_mut("sluice_front")
            .expect("a program")
            .pin(&pin)
            .expect("pin");
        let attached = wire.node.ip(&[&format!(
            "link set dev {INTERFACE} xdp pinned {}",
            pin.display()
        )]);
        std::fs::remove_file(&pin).expect("unpin");
        attached.expect("attach");
        assert!(wire.has_xdp());
        let l4 = wire.start(Attach::Auto).await;
        let attached = front(&l4);
        assert_eq!(attached.hook, Hook::XdpNative);
        assert!(
            attached
                .note
                .expect("a note")
                .contains("removed a program of ours")
        );
        l4.detach().await.expect("detach");
        wire.has_no_xdp();
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let settings = Settings {
            interfaces: vec!["nowhere0".to_owned()],
            mode: Mode::Auto,
            ..wire.settings(Attach::Auto)
        };
        let error = gateway_l4::L4::start(settings)
            .await
            .expect_err("no such interface");
        assert!(
            matches!(&error, L4Error::NoInterface { name } if name == "nowhere0"),
            "{error}"
        );
        assert!(!wire.pin_dir.exists(), "a start that fails leaves nothing");
    });
}

#[test]
fn loopback_and_what_is_down_are_not_chosen() {
    let wire = Wire::new();
    wire.node
        .ip(&[
            "link add spare0 type veth peer name spare1",
            "link set spare1 up",
        ])
        .expect("a spare wire");
    wire.node.block_on(async {
        let settings = Settings {
            interfaces: Vec::new(),
            ..wire.settings(Attach::Auto)
        };
        let Ok(Outcome::Bpf(l4)) = gateway_l4::L4::start(settings).await else {
            panic!("no packet path")
        };
        let chosen: Vec<String> = l4
            .status()
            .expect("status")
            .attachments
            .into_iter()
            .skip(1)
            .map(|a| a.interface)
            .collect();
        assert_eq!(chosen, [INTERFACE, "spare1"]);
        l4.detach().await.expect("detach");
    });
}

#[test]
fn sockets_mode_and_missing_capabilities_say_why() {
    let wire = Wire::new();
    let settings = |mode| Settings {
        mode,
        ..wire.settings(Attach::Auto)
    };
    wire.node.block_on(async {
        let outcome = gateway_l4::L4::start(settings(Mode::Sockets))
            .await
            .expect("an outcome");
        assert!(matches!(outcome, Outcome::Unavailable { .. }));
        become_nobody();
        let outcome = gateway_l4::L4::start(settings(Mode::Auto))
            .await
            .expect("an outcome");
        let Outcome::Unavailable { reason } = outcome else {
            panic!("nobody has no packet path")
        };
        assert!(
            reason.contains("CAP_BPF") && reason.contains("CAP_NET_ADMIN"),
            "{reason}"
        );
        gateway_l4::L4::start(settings(Mode::Bpf))
            .await
            .expect_err("asked for and not to be had");
    });
}

/// A program of somebody else's: passes everything.
fn foreign_program(wire: &Wire) -> PathBuf {
    let program = bpf::noop(bpf::Noop::Xdp, "foreign").expect("a program");
    let path = wire
        .pin_dir
        .with_file_name(format!("{}-foreign", file_name(&wire.pin_dir)));
    bpf::pin(program, &path).expect("pin");
    path
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

/// Gives up all privileges of the calling thread, and of no other.
#[expect(unsafe_code, reason = "setresuid(2) for one thread")]
fn become_nobody() {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
    assert_eq!(result, 0);
}
