//! The key for identities of texts with secrets. It is in the directory of all indexes, and only its user can read it. The name
//! of an index alone does not show whether a guess of the secrets is right.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, linkat, openat, unlinkat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::Identity;
use super::directory::create_base;

/// The name of the file with the key.
const NAME: &str = "identity-key";
/// Bytes of the key.
const KEY_BYTES: usize = 32;

type IdentityKey = Zeroizing<[u8; KEY_BYTES]>;

/// The identity of `text`, which has secrets, by the key in `base`. Both the directory and the key are created if they do not
/// exist.
///
/// # Errors
/// Any I/O error, and if the key is not one of this user alone.
pub fn keyed_identity(base: &Path, text: &[u8]) -> io::Result<Identity> {
    let base = create_base(base)?;
    let key = match load(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(&base)?;
            // It may be that of another process.
            load(&base)?
        }
        key => key?,
    };
    // An identity is half of the hash, which does not reveal the state from which a longer text could be hashed.
    Ok(Identity::of(&[key.as_slice(), text]))
}

fn load(base: &OwnedFd) -> io::Result<IdentityKey> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = File::from(openat(base, NAME, flags, Mode::empty())?);
    let stat = fstat(&file)?;
    let is_own = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    if !is_own || !file.metadata()?.is_file() {
        let reason = format!("{NAME} in it is not a file of this user alone; remove it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let mut key = IdentityKey::default();
    file.read_exact(&mut *key).map_err(|_| io::Error::other(format!("{NAME} in it is damaged; remove it")))?;
    Ok(key)
}

/// Creates the key, unless there is one.
fn create(base: &OwnedFd) -> io::Result<()> {
    let mut key = IdentityKey::default();
    let mut random = [0; 8];
    getrandom::fill(&mut *key)
        .and_then(|()| getrandom::fill(&mut random))
        .map_err(|e| io::Error::other(e.to_string()))?;
    let unfinished = format!(".{NAME}-{:016x}", u64::from_ne_bytes(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(base, &unfinished, flags, Mode::RUSR | Mode::WUSR)?);
    // It gets its name when it is complete, and replaces none.
    let created = file.write_all(&*key).and_then(|()| match linkat(base, &unfinished, base, NAME, AtFlags::empty()) {
        Err(Errno::EXIST) => Ok(()),
        linked => Ok(linked?),
    });
    let removed = unlinkat(base, &unfinished, AtFlags::empty());
    created.and(Ok(removed?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn an_identity_is_that_of_the_text_and_the_key_which_only_its_user_reads() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().join("a/cache");
        let [one, same, other] = ["one", "one", "other"].map(|text| keyed_identity(&base, text.as_bytes()).unwrap());
        assert!(one == same && one != other);
        let names: Vec<_> = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
        let file = base.join(NAME);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(keyed_identity(&scratch.path().join("b"), b"one").unwrap(), one, "each directory has its own key");
        let key = fs::read(&file).unwrap();
        fs::write(&file, &key[1..]).unwrap();
        assert!(keyed_identity(&base, b"one").unwrap_err().to_string().contains("damaged; remove it"));
        fs::write(&file, &key).unwrap();
        assert_eq!(keyed_identity(&base, b"one").unwrap(), one);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(keyed_identity(&base, b"one").unwrap_err().to_string().contains("not a file of this user alone"));
        fs::remove_file(&file).unwrap();
        symlink("/dev/zero", &file).unwrap();
        assert!(keyed_identity(&base, b"one").is_err());
    }

    #[test]
    fn processes_that_create_the_key_at_the_same_time_have_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let identities: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| keyed_identity(scratch.path(), b"one").unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
    }
}
