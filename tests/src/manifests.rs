//! Manifests as tests write them: short functions for the common objects, and a directory to put
//! them in the way editors do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::certs::Identity;

/// A directory of manifests.
#[derive(Clone, Debug)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// Makes an empty directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file as most editors and all careful programs do: a new one, renamed over the old.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, documents: &[String]) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let new = path.with_extension("tmp~");
        std::fs::write(&new, documents.join("---\n"))?;
        std::fs::rename(&new, &path).with_context(|| path.display().to_string())
    }

    /// Writes a file in place, as `cp` and `echo >` do.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn overwrite(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::remove_file(&path).with_context(|| path.display().to_string())
    }
}

/// A Gateway `default/edge` of class `sluice` that takes routes from every namespace.
/// `listeners` is YAML for `spec.listeners`, with two spaces before each dash.
#[must_use]
pub fn gateway(addresses: &[&str], listeners: &str) -> String {
    let addresses: String = match addresses {
        [] => String::new(),
        some => {
            let lines = some
                .iter()
                .map(|a| format!("  - type: IPAddress\n    value: \"{a}\"\n"));
            std::iter::once("  addresses:\n".to_owned())
                .chain(lines)
                .collect()
        }
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: edge\n  \
         namespace: default\nspec:\n  gatewayClassName: sluice\n{addresses}  listeners:\n{listeners}"
    )
}

/// An HTTP listener for every host, as YAML for [`gateway`].
#[must_use]
pub fn http_listener(name: &str, port: u16) -> String {
    format!(
        "  - name: {name}\n    port: {port}\n    protocol: HTTP\n    \
         allowedRoutes: {{namespaces: {{from: All}}}}\n"
    )
}

/// An HTTPS listener with the certificate of a Secret of the same namespace, as YAML for [`gateway`].
#[must_use]
pub fn https_listener(name: &str, port: u16, hostname: Option<&str>, secret: &str) -> String {
    let hostname = hostname
        .map(|h| format!("    hostname: \"{h}\"\n"))
        .unwrap_or_default();
    format!(
        "  - name: {name}\n    port: {port}\n    protocol: HTTPS\n{hostname}    \
         allowedRoutes: {{namespaces: {{from: All}}}}\n    \
         tls: {{mode: Terminate, certificateRefs: [{{name: {secret}}}]}}\n"
    )
}

/// A Service `default/NAME` with port 80 and these addresses behind it.
#[must_use]
pub fn service(name: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  \
         annotations:\n    sluice.dev/endpoints: \"{}\"\nspec:\n  ports:\n  - port: 80\n",
        endpoints.join(",")
    )
}

/// An HTTPRoute `default/NAME` below the Gateway `edge`. `rules` is YAML for `spec.rules`, with
/// two spaces before each dash.
#[must_use]
pub fn route(name: &str, hostnames: &[&str], rules: &str) -> String {
    let hostnames = match hostnames {
        [] => String::new(),
        some => format!("  hostnames: {some:?}\n"),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: {name}\n  \
         namespace: default\nspec:\n  parentRefs: [{{name: edge}}]\n{hostnames}  rules:\n{rules}"
    )
}

/// A rule that sends everything to one Service, as YAML for [`route`].
#[must_use]
pub fn forward(service: &str) -> String {
    format!("  - backendRefs: [{{name: {service}, port: 80}}]\n")
}

/// A Secret `default/NAME` with a certificate.
#[must_use]
pub fn tls_secret(name: &str, identity: &Identity) -> String {
    let indent =
        |text: &str| -> String { text.lines().map(|line| format!("    {line}\n")).collect() };
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: default\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(&identity.certificate),
        indent(&identity.key)
    )
}
