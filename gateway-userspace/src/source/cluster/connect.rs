//! Where the API server is and how to speak to it: one HTTP/2 connection for all watches, whose
//! pings find out within seconds that the other side is gone or does not answer any more, and one for
//! all that is written, so that no event waits behind an answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_rustls::FixedServerNameResolver;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls_pki_types::ServerName;
use tower::{BoxError, ServiceBuilder};

/// How often the connection is asked whether it lives, and how long it may take to answer.
const PING: Duration = Duration::from_secs(10);
/// How much of a list may be under way unread: what is read late is memory.
const STREAM_WINDOW: u32 = 128 * 1024;
/// As [`STREAM_WINDOW`], for all kinds together.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A way to an API server.
#[derive(Clone)]
pub struct Access {
    /// Speaks to it. Failures come back at once: nothing is tried again below.
    pub client: Client,
    /// The same by another connection, for statuses and Leases.
    pub clerks: Client,
    /// Its URL.
    pub server: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where one is.
    #[error(
        "nothing to serve: this is no Pod, and there is no kubeconfig; give --manifests DIR to \
         serve files, or --kubeconfig FILE to follow a cluster"
    )]
    Nowhere,
    /// The Pod's own account cannot be used.
    #[error("the Pod's service account cannot be used")]
    InCluster(#[source] kube::config::InClusterError),
    /// A kubeconfig cannot be used.
    #[error("kubeconfig {} cannot be used", .0.display())]
    Kubeconfig(PathBuf, #[source] kube::config::KubeconfigError),
    /// The credentials cannot be used.
    #[error("the credentials for {0} cannot be used")]
    Credentials(String, #[source] kube::Error),
}

/// Finds the API server: a kubeconfig that is named, else the Pod's own, else `$KUBECONFIG`.
/// Nothing is sent to it yet.
///
/// # Errors
/// Nothing says where it is, or what does cannot be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Access, ConnectError> {
    let config = config(kubeconfig).await?;
    let server = config.cluster_url.to_string();
    let server = server.trim_end_matches('/').to_owned();
    let connection =
        |config| client(config).map_err(|error| ConnectError::Credentials(server.clone(), error));
    Ok(Access {
        client: connection(config.clone())?,
        clerks: connection(config)?,
        server,
    })
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config, ConnectError> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let options = KubeConfigOptions::default();
    if let Some(path) = kubeconfig {
        let failed = |error| ConnectError::Kubeconfig(path.to_owned(), error);
        let file = Kubeconfig::read_from(path).map_err(failed)?;
        return Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(failed);
    }
    if is_set("KUBERNETES_SERVICE_HOST") {
        return Config::incluster().map_err(ConnectError::InCluster);
    }
    if is_set("KUBECONFIG") {
        let path = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let failed = |error| ConnectError::Kubeconfig(path.into(), error);
        return Config::from_kubeconfig(&options).await.map_err(failed);
    }
    Err(ConnectError::Nowhere)
}

/// Speaks to the API server that a configuration names.
///
/// # Errors
/// The credentials cannot be used.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    let tls = config.rustls_client_config()?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(PING));
    http.set_keepalive_interval(Some(PING));
    http.set_keepalive_retries(Some(2));
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls);
    let builder = match &config.tls_server_name {
        Some(name) => {
            let name = ServerName::try_from(name.clone())
                .map_err(|e| kube::Error::Service(BoxError::from(e)))?;
            builder
                .https_or_http()
                .with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => builder.https_or_http(),
    };
    let connector = builder.enable_all_versions().wrap_connector(http);
    let transport: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(Client::new(service, config.default_namespace))
}
