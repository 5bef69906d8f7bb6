//! Files as bytes: read whole into owned memory, or piece by piece where they are needed, or borrowed from the program.
//!
//! Nothing is mapped: a file that is cut or replaced while the model is in use cannot touch it. The bytes that are hashed
//! are the bytes that are used.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result, quote};

/// The bytes of one file, owned or borrowed for the life of the program. Cloning is cheap.
#[derive(Clone)]
pub struct Bytes(Held);

#[derive(Clone)]
enum Held {
    Owned(Arc<Vec<u8>>),
    Static(&'static [u8]),
}

/// A file that was read.
pub(crate) struct ReadFile {
    pub(crate) bytes: Bytes,
    /// Present when it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// A large file: in memory as a whole, or open, and read where somebody wants a piece of it. Cloning is cheap.
#[derive(Clone)]
pub(crate) enum Content {
    Held(Bytes),
    #[cfg_attr(not(unix), expect(dead_code, reason = "read at a place only where there is `pread`"))]
    Open(Arc<OpenFile>),
}

/// A file that stays open; whoever replaces it under its name does not touch it.
pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
    len: u64,
}

/// What a file has to be to be read.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) max_bytes: u64,
    /// The size that a manifest promises.
    pub(crate) bytes: Option<u64>,
    /// Whether the checksum is wanted.
    pub(crate) sha256: bool,
    /// Looks at the first bytes and the size of the whole, before there is memory for the rest.
    pub(crate) start: fn(file: &str, start: &[u8], len: u64) -> Result<()>,
}

/// A directory whose files may be read; links may lead only to places beneath `root`.
pub(crate) struct Directory {
    path: PathBuf,
    root: PathBuf,
}

impl Bytes {
    /// Whether the bytes are borrowed from the program.
    pub fn is_static(&self) -> bool {
        matches!(self.0, Held::Static(_))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Owned(bytes) => bytes,
            Held::Static(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Held::Owned(Arc::new(bytes)))
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Held::Static(bytes))
    }
}

impl Directory {
    /// Opens a directory that the caller named; the name itself may be a link.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let canonical = fs::canonicalize(path).map_err(|error| io_error(path, error))?;
        // A snapshot in a hub cache links to the blobs of its own repository: models--owner--name/{snapshots/*,blobs}.
        let repository = canonical.ancestors().nth(2).filter(|ancestor| {
            let is_named = |path: &Path, test: fn(&str) -> bool| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(test)
            };
            canonical.parent().is_some_and(|parent| is_named(parent, |name| name == "snapshots"))
                && is_named(ancestor, |name| name.starts_with("models--"))
        });
        let root = repository.unwrap_or(&canonical).to_owned();
        Ok(Self { path: canonical, root })
    }

    /// The directory, all links in its name resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all entries, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|error| io_error(&self.path, error))? {
            let entry = entry.map_err(|error| io_error(&self.path, error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
            if names.len() > MAX_DIRECTORY_ENTRIES {
                return Err(Error::invalid(format!(
                    "{}: more than {MAX_DIRECTORY_ENTRIES} entries, expected a model's directory",
                    quote_path(&self.path)
                )));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads the file of this name.
    pub(crate) fn read(&self, name: &str, expected: Expected) -> Result<ReadFile> {
        let OpenFile { file, path, len } = self.open_file(name, expected)?;
        read_whole(file, name, len, expected, &path)
    }

    /// Opens the file of this name, to be read piece by piece. Who reads it looks at its start; there is no checksum.
    pub(crate) fn content(&self, name: &str, expected: Expected) -> Result<Content> {
        #[cfg(unix)]
        {
            Ok(Content::Open(Arc::new(self.open_file(name, expected)?)))
        }
        #[cfg(not(unix))]
        Ok(Content::Held(self.read(name, expected)?.bytes))
    }

    fn open_file(&self, name: &str, expected: Expected) -> Result<OpenFile> {
        let mut path = self.path.join(name);
        let fail = |what: &str| Err(Error::invalid(format!("{}: {what}", quote_path(&self.path.join(name)))));
        let mut metadata = fs::symlink_metadata(&path).map_err(|error| io_error(&path, error))?;
        if metadata.is_symlink() {
            path = match fs::canonicalize(&path) {
                Ok(target) if target.starts_with(&self.root) => target,
                Ok(_) => return fail("links to a place outside the model's directory"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return fail("links to nothing"),
                Err(error) => return Err(io_error(&path, error)),
            };
            metadata = fs::symlink_metadata(&path).map_err(|error| io_error(&path, error))?;
        }
        // Looked at before it is opened, because opening a FIFO or a device can have effects, and again after, because
        // the name may have moved in between.
        if !metadata.is_file() {
            return fail("not a regular file");
        }
        let file = open_options().open(&path).map_err(|error| io_error(&path, error))?;
        let metadata = file.metadata().map_err(|error| io_error(&path, error))?;
        if !metadata.is_file() {
            return fail("not a regular file");
        }
        check_size(name, metadata.len(), expected)?;
        Ok(OpenFile { file, path, len: metadata.len() })
    }
}

impl Content {
    /// Bytes of the whole.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.len() as u64,
            Self::Open(open) => open.len,
        }
    }

    /// The first bytes: all where they are held, else as many as are asked for and there.
    pub(crate) fn start(&self, bytes: u64) -> Result<Bytes> {
        match self {
            Self::Held(bytes) => Ok(bytes.clone()),
            Self::Open(open) => {
                let len = bytes.min(open.len);
                let mut start = Vec::new();
                reserve(&mut start, &open.path.to_string_lossy(), len)?;
                start.resize(len as usize, 0);
                open.read(0, &mut start)?;
                Ok(start.into())
            }
        }
    }

    /// Hands out the bytes of `range`, which lie in the file, in pieces of `step` bytes and a last one of what is left.
    ///
    /// # Errors
    /// What `each` refuses; [`ErrorKind::Io`] when the file cannot be read any more.
    pub(crate) fn pieces(
        &self,
        range: Range<usize>,
        step: usize,
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Held(bytes) => bytes[range].chunks(step).try_for_each(each),
            Self::Open(open) => {
                let mut piece = vec![0; step.min(range.len())];
                for at in range.clone().step_by(step) {
                    let piece = &mut piece[..step.min(range.end - at)];
                    open.read(at as u64, piece)?;
                    each(piece)?;
                }
                Ok(())
            }
        }
    }
}

impl OpenFile {
    /// Fills `out` with the bytes from `at` on.
    fn read(&self, at: u64, out: &mut [u8]) -> Result<()> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_exact_at(&self.file, out, at);
        #[cfg(not(unix))]
        let read = Err(io::ErrorKind::Unsupported.into());
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(&self.path.to_string_lossy(), self.len),
            _ => io_error(&self.path, error),
        })
    }
}

/// Bytes that are borrowed from the program.
pub(crate) fn borrow(name: &str, bytes: &'static [u8], expected: Expected) -> Result<ReadFile> {
    check_size(name, bytes.len() as u64, expected)?;
    let sha256 = expected.sha256.then(|| sha256(bytes));
    Ok(ReadFile { bytes: bytes.into(), sha256 })
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// The operating system's refusal, with the path it is about.
pub(crate) fn io_error(path: &Path, error: io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
    let what = if kind == ErrorKind::NotFound { "not found" } else { "cannot be read" };
    Error::new(kind, format!("{}: {what}: {error}", quote_path(path))).with_source(error)
}

/// Refuses names that are more than the plain name of a file in the directory.
pub(crate) fn check_plain_name(name: &str) -> std::result::Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= MAX_FILE_NAME_BYTES
        && name.starts_with(|c: char| plain(c) && c != '.')
        && name.chars().all(plain)
    {
        Ok(())
    } else {
        Err(format!(
            "path {}, expected the plain name of a file (letters, digits, `.`, `_`, `-`)",
            quote(name)
        ))
    }
}

fn check_size(name: &str, len: u64, expected: Expected) -> Result<()> {
    if let Some(bytes) = expected.bytes.filter(|bytes| *bytes != len) {
        return Err(Error::new(
            ErrorKind::IntegrityMismatch,
            format!("{}: {len} bytes, the manifest has {bytes}", quote(name)),
        ));
    }
    if len > expected.max_bytes {
        return Err(Error::invalid(format!(
            "{}: {len} bytes, expected at most {}",
            quote(name),
            expected.max_bytes
        )));
    }
    Ok(())
}

fn read_whole(mut file: File, name: &str, len: u64, expected: Expected, path: &Path) -> Result<ReadFile> {
    let mut bytes = Vec::new();
    let mut sha256 = expected.sha256.then(Sha256::new);
    while (bytes.len() as u64) < len {
        let before = bytes.len();
        let rest = len - before as u64;
        reserve(&mut bytes, name, if before == 0 { rest.min(STEP_BYTES) } else { rest })?;
        (&mut file)
            .take(rest.min(STEP_BYTES))
            .read_to_end(&mut bytes)
            .map_err(|error| io_error(path, error))?;
        let read = &bytes[before..];
        if read.is_empty() {
            return Err(changed(name, len));
        }
        if before == 0 {
            (expected.start)(name, read, len)?;
        }
        if let Some(sha256) = &mut sha256 {
            sha256.update(read);
        }
    }
    if file.read(&mut [0]).map_err(|error| io_error(path, error))? != 0 {
        return Err(changed(name, len));
    }
    Ok(ReadFile { bytes: bytes.into(), sha256: sha256.map(|sha256| sha256.finalize().into()) })
}

fn reserve(bytes: &mut Vec<u8>, name: &str, more: u64) -> Result<()> {
    let reserved = usize::try_from(more).map(|more| bytes.try_reserve_exact(more));
    if matches!(reserved, Ok(Ok(()))) {
        antiphon_kernels::memory::ask_for_huge_pages(bytes.spare_capacity_mut());
        return Ok(());
    }
    Err(Error::new(ErrorKind::OutOfBudget, format!("{}: no memory for {more} bytes", quote(name))))
}

fn changed(name: &str, len: u64) -> Error {
    Error::new(ErrorKind::Io, format!("{}: no longer {len} bytes; it changed while it was read", quote(name)))
}

#[cfg(unix)]
fn open_options() -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    // The path has no link left in it, and a FIFO that took its place must not hold us up.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

#[cfg(not(unix))]
fn open_options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    options
}

/// Small enough that a piece is still in the cache when it is hashed.
const STEP_BYTES: u64 = 1 << 18;
const MAX_FILE_NAME_BYTES: usize = 255;
const MAX_DIRECTORY_ENTRIES: usize = 10_000;
