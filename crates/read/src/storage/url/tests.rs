use super::*;
use dupfs_base::HasKind;

fn local(text: &str) -> String {
    match parse_url(text).unwrap() {
        Location::Local(path) => path.to_string_lossy().into_owned(),
        other => panic!("{text}: read as {other:?}"),
    }
}

fn s3_with(text: &str, options: &UrlOptions) -> S3Location {
    match parse_url_with(text, options).unwrap() {
        Location::S3(s3) => s3,
        other => panic!("{text}: read as {other:?}"),
    }
}

/// (host, bucket, prefix)
fn s3(text: &str) -> (String, String, String) {
    let s3 = s3_with(text, &UrlOptions::default());
    (s3.host.unwrap_or_default(), s3.bucket, s3.prefix)
}

fn three(host: &str, bucket: &str, prefix: &str) -> (String, String, String) {
    (host.into(), bucket.into(), prefix.into())
}

#[test]
fn file_urls_are_read_as_duplicity_reads_them() {
    assert_eq!(local("file:///abs/dir"), "/abs/dir");
    assert_eq!(local("file://rel/dir"), "rel/dir");
    assert_eq!(local("file://~/x"), "~/x");
    assert_eq!(local("file:////abs"), "abs");
    assert_eq!(local("file:/abs"), "/abs");
    assert_eq!(local("FILE:///a%20b"), "/a b");
    assert_eq!(local("file:///a#b"), "/a");
    assert_eq!(local("file:///a?b=c"), "/a");
    assert_eq!(local("par2+file:///a%2"), "/a%2");
    let Location::Local(raw) = parse_url("file:///%e9").unwrap() else { panic!() };
    assert_eq!(raw.as_os_str().as_encoded_bytes(), b"/\xe9");
}

#[test]
fn an_encoded_slash_gives_the_prefix_of_duplicity_too() {
    let prefixes = |text: &str| {
        let s3 = s3_with(text, &UrlOptions::default());
        (s3.prefix, s3.duplicity_prefix)
    };
    assert_eq!(prefixes("s3:///bucket/%2Fp"), ("/p/".to_owned(), Some("p/".to_owned())));
    assert_eq!(prefixes("s3:///bucket/p%2F%2Fq"), ("p//q/".to_owned(), Some("p/q/".to_owned())));
    for plain in ["s3:///bucket/p%2Fq", "s3:///bucket//p//q", "s3://bucket"] {
        assert_eq!(prefixes(plain).1, None, "{plain}");
    }
}

#[test]
fn bare_paths_are_taken_literally() {
    for path in ["/a%20b#c", "rel", "./s3:x", "a:b/c", "12:30", "~/x"] {
        assert_eq!(local(path), path);
    }
}

#[test]
fn urls_without_a_location_are_refused() {
    for text in ["", "file:rel", "file://", "s3://", "s3:///", "s3:bucket", "s3://#x", "boto+s3:///"] {
        assert_eq!(parse_url(text).unwrap_err().kind(), ErrorKind::Invalid, "{text:?}");
    }
}

#[test]
fn unsupported_schemes_say_what_is_supported_and_no_password() {
    let text = parse_url("gopher://joe:geheim@host/dir").unwrap_err();
    assert_eq!(text.kind(), ErrorKind::Unsupported);
    assert!(text.to_string().contains("rclone://NAME:") && !text.to_string().contains("geheim"), "{text}");
}

#[test]
fn google_storage_is_read_by_the_protocol_of_s3() {
    for scheme in ["gs", "boto+gs"] {
        assert_eq!(s3(&format!("{scheme}://bucket/a/b")), three("storage.googleapis.com", "bucket", "a/b/"));
    }
    let endpoint = UrlOptions { endpoint_url: Some("http://other:9000".into()), ..UrlOptions::default() };
    assert_eq!(s3_with("gs://bucket/a", &endpoint).host, None);
}

#[test]
fn s3_urls_of_every_version_of_duplicity_are_read() {
    let plain = three("", "Bucket", "pre/fix/");
    for text in [
        "s3://Bucket/pre/fix",
        "s3:///Bucket/pre/fix/",
        "s3:/Bucket/pre//fix",
        "S3://Bucket/pre/fix?x#y",
        "s3+http://Bucket/pre/fix",
        "boto3+s3://Bucket/pre/fix",
        "boto3+s3:///Bucket/pre/fix",
        "boto+s3:///Bucket/pre/fix",
        "par2+s3+http://Bucket/pre/fix",
    ] {
        assert_eq!(s3(text), plain, "{text}");
    }
    assert_eq!(s3("s3://bucket"), three("", "bucket", ""));
    assert_eq!(s3("s3://b/a%20b"), three("", "b", "a b/"));
    assert_eq!(s3("s3://s3.amazonaws.com/bucket/p"), three("s3.amazonaws.com", "bucket", "p/"));
    assert_eq!(s3("s3://s3-eu-west-1.amazonaws.com/bucket"), three("s3-eu-west-1.amazonaws.com", "bucket", ""));
    assert_eq!(s3("s3://localhost:9000/bucket/p"), three("localhost:9000", "bucket", "p/"));
    assert_eq!(s3("s3://127.0.0.1/bucket"), three("127.0.0.1", "bucket", ""));
    assert_eq!(s3("boto+s3://minio.example.com/bucket"), three("minio.example.com", "bucket", ""));
}

#[test]
fn an_undecided_url_keeps_its_other_reading() {
    let first = s3_with("s3://store.example.com/bucket/p", &UrlOptions::default());
    assert_eq!((first.host, &*first.bucket, &*first.prefix), (None, "store.example.com", "bucket/p/"));
    let other = first.alternative.unwrap();
    assert_eq!((other.host.as_deref(), &*other.bucket, &*other.prefix), (Some("store.example.com"), "bucket", "p/"));
    assert!(s3_with("s3://a.b", &UrlOptions::default()).alternative.is_none());
    assert!(s3_with("s3://plain/p", &UrlOptions::default()).alternative.is_none());
}

#[test]
fn options_decide_between_the_readings() {
    let old = UrlOptions { style: S3UrlStyle::Old, ..UrlOptions::default() };
    assert_eq!(s3_with("s3://plain/bucket", &old).host.as_deref(), Some("plain"));
    let new = UrlOptions { style: S3UrlStyle::New, ..UrlOptions::default() };
    assert_eq!(s3_with("s3://s3.amazonaws.com/x", &new).bucket, "s3.amazonaws.com");
    let endpoint = UrlOptions { endpoint_url: Some("https://store.example.com:9000/".into()), ..UrlOptions::default() };
    assert_eq!(s3_with("s3://store.example.com/b", &endpoint).bucket, "b");
    let dotted = s3_with("s3://my.dotted.bucket/p", &endpoint);
    assert_eq!((&*dotted.bucket, dotted.alternative), ("my.dotted.bucket", None));
}

#[test]
fn displays_hold_no_secrets() {
    let location = parse_url("s3://user:geheim@s3.amazonaws.com/bucket/p").unwrap();
    assert_eq!(location.display_without_secrets(), "s3://s3.amazonaws.com/bucket/p");
    assert!(!format!("{location:?}").contains("geheim"));
    assert_eq!(parse_url("file:///x").unwrap().display_without_secrets(), "file:///x");
    assert_eq!(parse_url("x/y").unwrap().display_without_secrets(), "x/y");
}

#[test]
fn a_secret_with_a_slash_in_an_s3_url_is_not_taken_for_a_bucket() {
    for text in ["s3://KEYID:SEC/RET@host/bucket/x", "s3://KEYID:SEC/RET@host:9000/bucket", "s3+http://a:b/c"] {
        let error = parse_url(text).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("is no port") && message.contains("AWS_SECRET_ACCESS_KEY"), "{message}");
        assert!(!message.contains("SEC") || message.replace("AWS_SECRET", "").find("SEC").is_none(), "{message}");
    }
    assert_eq!(s3("s3://host.example:9000/bucket/x"), three("host.example:9000", "bucket", "x/"));
    assert_eq!(s3("s3://[::1]/bucket/x").1, "bucket");
}
