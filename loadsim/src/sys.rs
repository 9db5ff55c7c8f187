//! What the operating system is asked for beyond sockets: a timer finer than a millisecond, and many open files.

#[cfg(target_os = "linux")]
pub use linux::{Timer, clock_ticks_per_second, kill, raise_open_files};
#[cfg(not(target_os = "linux"))]
pub use portable::{Timer, clock_ticks_per_second, kill, raise_open_files};

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };

    /// Wakes a poll at a time; the timeout of the poll itself is rounded up to milliseconds.
    #[derive(Debug)]
    pub struct Timer {
        fd: OwnedFd,
        armed_ns: u64,
    }

    impl Timer {
        /// Its events carry `token`.
        pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Self { fd, armed_ns: 0 })
        }

        /// Sees to it that a poll with the returned timeout ends at `due_ns`, or earlier.
        pub fn arm(&mut self, now_ns: u64, due_ns: u64) -> io::Result<Option<Duration>> {
            let Some(wait_ns) = due_ns.checked_sub(now_ns).filter(|wait_ns| *wait_ns > 0) else {
                return Ok(Some(Duration::ZERO));
            };
            if self.armed_ns <= now_ns || due_ns < self.armed_ns {
                let wait = Timespec::try_from(Duration::from_nanos(wait_ns)).map_err(io::Error::other)?;
                let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
                let spec = Itimerspec { it_interval: zero, it_value: wait };
                timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &spec)?;
                self.armed_ns = due_ns;
            }
            Ok(None)
        }
    }

    /// Raises the limit of open files as far as is allowed without privileges; what it is then, if limited.
    pub fn raise_open_files() -> Option<u64> {
        let limit = getrlimit(Resource::Nofile);
        // Refused, the old limit stays, which the run may not even reach.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        getrlimit(Resource::Nofile).current
    }

    /// Ends a process at once (SIGKILL).
    pub fn kill(pid: u32) -> io::Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("not the id of a process"))?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// The unit of CPU time in `/proc`.
    pub fn clock_ticks_per_second() -> u64 {
        rustix::param::clock_ticks_per_second()
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::io;
    use std::time::Duration;

    use mio::{Registry, Token};

    /// Leaves it to the timeout of the poll.
    #[derive(Debug)]
    pub struct Timer;

    impl Timer {
        /// Has no events.
        pub fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
            Ok(Self)
        }

        /// Sees to it that a poll with the returned timeout ends at `due_ns`.
        pub fn arm(&mut self, now_ns: u64, due_ns: u64) -> io::Result<Option<Duration>> {
            Ok(Some(Duration::from_nanos(due_ns.saturating_sub(now_ns))))
        }
    }

    /// Not known how.
    pub fn raise_open_files() -> Option<u64> {
        None
    }

    /// Not known how.
    pub fn kill(_pid: u32) -> io::Result<()> {
        Err(io::Error::other("ending another process is only possible on Linux"))
    }

    /// There is no `/proc`.
    pub fn clock_ticks_per_second() -> u64 {
        100
    }
}
