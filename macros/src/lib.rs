//! The attribute macros of `testudo`; use them through that crate.

mod entry;

use proc_macro::TokenStream;

/// Runs an `async fn main()` with `testudo::Runner`.
///
/// The function becomes a plain `fn main` that builds the runtime, installs the signal handlers,
/// runs the body as the main task, shuts down in order, and returns the exit code that the exit
/// policy chooses. The body may return whatever the runner accepts as the output of a main task,
/// such as `()` or `Result<(), E>`; a value in it is dropped, so for an exit code of your own call
/// `testudo::Runner::run_to_exit`. Attributes and documentation stay on the function.
///
/// Options, each as `name = value`, separated by commas:
///
/// - `flavor`: `"multi_thread"` (the default) or `"current_thread"`.
/// - `worker_threads`: how many workers a multi-threaded runtime has, at least 1.
/// - `shield_main`: `true` lets the main task survive a cancel.
/// - `wait_for_tasks`: `true` waits for the remaining tasks when main has ended, instead of
///   cancelling them.
///
/// For anything else call `testudo::Runner` from a plain `fn main`.
#[proc_macro_attribute]
pub fn main(args: TokenStream, item: TokenStream) -> TokenStream {
    entry::main(args.into(), item.into()).into()
}

/// Runs an `async fn` as a test under the rules of `testudo`.
///
/// The function becomes a plain `#[test]` that runs the body as the main task on a runtime of its
/// own. The body may return whatever a `#[test]` may. Attributes, such as `#[should_panic]`, and
/// documentation stay on the function.
///
/// Options, each as `name = value`, separated by commas:
///
/// - `start_paused`: `true` starts with Tokio's clock paused. The default is `false`.
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    entry::test(args.into(), item.into()).into()
}
