//! The home directory of the user who runs the program.

use std::path::PathBuf;

use nix::unistd::User;

/// The name of the variable.
pub(super) const HOME: &str = "HOME";

/// The directory that `HOME` names. A process that is started at boot, such as by an fstab, has no such variable: then the
/// directory of the user database counts, if it exists. A relative or empty `HOME` counts as none.
pub(super) fn home_dir() -> Option<PathBuf> {
    match std::env::var_os(HOME) {
        Some(given) => Some(PathBuf::from(given)),
        None => of_user_database(),
    }
    .filter(|home| home.is_absolute())
}

fn of_user_database() -> Option<PathBuf> {
    let user = User::from_uid(nix::unistd::geteuid()).ok().flatten()?;
    Some(user.dir).filter(|home| home.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_database_has_the_directory_of_this_user() {
        let home = of_user_database().unwrap();
        assert!(home.is_absolute() && home.is_dir(), "{home:?}");
    }
}
