//! Certificates that change, names that nobody knows, and clients old and new.

use std::sync::Arc;

use anyhow::{Context, Result};
use gateway_tests::certs::Identity;
use gateway_tests::manifests::{gateway, https_listener, tls_secret};
use gateway_tests::raw::Raw;
use gateway_tests::until;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use crate::edge::{Edge, Mode};

/// The certificate that is shown to a client that asks for this name.
fn shown(edge: &Edge, name: &str, config: &Arc<ClientConfig>) -> Result<CertificateDer<'static>> {
    let raw = Raw::connect_tls(edge.client(), edge.at(443), name, Arc::clone(config))?;
    let chain = raw.tls().and_then(|tls| tls.peer_certificates());
    let leaf = chain.and_then(<[_]>::first).context("no certificate")?;
    Ok(leaf.clone().into_owned())
}

fn replace_certificates(edge: &Edge, wildcard: &Identity, shop: &Identity) -> Result<()> {
    let secrets = [tls_secret("wildcard", wildcard), tls_secret("shop", shop)];
    edge.manifests.write("secrets.yaml", &secrets)
}

#[test]
fn a_renewed_certificate_is_shown_to_the_next_client_and_breaks_no_connection() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let config = edge.client_config(&["http/1.1"])?;
    let old = shown(&edge, "a.example.com", &config)?;
    let mut open = Raw::connect_tls(edge.client(), edge.at(443), "a.example.com", config.clone())?;
    let load = edge.tls_load("a.example.com")?.new_connections();
    let load = load.start(edge.client())?;
    let wildcard = edge.authority.issue(&["*.example.com"])?;
    let shop = edge.authority.issue(&["shop.example.com"])?;
    replace_certificates(&edge, &wildcard, &shop)?;
    until("the new certificate is shown", || {
        let now = shown(&edge, "a.example.com", &config).ok()?;
        assert!(now == old || now == wildcard.der);
        (now == wildcard.der).then_some(())
    })?;
    assert_eq!(shown(&edge, "shop.example.com", &config)?, shop.der);
    let answer = open.ask("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")?;
    assert_eq!(answer.status, 200);
    load.wait_more(20)?;
    load.stop()?.expect_clean()
}

#[test]
fn a_broken_renewal_keeps_the_last_good_certificate() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let config = edge.client_config(&["http/1.1"])?;
    let old = shown(&edge, "a.example.com", &config)?;
    let wildcard = edge.authority.issue(&["*.example.com"])?;
    let shop = edge.authority.issue(&["shop.example.com"])?;
    // The key of another certificate.
    let mixed = Identity {
        key: shop.key.clone(),
        ..wildcard
    };
    replace_certificates(&edge, &mixed, &shop)?;
    until("the good one of the two is renewed", || {
        (shown(&edge, "shop.example.com", &config).ok()? == shop.der).then_some(())
    })?;
    assert_eq!(shown(&edge, "a.example.com", &config)?, old);
    // A change is told once every worker serves it.
    until("the status names it", || {
        let status = edge.sluice().cli(&["status"]).ok()?;
        status.contains("wildcard").then_some(())
    })
}

#[test]
fn a_name_that_no_listener_has_gets_no_certificate_of_another() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    let listeners = https_listener("shop", 443, Some("shop.example.com"), "shop");
    let vip = gateway_tests::World::VIP4.to_string();
    edge.manifests
        .write("gateway.yaml", &[gateway(&[&vip], &listeners)])?;
    edge.put_sluice(start.ready()?);
    let config = edge.client_config(&["http/1.1"])?;
    assert!(shown(&edge, "shop.example.com", &config).is_ok());
    assert!(shown(&edge, "other.test", &config).is_err());
    Ok(())
}

#[test]
fn old_and_new_protocol_versions_are_spoken_and_older_ones_are_not() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let url = "https://a.example.com/";
    for version in ["1.2", "1.3"] {
        let flag = format!("--tlsv{version}");
        let call = edge.curl(url)?.args([flag.as_str(), "--tls-max", version]);
        assert_eq!(call.run(edge.client())?.status, 200, "TLS {version}");
    }
    let old = edge.curl(url)?;
    let old = old.args([
        "--tlsv1.0",
        "--tls-max",
        "1.1",
        "--ciphers",
        "DEFAULT@SECLEVEL=0",
    ]);
    assert!(old.run(edge.client()).is_err(), "TLS 1.1 is spoken");
    Ok(())
}

#[test]
fn a_ticket_of_one_name_does_not_open_another_listener() -> Result<()> {
    let edge = Edge::plan(Mode::Native).args(["--workers", "1"]).start()?;
    let config = edge.client_config(&["http/1.1"])?;
    // A client's session store is by name, so resumption is seen with the same one.
    for _ in 0..3 {
        let mut raw =
            Raw::connect_tls(edge.client(), edge.at(443), "a.example.com", config.clone())?;
        let answer = raw.ask("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")?;
        assert_eq!(answer.status, 200);
        let answer = raw.ask("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n")?;
        assert_eq!(answer.status, 421, "after a resumption too");
    }
    Ok(())
}
