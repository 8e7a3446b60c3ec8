//! The command `kms-conformance`.

fn main() -> std::process::ExitCode {
    kms_conformance::cli::main()
}
