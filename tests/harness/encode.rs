//! Content-Encoding, from the side that Weir does not have.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// The names of the encodings; `deflate` twice, as zlib and bare.
pub const ENCODINGS: [&str; 6] = ["identity", "gzip", "deflate", "bare deflate", "br", "zstd"];

/// `plain` in one of [`ENCODINGS`].
///
/// # Panics
/// Of another name.
pub fn encode(encoding: &str, plain: &[u8]) -> Vec<u8> {
    match encoding {
        "identity" => plain.to_vec(),
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "bare deflate" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut encoded = Vec::new();
            brotli::BrotliCompress(&mut &*plain, &mut encoded, &Default::default()).unwrap();
            encoded
        }
        "zstd" => zstd::encode_all(plain, 3).unwrap(),
        _ => panic!("expected one of {ENCODINGS:?}, found {encoding}"),
    }
}

/// What was encoded as this token of the header field says.
///
/// # Panics
/// Where it is not, or the token is another.
pub fn decode(token: &str, encoded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match token {
        "identity" => plain.extend_from_slice(encoded),
        "gzip" => {
            GzDecoder::new(encoded).read_to_end(&mut plain).unwrap();
        }
        "deflate" => {
            ZlibDecoder::new(encoded).read_to_end(&mut plain).unwrap();
        }
        "br" => brotli::BrotliDecompress(&mut &*encoded, &mut plain).unwrap(),
        "zstd" => plain = zstd::decode_all(encoded).unwrap(),
        _ => panic!("expected one of {ENCODINGS:?}, found {token}"),
    }
    plain
}

/// The token of the header field.
pub fn token(encoding: &str) -> &str {
    encoding.rsplit(' ').next().unwrap_or(encoding)
}
