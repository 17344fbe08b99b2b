//! The `weir` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: weir::paged::Paged = weir::paged::Paged;

fn main() -> ExitCode {
    weir::cli::main()
}
