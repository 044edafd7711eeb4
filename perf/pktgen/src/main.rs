//! `ringwire-pktgen`: see the library of the same name.

fn main() -> std::process::ExitCode {
    ringwire_pktgen::main()
}
