//! Secrets that are written while something happens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kleidi_harness::{ApiError, ApiServer, eventually};

use crate::cluster::value_of;

/// What became of them.
#[derive(Default)]
pub struct Writing {
    stop: AtomicBool,
    /// Names of those that were acknowledged.
    written: Mutex<Vec<String>>,
    refused: Mutex<Vec<ApiError>>,
}

/// Ends the writing, also if the test fails: nobody would end it then.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Writing {
    /// Writes Secrets through each of the apiservers, as fast as they are acknowledged, while
    /// `meanwhile` runs.
    pub fn during(apiservers: &[&ApiServer], meanwhile: impl FnOnce(&Self)) -> Self {
        let writing = Self::default();
        std::thread::scope(|scope| {
            let _stop = Stop(&writing.stop);
            for (number, apiserver) in apiservers.iter().enumerate() {
                let writing = &writing;
                scope.spawn(move || writing.write(number, apiserver));
            }
            meanwhile(&writing);
        });
        writing
    }

    fn write(&self, number: usize, apiserver: &ApiServer) {
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("load-{number}-{n}");
            match apiserver.try_create_secret(&name, &value_of(&name)) {
                Ok(()) => lock(&self.written).push(name),
                Err(error) => lock(&self.refused).push(error),
            }
        }
    }

    /// Waits until that many more have been acknowledged.
    pub fn more(&self, by: usize) {
        let wanted = lock(&self.written).len() + by;
        eventually("more Secrets to be written", || match lock(&self.written).len() {
            written if written >= wanted => Ok(()),
            written => {
                Err(format!("{written} of {wanted}; refused: {:?}", lock(&self.refused).last()))
            }
        });
    }

    /// The names of those that were acknowledged.
    pub fn written(&self) -> Vec<String> {
        lock(&self.written).clone()
    }

    /// Fails if one was refused.
    pub fn none_refused(&self) {
        let refused = lock(&self.refused);
        assert!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused.first());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
