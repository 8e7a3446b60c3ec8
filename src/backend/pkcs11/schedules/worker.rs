//! The owner of a session that does nothing by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Settings;
use super::module::Module;
use crate::random::Random;

pub(super) struct Worker {
    pub(super) module: Arc<Module>,
}

impl Worker {
    pub(super) fn new(
        module: Arc<Module>,
        _settings: Arc<Settings>,
        _random: Arc<dyn Random>,
    ) -> Self {
        module.workers.fetch_add(1, Ordering::SeqCst);
        Self { module }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.module.workers.fetch_sub(1, Ordering::SeqCst);
    }
}
