//! The measured program with mimalloc.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    testudo_bench::program::run("mimalloc");
}
