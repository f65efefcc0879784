//! The decorators of stores: planned faults and counting.

use std::fs;
use std::io::Read;
use std::num::NonZeroU64;
use std::sync::Arc;

use dupfs_base::{ByteRange, ErrorKind, RequestContext};
use dupfs_read::storage::{
    CountingStore, Effect, Fault, FaultyStore, FetchLimit, LimitedStore, MemoryStore, MeteredStore, Nth, ObjectInfo,
    ObjectStore, RateLimitedStore, ReadCount, StagedStore, StorageError, StoreOptions, WrappingStore, open, parse_url,
};

const ALL: ByteRange = ByteRange { start: 0, end: u64::MAX };

fn memory() -> MemoryStore {
    let store = MemoryStore::new();
    store.put("vol1", vec![0_u8; 1000]);
    store.put("sig1", vec![0_u8; 100]);
    store
}

fn find(store: &dyn ObjectStore, name: &str) -> ObjectInfo {
    store.list(&RequestContext::unlimited()).unwrap().into_iter().find(|o| &*o.name == name).unwrap()
}

fn read(store: &dyn ObjectStore, name: &str, range: ByteRange) -> Result<Vec<u8>, ErrorKind> {
    let mut out = Vec::new();
    let mut stream = store.open(&find(store, name), range, &RequestContext::unlimited()).map_err(|e| e.kind)?;
    stream.read_to_end(&mut out).map_err(|e| StorageError::recover(name, &e).kind)?;
    Ok(out)
}

#[test]
fn faults_apply_to_the_objects_and_times_of_the_plan() {
    let store = FaultyStore::new(
        memory(),
        vec![
            Fault::on("vol1", Effect::Error(ErrorKind::Denied)).at(Nth::Only(1)),
            Fault::on("vol1", Effect::Missing).at(Nth::From(3)),
        ],
    );
    let got: Vec<_> = (0..5).map(|_| read(&store, "vol1", ALL).map(|b| b.len())).collect();
    let (denied, missing) = (Err(ErrorKind::Denied), Err(ErrorKind::Missing));
    assert_eq!(got, [Ok(1000), denied, Ok(1000), missing, missing]);
    assert_eq!(read(&store, "sig1", ALL).unwrap().len(), 100);
    store.set_plan(vec![Fault::everywhere(Effect::Error(ErrorKind::Io)).at(Nth::First(1))]);
    assert_eq!(read(&store, "sig1", ALL), Err(ErrorKind::Io));
    assert!(read(&store, "sig1", ALL).is_ok());
    store.set_plan(vec![Fault::on("vol1", Effect::Hidden)]);
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap().len(), 1);
    store.set_plan(vec![Fault::on("vol1", Effect::Hidden).at(Nth::Only(0))]);
    assert_eq!([1, 2, 2].map(|_| store.list(&RequestContext::unlimited()).unwrap().len()), [1, 2, 2]);
    store.set_plan(vec![Fault::on_list(Effect::Error(ErrorKind::Timeout)).at(Nth::First(1))]);
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap_err().kind, ErrorKind::Timeout);
    assert_eq!(store.list(&RequestContext::unlimited()).unwrap().len(), 2);
}

#[test]
fn silent_damage_is_at_the_offset_of_the_object_whatever_range_is_read() {
    let store = FaultyStore::new(memory(), vec![Fault::on("vol1", Effect::FlipBit(8 * 500 + 3))]);
    for start in [0, 499, 500, 501] {
        let bytes = read(&store, "vol1", ByteRange::at(start, 600)).unwrap();
        let flipped: Vec<_> = (start..).zip(&bytes).filter(|(_, b)| **b != 0).map(|(i, b)| (i, *b)).collect();
        assert_eq!(flipped, if start <= 500 { vec![(500, 8)] } else { vec![] });
    }
    store.set_plan(vec![Fault::on("vol1", Effect::Truncate(600))]);
    assert_eq!(read(&store, "vol1", ALL).unwrap().len(), 600);
    assert_eq!(read(&store, "vol1", ByteRange::at(590, 100)).unwrap().len(), 10);
    assert_eq!(read(&store, "vol1", ByteRange::at(700, 100)).unwrap().len(), 0);
    store.set_plan(vec![Fault::on("vol1", Effect::ErrorAt(600, ErrorKind::Timeout))]);
    assert_eq!(read(&store, "vol1", ByteRange::at(0, 600)).unwrap().len(), 600);
    assert_eq!(read(&store, "vol1", ALL), Err(ErrorKind::Timeout));
}

#[test]
fn bytes_read_are_counted_by_object_and_by_kind() {
    let store = CountingStore::new(memory());
    assert_eq!(read(&store, "vol1", ByteRange::at(10, 20)).unwrap().len(), 20);
    assert_eq!(read(&store, "vol1", ByteRange::at(990, 20)).unwrap().len(), 10);
    read(&store, "sig1", ALL).unwrap();
    let gone = find(&store, "sig1");
    store.inner().remove("sig1");
    assert!(store.open(&gone, ALL, &RequestContext::unlimited()).is_err());
    assert_eq!(store.lists(), 4);
    let by_kind = store.reads_by(|name| name.starts_with("vol"));
    assert_eq!(by_kind[&true], ReadCount { opens: 2, bytes: 30, errors: 0 });
    assert_eq!(by_kind[&false], ReadCount { opens: 2, bytes: 100, errors: 1 });
    assert_eq!(store.total().opens, 4);
    store.reset();
    assert_eq!((store.total(), store.lists()), (ReadCount::default(), 0));
}

#[test]
fn a_cold_object_is_listed_and_cannot_be_read() {
    let store = memory();
    store.put_archived("frozen", vec![1, 2, 3], "DEEP_ARCHIVE");
    assert_eq!(find(&store, "frozen").archived.as_deref(), Some("DEEP_ARCHIVE"));
    assert_eq!(read(&store, "frozen", ALL), Err(ErrorKind::Archived));
    assert_eq!(read(&store, "vol1", ALL).unwrap().len(), 1000);
}

#[test]
fn every_decorator_leads_to_the_other_copies_of_an_object() {
    let dir = tempfile::tempdir().unwrap();
    for store in ["a", "b"] {
        fs::create_dir(dir.path().join(store)).unwrap();
        fs::write(dir.path().join(store).join("vol1"), store).unwrap();
    }
    let place = dir.path().display();
    let json = format!(r#"[{{"url": "file://{place}/a"}}, {{"url": "file://{place}/b"}}]"#);
    fs::write(dir.path().join("multi.json"), json).unwrap();
    let url = parse_url(&format!("multi://{place}/multi.json")).unwrap();
    let mirror = || open(&url, &StoreOptions::default()).unwrap();
    let slow = NonZeroU64::new(1 << 30).unwrap();
    let stores: [Box<dyn ObjectStore>; 8] = [
        Box::new(mirror()),
        Box::new(CountingStore::new(mirror())),
        Box::new(FaultyStore::new(mirror(), Vec::new())),
        Box::new(LimitedStore::new(mirror(), FetchLimit::new(1000, "wait"))),
        Box::new(MeteredStore::new(mirror(), Arc::default())),
        Box::new(RateLimitedStore::new(mirror(), slow)),
        Box::new(StagedStore::new(mirror())),
        Box::new(WrappingStore::new(mirror(), |_: &ObjectInfo, stream| stream)),
    ];
    for store in &stores {
        let object = find(&**store, "vol1");
        let read = |object: &ObjectInfo| {
            let mut text = String::new();
            let opened = store.open(object, ALL, &RequestContext::unlimited());
            opened.unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read(&object), "a");
        let other = store.reject_copy(&object, true).unwrap().other.unwrap();
        assert_eq!(read(&other), "b", "{store:?}");
    }
    assert_eq!(memory().reject_copy(&find(&memory(), "vol1"), true), None);
}
