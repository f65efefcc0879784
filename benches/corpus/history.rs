//! The files of each state. Nothing is random: the content and the changes of a file follow from its number.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Time of the first state, and the interval between states.
pub(crate) const EPOCH: u64 = 1_768_700_000;
pub(crate) const DAY: u64 = 86_400;
/// One of this many files does not exist at first.
const LATER: usize = 97;
/// Number of directories whose files are written with their content. The files of the others have only their sizes.
const WITH_CONTENT: usize = 3;

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) dirs: usize,
    pub(crate) files: usize,
    pub(crate) wide: usize,
}

#[derive(Clone, Copy, PartialEq)]
struct Slot {
    here: bool,
    version: u16,
    /// The state that changed it last.
    changed: u16,
}

/// A path as an increment stores it.
pub(crate) enum What {
    Dir,
    New(Vec<u8>),
    /// The new content, and how much of its beginning the old one has.
    Changed(Vec<u8>, usize),
    Deleted,
}

pub(crate) struct Change {
    pub(crate) path: String,
    pub(crate) mtime: u64,
    pub(crate) what: What,
}

pub(crate) struct History {
    shape: Shape,
    slots: Vec<Slot>,
    /// The state that changed each directory last; the root stays as it is.
    dirs: Vec<u16>,
    state: u16,
}

/// A change to a file.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum FileChange {
    Comes,
    Changes,
    Goes,
}

/// The part of a file's content that no change affects: some hundred bytes of hexadecimal digits.
fn head(slot: usize) -> Vec<u8> {
    let mut seed = (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut out = format!("file {slot}\n").into_bytes();
    let size = 40 + (seed >> 33) as usize % 300;
    while out.len() < size {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        write!(out, "{seed:016x} ").unwrap();
    }
    out
}

fn content(slot: usize, version: u16) -> (Vec<u8>, usize) {
    let mut out = head(slot);
    let stays = out.len();
    writeln!(out, "version {version}").unwrap();
    (out, stays)
}

fn time(state: u16) -> u64 {
    EPOCH + DAY * u64::from(state)
}

impl History {
    pub(crate) fn new(shape: Shape) -> Self {
        let absent = Slot { here: false, version: 0, changed: 0 };
        let count = shape.dirs * shape.files + shape.wide;
        let dirs = shape.dirs + usize::from(shape.wide > 0);
        Self { shape, slots: vec![absent; count], dirs: vec![0; dirs], state: 0 }
    }

    fn dir_name(&self, dir: usize) -> String {
        if dir < self.shape.dirs { format!("d{dir:04}") } else { "wide".to_owned() }
    }

    fn slots_of(&self, dir: usize) -> Range<usize> {
        let start = dir * self.shape.files;
        start..if dir < self.shape.dirs { start + self.shape.files } else { self.slots.len() }
    }

    fn dir_of(&self, slot: usize) -> usize {
        (slot / self.shape.files.max(1)).min(self.shape.dirs)
    }

    /// Advances to `state`. Returns the changed slots with their changes, in order.
    pub(crate) fn advance(&mut self, state: usize, changes: usize) -> Vec<(usize, FileChange)> {
        self.state = state as u16;
        let count = self.slots.len();
        let mut picked: Vec<usize> = match state {
            0 => (0..count).filter(|slot| slot % LATER != LATER - 1).collect(),
            _ => (0..changes).map(|i| (i * (count / changes) + state * 7919) % count).collect(),
        };
        picked.sort_unstable();
        picked.dedup();
        picked.into_iter().map(|slot| (slot, self.change(slot))).collect()
    }

    fn change(&mut self, slot: usize) -> FileChange {
        let dir = self.dir_of(slot);
        let file = &mut self.slots[slot];
        let fate = match file.here {
            true if slot.is_multiple_of(10) => FileChange::Goes,
            true => FileChange::Changes,
            false => FileChange::Comes,
        };
        file.here = fate != FileChange::Goes;
        file.version += u16::from(fate == FileChange::Changes);
        file.changed = self.state;
        if fate != FileChange::Changes {
            self.dirs[dir] = self.state;
        }
        fate
    }

    /// Calls `on_change` for every path that the state changed, in duplicity's order.
    pub(crate) fn each_change(&self, picked: &[(usize, FileChange)], mut on_change: impl FnMut(Change)) {
        let mtime = time(self.state);
        if self.state == 0 {
            on_change(Change { path: String::new(), mtime, what: What::Dir });
        }
        let mut rest = picked;
        for dir in 0..self.dirs.len() {
            let name = self.dir_name(dir);
            let slots = self.slots_of(dir);
            if self.dirs[dir] == self.state {
                on_change(Change { path: name.clone(), mtime, what: What::Dir });
            }
            while let Some(((slot, fate), more)) = rest.split_first().filter(|((slot, _), _)| slots.contains(slot)) {
                rest = more;
                let (bytes, stays) = content(*slot, self.slots[*slot].version);
                let what = match fate {
                    FileChange::Comes => What::New(bytes),
                    FileChange::Changes => What::Changed(bytes, stays),
                    FileChange::Goes => What::Deleted,
                };
                on_change(Change { path: format!("{name}/f{:06}", slot - slots.start), mtime, what });
            }
        }
    }

    /// Number of files and directories, including the root.
    pub(crate) fn entries(&self) -> usize {
        self.slots.iter().filter(|slot| slot.here).count() + self.dirs.len() + 1
    }

    /// Writes the tree as it is now.
    pub(crate) fn write_tree(&self, root: &Path) {
        for dir in 0..self.dirs.len() {
            let name = self.dir_name(dir);
            let path = root.join(&name);
            fs::create_dir_all(&path).unwrap();
            let slots = self.slots_of(dir);
            for slot in slots.clone().filter(|slot| self.slots[*slot].here) {
                let file = File::create(path.join(format!("f{:06}", slot - slots.start))).unwrap();
                let (bytes, _) = content(slot, self.slots[slot].version);
                if dir < WITH_CONTENT {
                    (&file).write_all(&bytes).unwrap();
                } else {
                    file.set_len(bytes.len() as u64).unwrap();
                }
                file.set_modified(UNIX_EPOCH + Duration::from_secs(time(self.slots[slot].changed))).unwrap();
            }
            touch(&path, time(self.dirs[dir]));
        }
        touch(root, EPOCH);
    }
}

fn touch(dir: &Path, when: u64) {
    File::open(dir).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(when)).unwrap();
}
