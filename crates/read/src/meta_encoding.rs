//! The encoding of paths and metadata in records of the index, and in memory while a set is read. Decoding accepts any
//! bytes: it returns `None` for invalid ones.

use std::sync::Arc;

use dupfs_cache::index::encoding::{RecordDecoder, RecordEncoder};
use dupfs_format::{ArchivePath, EntryKind, EntryMeta};

/// An owner: user, group, and their names.
pub(crate) type OwnerFields = (u32, u32, Arc<[u8]>, Arc<[u8]>);

/// Appends `meta`.
pub(crate) fn encode_meta(encoder: &mut RecordEncoder, meta: &EntryMeta) {
    encode_owner(encoder, meta);
    encode_attributes(encoder, meta);
}

/// Appends the owner in `meta`.
pub(crate) fn encode_owner(encoder: &mut RecordEncoder, meta: &EntryMeta) {
    encoder.number(meta.uid.into());
    encoder.number(meta.gid.into());
    encoder.bytes(&meta.uname);
    encoder.bytes(&meta.gname);
}

/// Appends everything in `meta` but the owner.
pub(crate) fn encode_attributes(encoder: &mut RecordEncoder, meta: &EntryMeta) {
    encoder.number(meta.mode.into());
    encoder.signed(meta.mtime);
    encode_kind(encoder, &meta.kind);
}

/// Appends the type of an object, with the data that only that type has.
pub(crate) fn encode_kind(encoder: &mut RecordEncoder, kind: &EntryKind) {
    match kind {
        EntryKind::File => encoder.byte(0),
        EntryKind::Dir => encoder.byte(1),
        EntryKind::Fifo => encoder.byte(2),
        EntryKind::Symlink(target) => {
            encoder.byte(3);
            encoder.bytes(target);
        }
        EntryKind::CharDevice(major, minor) => encode_device(encoder, 4, *major, *minor),
        EntryKind::BlockDevice(major, minor) => encode_device(encoder, 5, *major, *minor),
    }
}

fn encode_device(encoder: &mut RecordEncoder, tag: u8, major: u32, minor: u32) {
    encoder.byte(tag);
    encoder.number(major.into());
    encoder.number(minor.into());
}

/// Decodes metadata of [`encode_meta`].
pub(crate) fn decode_meta(decoder: &mut RecordDecoder<'_>) -> Option<EntryMeta> {
    let owner = decode_owner(decoder)?;
    decode_attributes(decoder, owner)
}

/// Decodes an owner of [`encode_owner`].
pub(crate) fn decode_owner(decoder: &mut RecordDecoder<'_>) -> Option<OwnerFields> {
    Some((decoder.number_u32()?, decoder.number_u32()?, decoder.bytes()?.into(), decoder.bytes()?.into()))
}

/// Decodes attributes of [`encode_attributes`] to metadata of this owner.
pub(crate) fn decode_attributes(
    decoder: &mut RecordDecoder<'_>,
    (uid, gid, uname, gname): OwnerFields,
) -> Option<EntryMeta> {
    let mode = u16::try_from(decoder.number()?).ok()?;
    let mtime = decoder.signed()?;
    let kind = decode_kind(decoder)?;
    Some(EntryMeta { kind, mode, uid, gid, uname, gname, mtime })
}

/// Decodes a type of [`encode_kind`].
pub(crate) fn decode_kind(decoder: &mut RecordDecoder<'_>) -> Option<EntryKind> {
    Some(match decoder.byte()? {
        0 => EntryKind::File,
        1 => EntryKind::Dir,
        2 => EntryKind::Fifo,
        3 => EntryKind::Symlink(decoder.bytes()?.into()),
        4 => EntryKind::CharDevice(decoder.number_u32()?, decoder.number_u32()?),
        5 => EntryKind::BlockDevice(decoder.number_u32()?, decoder.number_u32()?),
        _ => return None,
    })
}

/// The path in `text`; `None` if it is not in the normal form of paths.
pub(crate) fn decode_path(text: &[u8]) -> Option<ArchivePath> {
    ArchivePath::parse(text).ok().filter(|path| path.as_bytes() == text)
}

/// For the fuzz target: metadata that is decoded is the same after another encoding.
pub fn fuzz_meta(data: &[u8]) {
    if let Some(meta) = decode_meta(&mut RecordDecoder::new(data)) {
        let mut encoder = RecordEncoder::default();
        encode_meta(&mut encoder, &meta);
        assert_eq!(decode_meta(&mut RecordDecoder::new(&encoder.out)), Some(meta), "metadata changed by an encoding");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_metadata_is_decoded() {
        let kinds = [
            EntryKind::File,
            EntryKind::Dir,
            EntryKind::Fifo,
            EntryKind::Symlink((*b"to").into()),
            EntryKind::CharDevice(1, 3),
            EntryKind::BlockDevice(8, u32::MAX),
        ];
        for kind in kinds {
            let (uname, gname) = ((*b"user").into(), Arc::default());
            let meta = EntryMeta { kind, mode: 0o7777, uid: 1, gid: u32::MAX, uname, gname, mtime: -5 };
            let mut encoder = RecordEncoder::default();
            encode_meta(&mut encoder, &meta);
            fuzz_meta(&encoder.out);
            assert_eq!(decode_meta(&mut RecordDecoder::new(&encoder.out)), Some(meta));
            let cut = &encoder.out[..encoder.out.len() - 1];
            assert_eq!(decode_meta(&mut RecordDecoder::new(cut)), None);
        }
    }

    #[test]
    fn the_bytes_of_metadata_are_stable() {
        let (uname, gname) = ((*b"user").into(), Arc::default());
        let kind = EntryKind::Symlink((*b"to").into());
        let meta = EntryMeta { kind, mode: 0o777, uid: 1, gid: 300, uname, gname, mtime: -5 };
        let mut encoder = RecordEncoder::default();
        encode_meta(&mut encoder, &meta);
        let expected = b"\x01\xac\x02\x04user\x00\xff\x03\x09\x03\x02to";
        assert_eq!(
            encoder.out, expected,
            "the encoding of metadata has changed: raise VERSION in crates/cache/src/index/framed_file.rs, so that records of \
             the old encoding are removed, then update this test"
        );
    }
}
