//! The measured program with the allocator of the system.

fn main() {
    testudo_bench::program::run("glibc");
}
