//! Reads through a Content-Encoding (RFC 9110, section 8.4) on the side of a body that passes
//! unchanged, and encodes again a body that was edited.
//!
//! A decoder writes into a sink as bytes come, keeps no more than its window, and stops where the
//! sink says that it has had enough: a hostile body costs no memory.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{DeflateDecoder, GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder};

/// Windows above 8 MiB (2^23) are refused, as browsers refuse them for zstd (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BROTLI_BUFFER_BYTES: usize = 4096;

/// A Content-Encoding that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Encoding {
    /// Of the header's value; none where it is unknown, or more than one.
    pub(crate) fn of(content_encoding: Option<&str>) -> Option<Self> {
        match content_encoding
            .map(|value| value.trim().to_ascii_lowercase())
            .as_deref()
        {
            None | Some("" | "identity") => Some(Self::Identity),
            Some("gzip" | "x-gzip") => Some(Self::Gzip),
            Some("deflate") => Some(Self::Deflate),
            Some("br") => Some(Self::Brotli),
            Some("zstd") => Some(Self::Zstd),
            Some(_) => None,
        }
    }
}

/// Decodes what is pushed into `W`.
pub(crate) enum Decoder<W: Write> {
    Identity(W),
    Gzip(Box<MultiGzDecoder<W>>),
    /// `deflate` means zlib, and some servers send bare deflate: the first byte tells.
    DeflateUnbegun(Option<W>),
    Zlib(Box<ZlibDecoder<W>>),
    Deflate(Box<DeflateDecoder<W>>),
    Brotli(Box<brotli::DecompressorWriter<W>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, W>>),
}

impl<W: Write> Decoder<W> {
    /// # Errors
    /// Memory for a zstd context.
    pub(crate) fn new(encoding: Encoding, sink: W) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity(sink),
            Encoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Encoding::Deflate => Self::DeflateUnbegun(Some(sink)),
            Encoding::Brotli => Self::Brotli(Box::new(brotli::DecompressorWriter::new(
                sink,
                BROTLI_BUFFER_BYTES,
            ))),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(sink)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    /// Decodes `bytes`, the next of the body.
    ///
    /// # Errors
    /// The body is not what its encoding says, or the sink has had enough: nothing more can be
    /// read of it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let (Self::DeflateUnbegun(sink), Some(first)) = (&mut *self, bytes.first())
            && let Some(sink) = sink.take()
        {
            // RFC 1950, section 2.2: the low nibble of a zlib header is 8.
            *self = if first & 0x0f == 8 {
                Self::Zlib(Box::new(ZlibDecoder::new(sink)))
            } else {
                Self::Deflate(Box::new(DeflateDecoder::new(sink)))
            };
        }
        match self {
            Self::Identity(sink) => sink.write_all(bytes),
            Self::DeflateUnbegun(_) => Ok(()),
            Self::Gzip(decoder) => write(decoder.as_mut(), bytes),
            Self::Zlib(decoder) => write(decoder.as_mut(), bytes),
            Self::Deflate(decoder) => write(decoder.as_mut(), bytes),
            Self::Brotli(decoder) => write(decoder.as_mut(), bytes),
            Self::Zstd(decoder) => write(decoder.as_mut(), bytes),
        }
    }

    /// What was decoded into.
    pub(crate) fn sink(&mut self) -> Option<&mut W> {
        Some(match self {
            Self::Identity(sink) => sink,
            Self::DeflateUnbegun(sink) => return sink.as_mut(),
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        })
    }
}

/// Decoders keep output back until they are flushed.
fn write(decoder: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    decoder.write_all(bytes)?;
    decoder.flush()
}

/// Collects up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Bounded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) bytes_max: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > self.bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "decoded body too long",
            ));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A whole body, decoded.
///
/// # Errors
/// As [`Decoder::push`]; [`io::ErrorKind::FileTooLarge`] where it is longer than `bytes_max`.
pub(crate) fn decode(encoding: Encoding, body: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::new(
        encoding,
        Bounded {
            bytes: Vec::new(),
            bytes_max,
        },
    )?;
    decoder.push(body)?;
    Ok(decoder
        .sink()
        .map(|sink| std::mem::take(&mut sink.bytes))
        .unwrap_or_default())
}

/// Encodes a whole body.
///
/// # Errors
/// Memory for an encoder.
pub(crate) fn encode(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Identity => Ok(body.to_vec()),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Encoding::Brotli => {
            let mut encoded = Vec::new();
            let parameters = brotli::enc::BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                ..Default::default()
            };
            brotli::BrotliCompress(&mut &*body, &mut encoded, &parameters)?;
            Ok(encoded)
        }
        Encoding::Zstd => zstd::encode_all(body, zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}

/// Encoding must not cost more than it saves: low levels, as servers use for what they make anew.
const BROTLI_QUALITY: i32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(plain: &[u8]) -> Vec<(Encoding, Vec<u8>)> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(plain).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(plain).unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(plain).unwrap();
        let mut brotli = Vec::new();
        brotli::BrotliCompress(&mut &*plain, &mut brotli, &Default::default()).unwrap();
        vec![
            (Encoding::Identity, plain.to_vec()),
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, bare.finish().unwrap()),
            (Encoding::Brotli, brotli),
            (Encoding::Zstd, zstd::encode_all(plain, 3).unwrap()),
        ]
    }

    #[test]
    fn every_encoding_is_read_however_it_is_split() {
        let plain = b"data: {\"usage\":{\"input_tokens\":7}}\n\n".repeat(40);
        for (encoding, body) in encoded(&plain) {
            assert_eq!(
                decode(encoding, &body, plain.len()).unwrap(),
                plain,
                "{encoding:?}"
            );
            for at in 0..body.len() {
                let (one, two) = body.split_at(at);
                let sink = Bounded {
                    bytes: Vec::new(),
                    bytes_max: plain.len(),
                };
                let mut decoder = Decoder::new(encoding, sink).unwrap();
                decoder.push(one).unwrap();
                decoder.push(two).unwrap();
                assert_eq!(
                    decoder.sink().unwrap().bytes,
                    plain,
                    "{encoding:?} split at {at}"
                );
            }
        }
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        for plain in [&b""[..], b"x", &b"{\"stream\":true}".repeat(5000)] {
            for (encoding, _) in encoded(b"") {
                let encoded = encode(encoding, plain).unwrap();
                assert_eq!(
                    decode(encoding, &encoded, plain.len()).unwrap(),
                    plain,
                    "{encoding:?}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let plain = vec![0; 8 << 20];
        for (encoding, body) in encoded(&plain) {
            let error = decode(encoding, &body, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{encoding:?}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        for (encoding, body) in encoded(b"some words to compress, some words to compress") {
            if encoding == Encoding::Identity {
                continue;
            }
            let mut broken = body.clone();
            for byte in &mut broken {
                *byte ^= 0x5a;
            }
            drop(decode(encoding, &broken, 1 << 20));
        }
    }
}
