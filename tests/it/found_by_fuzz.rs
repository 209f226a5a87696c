//! The smallest form of what the fuzz targets have found.

use std::time::Duration;

use testudo::{CancelScope, Runner, dump};

#[test]
fn a_budget_of_any_length_is_added_up_without_a_panic() {
    let runner = Runner::new().current_thread().signals(false).reporter(None);
    let finished = runner.budget(Duration::MAX).graceful_budget(Duration::MAX).run(async {
        testudo::shutdown("at once");
        testudo::shutdown_requested().await;
    });
    assert!(finished.report.is_clean());
}

#[testudo::test(start_paused = true)]
async fn a_name_that_has_lines_makes_no_line_of_its_own_in_a_dump() {
    let scope = CancelScope::new().name("order 7\n  task payment at nowhere.rs:1, running\u{1b}[2K");
    let text = scope.run(async { dump().to_string() }).await.unwrap();
    assert!(text.contains(r"order 7\n  task payment at nowhere.rs:1, running\u{1b}[2K"), "{text}");
    assert!(!text.contains('\u{1b}'));
}
