//! What `../sync.rs` has, as shuttle has it, and a clock that goes on by itself.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::Add;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use shuttle::sync::Condvar;

pub(super) use shuttle::future::yield_now;
pub(super) use shuttle::hint::spin_loop;
pub(super) use shuttle::sync::RwLockReadGuard;
pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

pub(super) mod thread {
    //! Threads that may die of a panic, as real ones do.

    use std::io;
    use std::num::NonZeroUsize;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    pub(in super::super) struct Builder(shuttle::thread::Builder);

    impl Builder {
        pub(in super::super) fn new() -> Self {
            Self(shuttle::thread::Builder::new())
        }

        pub(in super::super) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        /// Shuttle's own size does.
        pub(in super::super) fn stack_size(self, _bytes: usize) -> Self {
            self
        }

        pub(in super::super) fn spawn(
            self,
            life: impl FnOnce() + Send + 'static,
        ) -> io::Result<shuttle::thread::JoinHandle<()>> {
            self.0.spawn(|| {
                let _ = catch_unwind(AssertUnwindSafe(life));
            })
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "the real one can fail")]
    pub(in super::super) fn available_parallelism() -> io::Result<NonZeroUsize> {
        Ok(NonZeroUsize::MIN.saturating_add(1))
    }
}

shuttle::lazy_static! {
    /// Microseconds since the beginning. Not an atomic of shuttle's: to ask the time is no step.
    static ref CLOCK: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
}

/// Lets time go by.
pub(super) fn pass(time: Duration) {
    let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    CLOCK.fetch_add(time, std::sync::atomic::Ordering::Relaxed);
}

/// A moment of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(Duration);

impl Instant {
    /// The time; asking takes some.
    pub(super) fn now() -> Self {
        pass(Duration::from_micros(20));
        Self(Duration::from_micros(CLOCK.load(std::sync::atomic::Ordering::Relaxed)))
    }

    pub(super) fn elapsed(&self) -> Duration {
        Self::now().duration_since(*self)
    }

    pub(super) fn duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

/// Time goes by, and the others have their turn.
pub(super) fn pause_for(pause: Duration) {
    pass(pause);
    shuttle::thread::yield_now();
}

/// The time is over.
pub(super) struct Elapsed;

/// Waits for `future` until `deadline`; whoever waits has time go by.
pub(super) async fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending if Instant::now() >= deadline => Poll::Ready(Err(Elapsed)),
        Poll::Pending => {
            pause_for(Duration::from_millis(10));
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// A lock that nobody's panic breaks.
#[derive(Default)]
pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that can be tried for a while.
pub(super) struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_write_for(
        &self,
        time: Duration,
    ) -> Option<shuttle::sync::RwLockWriteGuard<'_, T>> {
        let begin = Instant::now();
        loop {
            if let Ok(guard) = self.0.try_write() {
                return Some(guard);
            }
            if begin.elapsed() >= time {
                return None;
            }
            pause_for(Duration::from_millis(20));
        }
    }
}

/// A queue of at most `limit`, with several consumers.
pub(super) fn bounded<T>(limit: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Mutex(shuttle::sync::Mutex::new((VecDeque::new(), true)));
    let channel = Arc::new(Channel { limit, queue, changed: Condvar::new() });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

struct Channel<T> {
    limit: usize,
    /// What waits, and whether more can come.
    queue: Mutex<(VecDeque<T>, bool)>,
    changed: Condvar,
}

pub(super) struct Sender<T>(Arc<Channel<T>>);

impl<T> Sender<T> {
    pub(super) fn try_send(&self, item: T) -> Result<(), T> {
        let mut queue = self.0.queue.lock();
        if queue.0.len() >= self.0.limit {
            return Err(item);
        }
        queue.0.push_back(item);
        drop(queue);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.queue.lock().1 = false;
        self.0.changed.notify_all();
    }
}

pub(super) struct Receiver<T>(Arc<Channel<T>>);

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Receiver<T> {
    pub(super) fn recv(&self) -> Result<T, ()> {
        let mut queue = self.0.queue.lock();
        while queue.0.is_empty() && queue.1 {
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.0.pop_front().ok_or(())
    }

    pub(super) fn try_recv(&self) -> Result<T, ()> {
        self.0.queue.lock().0.pop_front().ok_or(())
    }
}
