//! The plugin without its `:authority` filter: shows that kube-apiserver before 1.32 needs it.

fn main() {
    kleidi::cli::main(kleidi::cli::Wiring { any_authority: false })
}
