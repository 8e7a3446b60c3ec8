//! Threads that use the module while others find it dead and make it anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shuttle::sync::Condvar;
use shuttle::thread;

use super::in_many_orders;
use super::renewed::Renewed;
use super::sync::{AtomicBool, AtomicUsize, Mutex, pass};
use crate::backend::{BackendError, ErrorKind};

/// A module that must not be made anew while it is used.
struct Device {
    token: Renewed<usize>,
    users: AtomicUsize,
    made: AtomicUsize,
    refuses: AtomicBool,
}

impl Device {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            token: Renewed::new(),
            users: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
        })
    }

    fn renew(&self, seen: u64, patient: bool) -> Result<bool, BackendError> {
        self.token.renew(seen, patient, |_| {
            assert_eq!(self.users.load(Ordering::SeqCst), 0, "somebody is in it");
            let made = self.made.fetch_add(1, Ordering::SeqCst) + 1;
            assert_eq!(self.users.load(Ordering::SeqCst), 0, "somebody has come in");
            if self.refuses.load(Ordering::SeqCst) {
                return Err(BackendError::new(ErrorKind::Unavailable, "test", "it is away"));
            }
            Ok(made)
        })
    }

    /// Uses it, and says which one it was.
    fn operate(&self) -> Option<(u64, usize)> {
        let inside = self.token.enter()?;
        self.users.fetch_add(1, Ordering::SeqCst);
        let (generation, made) = (inside.generation(), *inside.value().unwrap());
        thread::yield_now();
        assert_eq!((inside.generation(), inside.value()), (generation, Some(&made)));
        self.users.fetch_sub(1, Ordering::SeqCst);
        Some((generation, made))
    }
}

#[test]
fn it_is_not_made_anew_under_anybody_and_once_for_all() {
    in_many_orders(|| {
        let device = Device::new();
        assert_eq!(device.renew(0, false), Ok(true));
        let (dead, _) = device.operate().unwrap();
        pass(Duration::from_secs(2));
        let workers: Vec<_> = (0..3)
            .map(|number| {
                let device = Arc::clone(&device);
                thread::spawn(move || {
                    let mut seen = dead;
                    // All find the same one dead.
                    while seen == dead {
                        if let Err(error) = device.renew(seen, number == 0) {
                            // Others were in it for so long.
                            assert!(error.reason.contains("does not return"), "{error}");
                        }
                        (seen, _) = device.operate().unwrap();
                    }
                    device.operate().unwrap()
                })
            })
            .collect();
        let seen: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!(seen, [(2, 2); 3], "one renewal serves all");
    });
}

#[test]
fn for_its_age_it_is_made_anew_once() {
    const AGE: Duration = Duration::from_secs(60);
    in_many_orders(|| {
        let device = Device::new();
        assert_eq!(device.renew(0, false), Ok(true));
        assert!(!device.token.is_older_than(AGE));
        pass(AGE);
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let device = Arc::clone(&device);
                thread::spawn(move || {
                    for _ in 0..2 {
                        let (seen, _) = device.operate().unwrap();
                        if device.token.is_older_than(AGE) {
                            assert_eq!(device.renew(seen, false), Ok(true));
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(device.made.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_failure_is_repeated_for_a_while_and_then_tried_again() {
    in_many_orders(|| {
        let device = Device::new();
        device.refuses.store(true, Ordering::SeqCst);
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let device = Arc::clone(&device);
                thread::spawn(move || device.renew(0, false).unwrap_err())
            })
            .collect();
        let errors: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert!(errors.iter().all(|error| error.reason == "it is away"), "{errors:?}");
        assert_eq!(device.made.load(Ordering::SeqCst), 1, "the others repeat what the first met");
        assert_eq!(device.operate(), None);
        device.refuses.store(false, Ordering::SeqCst);
        pass(Duration::from_secs(2));
        assert_eq!(device.renew(0, false), Ok(true));
        assert_eq!(device.operate(), Some((2, 2)));
    });
}

#[test]
fn whoever_never_comes_out_keeps_nobody_waiting() {
    in_many_orders(|| {
        let device = Device::new();
        assert_eq!(device.renew(0, false), Ok(true));
        let gate = Arc::new((Mutex::<bool>::default(), Condvar::new()));
        let (inside, held) = (Arc::clone(&device), Arc::clone(&gate));
        let came_in = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&came_in);
        let hung = thread::spawn(move || {
            let _inside = inside.token.enter().unwrap();
            told.store(true, Ordering::SeqCst);
            let mut open = held.0.lock();
            while !*open {
                open = held.1.wait(open).unwrap();
            }
        });
        while !came_in.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        pass(Duration::from_secs(2));
        let error = device.renew(1, true).unwrap_err();
        assert!(error.reason.contains("does not return"), "{error}");
        assert!(device.operate().is_some(), "who needs no renewal goes on");
        *gate.0.lock() = true;
        gate.1.notify_all();
        hung.join().unwrap();
        assert_eq!(device.renew(1, true), Ok(true));
        assert_eq!(device.operate(), Some((2, 2)));
    });
}
