//! boto's own files: `BOTO_CONFIG`, or else `/etc/boto.cfg` and `~/.boto`. Old installations store their keys there.

use std::path::PathBuf;

use zeroize::Zeroizing;

use dupfs_base::Secret;

/// An access key.
pub(super) struct BotoKey {
    pub(super) id: String,
    pub(super) secret: Secret,
}

/// Finds the key in boto's files, and the file that contains it.
pub(super) fn find() -> Option<(BotoKey, PathBuf)> {
    let files = match std::env::var_os("BOTO_CONFIG") {
        Some(file) => vec![PathBuf::from(file)],
        // The user's file has precedence over the system's.
        None => std::env::var_os("HOME")
            .map(|home| PathBuf::from(home).join(".boto"))
            .into_iter()
            .chain([PathBuf::from("/etc/boto.cfg")])
            .collect(),
    };
    files.into_iter().find_map(|file| {
        let text = Zeroizing::new(std::fs::read_to_string(&file).ok()?);
        Some((parse(&text)?, file))
    })
}

/// Parses `aws_access_key_id` and `aws_secret_access_key` in `[Credentials]`. Names may be in any case, with `=` or `:`.
fn parse(text: &str) -> Option<BotoKey> {
    let (mut id, mut secret) = (None, None);
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').trim().eq_ignore_ascii_case("credentials");
        } else if let Some((name, value)) = line.split_once(['=', ':']).filter(|_| inside) {
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => id = Some(value.to_owned()),
                "aws_secret_access_key" => secret = Some(Secret::new(value)),
                _ => {}
            }
        }
    }
    Some(BotoKey { id: id.filter(|id| !id.is_empty())?, secret: secret.filter(|secret| !secret.is_empty())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_read_from_its_section_only() {
        let text =
            "[s3]\naws_access_key_id = no\n# x\n[ Credentials ]\nAWS_ACCESS_KEY_ID=AK\naws_secret_access_key : a=b:c\n";
        let key = parse(text).unwrap();
        assert_eq!((&*key.id, key.secret.expose()), ("AK", &b"a=b:c"[..]));
        assert!(parse("[Credentials]\naws_access_key_id = AK\n").is_none());
        assert!(parse("aws_access_key_id = AK\naws_secret_access_key = b\n").is_none());
    }
}
