//! Where a PostgreSQL ledger is, as whom, and how its server is verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::LedgerError;
use super::{failed, schema};

/// A database of a server.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Target {
    config: Config,
    /// None where the connection is not encrypted: to a socket, or because that was asked for.
    tls: Option<ClientConfig>,
    /// For messages: without the password.
    pub(super) name: String,
}

impl Target {
    /// Reads `postgres://user@host:port/database?sslmode=…&sslrootcert=…`, with the password from
    /// there, a file, or `PGPASSWORD`, in this order.
    ///
    /// Everything but a Unix socket is encrypted and the server's name verified, unless
    /// `sslmode=disable` says otherwise.
    pub(in crate::ledger) fn parse(
        url: &str,
        password_file: Option<&Path>,
    ) -> Result<Self, LedgerError> {
        let wrong = |reason: String| LedgerError::PostgresUrl { reason };
        let (mut config, ssl) = settings(url).map_err(wrong)?;
        if let Some(path) = password_file {
            let password = std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("password_file {}: {error}", path.display())))?;
            config.password(password.trim_end_matches(['\n', '\r']));
        } else if config.get_password().is_none()
            && let Ok(password) = std::env::var("PGPASSWORD")
        {
            config.password(password);
        }
        config
            .application_name("weir")
            .connect_timeout(CONNECT_WAIT);
        config
            .keepalives_idle(KEEPALIVE)
            .tcp_user_timeout(KEEPALIVE);
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        let plain = ssl.is_disabled || config.get_hosts().iter().all(is_socket);
        let tls = if plain {
            config.ssl_mode(SslMode::Disable);
            None
        } else {
            config.ssl_mode(SslMode::Require);
            Some(client_config(ssl.roots.as_deref())?)
        };
        let name = name(&config);
        Ok(Self { config, tls, name })
    }

    /// Whether a URL is one of a database, whatever the files that it names.
    pub(in crate::ledger) fn check_url(url: &str) -> Result<(), LedgerError> {
        let checked = settings(url).map(drop);
        checked.map_err(|reason| LedgerError::PostgresUrl { reason })
    }

    /// A new connection, behind which are the tables of this version.
    pub(super) async fn connect(&self) -> Result<Client, LedgerError> {
        let refused = |error: tokio_postgres::Error| failed(&self.name, &error);
        let mut client = match &self.tls {
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls.clone());
                let (client, connection) = self.config.connect(tls).await.map_err(refused)?;
                drive(connection);
                client
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(refused)?;
                drive(connection);
                client
            }
        };
        match schema::migrate(&mut client).await {
            Ok(()) => Ok(client),
            Err(schema::Trouble::Postgres(error)) => Err(refused(error)),
            Err(schema::Trouble::Sqlite(error)) => Err(error),
            Err(schema::Trouble::Version(reason)) => Err(LedgerError::Schema {
                path: PathBuf::from(&self.name),
                reason,
            }),
        }
    }
}

fn drive<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    // It ends with the client. What went wrong is told to whoever asks something next.
    tokio::spawn(async move { drop(connection.await) });
}

#[derive(Debug, Default)]
struct Ssl {
    is_disabled: bool,
    roots: Option<PathBuf>,
}

/// What a URL says, or what is wrong with it.
fn settings(url: &str) -> Result<(Config, Ssl), String> {
    let (url, ssl) = without_ssl(url)?;
    // What it says does not repeat the URL, in which a password may be.
    let config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        source.unwrap_or_else(|| error.to_string())
    })?;
    if config.get_hosts().is_empty() {
        return Err("it names no host".to_owned());
    }
    if config.get_user().is_none() {
        return Err("it names no user".to_owned());
    }
    Ok((config, ssl))
}

/// Takes out what is about encryption: the client's own modes do not verify the server.
fn without_ssl(url: &str) -> Result<(String, Ssl), String> {
    let mut ssl = Ssl::default();
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), ssl));
    };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", "disable")) => ssl.is_disabled = true,
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => {}
            Some(("sslmode", other)) => {
                return Err(format!(
                    "sslmode is {other:?}: expected disable or verify-full, since the others do \
                     not keep anybody out"
                ));
            }
            Some(("sslrootcert", path)) => ssl.roots = Some(PathBuf::from(path)),
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    Ok((url, ssl))
}

fn client_config(roots: Option<&Path>) -> Result<ClientConfig, LedgerError> {
    let wrong = |reason: String| LedgerError::PostgresUrl { reason };
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let read = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(format!("sslrootcert {}: {error}", path.display())))?;
            if store.add_parsable_certificates(read).0 == 0 {
                let reason = format!("sslrootcert {}: no certificate in it", path.display());
                return Err(wrong(reason));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

/// `postgres://user@host:port/database`
fn name(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => String::new(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    format!("postgres://{user}@{host}:{port}/{database}")
}

/// How long a server may take to let a connection in.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long a connection may be silent before it is asked, or what was sent unacknowledged.
const KEEPALIVE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str) {
        let found = match Target::parse(url, None) {
            Ok(target) => format!("{} tls={}", target.name, target.tls.is_some()),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{url}: {found}");
    }

    #[test]
    fn a_server_is_verified_unless_it_is_said_that_it_is_not() {
        check(
            "postgres://w:secret@db.example/x",
            "postgres://w@db.example:5432/x tls=true",
        );
        check(
            "postgres://w@db.example:1/x?sslmode=disable",
            "w@db.example:1/x tls=false",
        );
        check(
            "postgres://w@db.example/x?sslmode=require&connect_timeout=1",
            "tls=true",
        );
        check("postgresql://w@%2Frun%2Fpg/x", "w@/run/pg:5432/x tls=false");
        check(
            "postgres://w@db.example/x?sslmode=prefer",
            "expected disable or verify-full",
        );
        check(
            "postgres://w@db.example/x?sslrootcert=/none.pem",
            "/none.pem",
        );
    }

    #[test]
    fn no_message_repeats_the_password() {
        for url in [
            "postgres://w:hunter2@db.example:port/x",
            "postgres://w:hunter2@/x",
            "postgres://w:hunter2@db.example/x?nonsense=1",
        ] {
            let error = Target::parse(url, None).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let target = Target::parse("postgres://w:hunter2@db.example/x", None).unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}
