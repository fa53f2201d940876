//! Result files: documents that the user names, written whole or not at all.
//!
//! | target | how it is written |
//! | --- | --- |
//! | nothing yet, or a regular file | a temporary file beside it, synced and renamed over it |
//! | a symbolic link | the same for the file that it points to; the link stays |
//! | a file with several names, or in a folder that cannot be written | in place, once its space is reserved |
//! | standard output or standard error, under any name | through the open descriptor |
//! | a device or a FIFO | opened and written, never replaced |
//!
//! A file that is replaced keeps its mode and, where that is allowed, its owner.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{AccessFlags, eaccess};
use tempfile::NamedTempFile;

/// The longest chain of symbolic links that the kernel follows.
const MAX_LINKS: usize = 40;

/// A file that the user named, found to be writable.
#[derive(Debug)]
pub struct ResultFile {
    path: PathBuf,
    target: Target,
}

/// The ways to write a file; see the table above.
#[derive(Debug)]
enum Target {
    Replace {
        path: PathBuf,
        existing: Option<Metadata>,
    },
    InPlace,
    Stream(OwnedFd),
    Device,
}

impl ResultFile {
    /// Checks that the file can be written, and changes nothing. To be called before a measurement
    /// whose result it is for.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let target = Target::of(path).with_context(|| cannot_write(path))?;
        Ok(ResultFile {
            path: path.to_owned(),
            target,
        })
    }

    /// Replaces the contents of the file.
    pub fn write(&self, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let contents = contents.as_ref();
        let written = match &self.target {
            Target::Replace { path, existing } => replace(path, existing.as_ref(), contents),
            Target::InPlace => overwrite(&self.path, contents),
            Target::Stream(descriptor) => descriptor
                .try_clone()
                .and_then(|descriptor| File::from(descriptor).write_all(contents)),
            Target::Device => OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|mut device| device.write_all(contents)),
        };

        written.with_context(|| cannot_write(&self.path))
    }
}

/// Writes a document whole or not at all.
pub fn write_file(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    ResultFile::open(path)?.write(contents)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        let existing = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::new_file(path),
            Err(error) => return Err(error),
        };

        if let Some(stream) = standard_stream(&existing)? {
            return Ok(Target::Stream(stream));
        }

        let kind = existing.file_type();
        if kind.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }

        eaccess(path, AccessFlags::W_OK)?;
        if kind.is_fifo() {
            // To open it would wait for a reader.
            return Ok(Target::Device);
        }

        if !kind.is_file() {
            OpenOptions::new().write(true).open(path)?;
            return Ok(Target::Device);
        }

        // A name such as /dev/fd/3 stands for a file that somebody has open, perhaps without a name.
        if existing.nlink() != 1 || is_descriptor_name(path) {
            return Ok(Target::InPlace);
        }

        let path = fs::canonicalize(path)?;
        Ok(if temporary_beside(&path, 0o600).is_ok() {
            Target::Replace {
                path,
                existing: Some(existing),
            }
        } else {
            Target::InPlace
        })
    }

    /// A file that is not there yet, perhaps at the end of symbolic links.
    fn new_file(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let Ok(next) = fs::read_link(&path) else {
                temporary_beside(&path, 0o600)?;
                return Ok(Target::Replace {
                    path,
                    existing: None,
                });
            };
            path = folder_of(&path).join(next);
        }

        Err(Errno::ELOOP.into())
    }
}

/// The standard stream that is this very file, if one is: it may be a pipe or a socket, which
/// cannot be opened by a name, and has a position of its own.
fn standard_stream(file: &Metadata) -> io::Result<Option<OwnedFd>> {
    let streams = [
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ];

    for stream in streams {
        let stream = File::from(stream);
        let own = stream.metadata()?;
        if (own.dev(), own.ino()) == (file.dev(), file.ino()) {
            return Ok(Some(stream.into()));
        }
    }

    Ok(None)
}

fn is_descriptor_name(path: &Path) -> bool {
    path.starts_with("/dev/fd") || path.starts_with("/proc")
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// An empty file in the same folder, under a name that nothing else has or can foresee.
fn temporary_beside(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    if path.file_name().is_none() {
        return Err(ErrorKind::IsADirectory.into());
    }

    tempfile::Builder::new()
        .prefix(".echobench-")
        .suffix(".part")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder_of(path))
        .map_err(|error| {
            error
                .raw_os_error()
                .map_or(error, io::Error::from_raw_os_error)
        })
}

/// Puts a new file with these contents in the place of another, or of none.
fn replace(path: &Path, existing: Option<&Metadata>, contents: &[u8]) -> io::Result<()> {
    // Of a mode that is asked for, the kernel takes away what the process's umask says.
    let mut file = temporary_beside(path, 0o666)?;
    if let Some(existing) = existing {
        // Only root may give a file away. Before the mode, since a change of owner clears bits of it.
        let _ = fchown(file.as_file(), Some(existing.uid()), Some(existing.gid()));
        file.as_file().set_permissions(existing.permissions())?;
    }

    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;

    // Makes the new name durable, where folders can be synced.
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Writes over a file that cannot be replaced.
fn overwrite(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = i64::try_from(contents.len()).map_err(io::Error::other)?;

    // On a full disk the old contents stay as they are. Not every file system can reserve space.
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length.max(1)) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::thread;

    use nix::sys::stat::Mode;
    use nix::unistd::{geteuid, mkfifo};
    use tempfile::{TempDir, tempdir};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_has_the_mode_of_any_new_file_and_leaves_nothing_beside_it() {
        let folder = tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        fs::write(&plain, "x").unwrap();
        write_file(&ours, "new").unwrap();
        assert_eq!(fs::read_to_string(&ours).unwrap(), "new");
        assert_eq!(mode(&ours), mode(&plain));
        assert_eq!(names(folder.path()), ["ours", "plain"]);
    }

    #[test]
    fn an_existing_file_keeps_its_mode_and_its_neighbours() {
        let folder = tempdir().unwrap();
        let document = folder.path().join("report.html");
        let neighbour = folder.path().join("report.part");
        fs::write(&document, "a long old text").unwrap();
        fs::set_permissions(&document, Permissions::from_mode(0o640)).unwrap();
        fs::write(&neighbour, "mine").unwrap();
        write_file(&document, "new").unwrap();
        assert_eq!(fs::read_to_string(&document).unwrap(), "new");
        assert_eq!(mode(&document), 0o640);
        assert_eq!(fs::read_to_string(&neighbour).unwrap(), "mine");
        assert_eq!(names(folder.path()), ["report.html", "report.part"]);
    }

    #[test]
    fn the_check_changes_nothing() {
        let folder = tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "old").unwrap();
        ResultFile::open(&old).unwrap();
        ResultFile::open(&new).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "old");
        assert_eq!(names(folder.path()), ["old"]);
    }

    #[test]
    fn the_target_of_a_symbolic_link_is_written_and_the_link_stays() {
        let folder = tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("there"), "old").unwrap();

        for target in ["below/there", "below/not-yet"] {
            let link = folder.path().join("link");
            symlink(target, &link).unwrap();
            write_file(&link, "new").unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
            let written = fs::read_to_string(folder.path().join(target)).unwrap();
            assert_eq!(written, "new", "{target}");
            fs::remove_file(&link).unwrap();
        }

        assert_eq!(names(&below), ["not-yet", "there"]);

        let circle = folder.path().join("circle");
        symlink("circle", &circle).unwrap();
        write_file(&circle, "new").unwrap_err();
    }

    #[test]
    fn all_names_of_a_file_show_the_new_contents() {
        let folder = tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::write(&one, "a long old text").unwrap();
        fs::hard_link(&one, &other).unwrap();
        write_file(&one, "new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "new");
    }

    #[test]
    fn a_fifo_is_written_through() {
        let folder = tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let file = ResultFile::open(&fifo).unwrap();
        let path = fifo.clone();
        let reader = thread::spawn(move || fs::read_to_string(path).unwrap());
        file.write("through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_device_stays_a_device() {
        let null = Path::new("/dev/null");
        write_file(null, "gone").unwrap();
        assert!(fs::metadata(null).unwrap().file_type().is_char_device());
        let error = write_file(Path::new("/dev/full"), "too much").unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write /dev/full: No space left"));
        assert!(!Path::new("/dev/full.part").exists());
    }

    #[test]
    fn an_open_file_is_written_by_its_descriptor() {
        use std::os::fd::AsRawFd as _;
        let mut file = tempfile::tempfile().unwrap();
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        write_file(Path::new(&name), "by descriptor").unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "by descriptor");
    }

    #[test]
    fn what_cannot_be_written_is_found_by_the_check() {
        let folder = tempdir().unwrap();
        let missing = folder.path().join("missing/file");
        let error = ResultFile::open(&missing).unwrap_err();
        let expected = format!("cannot write {}: No such file", missing.display());
        assert!(format!("{error:#}").starts_with(&expected), "{error:#}");
        let below_a_file = folder.path().join("file/below");
        fs::write(folder.path().join("file"), "").unwrap();
        for path in [folder.path(), &below_a_file, Path::new("/"), Path::new("")] {
            ResultFile::open(path).unwrap_err();
        }
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_folder_without_permission_is_found_by_the_check() {
        if geteuid().is_root() {
            println!("skipped: root may write everywhere");
            return;
        }

        let folder = tempdir().unwrap();
        let document = folder.path().join("document");
        fs::write(&document, "a long old text").unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o500)).unwrap();
        ResultFile::open(&folder.path().join("new")).unwrap_err();
        write_file(&document, "new").unwrap();
        assert_eq!(fs::read_to_string(&document).unwrap(), "new");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    }

    /// A file system of 64 KiB, unmounted when this is dropped.
    struct SmallDisk(TempDir);

    impl SmallDisk {
        /// `None` where this process may not mount one.
        fn mount() -> Option<Self> {
            let folder = tempdir().unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
                .arg(folder.path())
                .output()
                .is_ok_and(|output| output.status.success());
            mounted.then(|| SmallDisk(folder))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }

    #[test]
    fn a_document_on_a_full_disk_stays_as_it_was() {
        let Some(disk) = SmallDisk::mount() else {
            println!("skipped: only root may mount a small file system");
            return;
        };

        let folder = disk.0.path();
        let (document, linked) = (folder.join("document"), folder.join("linked"));
        for path in [&document, &linked] {
            fs::write(path, "old").unwrap();
        }

        fs::hard_link(&linked, folder.join("other name")).unwrap();
        for path in [&document, &linked, &folder.join("new")] {
            let error = write_file(path, vec![b'x'; 1 << 20]).unwrap_err();
            assert!(format!("{error:#}").contains("No space left"), "{error:#}");
        }

        for path in [&document, &linked] {
            assert_eq!(fs::read_to_string(path).unwrap(), "old");
        }

        assert_eq!(names(folder), ["document", "linked", "other name"]);
    }
}
