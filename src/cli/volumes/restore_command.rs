//! The command line that restores an object from cold storage.

use super::volumes_args::RetrievalTier;
use dupfs_read::storage::BucketLocation;

/// The parameters of retrievals from cold storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThawOptions {
    /// The days for which the restored copies shall stay.
    pub days: u32,
    /// The speed and price.
    pub tier: RetrievalTier,
    /// The requester pays, also for transfers.
    pub requester_pays: bool,
}

/// The command line, for a shell, that restores the object `name` of `bucket`.
pub(super) fn restore_command(bucket: &BucketLocation, name: &str, thaw: ThawOptions) -> String {
    let request = format!("Days={},GlacierJobParameters={{Tier={}}}", thaw.days, thaw.tier.name());
    let endpoint = bucket.endpoint.as_ref().map(|url| ["--endpoint-url".to_owned(), url.clone()]);
    let words = ["aws", "s3api", "restore-object"].map(str::to_owned).into_iter().chain(endpoint.into_iter().flatten());
    let key = format!("{}{name}", bucket.prefix);
    let options = [
        ("--region", bucket.region.clone()),
        ("--bucket", bucket.bucket.clone()),
        ("--key", key),
        ("--restore-request", request),
    ];
    let payer = thaw.requester_pays.then(|| ("--request-payer", "requester".to_owned()));
    let words = words.chain(options.into_iter().chain(payer).flat_map(|(option, value)| [option.to_owned(), value]));
    words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// `word` as a shell takes it. Control characters, which could do harm on a terminal, are written as `$'\HHH'`.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.chars().any(char::is_control) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let escape = |c: char| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\{byte:03o}")).collect(),
        c => c.to_string(),
    };
    format!("$'{}'", word.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_each_word_as_it_is() {
        for word in
            ["plain-1.gz", "", "a b", "it's", "$(reboot)", "`x`;&|<>\\\"!*~", "a\nb'\\\u{1b}[2J\u{85}\u{7f}", "ü"]
        {
            let line = quoted(word);
            assert!(!line.chars().any(char::is_control), "{line:?}");
            let output =
                std::process::Command::new("bash").arg("-c").arg(format!("printf %s {line}")).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{line}");
        }
    }

    #[test]
    fn the_command_names_the_object_by_bucket_key_and_service() {
        let aws = BucketLocation {
            bucket: "bucket".to_owned(),
            prefix: "my host/".to_owned(),
            endpoint: None,
            region: "eu-central-1".to_owned(),
        };
        let options = ThawOptions { days: 7, tier: RetrievalTier::Standard, requester_pays: false };
        assert_eq!(
            restore_command(&aws, "duplicity-full.vol1.difftar.gpg", options),
            "aws s3api restore-object --region eu-central-1 --bucket bucket --key 'my host/duplicity-full.vol1.difftar.gpg' \
             --restore-request 'Days=7,GlacierJobParameters={Tier=Standard}'"
        );
        let other = BucketLocation { endpoint: Some("http://127.0.0.1:9000".to_owned()), ..aws };
        let line =
            restore_command(&other, "x", ThawOptions { days: 30, tier: RetrievalTier::Bulk, requester_pays: true });
        assert!(line.starts_with("aws s3api restore-object --endpoint-url http://127.0.0.1:9000 --region"), "{line}");
        assert!(line.ends_with("'Days=30,GlacierJobParameters={Tier=Bulk}' --request-payer requester"), "{line}");
    }
}
