//! The limits of models from the web: archives, web servers, the Hugging Face Hub.

/// Bytes that an archive may unpack to (SPEC M10).
pub const ARCHIVE_BYTES: u64 = 100 * 1024 * 1024 * 1024;

/// The same as a multiple of the archive's own size (SPEC M10): gzip makes at most 1032 out of one, and that of nothing
/// but zeros.
pub const ARCHIVE_RATIO: u64 = 1000;

/// Bytes that an archive which is unpacked while it comes counts as larger than what has come of it, so that a file with
/// holes or zeros at its start may go ahead: 64 KiB, by [`ARCHIVE_RATIO`] 65 MB on the disk.
pub const ARCHIVE_HEAD_START: u64 = 64 * 1024;

/// Entries of an archive. The largest models have some thousand files; each costs the disk a block and an inode.
pub const ARCHIVE_ENTRIES: u64 = 100_000;

/// Bytes of an entry's name and of a link's target, a quarter of what Linux takes for a path, since the folder's own
/// name comes in front.
pub const ARCHIVE_NAME_BYTES: usize = 1024;

/// Bytes of a name between slashes, the limit of Linux's filesystems.
pub const ARCHIVE_SEGMENT_BYTES: usize = 255;

/// Bytes of tar headers between two contents, which are held in memory: a name of [`ARCHIVE_NAME_BYTES`], and as many
/// attributes as a filesystem takes (64 KiB each).
pub const ARCHIVE_HEADER_BYTES: u64 = 1024 * 1024;

/// What the agent's own files in a model's folder begin with while it comes.
pub const PULLER_OWN_PREFIX: &str = ".kserve-agent-";

/// Bytes that are read, checked and written at once.
pub const PULLER_PIECE_BYTES: usize = 128 * 1024;

/// Redirects of one request, as many as Go's client follows.
pub const WEB_REDIRECTS: usize = 10;

/// Bytes of a page of the Hub's list, of a thousand files each.
pub const HUB_PAGE_BYTES: u64 = 16 * 1024 * 1024;

/// Pages of such a list: a server that says for ever that there is more is not believed.
pub const HUB_PAGES: usize = 1000;

/// Files that come from the Hub at once: one connection is slower than most networks, and more than some are refused.
pub const HUB_THREADS: usize = 8;

/// Folders in folders of a local model that are copied: a link to a folder above would have no end.
pub const LOCAL_DEPTH: usize = 32;
