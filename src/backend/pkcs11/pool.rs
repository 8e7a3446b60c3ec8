//! The threads that own sessions, and the queue in front of them.
//!
//! A call into a PKCS#11 module cannot be cancelled. So nobody waits for one: a caller waits for an
//! answer until its deadline, and a thread that does not come back is counted as lost and replaced,
//! up to a few times. When it does come back it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Settings;
use super::module::Module;
use super::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Instant, Mutex, Receiver, Sender, bounded, spin_loop,
    thread, timeout_at, yield_now,
};
use super::worker::Worker;
use crate::backend::{BackendError, ErrorKind};
use crate::random::Random;

/// What is in the queue: an operation with its answer's way back.
struct Job {
    deadline: Instant,
    run: Box<dyn FnOnce(&mut Worker) + Send>,
}

/// The job that comes before all in the queue, if there is one.
type First = Arc<Mutex<Option<Job>>>;

/// A thread counts as lost when one job has taken longer than this.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(5);

/// Lost threads that are replaced; with more, calls fail at once until one comes back.
const REPLACED_MAX: usize = 2;

/// How long a lone caller and its worker wait for each other awake before they sleep.
///
/// To wake a sleeping thread costs 30 to 80 µs on each side, several times the call into SoftHSM. With
/// more than one call in flight both sides sleep at once: there the time is better spent on the other
/// calls, and waking is shared by many.
const AWAKE: Duration = Duration::from_micros(200);

/// Jobs in a row without another beside them, after which calls are taken to come one by one.
const LONE_JOBS_MIN: usize = 8;

/// Stack of a thread: modules are C++ libraries, with deep calls but no deep recursion.
const STACK_BYTES: usize = 1 << 20;

/// Threads that own sessions.
pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    first: First,
    module: Arc<Module>,
    settings: Arc<Settings>,
    random: Arc<dyn Random>,
    threads: Mutex<Vec<Arc<Thread>>>,
    /// For times as numbers.
    epoch: Instant,
    started: AtomicUsize,
    waiting: Arc<Waiting>,
}

/// The calls that wait for an answer.
struct Waiting {
    calls: AtomicUsize,
    /// How many jobs in a row had no other call beside them.
    lone_jobs: AtomicUsize,
    /// There is a processor to spare for staying awake.
    may_stay_awake: bool,
}

impl Waiting {
    fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            calls: AtomicUsize::new(0),
            lone_jobs: AtomicUsize::new(0),
            may_stay_awake: processors > 1,
        }
    }

    fn others(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 1
    }

    /// Notes that a job is done.
    fn job_done(&self) {
        let lone = if self.others() { 0 } else { self.lone_jobs.load(Ordering::Relaxed) + 1 };
        self.lone_jobs.store(lone, Ordering::Relaxed);
    }

    /// Whether it is worth staying awake: nobody else is there to use the processor for.
    fn worth_staying_awake(&self) -> bool {
        self.may_stay_awake
            && !self.others()
            && self.lone_jobs.load(Ordering::Relaxed) >= LONE_JOBS_MIN
    }
}

/// Counts a call for as long as it lives.
struct Call<'a>(&'a Waiting);

impl<'a> Call<'a> {
    fn begin(waiting: &'a Waiting) -> Self {
        waiting.calls.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How it is with the threads.
struct Stock {
    /// Shortest time that any thread which takes jobs has been at its present one; very long if there
    /// is none.
    shortest: Duration,
    /// Longest time that any thread has been at its present job.
    longest: Duration,
    /// Threads that take jobs.
    serving: usize,
    /// A thread has not come back and may be replaced.
    replaceable: bool,
}

/// What is known of a thread from outside.
struct Thread {
    /// Milliseconds from the epoch to the start of its job, plus one; 0 while it has none.
    busy_since: AtomicU64,
    /// It has been replaced and is to end.
    retired: AtomicBool,
}

impl Thread {
    /// Whether it runs: its own hold on this is gone with it.
    fn lives(thread: &Arc<Self>) -> bool {
        Arc::strong_count(thread) > 1
    }

    /// How long it has been at its present job.
    fn busy(&self, now: u64) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now.saturating_sub(since - 1)),
        }
    }
}

impl Pool {
    /// Starts the configured number of threads.
    pub(super) fn new(
        module: Arc<Module>,
        settings: Arc<Settings>,
        random: Arc<dyn Random>,
    ) -> Result<Self, BackendError> {
        let (jobs, queue) = bounded(settings.queue);
        let pool = Self {
            waiting: Arc::new(Waiting::new()),
            jobs,
            queue,
            first: First::default(),
            module,
            settings,
            random,
            threads: Mutex::default(),
            epoch: Instant::now(),
            started: AtomicUsize::new(0),
        };
        for _ in 0..pool.settings.workers {
            let thread = pool.start_thread()?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Has a worker run `operation`, and waits for its answer until `deadline`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        deadline: Instant,
        operation: impl FnOnce(&mut Worker) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        self.run_by(attempted, deadline, operation, |job| self.jobs.try_send(job).is_ok()).await
    }

    /// The same before all that waits: that many calls wait says nothing of the token.
    ///
    /// One at a time: a second one takes the place of the first.
    pub(super) async fn run_first<T: Send + 'static>(
        &self,
        attempted: &'static str,
        deadline: Instant,
        operation: impl FnOnce(&mut Worker) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let come_first = |job| {
            *self.first.lock() = Some(job);
            // Wakes a thread. Where the queue is full, one comes by without it.
            let _ = self.jobs.try_send(Job { deadline, run: Box::new(|_| ()) });
            true
        };
        self.run_by(attempted, deadline, operation, come_first).await
    }

    async fn run_by<T: Send + 'static>(
        &self,
        attempted: &'static str,
        deadline: Instant,
        operation: impl FnOnce(&mut Worker) -> Result<T, BackendError> + Send + 'static,
        queue_up: impl FnOnce(Job) -> bool,
    ) -> Result<T, BackendError> {
        let mut stock = self.take_stock();
        if self.is_short(&stock) {
            self.replace_a_thread();
            stock = self.take_stock();
        }
        if stock.shortest > self.settings.call_timeout {
            return Err(stuck_error(attempted));
        }
        let _call = Call::begin(&self.waiting);
        let (answer, mut answered) = oneshot::channel();
        let run = Box::new(move |worker: &mut Worker| {
            let _ = answer.send(operation(worker));
        });
        // The queue's other end is ours, too: it can be full, but not gone.
        if !queue_up(Job { deadline, run }) {
            let reason = format!("{} calls are waiting already", self.settings.queue);
            return Err(BackendError::new(ErrorKind::Overloaded, attempted, reason));
        }
        // Whatever else is ready to run goes first: it may be another call.
        yield_now().await;
        if self.waiting.worth_staying_awake()
            && let Some(outcome) = stay_awake(|| answered.try_recv().ok())
        {
            return outcome;
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) if Instant::now() < deadline => Err(died(attempted)),
            // The job was dropped unrun, because its deadline was over when its turn came.
            Ok(Err(_)) | Err(_) => Err(self.late(attempted)),
        }
    }

    /// Longest time that any thread has been at its present job.
    pub(super) fn longest_job(&self) -> Duration {
        self.take_stock().longest
    }

    fn late(&self, attempted: &'static str) -> BackendError {
        if self.take_stock().shortest > self.settings.call_timeout {
            return stuck_error(attempted);
        }
        BackendError::new(ErrorKind::Timeout, attempted, "no answer in time")
    }

    fn take_stock(&self) -> Stock {
        self.stock_of(&mut self.threads.lock())
    }

    /// Whether a thread is to be started.
    fn is_short(&self, stock: &Stock) -> bool {
        stock.replaceable || stock.serving < self.settings.workers
    }

    fn stock_of(&self, threads: &mut Vec<Arc<Thread>>) -> Stock {
        let now = self.milliseconds();
        threads.retain(Thread::lives);
        let (mut retired, mut lost) = (0, false);
        let mut stock = Stock {
            shortest: Duration::MAX,
            longest: Duration::ZERO,
            serving: 0,
            replaceable: false,
        };
        for thread in threads {
            let busy = thread.busy(now);
            stock.longest = stock.longest.max(busy);
            if thread.retired.load(Ordering::Relaxed) {
                retired += 1;
            } else {
                stock.serving += 1;
                stock.shortest = stock.shortest.min(busy);
                lost |= busy > LOST_AFTER;
            }
        }
        stock.replaceable = lost && retired < REPLACED_MAX;
        stock
    }

    /// Goes on with a new thread in the place of one that does not come back, or that has died.
    fn replace_a_thread(&self) {
        let mut threads = self.threads.lock();
        // Another caller may just have done so.
        if !self.is_short(&self.stock_of(&mut threads)) {
            return;
        }
        let started = match self.start_thread() {
            Ok(started) => started,
            Err(error) => {
                tracing::error!(%error, "cannot replace a thread");
                return;
            }
        };
        let now = self.milliseconds();
        let lost = threads.iter().find(|thread| {
            !thread.retired.load(Ordering::Relaxed) && thread.busy(now) > LOST_AFTER
        });
        if let Some(lost) = lost {
            lost.retired.store(true, Ordering::Relaxed);
            tracing::warn!(
                "a call into the PKCS#11 module does not return: going on with a new thread"
            );
        }
        threads.push(started);
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn start_thread(&self) -> Result<Arc<Thread>, BackendError> {
        let thread =
            Arc::new(Thread { busy_since: AtomicU64::new(0), retired: AtomicBool::new(false) });
        let (module, settings) = (Arc::clone(&self.module), Arc::clone(&self.settings));
        let mut worker = Worker::new(module, settings, Arc::clone(&self.random));
        let (queue, seen, epoch) = (self.queue.clone(), Arc::clone(&thread), self.epoch);
        let first = Arc::clone(&self.first);
        let waiting = Arc::clone(&self.waiting);
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        thread::Builder::new()
            .name(format!("pkcs11-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || work(&first, &queue, &waiting, &seen, epoch, &mut worker))
            .map_err(|error| {
                let attempted = "start a thread";
                BackendError::new(ErrorKind::Unavailable, attempted, error.to_string())
            })?;
        Ok(thread)
    }
}

/// The life of a thread.
fn work(
    first: &First,
    queue: &Receiver<Job>,
    waiting: &Waiting,
    seen: &Thread,
    epoch: Instant,
    worker: &mut Worker,
) {
    while let Some(job) = next(first, queue, waiting) {
        let now = Instant::now();
        // Nobody waits for it any more.
        if job.deadline <= now {
            continue;
        }
        let since = now.duration_since(epoch).as_millis();
        seen.busy_since.store(u64::try_from(since).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
        (job.run)(worker);
        seen.busy_since.store(0, Ordering::Relaxed);
        waiting.job_done();
        if seen.retired.load(Ordering::Relaxed) {
            tracing::info!("a call into the PKCS#11 module has returned after all");
            break;
        }
    }
}

/// The next job; `None` when the pool is gone.
fn next(first: &First, queue: &Receiver<Job>, waiting: &Waiting) -> Option<Job> {
    let first = first.lock().take();
    if first.is_some() {
        return first;
    }
    if waiting.worth_staying_awake()
        && let Some(job) = stay_awake(|| queue.try_recv().ok())
    {
        return Some(job);
    }
    queue.recv().ok()
}

/// Asks again and again, for at most [`AWAKE`].
fn stay_awake<T>(ask: impl FnMut() -> Option<T>) -> Option<T> {
    let mut ask = ask;
    let begin = Instant::now();
    while begin.elapsed() < AWAKE {
        if let Some(found) = ask() {
            return Some(found);
        }
        spin_loop();
    }
    None
}

fn died(attempted: &'static str) -> BackendError {
    let reason = "its thread has died of a fault in this plugin; standard error has the panic";
    BackendError::new(ErrorKind::Unavailable, attempted, reason)
        .advise("the next call gets a new thread; report it with the panic")
}

fn stuck_error(attempted: &'static str) -> BackendError {
    // Without the seconds, which would make a new reason of it each time.
    let reason = "a call into the PKCS#11 module does not return";
    BackendError::new(ErrorKind::Unavailable, attempted, reason).advise(
        "look at the HSM, its network and, with SoftHSM, at who holds a lock on the token's files; if \
         it does not come back by itself, restart the plugin",
    )
}
