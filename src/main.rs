//! The daemon; see the library's documentation.

fn main() {
    kleidi::cli::main(kleidi::cli::Wiring::default())
}
