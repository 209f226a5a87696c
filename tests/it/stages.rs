//! Stages: the order of start and stop, budgets, failures.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};

use testudo::{
    CancelScope, Event, NurseryError, Reporter, Runner, Stage, StageCx, Stages, dump, nursery, shield, shutdown,
};
use tokio::time::{Instant, sleep};

use crate::support::{Log, S, overran, turns};

/// A stage that says when it is started, ready, told to stop, and over; each step takes a second.
fn stage(log: &Log, names: [&'static str; 4], name: &'static str) -> Stage<&'static str> {
    let log = log.clone();
    Stage::new(name, move |cx| async move {
        log.push(names[0]);
        sleep(S).await;
        log.push(names[1]);
        cx.ready();
        cx.stop_requested().await;
        log.push(names[2]);
        sleep(S).await;
        log.push(names[3]);
        Ok(())
    })
}

fn db(log: &Log) -> Stage<&'static str> {
    stage(log, ["db starts", "db is up", "db stops", "db is down"], "db")
}

fn cache(log: &Log) -> Stage<&'static str> {
    stage(log, ["cache starts", "cache is up", "cache stops", "cache is down"], "cache").needs("db")
}

fn http(log: &Log) -> Stage<&'static str> {
    stage(log, ["http starts", "http is up", "http stops", "http is down"], "http").needs("db").needs("cache")
}

/// Runs stages as main, and asks for a stop after some seconds.
fn run(stages: Stages<&'static str>, seconds: u32) -> (Result<(), NurseryError<&'static str>>, Vec<Event>) {
    let runner = Runner::new().current_thread().signals(false).reporter(Reporter::new(|_| {}));
    let finished = runner.run(async {
        tokio::time::pause();
        testudo::spawn(async move {
            sleep(seconds * S).await;
            shutdown("enough");
        });
        Ok::<_, ()>(stages.run().await)
    });
    let events = finished.report.events().to_vec();
    (finished.outcome.unwrap(), events)
}

#[test]
fn l47_stages_start_in_order_and_stop_in_reverse() {
    let log = Log::default();
    // The order in which they are given means nothing.
    let (result, _) = run(Stages::new().with(http(&log)).with(db(&log)).with(cache(&log)), 10);
    result.unwrap();
    let expected = [
        "db starts",
        "db is up",
        "cache starts",
        "cache is up",
        "http starts",
        "http is up", //
        "http stops",
        "http is down",
        "cache stops",
        "cache is down",
        "db stops",
        "db is down",
    ];
    assert_eq!(log.seen(), expected);
}

#[testudo::test(start_paused = true)]
async fn independent_stages_start_and_stop_side_by_side() {
    let log = Log::default();
    let mail = stage(&log, ["mail starts", "mail is up", "mail stops", "mail is down"], "mail").needs("db");
    let stages = Stages::new().with(db(&log)).with(cache(&log)).with(mail);
    let began = Instant::now();
    let scope = CancelScope::new().timeout(5 * S);
    let cut = scope.run(stages.run()).await;
    assert!(cut.is_err(), "nobody asked them to stop");
    assert_eq!(began.elapsed(), 5 * S);
    assert_eq!(log.seen()[2..6], ["cache starts", "mail starts", "cache is up", "mail is up"]);
}

#[test]
fn a_request_while_they_start_stops_only_what_was_started() {
    let log = Log::default();
    let runner = Runner::new().current_thread().signals(false).reporter(None);
    let stages = Stages::new().with(db(&log)).with(cache(&log)).with(http(&log));
    let finished = runner.run(async {
        tokio::time::pause();
        testudo::spawn(async {
            sleep(S * 3 / 2).await;
            shutdown("enough");
        });
        Ok::<_, ()>(stages.run().await)
    });
    finished.outcome.unwrap().unwrap();
    // The cache was on its way up: it gets there, hears that it is to stop, and only then the database does.
    let expected = [
        "db starts",
        "db is up",
        "cache starts",
        "cache is up",
        "cache stops",
        "cache is down",
        "db stops",
        "db is down",
    ];
    assert_eq!(log.seen(), expected);
}

#[test]
fn a_start_that_fails_stops_what_was_started_and_starts_nothing_more() {
    for panics in [false, true] {
        let log = Log::default();
        let failing = log.clone();
        let bad = Stage::new("cache", move |_| async move {
            failing.push("cache fails");
            if panics {
                crate::support::blow_up("no luck");
            }
            Err("no memory")
        });
        let (result, _) = run(Stages::new().with(db(&log)).with(bad.needs("db")).with(http(&log)), 60);
        assert_eq!(log.seen(), ["db starts", "db is up", "cache fails", "db stops", "db is down"]);
        let error = result.unwrap_err();
        assert!(error.to_string().contains("cache"), "{error}");
    }
}

#[test]
fn a_failure_later_stops_all_in_order() {
    let log = Log::default();
    let failing = log.clone();
    let bad = Stage::new("mail", move |cx: StageCx| async move {
        cx.ready();
        sleep(20 * S).await;
        failing.push("mail fails");
        Err("no route")
    });
    let (result, _) = run(Stages::new().with(db(&log)).with(cache(&log)).with(bad.needs("db")), 3600);
    assert_eq!(result.unwrap_err().failures().unwrap().len(), 1);
    assert_eq!(log.seen()[4..], ["mail fails", "cache stops", "cache is down", "db stops", "db is down"]);
}

#[test]
fn l47_a_stage_that_ends_early_reorders_nothing() {
    let log = Log::default();
    let migrated = log.clone();
    let migration = Stage::new("cache", move |_| async move {
        sleep(S).await;
        migrated.push("migrated");
        Ok(())
    });
    let (result, _) = run(Stages::new().with(db(&log)).with(migration.needs("db")).with(http(&log)), 10);
    result.unwrap();
    let expected = [
        "db starts",
        "db is up",
        "migrated",
        "http starts",
        "http is up",
        "http stops",
        "http is down",
        "db stops",
        "db is down",
    ];
    assert_eq!(log.seen(), expected);
}

#[test]
fn a_stage_over_its_budget_is_cancelled_and_named_and_the_others_go_on() {
    let log = Log::default();
    let shielded = log.clone();
    let stuck = Stage::new("cache", move |cx: StageCx| async move {
        cx.ready();
        cx.stop_requested().await;
        shield(sleep(3 * S)).await;
        shielded.push("shield is done");
        pending().await
    });
    let (result, events) = run(Stages::new().with(db(&log)).with(stuck.needs("db").budget(2 * S)), 10);
    result.unwrap();
    assert_eq!(log.seen()[2..], ["shield is done", "db stops", "db is down"]);
    assert_eq!(overran(&events), ["cache"]);
}

#[test]
fn stages_that_can_not_be_ordered_are_refused() {
    let refused = |stages: fn() -> Stages<&'static str>| {
        let payload = catch_unwind(AssertUnwindSafe(|| drop(stages().run()))).expect_err("it is refused");
        payload.downcast::<String>().map(|text| *text).unwrap_or_default()
    };
    let circle = refused(|| {
        let plain = |name: &'static str| Stage::new(name, |_| async { Ok(()) });
        Stages::new().with(plain("a").needs("b")).with(plain("b").needs("c")).with(plain("c").needs("a"))
    });
    assert_eq!(circle, "these stages need each other in a circle: a needs b needs c");
    let unknown = refused(|| Stages::new().with(Stage::new("a", |_| async { Ok(()) }).needs("x")));
    assert_eq!(unknown, "stage `a` needs `x`, which is not there: add it with `Stages::with`");
    let twice = refused(|| {
        let plain = |name: &'static str| Stage::new(name, |_| async { Ok(()) });
        Stages::new().with(plain("a")).with(plain("a"))
    });
    assert_eq!(twice, "two stages are named `a`: give each a name of its own");
}

#[testudo::test(start_paused = true)]
async fn a_stage_is_placed_where_it_was_described() {
    let run = nursery(|n| async move {
        n.spawn(Stages::new().with(Stage::new("db", |_| pending())).run());
        turns().await;
        let text = dump().to_string();
        assert!(text.contains("scope db at tests/it/stages.rs") && !text.contains("at src/"), "{text}");
        n.cancel("test");
        Ok::<_, NurseryError<&'static str>>(())
    });
    run.await.unwrap();
}
