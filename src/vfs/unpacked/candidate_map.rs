//! Files whose suffixes hint that they can be unpacked, as lookups found them.

use dupfs_base::RequestContext;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::super::error::FsError;
use super::super::ops::Ino;
use super::candidate::UnpackCandidate;
use dupfs_base::sync::lock;

/// Upper bound of the candidates whose content could not be read.
const UNCONFIRMED: usize = 1024;

/// All candidates by their numbers. Those whose content was checked stay for the life of the mount: a number must not
/// change from a directory to a file.
#[derive(Default)]
pub(super) struct CandidateMap {
    state: Mutex<CandidatesState>,
}

#[derive(Default)]
struct CandidatesState {
    candidates: HashMap<Ino, Arc<UnpackCandidate>>,
    /// Those that were not confirmed when a lookup found them, in that order.
    unconfirmed: VecDeque<Ino>,
}

impl CandidateMap {
    /// The candidate of that number, if a lookup found it before.
    pub(super) fn get(&self, ino: Ino) -> Option<Arc<UnpackCandidate>> {
        lock(&self.state).candidates.get(&ino).map(Arc::clone)
    }

    /// Takes a candidate as a lookup found it now. Facts about the content of the same entry stay, those of another are dropped.
    ///
    /// # Errors
    /// [`FsError::WouldBlock`] where it is not known and the request may not block: its content cannot be checked
    /// then, so there is no use in keeping it. A listing of a million files requests each of them in this way.
    pub(super) fn update(
        &self,
        ino: Ino,
        looked_up: UnpackCandidate,
        context: &RequestContext,
    ) -> Result<Arc<UnpackCandidate>, FsError> {
        let mut state = lock(&self.state);
        let known = state.candidates.get(&ino).filter(|known| known.entry == looked_up.entry).map(Arc::clone);
        let content = match known {
            Some(known) if known.name == looked_up.name && known.attr == looked_up.attr => return Ok(known),
            Some(known) => Arc::clone(&known.content),
            None if !context.may_block() => return Err(FsError::WouldBlock),
            // The kernel may have the number from the entry before: the candidate is kept.
            None if state.candidates.contains_key(&ino) => {
                state.unconfirmed.retain(|unconfirmed| *unconfirmed != ino);
                Arc::default()
            }
            None => {
                if state.unconfirmed.len() >= UNCONFIRMED {
                    state.sweep();
                }
                state.unconfirmed.push_back(ino);
                Arc::default()
            }
        };
        let candidate = Arc::new(UnpackCandidate { content, ..looked_up });
        state.candidates.insert(ino, Arc::clone(&candidate));
        Ok(candidate)
    }
}

impl CandidatesState {
    /// Drops the unconfirmed ones that no request uses: lookups find them again.
    fn sweep(&mut self) {
        let Self { candidates, unconfirmed } = self;
        unconfirmed.retain(|ino| match candidates.get(ino) {
            // Copies are made under the lock only, so one that is the only one stays so.
            Some(candidate) if candidate.content.confirmed.get().is_none() => {
                let used = Arc::strong_count(candidate) > 1 || Arc::strong_count(&candidate.content) > 1;
                if !used {
                    candidates.remove(ino);
                }
                used
            }
            Some(_) | None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ops::{Attr, NodeKind};
    use super::*;
    use dupfs_unpack::{ArchiveFormat, UnpackKind};

    fn candidate() -> UnpackCandidate {
        UnpackCandidate::of(UnpackKind::Archive(ArchiveFormat::Zip), b"a.zip", None, Attr::type_only(1, NodeKind::File))
    }

    fn count(candidates: &CandidateMap) -> usize {
        lock(&candidates.state).candidates.len()
    }

    #[test]
    fn nothing_is_retained_for_a_request_that_may_not_block() {
        let candidates = CandidateMap::default();
        let asked = candidates.update(7, candidate(), &RequestContext::cached_only());
        assert!(matches!(asked, Err(FsError::WouldBlock)));
        assert_eq!(count(&candidates), 0);
        let made = candidates.update(7, candidate(), &RequestContext::unlimited()).unwrap();
        let again = candidates.update(7, candidate(), &RequestContext::cached_only()).unwrap();
        assert!(Arc::ptr_eq(&made, &again) && Arc::ptr_eq(&made, &candidates.get(7).unwrap()));
    }

    #[test]
    fn unreadable_candidates_are_bounded_and_the_others_stay() {
        let candidates = CandidateMap::default();
        let used = candidates.update(0, candidate(), &RequestContext::unlimited()).unwrap();
        for ino in 1..100_000 {
            let candidate = candidates.update(ino, candidate(), &RequestContext::unlimited()).unwrap();
            if ino % 100 == 0 {
                candidate.content.confirmed.set(ino % 200 == 0).unwrap();
            }
        }
        assert!(count(&candidates) <= 999 + 2 * UNCONFIRMED, "{} are retained", count(&candidates));
        assert!((100..100_000).step_by(100).all(|ino| candidates.get(ino).is_some()));
        // A request with a reference to one may be reading its content.
        assert!(Arc::ptr_eq(&used, &candidates.get(0).unwrap()));
        assert!(lock(&candidates.state).unconfirmed.len() <= UNCONFIRMED);
    }
}
