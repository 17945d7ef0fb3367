//! What is valid and hardly meant is told, once, and what is meant is not.

use super::*;
use crate::cli::load;
use crate::cli::tests::{now, params, secret_of};

/// A Gateway `shop/web` with these listeners, each in flow style.
fn gateway(listeners: &[&str]) -> String {
    let listeners: String = listeners.iter().map(|l| format!("  - {{{l}}}\n")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: web, namespace: shop}}\n\
         spec:\n  gatewayClassName: sluice\n  listeners:\n{listeners}"
    )
}

fn tls(name: &str, hostname: Option<&str>, secrets: &[&str]) -> String {
    let hostname = hostname.map_or_else(String::new, |name| format!("hostname: '{name}', "));
    let secrets: Vec<_> = secrets.iter().map(|s| format!("{{name: {s}}}")).collect();
    format!(
        "name: {name}, port: 443, protocol: HTTPS, {hostname}tls: {{certificateRefs: [{}]}}",
        secrets.join(", ")
    )
}

/// An HTTPRoute of all listeners to Services, each with a weight.
fn route(name: &str, hostnames: &str, backends: &[(&str, u32)]) -> String {
    let backends = backends.iter();
    let backends =
        backends.map(|(name, weight)| format!("{{name: {name}, port: 80, weight: {weight}}}"));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  parentRefs: [{{name: web}}]\n  hostnames: [{hostnames}]\n  rules:\n  - backendRefs: [{}]\n",
        backends.collect::<Vec<_>>().join(", ")
    )
}

/// A Service `shop/NAME` with a port that is called `http`.
fn service(name: &str, endpoints: &str) -> String {
    let annotations = match endpoints {
        "" => String::new(),
        list => format!(", annotations: {{sluice.dev/endpoints: '{list}'}}"),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop{annotations}}}\n\
         spec: {{ports: [{{name: http, port: 80}}]}}\n"
    )
}

/// A slice of a Service with one endpoint.
fn slice(service: &str, port: &str, is_ready: bool) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         ports: [{{name: {port}, port: 8080}}]\n\
         endpoints: [{{addresses: [10.0.0.1], conditions: {{ready: {is_ready}}}}}]\n"
    )
}

/// What is said of these documents, all of it warnings.
fn warnings(documents: &[String]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("tempdir");
    let text = documents.join("---\n");
    std::fs::write(dir.path().join("all.yaml"), &text).expect("written");
    let issues = issues(&load(dir.path()).expect("loads"), now());
    let warning = |issue: Issue| {
        assert_eq!(issue.severity, Severity::Warning, "{}\n{text}", issue.text);
        issue.text
    };
    issues.into_iter().map(warning).collect()
}

/// One HTTPS listener, its certificate, and a route with these hostnames.
fn with_certificate(
    hostname: Option<&str>,
    params: &rcgen::CertificateParams,
    hostnames: &str,
) -> Vec<String> {
    warnings(&[
        gateway(&[&tls("https", hostname, &["site"])]),
        secret_of("shop", "site", params),
        route("all", hostnames, &[("app", 1)]),
        service("app", "10.0.0.1"),
    ])
}

#[test]
fn a_certificate_for_other_names_is_told_with_all_names() {
    let prefix = "listener shop/web#https: the certificate of Secret shop/site is for ";
    for (hostname, certificate, hostnames, expected) in [
        (
            Some("shop.example.com"),
            &["www.example.com", "example.com"][..],
            "",
            "www.example.com, example.com, not for shop.example.com:",
        ),
        (
            Some("*.example.com"),
            &["*.example.com"],
            "a.b.example.com, c.example.com",
            "*.example.com, not for a.b.example.com:",
        ),
        (
            None,
            &["a.example.com"],
            "a.example.com, b.example.com, '*.example.org'",
            "a.example.com, not for *.example.org, b.example.com:",
        ),
        (
            Some("a.example.com"),
            &["b.example.com"],
            "'*.example.com'",
            "b.example.com, not for a.example.com:",
        ),
    ] {
        let said = with_certificate(hostname, &params(certificate), hostnames);
        let [text] = &said[..] else {
            panic!("{said:?} / {expected}")
        };
        assert!(text.starts_with(&format!("{prefix}{expected}")), "{text}");
    }
}

#[test]
fn a_certificate_for_what_is_served_is_no_matter() {
    for (hostname, certificate, hostnames) in [
        (None, "whatever.example", ""),
        (Some("shop.example.com"), "SHOP.example.com", ""),
        (Some("shop.example.com"), "*.example.com", ""),
        (Some("*.example.com"), "shop.example.com", ""),
        (
            Some("*.example.com"),
            "shop.example.com",
            "shop.example.com",
        ),
        (None, "*.example.com", "shop.example.com, '*.example.com'"),
    ] {
        let said = with_certificate(hostname, &params(&[certificate]), hostnames);
        assert!(said.is_empty(), "{said:?}");
    }
}

#[test]
fn a_common_name_is_no_name() {
    let mut params = params(&[]);
    let common = rcgen::DnType::CommonName;
    params.distinguished_name.push(common, "shop.example.com");
    let said = with_certificate(Some("shop.example.com"), &params, "");
    assert!(
        said.len() == 1 && said[0].contains("subjectAltName"),
        "{said:?}"
    );
}

#[test]
fn what_a_more_specific_listener_takes_needs_no_certificate_of_another() {
    let mut said = warnings(&[
        gateway(&[
            &tls("default", None, &["fallback"]),
            &tls("wild", Some("*.example.com"), &["wild"]),
            &tls("shop", Some("shop.example.com"), &["shop"]),
        ]),
        secret_of("shop", "fallback", &params(&["fallback.example"])),
        secret_of("shop", "wild", &params(&["*.example.com"])),
        secret_of("shop", "shop", &params(&["shop.example.com"])),
        route(
            "all",
            "shop.example.com, other.example.com, fallback.example",
            &[("app", 1)],
        ),
        service("app", "10.0.0.1"),
    ]);
    // That they overlap is a condition, which is told as before.
    said.retain(|text| !text.contains("OverlappingHostnames"));
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn of_several_certificates_one_must_do() {
    let said = |hostnames: &str| {
        warnings(&[
            gateway(&[&tls("https", None, &["a", "b"])]),
            secret_of("shop", "a", &params(&["a.example.com"])),
            secret_of("shop", "b", &params(&["b.example.com"])),
            route("all", hostnames, &[("app", 1)]),
            service("app", "10.0.0.1"),
        ])
    };
    assert_eq!(
        said("a.example.com, b.example.com, c.example.com"),
        [
            "listener shop/web#https: the certificate of Secret shop/a is for a.example.com, that of Secret shop/b \
             is for b.example.com, none for c.example.com: clients that ask for it by that name refuse it"
        ]
    );
    assert!(said("a.example.com, b.example.com").is_empty());
}

#[test]
fn a_certificate_out_of_its_time_is_told() {
    let dated = |from: (i32, u8, u8), to: (i32, u8, u8)| {
        let mut params = params(&["shop.example.com"]);
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        with_certificate(Some("shop.example.com"), &params, "")
    };
    for (from, to, expected) in [
        ((2026, 1, 1), (2027, 1, 10), "expired 5d 8h ago"),
        ((2026, 1, 1), (2027, 1, 20), "expires in 4d"),
        (
            (2027, 1, 16),
            (2028, 1, 1),
            "is not valid before 2027-01-16T00:00:00Z",
        ),
    ] {
        let said = dated(from, to);
        let text = format!("Secret shop/site: the certificate {expected}");
        assert_eq!(said, [text]);
    }
    assert!(dated((2027, 1, 15), (2027, 2, 1)).is_empty());
}

#[test]
fn a_rule_without_an_address_is_told_with_its_part_and_the_fix() {
    let http = "name: http, port: 80, protocol: HTTP";
    let said = |backends: &[(&str, u32)], services: &[String]| {
        let mut documents = vec![gateway(&[http]), route("all", "", backends)];
        documents.extend_from_slice(services);
        warnings(&documents)
    };
    let nowhere = said(&[("app", 1)], &[service("app", "")]);
    assert!(
        nowhere.len() == 1
            && nowhere[0].starts_with(
                "HTTPRoute shop/all rule 0: requests get 503: Service shop/app has no EndpointSlice; \
                 say where it is with the annotation sluice.dev/endpoints: \""
            ),
        "{nowhere:?}"
    );
    let other_port = said(
        &[("app", 1)],
        &[service("app", ""), slice("app", "web", true)],
    );
    assert_eq!(
        other_port,
        [
            "HTTPRoute shop/all rule 0: requests get 503: Service shop/app port 80 has no endpoint: its \
             EndpointSlices have no port \"http\" (TCP); they have \"web\" (TCP); mend them, or use the annotation \
             sluice.dev/endpoints"
        ]
    );
    let idle = [
        service("app", ""),
        slice("app", "http", false),
        service("old", "10.0.0.1"),
    ];
    let part = said(&[("old", 9), ("app", 1)], &idle);
    assert!(
        part.len() == 1
            && part[0].contains("rule 0: 10% of requests get 503: ")
            && part[0].contains("hold 1, and none is ready"),
        "{part:?}"
    );
    // Not yet in use, or an address is there.
    assert!(said(&[("old", 1), ("app", 0)], &idle).is_empty());
    let served = [service("app", ""), slice("app", "http", true)];
    assert!(said(&[("app", 1)], &served).is_empty());
}

#[test]
fn a_mirror_to_nowhere_is_told() {
    let mirror = "  - filters:\n    - {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}}\n    \
                  backendRefs: [{name: app, port: 80}]\n";
    let said = |endpoints: &str| {
        let route = route("all", "", &[]).replace("  - backendRefs: []\n", mirror);
        assert!(route.contains("copy"), "{route}");
        warnings(&[
            gateway(&["name: http, port: 80, protocol: HTTP"]),
            route,
            service("app", "10.0.0.1"),
            service("copy", endpoints),
        ])
    };
    let nowhere = said("");
    assert!(
        nowhere.len() == 1
            && nowhere[0].starts_with(
                "HTTPRoute shop/all rule 0: copies go nowhere: Service shop/copy has no EndpointSlice;"
            ),
        "{nowhere:?}"
    );
    assert!(said("10.0.0.2").is_empty());
}

#[test]
fn a_directory_that_brings_its_pods_needs_no_addresses() {
    let pods = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app, namespace: shop}\n\
                spec: {template: {spec: {containers: [{name: app, image: app}]}}}\n";
    let said = warnings(&[
        gateway(&["name: http, port: 80, protocol: HTTP"]),
        route("all", "", &[("app", 1)]),
        service("app", ""),
        pods.to_owned(),
    ]);
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_hostname_that_no_listener_has_is_told_beside_others() {
    let said = warnings(&[
        gateway(&["name: http, port: 80, protocol: HTTP, hostname: '*.example.com'"]),
        route("all", "shop.example.com, shop.example.org", &[("app", 1)]),
        service("app", "10.0.0.1"),
    ]);
    assert_eq!(
        said,
        [
            "HTTPRoute shop/all: hostname shop.example.org falls under no hostname of its parents' listeners; \
             it is not served"
        ]
    );
}
