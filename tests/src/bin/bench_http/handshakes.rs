//! A client that makes a TLS 1.3 connection for each request, with a full handshake every time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::load::Seen;

/// Keeps `connections` requests going for `seconds`; prints what it saw as JSON.
pub fn run(
    address: SocketAddr,
    path: &str,
    connections: usize,
    seconds: u64,
) -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(config()?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let (mut micros, mut failed) = (Vec::new(), 0);
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(client(connector.clone(), address, head.clone(), deadline));
        }
        for (seen, bad) in tasks.join_all().await {
            micros.extend(seen);
            failed += bad;
        }
    });
    micros.sort_unstable();
    let at = |share: f64| {
        micros
            .get((micros.len() as f64 * share) as usize)
            .map(|us| f64::from(*us))
    };
    let seen = Seen {
        answered: micros.len() as u64,
        failed,
        p50_us: at(0.5),
        p99_us: at(0.99),
    };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// One request after the other: the microseconds of each that was answered, and how many were not.
async fn client(
    connector: TlsConnector,
    address: SocketAddr,
    head: String,
    deadline: Instant,
) -> (Vec<u32>, u64) {
    let (mut micros, mut failed) = (Vec::new(), 0);
    while Instant::now() < deadline {
        let started = Instant::now();
        match tokio::time::timeout(Duration::from_secs(5), request(&connector, address, &head))
            .await
        {
            Ok(Ok(())) => {
                micros.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(Err(_)) | Err(_) => failed += 1,
        }
    }
    (micros, failed)
}

async fn request(connector: &TlsConnector, address: SocketAddr, head: &str) -> anyhow::Result<()> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("bench.test").context("a host name")?;
    let mut stream = connector.connect(name, socket).await?;
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    match stream.read_to_end(&mut answer).await {
        // Some peers close without close_notify; the length below says whether all came.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => {}
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "not 200");
    ensure!(answer.ends_with(b"xxxxxxxx"), "cut short");
    Ok(())
}

/// TLS 1.3, AES-128-GCM, X25519, no resumption: the same work for every peer.
fn config() -> anyhow::Result<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Believes every certificate: the client's own work would only take from the core it shares with the backend.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
