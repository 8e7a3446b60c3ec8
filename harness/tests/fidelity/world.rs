//! What surrounds an apiserver in a scenario.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kleidi_harness::Stage;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

use crate::plugin::Plugin;
use crate::script::Script;

/// Scripted plugins on real sockets.
pub struct Sockets {
    runtime: Runtime,
    directory: PathBuf,
}

impl Sockets {
    pub fn new(stage: &Stage) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for plugins");
        Self { runtime, directory: stage.make_dir("p") }
    }

    /// Where a plugin of that name listens.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts a plugin.
    pub fn start(&self, name: &str, script: Script) -> Arc<Plugin> {
        let path = self.path(name);
        let plugin = Plugin::new(script, path.to_str().expect("a path of our own"));
        let _runtime = self.runtime.enter();
        let listener = UnixListener::bind(&path).expect("a socket");
        let serves = Arc::clone(&plugin);
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serves).serve(stream));
            }
        });
        plugin
    }
}

/// An EncryptionConfiguration with these plugins for `resource`.
pub fn configuration(resource: &str, plugins: &[(&str, &Path)], timeout: &str) -> String {
    let mut text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [{resource}]\n  providers:\n"
    );
    for (name, socket) in plugins {
        let socket = socket.display();
        let _ = writeln!(
            text,
            "  - kms: {{apiVersion: v2, name: {name}, endpoint: 'unix://{socket}', \
             timeout: {timeout}}}"
        );
    }
    text.push_str("  - identity: {}\n");
    text
}
