//! The reference model: histories of plain trees, an encoder that writes them as duplicity would, a store that counts and
//! fails, and checks of a file system against the trees. Written from FORMAT.md alone: nothing here uses a parser of dupfs.

// Two test programs share these modules, and each uses a part of them.
#![allow(dead_code)]

pub(crate) mod check;
pub(crate) mod encode;
pub(crate) mod history;
pub(crate) mod layout;
pub(crate) mod mirror;
pub(crate) mod naming;
pub(crate) mod needed_volumes;
pub(crate) mod rdiff;
pub(crate) mod store;
pub(crate) mod subject;
pub(crate) mod tar;
pub(crate) mod tree;
