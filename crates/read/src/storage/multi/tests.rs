use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::*;

/// Two directories and a configuration that names them.
struct Places {
    dir: tempfile::TempDir,
}

impl Places {
    fn new(json: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let text = json.replace("DIR", dir.path().to_str().unwrap());
        fs::write(dir.path().join("multi.json"), text).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, parameters: &str) -> Result<MultiStore, StorageError> {
        let url = format!("//{}{parameters}", self.path("multi.json").display());
        MultiStore::open(&MultiLocation::parse(&url)?, &StoreOptions::default(), super::super::open)
    }
}

const BOTH: &str =
    r#"[{"url": "file://DIR/a", "description": "x"}, {"url": "file://DIR/b", "env": [{"name": "X", "value": "y"}]}]"#;

fn names(store: &MultiStore) -> Vec<String> {
    let mut names: Vec<_> = listed(store).iter().map(|object| object.name.to_string()).collect();
    names.sort();
    names
}

fn listed(store: &MultiStore) -> Vec<ObjectInfo> {
    store.list(&RequestContext::unlimited()).unwrap()
}

fn find(store: &MultiStore, name: &str) -> ObjectInfo {
    listed(store).into_iter().find(|object| &*object.name == name).unwrap()
}

fn read(store: &MultiStore, object: &ObjectInfo) -> Result<String, StorageError> {
    let all = ByteRange { start: 0, end: u64::MAX };
    let mut text = String::new();
    let mut stream = store.open(object, all, &RequestContext::unlimited())?;
    stream.read_to_string(&mut text).map_err(|e| StorageError::recover(&object.name, &e))?;
    Ok(text)
}

#[test]
fn distributed_objects_are_all_listed_and_read() {
    let places = Places::new(BOTH);
    fs::write(places.path("a/one"), "1").unwrap();
    fs::write(places.path("b/two"), "22").unwrap();
    let store = places.open("?mode=stripe").unwrap();
    assert_eq!(names(&store), ["one", "two"]);
    assert_eq!(read(&store, &find(&store, "one")).unwrap(), "1");
    assert_eq!(read(&store, &find(&store, "two")).unwrap(), "22");
    assert_eq!(store.traffic().bytes, 3);
}

#[test]
fn a_copy_of_another_store_is_read_when_the_first_is_gone() {
    let places = Places::new(BOTH);
    for dir in ["a", "b"] {
        fs::write(places.path(dir).join("one"), "content").unwrap();
    }
    let store = places.open("?mode=mirror&onfail=continue").unwrap();
    let object = find(&store, "one");
    assert_eq!(names(&store), ["one"]);
    fs::remove_file(places.path("a/one")).unwrap();
    assert_eq!(read(&store, &object).unwrap(), "content");
    fs::remove_file(places.path("b/one")).unwrap();
    assert_eq!(read(&store, &object).unwrap_err().kind, ErrorKind::Missing);
}

#[test]
fn a_copy_that_was_not_written_completely_is_not_read() {
    let places = Places::new(BOTH);
    fs::write(places.path("a/one"), "cont").unwrap();
    fs::write(places.path("b/one"), "content").unwrap();
    let store = places.open("?mode=mirror").unwrap();
    assert_eq!(read(&store, &find(&store, "one")).unwrap(), "content");
}

#[test]
fn a_store_that_cannot_be_reached_is_left_out_until_it_answers() {
    let places = Places::new(BOTH);
    fs::write(places.path("a/one"), "1").unwrap();
    fs::rename(places.path("b"), places.path("hidden")).unwrap();
    let store = places.open("").unwrap();
    assert_eq!(names(&store), ["one"]);
    fs::rename(places.path("hidden"), places.path("b")).unwrap();
    fs::write(places.path("b/two"), "2").unwrap();
    assert_eq!(names(&store), ["one", "two"]);
    // A store that was there keeps its objects while it does not answer.
    fs::rename(places.path("b"), places.path("hidden")).unwrap();
    assert_eq!(names(&store), ["one", "two"]);
    assert_eq!(read(&store, &find(&store, "two")).unwrap_err().kind, ErrorKind::Missing);
    fs::rename(places.path("a"), places.path("gone")).unwrap();
    assert!(store.list(&RequestContext::unlimited()).is_err());
    assert!(places.open("").is_err());
}

#[test]
fn the_subpath_is_below_every_store() {
    let places = Places::new(BOTH);
    fs::create_dir(places.path("b/sub")).unwrap();
    fs::write(places.path("b/sub/one"), "1").unwrap();
    let store = places.open("?subpath=/sub").unwrap();
    assert_eq!(names(&store), ["one"]);
    assert!(store.url().ends_with("multi.json?subpath=/sub"));
}

#[test]
fn configurations_that_duplicity_refuses_are_errors() {
    let open = |json: &str| Places::new(json).open("").unwrap_err();
    for wrong in ["", "{}", "[]", r#"[{"u": "x"}]"#, r#"[{"url": "multi:///x.json"}]"#] {
        assert_eq!(open(wrong).kind, ErrorKind::Invalid, "{wrong}");
    }
    let parse = |rest: &str| MultiLocation::parse(rest).map(|location| location.configuration);
    assert_eq!(parse("///etc/a%20b.json?mode=mirror").unwrap(), Path::new("/etc/a b.json"));
    assert_eq!(parse("//etc/m.json").unwrap(), Path::new("/etc/m.json"));
    for wrong in ["//", "///m.json?mode=other", "///m.json?onfail=x", "///m.json?unknown=1"] {
        assert_eq!(parse(wrong).unwrap_err().kind, ErrorKind::Invalid, "{wrong}");
    }
    let secret = open(r#"[{"url": "ftp://joe:geheim@host:port/"}]"#);
    assert!(!secret.to_string().contains("geheim"), "{secret}");
}
