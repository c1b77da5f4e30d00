//! The few system calls that no safe wrapper offers.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::SystemTime;

use longshore_types::Timestamp;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid};

/// The constant of this name in `libc` has lost its upper bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Closes every descriptor that was inherited beside the three standard ones, so that nothing
/// that a supervisor starts keeps an SSH channel, a lock or a pipe of somebody else open.
///
/// To be called before anything was opened.
pub(crate) fn close_inherited() {
    #[expect(
        unsafe_code,
        reason = "no safe wrapper; nothing in this process owns a descriptor from 3 on yet"
    )]
    let failed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } != 0;
    if failed {
        close_each();
    }
}

/// For kernels before 5.9.
fn close_each() {
    let Ok(names) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = names
        .flatten()
        .filter_map(|name| name.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The listing's own descriptor is among them, and closed already: an error is normal.
        let _ = nix::unistd::close(fd);
    }
}

/// Forks.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    #[expect(
        unsafe_code,
        reason = "this program has one thread, so the child may do anything"
    )]
    unsafe {
        nix::unistd::fork()
    }
}

/// Forks a child that is born in a control group of version 2, given by its directory.
///
/// Moving a process that exists makes the kernel wait for all processors: 8 ms, one after the
/// other for the whole machine.
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> nix::Result<ForkResult> {
    let directory = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    #[expect(unsafe_code, reason = "all zeros is what the kernel takes for unset")]
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = directory;
    #[expect(
        unsafe_code,
        reason = "without shared memory or a new stack this is fork; this program has one thread, \
                  so that there is nothing that the C library would have to put in order"
    )]
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    let pid = Errno::result(pid)?;
    match libc::pid_t::try_from(pid).map_err(|_| Errno::ECHILD)? {
        0 => Ok(ForkResult::Child),
        pid => Ok(ForkResult::Parent {
            child: Pid::from_raw(pid),
        }),
    }
}

/// Waits for one child that has ended and gives its wait status; none if all others still run.
///
/// Not nix's function, which loses a child that was ended by a real-time signal.
pub(crate) fn wait_any() -> nix::Result<Option<(Pid, libc::c_int)>> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "writes to a number that we own")]
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some((Pid::from_raw(pid), status))),
    }
}

/// Waits for the end of a child and gives its wait status.
pub(crate) fn wait_for(child: Pid) -> nix::Result<libc::c_int> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "writes to a number that we own")]
    let pid = unsafe { libc::waitpid(child.as_raw(), &raw mut status, 0) };
    Errno::result(pid).map(|_| status)
}

/// A process that is held, so that no other can get its id.
#[derive(Debug)]
pub(crate) enum Process {
    Held(OwnedFd),
    /// Where the kernel cannot hold it, as before Linux 5.3: whoever looks at it between
    /// [`Process::open`] and [`Process::signal`] is only nearly sure to hit that one.
    Id(Pid),
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn open(pid: Pid) -> nix::Result<Self> {
        #[expect(unsafe_code, reason = "no safe wrapper; takes two numbers")]
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = match Errno::result(fd) {
            Err(Errno::ENOSYS) => return Ok(Self::Id(pid)),
            other => other?,
        };
        let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
        #[expect(
            unsafe_code,
            reason = "the kernel has just made this descriptor for us"
        )]
        Ok(Self::Held(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> nix::Result<()> {
        let held = match self {
            Self::Held(held) => held,
            Self::Id(pid) => return kill(*pid, signal),
        };
        let none = std::ptr::null::<libc::siginfo_t>();
        #[expect(
            unsafe_code,
            reason = "no safe wrapper; a null siginfo means what kill(2) sends"
        )]
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                held.as_raw_fd(),
                signal as libc::c_int,
                none,
                0,
            )
        };
        Errno::result(result).map(drop)
    }
}

/// Gives every signal its default effect again, for the jobs: ignored ones stay ignored over fork and
/// exec. Only a broken pipe is still ignored; a program of ours is told of it by the write, and the
/// standard library gives it its effect before exec.
pub(crate) fn reset_signals() {
    for signal in (1..=64).filter(|signal| *signal != libc::SIGPIPE) {
        #[expect(
            unsafe_code,
            reason = "setting a signal to its default runs no code of ours"
        )]
        // KILL, STOP and the two of the C library cannot be set, and need not be.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Gives this process mounts of its own: what it mounts from now on nobody else sees, and it is gone
/// with the last process that sees it. What others mount or unmount holds here, too.
pub(crate) fn own_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE);
    mount(none, "/", none, flags, none)
}

/// Writes what a directory lists to disk.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// The wall-clock time.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
