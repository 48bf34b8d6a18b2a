//! What the system does to the process when it oversteps a limit.

/// Makes a write beyond the allowed file size fail, as on a full disk, instead of killing the
/// process: then it can say so, and clean up.
pub(super) fn survive_file_size_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler; it is done before there are other threads.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
