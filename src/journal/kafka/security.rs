//! Where a connection becomes a secured one. Today there is only plaintext: TLS would wrap the stream in
//! [`Security::wrap`], SASL would ask its questions in [`Security::authenticate`].

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::connection::{ConnectError, Connection};
use crate::journal::JournalError;

/// How connections to Kafka are secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
}

/// What a connection reads from and writes to.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Security {
    /// From the name that Kafka clients use for it (`security.protocol`).
    ///
    /// # Errors
    /// One that is not supported: refused, never quietly replaced by plaintext.
    pub fn parse(protocol: &str) -> Result<Self, JournalError> {
        match protocol.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Ok(Self::Plaintext),
            other => Err(JournalError::Refused {
                doing: "the Kafka security protocol".to_owned(),
                why: format!("{other} is not supported yet; only PLAINTEXT is"),
            }),
        }
    }

    /// Before the first byte: where TLS will be.
    #[expect(clippy::unused_async, reason = "a TLS handshake waits")]
    pub(super) async fn wrap(self, stream: TcpStream, _host: &str) -> Result<Box<dyn Stream>, ConnectError> {
        match self {
            Self::Plaintext => Ok(Box::new(stream)),
        }
    }

    /// After the versions are known: where SASL will be.
    #[expect(clippy::unused_async, reason = "a SASL exchange waits")]
    pub(super) async fn authenticate(self, _connection: &Connection) -> Result<(), ConnectError> {
        match self {
            Self::Plaintext => Ok(()),
        }
    }
}
