//! Certificates of the run: each end that terminates has a CA of its own, and a client trusts only
//! the one that it should meet, so that no contender can pass by not terminating.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::traffic::{API_HOST, OTHER_HOST};

/// ALPN of HTTP/1.1.
pub(crate) const HTTP1: &[u8] = b"http/1.1";
/// ALPN of HTTP/2.
pub(crate) const HTTP2: &[u8] = b"h2";

/// Files of one CA and the leaf that it signed for both hosts.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Identity {
    /// The leaf certificate, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    key: PathBuf,
}

impl Identity {
    /// Makes a CA and a leaf (ECDSA P-256 both, as providers and Weir have) named `name` in `dir`,
    /// and returns the leaf's files and the CA's.
    pub(crate) fn create(dir: &Path, name: &str) -> anyhow::Result<(Self, PathBuf)> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, name);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new([API_HOST.to_owned(), OTHER_HOST.to_owned()])?;
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &issuer)?;

        let file = |part: &str| dir.join(format!("{name}-{part}.pem"));
        let identity = Self {
            certificate: file("certificate"),
            key: file("key"),
        };
        std::fs::write(&identity.certificate, leaf.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        std::fs::write(file("ca"), ca_certificate.pem())?;
        Ok((identity, file("ca")))
    }

    /// The command line from which [`Identity`] is read again.
    pub(crate) fn arguments(&self) -> Vec<std::ffi::OsString> {
        let (certificate, key) = (self.certificate.clone(), self.key.clone());
        vec![
            "--certificate".into(),
            certificate.into(),
            "--key".into(),
            key.into(),
        ]
    }

    pub(crate) fn server_config(&self, alpn: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
        let certificates =
            CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, PrivateKeyDer::from_pem_file(&self.key)?)?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// Trusts only the CA in the file `ca`. Sessions are resumed as rustls does by default, or never.
pub(crate) fn client_config(
    ca: &Path,
    alpn: &[u8],
    resumption: Option<Resumption>,
) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca)
        .with_context(|| format!("expected a CA certificate in {}", ca.display()))?;
    for certificate in certificates {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    if let Some(resumption) = resumption {
        config.resumption = resumption;
    }
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
