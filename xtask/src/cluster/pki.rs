//! Keys and certificates of a cluster, made by `openssl`, and the kubeconfigs that carry them.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::lab::{API_PORT, Lab, ROUTER4, ROUTER6, SERVICE4};
use super::succeed_quietly;

/// Makes the authority, the control plane's certificates and the key of service accounts.
pub fn make(lab: &Lab) -> anyhow::Result<()> {
    let dir = lab.pki("");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let mut authority = openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=sluice-lab",
    );
    authority.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
    succeed_quietly(
        authority
            .arg("-keyout")
            .arg(lab.pki("ca.key"))
            .arg("-out")
            .arg(lab.pki("ca.crt")),
    )?;
    let names = format!(
        "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
         DNS:localhost,IP:127.0.0.1,IP:{SERVICE4},IP:{ROUTER4},IP:{ROUTER6}"
    );
    certificate(lab, "apiserver", "/CN=kube-apiserver", &names)?;
    succeed_quietly(
        openssl("genrsa")
            .arg("-out")
            .arg(lab.pki("sa.key"))
            .arg("2048"),
    )?;
    let mut public = openssl("rsa -pubout");
    succeed_quietly(
        public
            .arg("-in")
            .arg(lab.pki("sa.key"))
            .arg("-out")
            .arg(lab.pki("sa.pub")),
    )?;
    client(lab, "admin", "/O=system:masters/CN=admin", &lab.kubeconfig)?;
    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        client(
            lab,
            name,
            &format!("/CN=system:{name}"),
            &lab.pki(&format!("{name}.conf")),
        )?;
    }
    Ok(())
}

/// Makes a client's certificate and its kubeconfig, which carries everything it needs.
pub fn client(lab: &Lab, name: &str, subject: &str, kubeconfig: &Path) -> anyhow::Result<()> {
    certificate(lab, name, subject, "extendedKeyUsage=clientAuth")?;
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sluice-lab",
        "contexts": [{"name": "sluice-lab", "context": {"cluster": "sluice-lab", "user": name}}],
        "clusters": [{"name": "sluice-lab", "cluster": {
            "server": format!("https://{ROUTER4}:{API_PORT}"),
            "certificate-authority-data": base64(&lab.pki("ca.crt"))?,
        }}],
        "users": [{"name": name, "user": {
            "client-certificate-data": base64(&lab.pki(&format!("{name}.crt")))?,
            "client-key-data": base64(&lab.pki(&format!("{name}.key")))?,
        }}],
    });
    std::fs::write(kubeconfig, serde_json::to_vec_pretty(&text)?)
        .with_context(|| kubeconfig.display().to_string())
}

fn certificate(lab: &Lab, name: &str, subject: &str, extension: &str) -> anyhow::Result<()> {
    let file = |kind: &str| lab.pki(&format!("{name}.{kind}"));
    let mut issue =
        openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365");
    issue.args([
        "-subj",
        subject,
        "-addext",
        extension,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    issue
        .arg("-CA")
        .arg(lab.pki("ca.crt"))
        .arg("-CAkey")
        .arg(lab.pki("ca.key"));
    succeed_quietly(
        issue
            .arg("-keyout")
            .arg(file("key"))
            .arg("-out")
            .arg(file("crt")),
    )
    .map(drop)
}

fn base64(file: &Path) -> anyhow::Result<String> {
    let output = succeed_quietly(openssl("base64 -A").arg("-in").arg(file))?;
    Ok(String::from_utf8(output)?)
}

fn openssl(arguments: &str) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split(' '));
    openssl
}
