//! What the process does so that seeds in its memory do not end up anywhere else.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Open files that are enough: some per connection, some for the token.
const FILES_MAX: u64 = 4096;

/// What could not be done: goes to the log, once there is one.
pub(crate) struct Lacking(Vec<String>);

impl Lacking {
    pub(crate) fn log(&self) {
        for what in &self.0 {
            warn!("{what}");
        }
    }
}

/// No core dumps, and no debugger without privileges. What fails is gone without: the plugin is needed
/// all the same.
pub(crate) fn keep_out() -> Lacking {
    let mut lacking = Vec::new();
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        lacking.push(format!(
            "cannot turn off core dumps, a crash may write seeds to the disk: {error}"
        ));
    }
    if let Err(error) = prctl::set_dumpable(false) {
        lacking.push(format!("other processes of this user can read our memory: {error}"));
    }
    Lacking(lacking)
}

/// Keeps memory out of the swap, where that is allowed and wanted.
pub(crate) fn lock_memory() {
    match lock_all() {
        Ok(()) => debug!("memory is locked"),
        Err(why) => warn!(
            why,
            "memory is not locked: seeds may be swapped to the disk; give CAP_IPC_LOCK or \
             LimitMEMLOCK=infinity, encrypt the swap, or set lockMemory: false"
        ),
    }
}

/// Lets us have as many files open as we may: each connection is one.
pub(crate) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(FILES_MAX), hard));
    if let Err(error) = raised {
        debug!(%error, "cannot raise the limit of open files");
    }
}

/// Locks all memory, now and later, page by page as it is used.
///
/// Everything, and not just our own buffers, because seeds pass through those of the gRPC library and
/// of the PKCS#11 module, too.
fn lock_all() -> Result<(), &'static str> {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    // With a limit it would succeed, and later allocations would fail.
    if limit != RLIM_INFINITY && !can_lock() {
        return Err("RLIMIT_MEMLOCK is limited");
    }
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)
        .map_err(|_| "the kernel refused")
}

/// Whether we have CAP_IPC_LOCK, which lifts the limit.
fn can_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_IPC_LOCK) != 0)
}
