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

#[test]
fn an_object_that_was_replaced_in_all_stores_is_an_error() {
    let places = Places::new(BOTH);
    fs::write(places.path("a/one"), "content").unwrap();
    let store = places.open("").unwrap();
    let object = find(&store, "one");
    fs::write(places.path("a/one"), "another").unwrap();
    fs::write(places.path("a/new"), "").unwrap();
    fs::rename(places.path("a/new"), places.path("a/one")).unwrap();
    fs::write(places.path("a/one"), "something else").unwrap();
    assert_eq!(names(&store), ["one"]);
    // The copy of the new listing is not that object.
    assert!(read(&store, &object).unwrap_err().to_string().contains("was replaced or changed"));
    assert_eq!(read(&store, &find(&store, "one")).unwrap(), "something else");
}

/// Opens a directory whose name is the value of the variable `X`, or `before` without one.
fn open_with_variable(location: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let Location::Local(dir) = location else { panic!("{location:?}") };
    let value = options.secrets.get("X").map(|value| String::from_utf8(value.expose().to_vec()).unwrap());
    if dir.file_name().unwrap().to_str() != value.as_deref().or(Some("before")) {
        return Err(StorageError::new(ErrorKind::Denied, &dir.display().to_string(), "the variable is another one"));
    }
    super::super::open(location, options)
}

#[test]
fn variables_of_a_store_also_apply_to_the_stores_that_follow() {
    let variable = |value: &str| format!(r#", "env": [{{"name": "X", "value": "{value}"}}]"#);
    let (a, b) = (variable("a"), variable("b"));
    let json = format!(
        r#"[{{"url": "file://DIR/before"}}, {{"url": "file://DIR/a"{a}}}, {{"url": "file://DIR/sub/a"}}, {{"url": "file://DIR/b"{b}}}]"#
    );
    let places = Places::new(&json);
    for (number, name) in ["before", "a", "sub/a", "b"].iter().enumerate() {
        fs::create_dir_all(places.path(name)).unwrap();
        fs::write(places.path(name).join(number.to_string()), "x").unwrap();
    }
    let url = format!("//{}", places.path("multi.json").display());
    let store = MultiStore::open(&MultiLocation::parse(&url).unwrap(), &StoreOptions::default(), open_with_variable);
    assert_eq!(names(&store.unwrap()), ["0", "1", "2", "3"]);
}

/// A store that does not answer while its directory has a file `down`.
#[derive(Debug)]
struct FragileStore {
    inner: Arc<dyn ObjectStore>,
    down: PathBuf,
    /// While there is this file, a read waits until its request ends.
    stalls: PathBuf,
    /// The bytes of an object after which it does not answer, while there is a file `cut`.
    cut: PathBuf,
}

const CUT: usize = 3;

fn open_fragile(location: &Location, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let Location::Local(dir) = location else { panic!("{location:?}") };
    assert!(options.read_timeout.is_none(), "a store would wait for long before the next one is tried");
    let inner = super::super::open(location, options)?;
    Ok(Arc::new(FragileStore { inner, down: dir.join("down"), stalls: dir.join("stalls"), cut: dir.join("cut") }))
}

fn unanswered() -> StorageError {
    StorageError { unanswered: true, ..StorageError::new(ErrorKind::Timeout, "o", "no answer within 0 s") }
}

impl ObjectStore for FragileStore {
    fn url(&self) -> &str {
        self.inner.url()
    }
    fn list(&self, context: &RequestContext) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(context)
    }
    fn list_directory(&self, dir: &str, context: &RequestContext) -> Result<DirectoryListing, StorageError> {
        self.inner.list_directory(dir, context)
    }
    fn open(
        &self,
        object: &ObjectInfo,
        range: ByteRange,
        context: &RequestContext,
    ) -> Result<Box<dyn Read + Send>, StorageError> {
        if self.down.exists() {
            // Recorded: the test waits for an attempt.
            fs::write(self.down.with_file_name("tried"), "").unwrap();
            return Err(unanswered());
        }
        if self.stalls.exists() {
            fs::write(self.down.with_file_name("tried"), "").unwrap();
            let stopped = pause_until(Instant::now() + Duration::from_secs(600), context).unwrap_err();
            return Err(StorageError::stopped(&object.name, stopped));
        }
        let stream = self.inner.open(object, range, context)?;
        if !self.cut.exists() {
            return Ok(stream);
        }
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(unanswered().into_io())
            }
        }
        Ok(Box::new(stream.take(CUT as u64).chain(Broken)))
    }
    fn traffic(&self) -> Traffic {
        self.inner.traffic()
    }
    fn bucket(&self) -> Option<BucketLocation> {
        None
    }
}

/// The content of both directories.
fn fragile(places: &Places, read_timeout: Option<ReadTimeout>) -> (MultiStore, ObjectInfo) {
    for dir in ["a", "b"] {
        fs::write(places.path(dir).join("one"), "content").unwrap();
    }
    let url = format!("//{}", places.path("multi.json").display());
    let options = StoreOptions { read_timeout, ..StoreOptions::default() };
    let store = MultiStore::open(&MultiLocation::parse(&url).unwrap(), &options, open_fragile).unwrap();
    let object = find(&store, "one");
    (store, object)
}

#[test]
fn a_store_that_does_not_answer_is_not_waited_for_while_another_does() {
    let places = Places::new(BOTH);
    let (store, object) = fragile(&places, Some(ReadTimeout::new(Duration::from_secs(1800))));
    fs::write(places.path("a/down"), "").unwrap();
    assert_eq!(read(&store, &object).unwrap(), "content");
    assert!(places.path("a/tried").exists());
    fs::remove_file(places.path("a/down")).unwrap();
    // In the middle of an object, at the next byte.
    fs::write(places.path("a/cut"), "").unwrap();
    assert_eq!(read(&store, &object).unwrap(), "content");
}

#[test]
fn a_store_that_failed_slowly_is_read_last_until_it_serves_a_read() {
    let places = Places::new(BOTH);
    let (store, object) = fragile(&places, None);
    let tried = |dir: &str| fs::remove_file(places.path(dir).join("tried")).is_ok();
    fs::write(places.path("a/down"), "").unwrap();
    assert_eq!(read(&store, &object).unwrap(), "content");
    assert!(tried("a"), "the first one is tried first");
    store.members[0].record_failure(&StorageError::missing(&object), SLOW_FAILURE);
    assert!(!store.members[0].is_last(), "it is the object that is missing");
    store.members[0].record_failure(&unanswered(), SLOW_FAILURE);
    assert_eq!(read(&store, &object).unwrap(), "content");
    assert!(!tried("a"), "each object would wait for it");
    // If the others do not have an object either, it is read from there.
    fs::write(places.path("b/down"), "").unwrap();
    assert!(read(&store, &object).unwrap_err().unanswered);
    assert!(tried("a") && tried("b"));
    fs::remove_file(places.path("b/down")).unwrap();
    // Listings are answered where reads are not.
    listed(&store);
    assert_eq!(read(&store, &object).unwrap(), "content");
    assert!(!tried("a"));
    // The other one is gone, and it answers: from then on it is read first.
    fs::write(places.path("b/down"), "").unwrap();
    fs::remove_file(places.path("a/down")).unwrap();
    assert_eq!(read(&store, &object).unwrap(), "content");
    fs::remove_file(places.path("b/down")).unwrap();
    assert!(!store.members[0].is_last());
}

#[test]
fn a_store_whose_listing_was_not_answered_is_read_last_until_it_is_listed() {
    let places = Places::new(BOTH);
    let (store, _) = fragile(&places, None);
    let member = &store.members[0];
    let objects = member.record(Err(unanswered()));
    assert!(member.is_last());
    member.record(Ok(objects));
    assert!(!member.is_last());
}

#[test]
fn a_store_that_stalls_until_the_deadline_is_read_last() {
    let places = Places::new(BOTH);
    let (store, object) = fragile(&places, None);
    fs::write(places.path("a/stalls"), "").unwrap();
    let context = RequestContext::with_timeout(SLOW_FAILURE + Duration::from_millis(50));
    let Err(error) = store.open(&object, ByteRange { start: 0, end: 7 }, &context) else { panic!("it was opened") };
    assert_eq!(error.kind, ErrorKind::Timeout);
    fs::remove_file(places.path("a/tried")).unwrap();
    assert_eq!(read(&store, &object).unwrap(), "content");
    assert!(!places.path("a/tried").exists(), "each read would wait for it");
}

#[test]
fn a_read_outlives_an_outage_of_all_stores() {
    let places = Places::new(BOTH);
    let (store, object) = fragile(&places, Some(ReadTimeout::new(Duration::from_secs(1800))));
    let down = ["a/down", "b/down"].map(|name| places.path(name));
    down.iter().for_each(|file| fs::write(file, "").unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read(&store, &object));
        while !places.path("b/tried").exists() {
            std::thread::yield_now();
        }
        fs::remove_file(&down[1]).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), "content");
    });
    // Of a command it does not.
    fs::write(&down[1], "").unwrap();
    let (store, object) = fragile(&places, None);
    assert!(read(&store, &object).unwrap_err().unanswered);
    // A cancelled one ends.
    let (store, object) = fragile(&places, Some(ReadTimeout::new(Duration::from_secs(1800))));
    let context = RequestContext::with_timeout(Duration::from_millis(100));
    let range = ByteRange { start: 0, end: 9 };
    let Err(error) = store.open(&object, range, &context) else { panic!("it was opened") };
    assert_eq!(error.kind, ErrorKind::Timeout);
}

/// A mirror with two copies of one object, which differ.
fn different_copies() -> (Places, MultiStore, ObjectInfo) {
    let places = Places::new(BOTH);
    for dir in ["a", "b"] {
        fs::write(places.path(dir).join("one"), format!("of {dir}")).unwrap();
    }
    let store = places.open("?mode=mirror").unwrap();
    let object = find(&store, "one");
    (places, store, object)
}

#[test]
fn a_copy_that_is_rejected_is_read_only_if_there_is_no_other() {
    let (places, store, object) = different_copies();
    assert_eq!(read(&store, &object).unwrap(), "of a");
    let first = store.reject_copy(&object, true).unwrap();
    assert!(first.store.ends_with("/a"), "{first:?}");
    let other = first.other.clone().unwrap();
    assert_eq!(read(&store, &other).unwrap(), "of b");
    assert_eq!(read(&store, &object).unwrap(), "of b", "another reader does not try the damaged copy");
    // A reader that had it before rejects it too, and not the other one.
    let again = store.reject_copy(&object, true).unwrap();
    assert_eq!((&again.store, again.other.as_ref()), (&first.store, Some(&other)));
    let last = store.reject_copy(&other, true).unwrap();
    assert!(last.store.ends_with("/b") && last.other.is_none(), "{last:?}");
    // All are damaged: a new reader gets each once.
    let (mut object, mut texts) = (Some(object), Vec::new());
    while let Some(next) = object {
        texts.push(read(&store, &next).unwrap());
        object = store.reject_copy(&next, true).unwrap().other;
    }
    assert_eq!(texts, ["of a", "of b"]);
    // A copy that was replaced counts as sound.
    fs::remove_file(places.path("a/one")).unwrap();
    fs::write(places.path("a/one"), "is a").unwrap();
    let object = find(&store, "one");
    assert_eq!(read(&store, &object).unwrap(), "is a");
}

#[test]
fn a_smaller_copy_is_read_once_all_larger_ones_are_rejected() {
    let places = Places::new(BOTH);
    fs::write(places.path("a/one"), "of a").unwrap();
    fs::write(places.path("b/one"), "of b, longer").unwrap();
    let store = places.open("?mode=mirror").unwrap();
    let object = find(&store, "one");
    assert_eq!((object.size, read(&store, &object).unwrap()), (12, "of b, longer".to_owned()));
    let rejected = store.reject_copy(&object, true).unwrap();
    assert!(rejected.store.ends_with("/b"), "{rejected:?}");
    let other = rejected.other.unwrap();
    assert_eq!((other.size, read(&store, &other).unwrap()), (4, "of a".to_owned()));
    // Never a part of one and the rest of the other.
    assert_eq!(read(&store, &object).unwrap(), "of b, longer");
    let last = store.reject_copy(&other, true).unwrap();
    assert!(last.store.ends_with("/a") && last.other.is_none(), "{last:?}");
}

#[test]
fn a_copy_that_may_be_sound_is_rejected_for_its_reader_alone() {
    let (_places, store, object) = different_copies();
    assert_eq!(read(&store, &object).unwrap(), "of a");
    let other = store.reject_copy(&object, false).unwrap().other.unwrap();
    assert_eq!(read(&store, &other).unwrap(), "of b");
    assert_eq!(read(&store, &object).unwrap(), "of a");
}

#[test]
fn the_only_copy_is_rejected_with_the_name_of_its_store() {
    let places = Places::new(BOTH);
    fs::write(places.path("b/two"), "22").unwrap();
    let store = places.open("?mode=stripe").unwrap();
    let object = find(&store, "two");
    let rejected = store.reject_copy(&object, true).unwrap();
    assert!(rejected.store.ends_with("/b") && rejected.other.is_none(), "{rejected:?}");
    let unknown = ObjectInfo { version: "another".into(), ..object };
    assert_eq!(store.reject_copy(&unknown, true), None);
}

#[test]
fn another_copy_is_not_continued_by_the_rejected_one() {
    let places = Places::new(BOTH);
    let (store, object) = fragile(&places, None);
    assert_eq!(read(&store, &object).unwrap(), "content");
    let other = store.reject_copy(&object, true).unwrap().other.unwrap();
    fs::write(places.path("b/cut"), "").unwrap();
    assert!(read(&store, &other).unwrap_err().unanswered);
}
