//! stub
/// stub
#[derive(Debug, clap::Args)]
pub struct Args {}
/// stub
pub async fn run(_a: Args) -> Result<bool, String> { Ok(true) }
