//! Points at which a simulation can hold the program up, where no fault of a network or of a KMS reaches:
//! between two steps of its own. Without the feature `sim` nothing of them is in the program.

#[cfg(feature = "sim")]
pub use held::{Holds, hold, pass};

/// Holds the caller, which is `async`, up at the point of that name for as long as the simulation wants.
macro_rules! sim_point {
    ($name:literal) => {
        #[cfg(feature = "sim")]
        crate::sim_point::pass($name).await;
    };
}
pub(crate) use sim_point;

#[cfg(feature = "sim")]
mod held {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    /// For how long whoever passes the point of that name is held up.
    type HowLong = Rc<dyn Fn(&'static str) -> Duration>;

    thread_local! {
        /// A simulation has its thread for itself.
        static HOW_LONG: RefCell<Option<HowLong>> = const { RefCell::new(None) };
    }

    /// Whoever passes a point on this thread is held up, for as long as this lives.
    pub struct Holds(());

    /// Holds whoever passes a point on this thread up for as long as `how_long` says.
    #[must_use]
    pub fn hold(how_long: impl Fn(&'static str) -> Duration + 'static) -> Holds {
        HOW_LONG.set(Some(Rc::new(how_long)));
        Holds(())
    }

    impl Drop for Holds {
        fn drop(&mut self) {
            HOW_LONG.set(None);
        }
    }

    /// Passes the point of that name.
    pub async fn pass(name: &'static str) {
        let how_long = HOW_LONG.with_borrow(Clone::clone).map(|how_long| how_long(name));
        if let Some(time) = how_long.filter(|time| !time.is_zero()) {
            tokio::time::sleep(time).await;
        }
    }
}
