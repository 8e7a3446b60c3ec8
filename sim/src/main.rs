//! The program `kleidi-sim`; see [`kleidi_sim::cli`].

fn main() -> std::process::ExitCode {
    kleidi_sim::cli::main()
}
