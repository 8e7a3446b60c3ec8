//! What a scenario is, and what it is given.

use std::cell::{Cell, RefCell};

use crate::clock::Stopwatch;
use crate::cluster::{Cluster, Images};
use crate::plan::Plan;
use crate::{progress, tools};

/// A story of a cluster, with what it shows.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// As on the command line.
    pub name: &'static str,
    /// What holds if it passes.
    pub shows: &'static str,
    /// How long it takes on two cores, in minutes.
    pub minutes: u32,
    /// Plays it.
    pub run: fn(&Stage) -> Result<(), String>,
}

/// Where a scenario plays.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    images: Images,
    watch: Stopwatch,
    keep: bool,
    clusters: Cell<usize>,
    shown: RefCell<Vec<String>>,
}

impl Stage {
    /// An empty one.
    #[must_use]
    pub fn new(scenario: &Scenario, images: Images, keep: bool) -> Self {
        Self {
            name: scenario.name,
            images,
            watch: Stopwatch::start(),
            keep,
            clusters: Cell::new(0),
            shown: RefCell::default(),
        }
    }

    /// A cluster that is ready. The first has the scenario's name, a second that name and a number.
    pub fn cluster(&self, plan: Plan) -> Result<Cluster, String> {
        let number = self.clusters.replace(self.clusters.get() + 1) + 1;
        let name =
            if number == 1 { self.name.to_owned() } else { format!("{}-{number}", self.name) };
        Cluster::create(&name, plan, &self.images, self.watch, self.keep)
    }

    /// An image of `ci/part-image`.
    pub fn image(&self, name: &str) -> Result<String, String> {
        tools::image(name, &[&self.images.kleidi])
    }

    /// Something has been shown: it goes into the summary.
    pub fn shown(&self, what: impl Into<String>) {
        let what = what.into();
        progress::step(self.watch, self.name, &format!("shown: {what}"));
        self.shown.borrow_mut().push(what);
    }

    /// All that has been shown.
    #[must_use]
    pub fn all_shown(&self) -> String {
        self.shown.borrow().join("; ")
    }
}

/// Fails with what was found instead.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
