use super::*;
use crate::storage::{Location, parse_url};

fn remote(url: &str) -> RemoteLocation {
    match parse_url(url) {
        Ok(Location::Remote(remote)) => remote,
        other => panic!("{url}: {other:?}"),
    }
}

/// user, host, port, directory
fn parts(url: &str) -> (String, String, u16, String) {
    let remote = remote(url);
    (remote.user.unwrap_or_default(), remote.host, remote.port.unwrap_or(0), remote.dir)
}

fn four(user: &str, host: &str, port: u16, dir: &str) -> (String, String, u16, String) {
    (user.to_owned(), host.to_owned(), port, dir.to_owned())
}

#[test]
fn one_slash_of_an_ssh_url_is_the_home_directory_and_two_are_the_root() {
    for scheme in ["sftp", "scp", "ssh", "pexpect+sftp", "paramiko+scp", "lftp+sftp", "par2+sftp", "SFTP"] {
        assert_eq!(parts(&format!("{scheme}://joe@host:2222/a/b")), four("joe", "host", 2222, "a/b"), "{scheme}");
        assert_eq!(parts(&format!("{scheme}://host//a/b")), four("", "host", 0, "/a/b"), "{scheme}");
        assert_eq!(parts(&format!("{scheme}://host")), four("", "host", 0, ""), "{scheme}");
    }
    assert_eq!(parts("gio+sftp://host/a"), four("", "host", 0, "/a"));
    assert_eq!(parts("sftp://j%40e@[::1]:22/a%20b%23"), four("j@e", "[::1]", 22, "a b#"));
}

#[test]
fn rsync_urls_over_ssh_have_all_their_forms() {
    assert_eq!(parts("rsync://joe@host/rel"), four("joe", "host", 0, "rel"));
    assert_eq!(parts("rsync://joe@host:/rel"), four("joe", "host", 0, "rel"));
    assert_eq!(parts("rsync://joe@host:2222//abs/x"), four("joe", "host", 2222, "//abs/x"));
    assert_eq!(parts("rsync://joe@host://abs/x"), four("joe", "host", 0, "//abs/x"));
    for daemon in ["rsync://joe@host::module/x", "rsync://host:873::/module"] {
        let error = parse_url(daemon).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.to_string().contains("rsync daemon"), "{error}");
    }
}

#[test]
fn ftp_and_webdav_urls_have_their_directories() {
    assert_eq!(parts("ftp://joe:pw@host/a"), four("joe", "host", 0, "a"));
    assert_eq!(parts("ncftp+ftp://host//a"), four("", "host", 0, "/a"));
    assert_eq!(parts("ftpes://host"), four("", "host", 0, "/"));
    assert_eq!(parts("webdavs://joe@host:444/a//b/"), four("joe", "host", 444, "a//b/"));
    let services = ["ftp", "ftps", "ftpes", "lftp+ftps", "webdav", "https", "gio+davs"]
        .map(|scheme| remote(&format!("{scheme}://h/d")).service);
    use RemoteService::{Ftp, FtpExplicitTls, FtpImplicitTls, Webdav, WebdavTls};
    assert_eq!(services, [Ftp, FtpImplicitTls, FtpExplicitTls, FtpImplicitTls, Webdav, WebdavTls, WebdavTls]);
}

#[test]
fn remotes_of_rclone_are_those_that_duplicity_passes_on() {
    for (url, dir) in [
        ("rclone://remote:a/b", "remote:a/b"),
        ("rclone://remote:/a/b", "remote:a/b"),
        ("rclone://remote://a/b", "remote:/a/b"),
        ("rclone://remote:", "remote:"),
        ("rclone://remote:a%20b/c%20d", "remote:a%20b/c d"),
    ] {
        assert_eq!(remote(url).dir, dir, "{url}");
    }
    assert_eq!(parse_url("rclone://remote").unwrap_err().kind, ErrorKind::Invalid);
    for (described, passed_on) in [
        (":ftp,host=h,pass=y:a/b", ":ftp,host=h,pass=y:a/b"),
        ("r,port=1:/a", "r,port=1:a"),
        (r#":ftp,host=h,pass="y:/z":/a"#, r#":ftp,host=h,pass="y:/z":a"#),
        (r#":alias,remote="r:/z":a"#, r#":alias,remote="r:/z":a"#),
    ] {
        assert_eq!(remote(&format!("rclone://{described}")).dir, passed_on);
    }
    let error = parse_url(r#"rclone://:webdav,url="http://h:1/x",pass=geheim:a/b"#).unwrap_err().to_string();
    assert!(error.contains("make a remote with rclone config") && !error.contains("geheim"), "{error}");
    let error = parse_url("rclone://:s3,secret_access_key=geh//eim:a/b").unwrap_err().to_string();
    assert!(error.contains("may not contain //") && !error.contains("eim"), "{error}");
}

#[test]
fn places_with_the_same_url_without_secrets_are_distinguished() {
    for (one, other) in [
        ("rclone://:drive,root_folder_id=A:", "rclone://:drive,root_folder_id=B:"),
        ("rclone://r,user=a@b:c", "rclone://r,user=x@b:c"),
        ("gdrive://j@h/d?driveID=A", "gdrive://j@h/d?driveID=B"),
        ("gdrive://j@h/d?driveID=A", "gdrive://j@h/d?myDriveFolderID=A"),
    ] {
        let [one, other] = [one, other].map(remote);
        assert_eq!(one.display(), other.display());
        assert_ne!(one.display_with_secrets().unwrap(), other.display_with_secrets().unwrap());
    }
    for complete in ["rclone://r:a", "rclone://r,host=h:a", "sftp://joe:geheim@host/a"] {
        assert_eq!(remote(complete).display_with_secrets(), None, "{complete}");
    }
}

#[test]
fn services_with_buckets_have_the_bucket_first() {
    let b2 = remote("b2://id:se%2Fcret@Bucket/a/b");
    assert_eq!((b2.user.as_deref(), &*b2.dir), (Some("id"), "Bucket/a/b"));
    assert_eq!(b2.password.unwrap().expose(), b"se/cret");
    assert_eq!(remote("swift://container/a").dir, "container/a");
    assert_eq!(remote("azure://container").dir, "container");
    assert_eq!(remote("dpbx:///a b").dir, "/a b");
    let drive = remote("gdrive://joe@p.iam.gserviceaccount.com/dir/?driveID=0A%2Bx");
    assert_eq!((&*drive.dir, drive.parameter("driveID")), ("dir/", Some("0A+x")));
    for wrong in ["b2://bucket/a", "b2://id@/x", "swift:///", "azure://"] {
        assert_eq!(parse_url(wrong).unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
    }
}

#[test]
fn services_that_are_not_read_say_so() {
    for (url, words) in [
        ("onedrive://dir/sub", "make a remote with rclone config, and mount rclone://NAME:/directory"),
        ("pcloud://dir", "make a remote with rclone config, and mount rclone://NAME:/directory"),
        ("jottacloud:///dir", "make a remote with rclone config (with the device Jotta and the mount point Archive"),
        ("jottacloud:///dir", "and mount rclone://NAME:/directory"),
        ("box:///dir", "rclone://NAME:/directory"),
        ("cf+hubic://x", "hubiC was closed"),
        ("cf+http://x", "no longer maintained"),
        ("u1://x", "Ubuntu One"),
        ("imaps://j@h/x", "copy the backup"),
        ("gio+smb://h/x", "rclone config"),
    ] {
        let error = parse_url(url).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{url}");
        assert!(error.to_string().contains(words), "{url}: {error}");
    }
}

#[test]
fn names_that_ssh_would_take_for_options_are_refused() {
    for url in [
        "sftp://-oProxyCommand=x/a",
        "sftp://-l@host/a",
        "sftp://a%20b@host/a",
        "sftp:///a",
        "sftp://host:x/a",
        "ftp://@/a",
    ] {
        assert_eq!(parse_url(url).unwrap_err().kind, ErrorKind::Invalid, "{url}");
    }
}

#[test]
fn no_password_is_shown() {
    for (url, shown) in [
        ("sftp://joe:geheim@host:22//a", "sftp://joe@host:22//a"),
        ("ftp://joe:gehe@im@host/a", "ftp://joe@host/a"),
        ("b2://id:geheim@bucket/a", "b2://bucket/a"),
        ("webdav://host", "webdav://host/"),
        ("rclone://r:a", "rclone://r:a"),
        ("rclone://r:a,pass=b", "rclone://r:a,pass=b"),
        ("rclone://r,pass=geheim:a", "rclone://r,pass=...:a"),
        ("rclone://:ftp,host=h,user=j,pass=geheim:a:b", "rclone://:ftp,host=h,user=j,pass=...:a:b"),
        (r#"rclone://:s3,key="geheim,pass=x:y",env_auth,host='a,b':c"#, "rclone://:s3,key=...,env_auth,host='a,b':c"),
        ("rclone://:ftp,host=h,user=geheim@h:a", "rclone://:ftp,host=h,user=...:a"),
        ("rclone://:ftp,pass=\"geheim:a", "rclone://:ftp,pass=..."),
        ("rclone://:ftp,host=h,user=o'brien,pass=geheim:a", "rclone://:ftp,host=h,user=o'brien,pass=...:a"),
        ("rclone://:ftp,user=\"j,pass=geheim:a", "rclone://:ftp,user=..."),
        (r#"rclone://:s3,key="ge""heim,x:y",env_auth:c"#, "rclone://:s3,key=...,env_auth:c"),
        (r#"rclone://:crypt,remote=":ftp,pass=geheim:a":b"#, "rclone://:crypt,remote=...:b"),
    ] {
        let remote = remote(url);
        assert_eq!(remote.display(), shown);
        assert!(!format!("{remote:?}").contains("geheim"), "{remote:?}");
    }
    for wrong in ["sftp://joe:geheim@/a", "sftp://joe:geheim@-host/a", "sftp://joe:geheim@host:port/"] {
        assert!(!parse_url(wrong).unwrap_err().to_string().contains("geheim"), "{wrong}");
    }
}
