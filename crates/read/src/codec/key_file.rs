//! Files of exported OpenPGP keys, as packets.

use std::io::{Cursor, Read};
use std::path::Path;

use sequoia_openpgp::Packet;
use sequoia_openpgp::parse::{PacketParser, PacketParserResult, Parse};
use zeroize::Zeroizing;

use super::armor_reader::ArmorReader;
use super::error::CodecError;
use super::object_context::ObjectContext;
use dupfs_base::{ErrorKind, io_reason};

/// Upper bound of the length of a key file, in bytes.
const MAX_KEY_FILE: u64 = 16 << 20;

/// Returns the error that the key file at `path` cannot be used.
pub(super) fn key_file_error(path: &Path, kind: ErrorKind, reason: impl Into<String>) -> CodecError {
    CodecError::KeyFile { path: path.into(), kind, reason: reason.into().into() }
}

/// Reads all packets of the key file at `path`, armoured or binary, with one key or several.
///
/// # Errors
/// [`CodecError::KeyFile`] when it cannot be read or is no OpenPGP file.
pub(super) fn read_packets(path: &Path) -> Result<Vec<Packet>, CodecError> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).and_then(|file| file.take(MAX_KEY_FILE).read_to_end(&mut bytes)).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory => ErrorKind::Invalid,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        let remedy = match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory => {
                "; give the path of an exported key (gpg --armor --export-secret-keys KEYID)"
            }
            std::io::ErrorKind::PermissionDenied => "; run as a user who may read it",
            _ => "",
        };
        key_file_error(path, kind, format!("{}{remedy}", io_reason(&e)))
    })?;
    parse_packets(path, &bytes)
}

fn parse_packets(path: &Path, bytes: &[u8]) -> Result<Vec<Packet>, CodecError> {
    let bad = |why: String| key_file_error(path, ErrorKind::Invalid, format!("no OpenPGP key: {why}"));
    let mut out = Vec::new();
    for block in binary_blocks(path, bytes)? {
        let mut result = PacketParser::from_bytes(block.as_slice()).map_err(|e| bad(e.to_string()))?;
        while let PacketParserResult::Some(parser) = result {
            let (packet, next) = parser.next().map_err(|e| bad(e.to_string()))?;
            out.push(packet);
            result = next;
        }
    }
    Ok(out)
}

/// Returns the binary contents of a file: the file itself, or each of its armoured blocks.
fn binary_blocks(path: &Path, bytes: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>, CodecError> {
    const BEGIN: &[u8] = b"-----BEGIN PGP ";
    const END: &[u8] = b"-----END PGP ";
    if bytes.first().is_some_and(|b| b & 0x80 != 0) {
        return Ok(vec![Zeroizing::new(bytes.to_vec())]);
    }
    let ctx = ObjectContext::new(path.display().to_string().as_str());
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(from) = find(rest, BEGIN) {
        let block = rest.get(from..).unwrap_or(&[]);
        // Up to the end of the END line.
        let end = find(block, END).unwrap_or(block.len());
        let line = block.get(end..).unwrap_or(&[]);
        let end = end + find(line, b"\n").unwrap_or(line.len());
        let text = Zeroizing::new(block.get(..end).unwrap_or(block).to_vec());
        let mut binary = Zeroizing::new(Vec::with_capacity(text.len()));
        ArmorReader::new(&ctx, Box::new(Cursor::new(text)))
            .read_to_end(&mut binary)
            .map_err(|e| key_file_error(path, ErrorKind::Invalid, e.to_string()))?;
        out.push(binary);
        rest = block.get(end..).unwrap_or(&[]);
    }
    Ok(out)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
