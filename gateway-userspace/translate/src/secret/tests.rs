//! What a Secret may hold, and how what it may not hold is spoken of.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;

type Data = BTreeMap<Arc<str>, Arc<[u8]>>;

fn data(entries: &[(&str, &str)]) -> Data {
    let entry = |(name, text): &(&str, &str)| ((*name).into(), text.as_bytes().into());
    entries.iter().map(entry).collect()
}

fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let names = vec!["A.example.com".to_owned(), "*.example.org".to_owned()];
    let params = rcgen::CertificateParams::new(names).expect("parameters");
    let cert = params.self_signed(&key).expect("a certificate");
    (cert.pem(), key.serialize_pem())
}

#[test]
fn every_kind_of_key_is_read() {
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ] {
        let (cert, key) = pair(algorithm);
        let parsed = parse(&data(&[("tls.crt", &cert), ("tls.key", &key)]));
        let certificate = parsed.expect("a certificate");
        let names: Vec<_> = certificate.names.iter().map(|n| &**n).collect();
        assert_eq!(names, ["a.example.com", "*.example.org"]);
        assert!(matches!(certificate.private_key, PrivateKey::Pkcs8(_)));
        assert!(!certificate.has_common_name_only);
    }
}

#[test]
fn without_alternative_names_the_common_name_is_shown() {
    let key = KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    let common = rcgen::DnType::CommonName;
    params.distinguished_name.push(common, "Old.example.com");
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    let cert = params.self_signed(&key).expect("a certificate").pem();
    let parsed = parse(&data(&[
        ("tls.crt", &cert),
        ("tls.key", &key.serialize_pem()),
    ]));
    let certificate = parsed.expect("a certificate");
    assert_eq!(certificate.names, ["old.example.com".into()]);
    assert!(certificate.has_common_name_only);
    assert_eq!(certificate.not_before, 1_767_225_600);
}

#[test]
fn the_keys_of_the_type_kubernetes_tls_come_first() {
    let (first, key) = pair(&PKCS_ED25519);
    let certificate = parse(&data(&[
        ("tls.crt", &first),
        ("tls.key", &key),
        ("cert", "nonsense"),
        ("key", "nonsense"),
    ]));
    assert!(certificate.is_ok());
}

#[test]
fn a_fault_says_which_entry_and_what_would_help() {
    let (cert, key) = pair(&PKCS_ED25519);
    let (_, other) = pair(&PKCS_ED25519);
    let broken = cert.replace("-----END", "----END");
    for (entries, expected) in [
        (vec![], "neither tls.crt and tls.key nor cert and key"),
        (vec![("tls.crt", cert.as_str())], "tls.key is missing"),
        (vec![("key", &key)], "cert is missing"),
        (
            vec![("tls.crt", &broken), ("tls.key", &key)],
            "tls.crt is not PEM",
        ),
        (
            vec![("tls.crt", &key), ("tls.key", &key)],
            "no BEGIN CERTIFICATE",
        ),
        (
            vec![("tls.crt", &cert), ("tls.key", &cert)],
            "no BEGIN PRIVATE KEY",
        ),
        (
            vec![("tls.crt", &cert), ("tls.key", &other)],
            "does not belong to",
        ),
    ] {
        let fault = parse(&data(&entries)).expect_err(expected).to_string();
        assert!(fault.contains(expected), "{fault} / {expected}");
    }
}

#[test]
fn a_certificate_that_is_no_certificate_is_a_fault() {
    let (cert, key) = pair(&PKCS_ED25519);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in [garbage.to_owned(), format!("{garbage}{cert}")] {
        assert!(parse(&data(&[("tls.crt", &text), ("tls.key", &key)])).is_err());
    }
}
