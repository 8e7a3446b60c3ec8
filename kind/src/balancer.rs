//! The load balancer before several control planes, where there is no image registry.
//!
//! kind has the name of its image compiled in. Ours ([node/build](../node/build)) carries that name as long as a cluster
//! of ours needs it, and not beyond: clusters of others on this machine get what they expect.

use crate::command;

/// Ours, under its own name.
const IMAGE: &str = "kleidi-balancer";

/// Its label with the name that kind wants.
const LABEL: &str = "dev.beezy.kleidi.stands-for";

/// Gives it kind's name, unless there is an image of that name, or none of ours: then kind gets its own.
pub fn lend_name() -> Result<(), String> {
    let Some(name) = stands_for(IMAGE) else { return Ok(()) };
    if command::run("docker", &["image", "inspect", &name]).is_ok() {
        return Ok(());
    }
    command::run("docker", &["tag", IMAGE, &name]).map(|_| ())
}

/// Takes kind's name from it. A container that runs keeps its image.
pub fn give_name_back() {
    if let Some(name) = stands_for(IMAGE)
        && stands_for(&name).is_some()
    {
        let _ = command::run("docker", &["image", "rm", &name]);
    }
}

/// What an image says that it stands for.
fn stands_for(image: &str) -> Option<String> {
    let format = format!("{{{{index .Config.Labels \"{LABEL}\"}}}}");
    let label = command::text("docker", &["image", "inspect", "--format", &format, image]).ok()?;
    (!label.is_empty()).then_some(label)
}
