//! Certificates made for a test, and clients that trust them.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_model::ir::{Certificate, PrivateKey};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate authority of one test.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            root,
        }
    }

    /// One of several that have the same name and serial number.
    pub fn twin() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.serial_number = Some(1.into());
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            root,
        }
    }

    /// A client that trusts this authority, offers these protocols and shows this certificate.
    pub fn client_showing(
        &self,
        protocols: &[&str],
        certificate: &Certificate,
    ) -> Arc<ClientConfig> {
        let PrivateKey::Pkcs8(key) = &certificate.private_key else {
            unreachable!()
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(
                vec![CertificateDer::from(certificate.chain[0].to_vec())],
                PrivateKeyDer::Pkcs8(key.to_vec().into()),
            )
            .unwrap();
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        Arc::new(config)
    }

    /// A certificate for these names.
    pub fn issue(&self, names: &[&str]) -> Arc<Certificate> {
        self.issue_for(names, &[])
    }

    fn issue_for(&self, names: &[&str], uris: &[&str]) -> Arc<Certificate> {
        let key = rcgen::KeyPair::generate().unwrap();
        let presented = names.iter().map(|name| Arc::from(*name)).collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        for uri in uris {
            let uri = rcgen::SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Arc::new(Certificate {
            chain: vec![certificate.der().to_vec().into()],
            private_key: PrivateKey::Pkcs8(key.serialize_der().into()),
            not_before: 0,
            not_after: i64::MAX,
            names: presented,
            has_common_name_only: false,
        })
    }

    /// A client that trusts this authority and puts this cipher suite first.
    pub fn client_preferring(&self, first: CipherSuite) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != first);
        Arc::new(self.config(provider))
    }

    /// A client that names no server.
    pub fn nameless_client(&self) -> Arc<ClientConfig> {
        let mut config = self.config(aws_lc_rs::default_provider());
        config.enable_sni = false;
        Arc::new(config)
    }

    /// A client whose records hold so many bytes at most.
    pub fn client_in_records_of(&self, bytes: usize) -> Arc<ClientConfig> {
        let mut config = self.config(aws_lc_rs::default_provider());
        config.max_fragment_size = Some(bytes);
        Arc::new(config)
    }

    /// The authority's own certificate.
    pub fn der(&self) -> Arc<[u8]> {
        self.root.to_vec().into()
    }

    /// What believes this authority alone.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(roots)
    }

    /// A server with a certificate for these names.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server_offering(names, &[])
    }

    /// The same with these protocols.
    pub fn server_offering(&self, names: &[&str], protocols: &[&str]) -> Arc<ServerConfig> {
        let mut config = server_config(&self.issue(names), None);
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        Arc::new(config)
    }

    /// The same with names that are URIs.
    pub fn server_named(&self, names: &[&str], uris: &[&str]) -> Arc<ServerConfig> {
        Arc::new(server_config(&self.issue_for(names, uris), None))
    }

    /// The same, asking for certificates.
    pub fn server_verifying(
        &self,
        names: &[&str],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Arc<ServerConfig> {
        Arc::new(server_config(&self.issue(names), Some(verifier)))
    }

    /// A certificate that is its own authority, and a server with it.
    pub fn alone(name: &str) -> (Arc<[u8]>, Arc<ServerConfig>) {
        let certificate = Self::self_signed(name);
        let der = Arc::clone(&certificate.chain[0]);
        (der, Arc::new(server_config(&certificate, None)))
    }

    /// A certificate that is its own authority.
    pub fn self_signed(name: &str) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let der: Arc<[u8]> = params.self_signed(&key).unwrap().der().to_vec().into();
        Certificate {
            chain: vec![der],
            private_key: PrivateKey::Pkcs8(key.serialize_der().into()),
            not_before: 0,
            not_after: i64::MAX,
            names: Vec::new(),
            has_common_name_only: true,
        }
    }

    fn config(&self, provider: CryptoProvider) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A client that trusts this authority and offers these protocols.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut config = self.config(aws_lc_rs::default_provider());
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    }
}

fn server_config(
    certificate: &Certificate,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> ServerConfig {
    let PrivateKey::Pkcs8(key) = &certificate.private_key else {
        unreachable!()
    };
    let chain = vec![CertificateDer::from(certificate.chain[0].to_vec())];
    let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match verifier {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    config.with_single_cert(chain, key).unwrap()
}

/// A TLS connection for a server name.
pub async fn tls_connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
}
