//! Panics of tasks: nobody waits for most tasks, so that nobody else would hear of them.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

use tokio::time::Instant;

thread_local! {
    /// What has panicked on this thread since somebody watches. A run has its thread for itself.
    static PANICS: RefCell<Option<Vec<(Instant, String)>>> = const { RefCell::new(None) };
}

/// The process has one hook; it passes on what panics on threads that nobody watches.
static HOOK: Once = Once::new();

/// Watches this thread for as long as it lives.
pub struct Panics(PhantomData<*const ()>);

impl Panics {
    /// Watches from now on.
    #[must_use]
    pub fn watch() -> Self {
        HOOK.call_once(|| {
            let others = take_hook();
            set_hook(Box::new(move |panic| {
                let watched = PANICS.with_borrow_mut(|panics| {
                    let panics = panics.as_mut();
                    panics.map(|panics| panics.push((Instant::now(), panic.to_string()))).is_some()
                });
                if !watched {
                    others(panic);
                }
            }));
        });
        PANICS.set(Some(Vec::new()));
        Self(PhantomData)
    }

    /// What has panicked so far, and when.
    #[must_use]
    pub fn take(&self) -> Vec<(Instant, String)> {
        PANICS.with_borrow_mut(|panics| panics.replace(Vec::new())).unwrap_or_default()
    }
}

impl Drop for Panics {
    #[allow(clippy::print_stderr, reason = "what has ended the run itself is kept by nobody else")]
    fn drop(&mut self) {
        let panics = PANICS.take();
        if std::thread::panicking() {
            panics.iter().flatten().for_each(|(_, panic)| eprintln!("{panic}"));
        }
    }
}
