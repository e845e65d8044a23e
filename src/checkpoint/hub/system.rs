//! What file systems do differently: links, and locks on files that several users share.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};

#[cfg(unix)]
pub(super) use std::os::unix::fs::symlink;

/// Wine reports success without making a link.
#[cfg(windows)]
pub(super) fn symlink(target: &std::path::Path, link: &std::path::Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)?;
    link.symlink_metadata().map(drop).map_err(|_| ErrorKind::Unsupported.into())
}

/// Whether the file system does not support locks or links: `ENOLCK`, `ENOSYS`, `ENOTSUP` and `EOPNOTSUPP` by their
/// numbers on Linux and macOS, `EPERM` for links on FAT and similar, and on Windows the missing privilege for links.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    let is_known =
        |code| if cfg!(windows) { code == 1314 } else { matches!(code, 1 | 37 | 38 | 45 | 77 | 78 | 95 | 102) };
    error.kind() == ErrorKind::Unsupported || error.raw_os_error().is_some_and(is_known)
}

#[cfg(unix)]
mod by_system {
    use super::{File, Metadata};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    /// Lets other users open a lock file for writing. A failure only keeps them from it.
    pub(in super::super) fn let_others_lock(file: &File) {
        let _ = file.set_permissions(PermissionsExt::from_mode(0o664));
    }

    /// Whether an open file has been deleted.
    pub(in super::super) fn is_unlinked(file: &File) -> bool {
        file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Whether the file that was found under a name is the one that was then opened, and has no other name.
    pub(in super::super) fn is_only_name(named: &Metadata, opened: &Metadata) -> bool {
        (named.dev(), named.ino(), 1) == (opened.dev(), opened.ino(), opened.nlink())
    }
}

/// Other users may open every file, open files cannot be deleted, and metadata say nothing of names.
#[cfg(not(unix))]
mod by_system {
    use super::{File, Metadata};

    pub(in super::super) fn let_others_lock(_: &File) {}

    pub(in super::super) fn is_unlinked(_: &File) -> bool {
        false
    }

    pub(in super::super) fn is_only_name(_: &Metadata, _: &Metadata) -> bool {
        true
    }
}

pub(super) use by_system::*;
