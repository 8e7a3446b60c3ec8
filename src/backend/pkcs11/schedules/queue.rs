//! Calls that wait, hang, die and come late, and the end of the pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shuttle::sync::Condvar;
use shuttle::thread;

use super::module::Module;
use super::pool::{LOST_AFTER, Pool};
use super::sync::{AtomicUsize, Instant, Mutex, pass};
use super::worker::Worker;
use super::{Settings, in_many_orders};
use crate::backend::{BackendError, ErrorKind};
use crate::random::OsRandom;

const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Longer than any call that is not stuck waits in these tests.
const LONG: Duration = Duration::from_secs(60);

fn pool(module: &Arc<Module>, workers: usize, queue: usize) -> Arc<Pool> {
    let settings = Settings { workers, queue, call_timeout: CALL_TIMEOUT };
    Arc::new(Pool::new(Arc::clone(module), Arc::new(settings), Arc::new(OsRandom)).unwrap())
}

/// Calls, waits, and says what came of it.
fn call<T: Send + 'static>(
    pool: &Pool,
    patience: Duration,
    operation: impl FnOnce(&mut Worker) -> T + Send + 'static,
) -> Result<T, BackendError> {
    let deadline = Instant::now() + patience;
    shuttle::future::block_on(pool.run("test", deadline, |worker: &mut Worker| {
        let module = Arc::clone(&worker.module);
        Ok(module.call(|| operation(worker)))
    }))
}

fn kind<T>(outcome: &Result<T, BackendError>) -> Option<ErrorKind> {
    outcome.as_ref().err().map(|error| error.kind)
}

/// What a call into the module hangs at.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    /// Has a call hang at it; returns when it does. Nobody waits for it.
    fn hang(self: &Arc<Self>, pool: &Pool) {
        let before = self.waiting.load(Ordering::SeqCst);
        while self.waiting.load(Ordering::SeqCst) == before {
            let gate = Arc::clone(self);
            assert!(call(pool, Duration::from_millis(200), move |_| gate.wait()).is_err());
            (0..50).for_each(|_| thread::yield_now());
        }
    }
}

/// Threads that call, by their number, each with the pool.
fn callers<T: Send + 'static>(
    pool: &Arc<Pool>,
    count: usize,
    calls: impl Fn(&Pool, usize) -> T + Clone + Send + 'static,
) -> Vec<thread::JoinHandle<T>> {
    let start = |number| {
        let (pool, calls) = (Arc::clone(pool), calls.clone());
        thread::spawn(move || calls(&pool, number))
    };
    (0..count).map(start).collect()
}

/// Waits until all sessions are closed, which is when all threads have ended; a thread that does not is a
/// deadlock to shuttle.
fn ends(pool: Arc<Pool>, module: &Module) {
    drop(pool);
    all_ended(module);
}

fn all_ended(module: &Module) {
    while module.workers.load(Ordering::SeqCst) > 0 {
        thread::yield_now();
    }
}

#[test]
fn every_caller_gets_its_own_answer_and_threads_end() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 2, 8);
        let callers = callers(&pool, 3, |pool, number| {
            for turn in 0..2 {
                let outcome = call(pool, LONG, move |_| {
                    thread::yield_now();
                    (number, turn)
                });
                assert_eq!(outcome, Ok((number, turn)));
            }
        });
        for caller in callers {
            caller.join().unwrap();
        }
        assert!(module.most_calls() <= 2, "a thread for each of two calls");
        assert_eq!(module.workers.load(Ordering::SeqCst), 2, "no more sessions than configured");
        ends(pool, &module);
    });
}

/// The lone caller and its worker stay awake for one another after a while.
#[test]
fn a_lone_caller_is_answered_awake_and_asleep() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 8);
        for turn in 0..12 {
            assert_eq!(call(&pool, LONG, move |_| turn), Ok(turn));
        }
        let other = Arc::clone(&pool);
        let other = thread::spawn(move || assert_eq!(call(&other, LONG, |_| 'b'), Ok('b')));
        assert_eq!(call(&pool, LONG, |_| 'a'), Ok('a'));
        other.join().unwrap();
        ends(pool, &module);
    });
}

#[test]
fn what_is_late_does_not_run() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 8);
        let (gate, ran) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        gate.hang(&pool);
        let run = Arc::clone(&ran);
        let late =
            call(&pool, Duration::from_millis(300), move |_| run.fetch_add(1, Ordering::SeqCst));
        assert!(late.is_err());
        gate.open();
        assert_eq!(call(&pool, LONG, |_| ()), Ok(()));
        assert_eq!(ran.load(Ordering::SeqCst), 0, "nobody waited for it any more");
        ends(pool, &module);
    });
}

/// However many calls hang and come back, and whenever: nobody waits for one, no more threads are started
/// than may be, and when they are back all is well.
#[test]
fn hung_calls_are_replaced_so_often_and_come_back() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 8);
        let gate = Arc::new(Gate::default());
        for hung in 1..=3 {
            gate.hang(&pool);
            assert_eq!(gate.waiting.load(Ordering::SeqCst), hung);
            pass(CALL_TIMEOUT + Duration::from_millis(10));
            let refused = call(&pool, LONG, |_| ());
            assert_eq!(kind(&refused), Some(ErrorKind::Unavailable), "at once");
            pass(LOST_AFTER);
            assert!(pool.longest_job() > LOST_AFTER);
        }
        let refused = call(&pool, LONG, |_| ());
        assert_eq!(kind(&refused), Some(ErrorKind::Unavailable), "two were replaced, no more are");
        assert_eq!(module.most_calls(), 3);
        gate.open();
        // They come back one by one; the first that does serves.
        while let Err(error) = call(&pool, LONG, |_| ()) {
            assert_eq!(error.kind, ErrorKind::Unavailable);
            thread::yield_now();
        }
        ends(pool, &module);
    });
}

/// Callers that find at the same moment that a call hangs start one thread, not one each.
#[test]
fn a_hung_call_is_replaced_once() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 8);
        let gate = Arc::new(Gate::default());
        gate.hang(&pool);
        pass(LOST_AFTER + CALL_TIMEOUT);
        let callers = callers(&pool, 3, |pool, number| {
            assert_eq!(call(pool, LONG, move |_| number), Ok(number));
        });
        for caller in callers {
            caller.join().unwrap();
        }
        assert!(
            module.workers.load(Ordering::SeqCst) <= 2,
            "the lost thread, and one in its place"
        );
        gate.open();
        ends(pool, &module);
    });
}

#[test]
fn a_thread_that_dies_is_replaced() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 8);
        let died = call(&pool, LONG, |_| -> () { std::panic::resume_unwind(Box::new("died")) });
        let error = died.unwrap_err();
        assert!(error.reason.contains("has died"), "that it hangs is not true: {error}");
        // While it unwinds it still counts, and takes no jobs: that call is late.
        let served = (0..3).any(|_| call(&pool, Duration::from_secs(1), |_| ()).is_ok());
        assert!(served, "another thread serves");
        ends(pool, &module);
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 1);
        let gate = Arc::new(Gate::default());
        gate.hang(&pool);
        let callers =
            callers(&pool, 2, |pool, _| kind(&call(pool, Duration::from_millis(300), |_| ())));
        let kinds: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert!(kinds.iter().all(Option::is_some), "{kinds:?}");
        let full = kinds.contains(&Some(ErrorKind::Overloaded));
        assert!(full, "there is room for one: {kinds:?}");
        gate.open();
        ends(pool, &module);
    });
}

/// What looks at the token has a place of its own, and is woken for.
#[test]
fn a_full_queue_does_not_refuse_who_comes_first() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 1, 1);
        let first = |pool: &Pool, patience| {
            let deadline = Instant::now() + patience;
            shuttle::future::block_on(pool.run_first("look", deadline, |_| Ok(7)))
        };
        assert_eq!(first(&pool, LONG), Ok(7), "nobody else is there");
        let gate = Arc::new(Gate::default());
        gate.hang(&pool);
        let callers = callers(&pool, 4, move |pool, number| match number {
            0 => kind(&first(pool, Duration::from_millis(300))),
            _ => kind(&call(pool, Duration::from_millis(300), |_| ())),
        });
        let kinds: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        assert!(kinds[1..].contains(&Some(ErrorKind::Overloaded)), "{kinds:?}");
        assert!(kinds[0].is_some_and(|kind| kind != ErrorKind::Overloaded), "{kinds:?}");
        gate.open();
        while first(&pool, Duration::from_millis(300)) != Ok(7) {}
        ends(pool, &module);
    });
}

/// The pool ends while calls wait and one is under way.
#[test]
fn the_pool_ends_under_calls() {
    in_many_orders(|| {
        let module = Module::new();
        let pool = pool(&module, 2, 8);
        let callers = callers(&pool, 3, |pool, number| {
            call(pool, Duration::from_millis(200), move |_| number)
        });
        drop(pool);
        for (number, caller) in callers.into_iter().enumerate() {
            let outcome = caller.join().unwrap();
            let fine = outcome == Ok(number) || kind(&outcome) == Some(ErrorKind::Timeout);
            assert!(fine, "{outcome:?}");
        }
        all_ended(&module);
    });
}
