//! Names in zip archives as text. Before the format had a mark for UTF-8, programs wrote names in the code page of their machine.

use std::borrow::Cow;

use encoding_rs::Encoding;
use rawzip::extra_fields::ExtraFieldId;
use rawzip::{ZipFileHeaderRecord, extra_fields};

/// Hosts in "version made by".
const FAT: u16 = 0;
const HPFS: u16 = 6;
const NTFS: u16 = 11;
/// The general purpose bit that marks the name as UTF-8.
const UTF8: u16 = 1 << 11;

/// An encoding of names that archives do not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEncoding(CodePage);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CodePage {
    /// The upper 128 characters of a code page of DOS.
    Dos(&'static str),
    Other(&'static Encoding),
}

/// Code page 437: DOS and Windows in the United States, and the encoding of the format itself.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
/// Code page 850: DOS and Windows in western Europe.
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";
/// Code page 852: DOS and Windows in central Europe.
const CP852: &str = "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐└┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´\u{ad}˝˛ˇ˘§÷¸°¨˙űŘř■\u{a0}";

impl NameEncoding {
    /// Code page 437.
    const OEM: Self = Self(CodePage::Dos(CP437));

    /// The encoding called `label`: `cp437`, `cp850`, `cp852`, or one that browsers support, such as `cp866`,
    /// `shift_jis`, `gbk` or `windows-1251`; `None` for another.
    pub fn for_label(label: &str) -> Option<Self> {
        let label = label.to_ascii_lowercase();
        let number = label.strip_prefix("cp").or_else(|| label.strip_prefix("ibm")).unwrap_or(&label);
        let other = |label: &str| Encoding::for_label(label.as_bytes()).filter(|other| other.is_ascii_compatible());
        let page = match number {
            "437" => CodePage::Dos(CP437),
            "850" => CodePage::Dos(CP850),
            "852" => CodePage::Dos(CP852),
            "932" => CodePage::Other(encoding_rs::SHIFT_JIS),
            "936" => CodePage::Other(encoding_rs::GBK),
            "949" => CodePage::Other(encoding_rs::EUC_KR),
            "950" => CodePage::Other(encoding_rs::BIG5),
            _ => CodePage::Other(other(&label)?),
        };
        Some(Self(page))
    }

    /// `raw` as text; `None` if it is invalid in this encoding.
    fn decode(self, raw: &[u8]) -> Option<String> {
        match self.0 {
            CodePage::Dos(upper) => {
                let char_of = |&byte: &u8| match byte.checked_sub(0x80) {
                    None => Some(char::from(byte)),
                    Some(at) => upper.chars().nth(usize::from(at)),
                };
                raw.iter().map(char_of).collect()
            }
            CodePage::Other(encoding) => {
                encoding.decode_without_bom_handling_and_without_replacement(raw).map(Cow::into_owned)
            }
        }
    }
}

/// The name of a member as text, if its archive gives the encoding, directly or by the system on which it was made:
///
/// 1. the name in UTF-8 that an extra field of Info-ZIP has, if it belongs to this name;
/// 2. the name itself if a flag marks it as UTF-8, or if it is UTF-8;
/// 3. the name decoded by `encoding`, if the user has chosen one;
/// 4. the name decoded by code page 437, if it was written on DOS, by Windows' own packer or by OS/2;
/// 5. else the bytes of the name.
///
/// As unzip does, `\` in a name from DOS without a `/` separates directories.
pub(super) fn member_path<'a>(record: &'a ZipFileHeaderRecord<'_>, encoding: Option<NameEncoding>) -> Cow<'a, [u8]> {
    let path = record.file_path();
    let name = NameFacts {
        raw: path.as_bytes(),
        is_utf8: record.flags().bits() & UTF8 != 0,
        made_by: record.version_made_by().as_u16(),
    };
    let decoded = name.decode(record.extra_fields(), encoding);
    decoded.map_or_else(|| Cow::Owned(path.as_bytes().to_vec()), |text| Cow::Owned(text.into_bytes()))
}

/// The fields that decide how a name is to be read.
struct NameFacts<'a> {
    raw: &'a [u8],
    is_utf8: bool,
    made_by: u16,
}

impl NameFacts<'_> {
    fn decode(&self, extra: extra_fields::ExtraFields<'_>, encoding: Option<NameEncoding>) -> Option<String> {
        let text = match unicode_path(extra, self.raw).or_else(|| std::str::from_utf8(self.raw).ok()) {
            Some(text) => text.to_owned(),
            None if self.is_utf8 => return None,
            None => match encoding {
                Some(encoding) => encoding.decode(self.raw)?,
                None if self.has_oem_name() => NameEncoding::OEM.decode(self.raw)?,
                None => return None,
            },
        };
        let is_dos = self.made_by >> 8 == FAT && !text.contains('/');
        Some(if is_dos { text.replace('\\', "/") } else { text })
    }

    /// Returns true if names were written in the code page of DOS, by the rules of Info-ZIP: PKZIP for Windows (2.5, 2.6 and 4.0)
    /// wrote that of Windows.
    fn has_oem_name(&self) -> bool {
        match (self.made_by >> 8, self.made_by & 0xff) {
            (FAT, 25 | 26 | 40) => false,
            (FAT | HPFS, _) | (NTFS, 50) => true,
            _ => false,
        }
    }
}

/// The name in the extra field "Info-ZIP Unicode Path", which has the checksum of the name that it replaces.
fn unicode_path<'a>(mut extra: extra_fields::ExtraFields<'a>, raw: &[u8]) -> Option<&'a str> {
    let (_, field) = extra.find(|(id, _)| *id == ExtraFieldId::INFO_ZIP_UNICODE_PATH)?;
    let (version, rest) = field.split_first()?;
    let (crc, name) = rest.split_first_chunk::<4>()?;
    let belongs = *version == 1 && u32::from_le_bytes(*crc) == crc32fast::hash(raw);
    std::str::from_utf8(name).ok().filter(|name| belongs && !name.is_empty())
}

#[cfg(test)]
#[path = "zip_names/tests.rs"]
mod tests;
