//! stub
/// stub
#[derive(Debug, clap::Subcommand)]
pub enum Command { /// stub
 Serve }
/// stub
pub async fn run(_c: Command) -> Result<String, String> { Ok(String::new()) }
