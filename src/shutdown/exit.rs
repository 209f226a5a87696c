//! The status of the process, as a function of how the run has ended.

use std::fmt;

use crate::core::cause::CauseKind;
use crate::core::phase::Force;
use crate::outcome::Outcome;
use crate::shutdown::Reason;
use crate::signal::Signal;

/// How the status of the process follows from the end of the run.
///
/// | the run | [`Standard`](Self::Standard) | [`Signal`](Self::Signal) | [`Number`](Self::Number) | [`Main`](Self::Main) |
/// |---|---|---|---|---|
/// | main returned a value | 0 | 0 | 0 | 0 |
/// | main returned an error | 1 | 1 | 1 | 1 |
/// | main panicked | 101 | 101 | 101 | 101 |
/// | main was cancelled by somebody else | 1 | 1 | 1 | 1 |
/// | clean stop by code | 0 | 0 | 0 | 0 |
/// | clean stop by SIGTERM | 0 | dies by SIGTERM | 143 | 0 |
/// | clean stop by SIGINT | 0 | dies by SIGINT | 130 | 0 |
/// | clean stop by SIGINT, stdin is a terminal | dies by SIGINT | dies by SIGINT | 130 | 0 |
/// | forced by SIGTERM | 143 | 143 | 143 | 143 |
/// | forced by SIGINT | 130 | 130 | 130 | 130 |
/// | forced by SIGQUIT | 131 | 131 | 131 | 131 |
/// | forced by the budget | 124 | 124 | 124 | 124 |
///
/// A *clean stop* is one in which main returned a value, or was cancelled by the stop. *Dies by* is what a program does that handles no
/// signal: a shell that runs it in a loop stops the loop, and systemd counts it as success. Process 1 can not die so, and exits with 128 + n.
/// On Windows it is an exit with 0xC000013A, as by a Ctrl-C that no program handles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitPolicy {
    /// 0 for a clean stop, as service managers expect it; but after a Ctrl-C at a terminal the process dies by SIGINT, as shells expect it.
    #[default]
    Standard,
    /// After a clean stop by a signal, the process dies by that signal.
    Signal,
    /// After a clean stop by signal n, the status is 128 + n.
    Number,
    /// Main's own, whatever stopped it; but if the run was ended by force, that of the force.
    Main,
}

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Code(u8),
    /// By the default action of this signal.
    Die(Signal),
}

/// The status that `timeout` gives, too.
pub(crate) const OUT_OF_TIME: u8 = 124;

/// What of the end of main counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MainEnd {
    Value,
    Error,
    Panicked,
    /// By a stop that the runner carried out.
    Stopped,
    /// By somebody else.
    Cancelled,
}

impl MainEnd {
    pub(crate) fn of<T, E>(outcome: &Outcome<T, E>) -> Self {
        match outcome {
            Outcome::Ok(_) => Self::Value,
            Outcome::Err(_) | Outcome::Lost => Self::Error,
            Outcome::Panicked(_) => Self::Panicked,
            Outcome::Cancelled(cause) if cause.kind() == CauseKind::Stopped => Self::Stopped,
            Outcome::Cancelled(_) => Self::Cancelled,
        }
    }
}

/// How a run has ended, as far as its status goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How<'a> {
    pub(crate) reason: Option<&'a Reason>,
    /// The stop came from a person at a terminal.
    pub(crate) interactive: bool,
    pub(crate) forced: Option<Force>,
    pub(crate) main: MainEnd,
}

/// The status of a process that is ended at once.
pub(crate) fn forced(why: Force, signal: Option<Signal>) -> u8 {
    match why {
        Force::Budget => OUT_OF_TIME,
        Force::Press => 128 + signal.and_then(Signal::number).and_then(|number| u8::try_from(number).ok()).unwrap_or(1),
    }
}

/// The status of a process whose run has ended.
pub(crate) fn status(policy: ExitPolicy, how: How<'_>) -> Status {
    let signal = how.reason.and_then(Reason::signal);
    if let Some(why) = how.forced {
        return Status::Code(forced(why, signal));
    }
    match how.main {
        MainEnd::Error | MainEnd::Cancelled => return Status::Code(1),
        MainEnd::Panicked => return Status::Code(101),
        MainEnd::Value | MainEnd::Stopped => {}
    }
    match (policy, signal) {
        (ExitPolicy::Signal, Some(signal)) => Status::Die(signal),
        (ExitPolicy::Standard, Some(Signal::Interrupt)) if how.interactive => Status::Die(Signal::Interrupt),
        (ExitPolicy::Number, Some(_)) => Status::Code(forced(Force::Press, signal)),
        (ExitPolicy::Standard | ExitPolicy::Signal | ExitPolicy::Number | ExitPolicy::Main, _) => Status::Code(0),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => code.fmt(f),
            Self::Die(signal) => write!(f, "dies by {signal}"),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// The rows of the table in the documentation of [`ExitPolicy`], by what they say of the run.
    fn how(run: &str, reason: &mut Option<Reason>) -> How<'static> {
        let signal = |text: &str| match text {
            "SIGTERM" => Signal::Terminate,
            "SIGINT" => Signal::Interrupt,
            "SIGQUIT" => Signal::Quit,
            other => panic!("no signal {other}"),
        };
        let clean = How { reason: None, interactive: false, forced: None, main: MainEnd::Stopped };
        let main = |main| How { main, ..clean };
        match run {
            "main returned a value" => main(MainEnd::Value),
            "main returned an error" => main(MainEnd::Error),
            "main panicked" => main(MainEnd::Panicked),
            "main was cancelled by somebody else" => main(MainEnd::Cancelled),
            "clean stop by code" => {
                *reason = Some(Reason::Requested("code".into()));
                clean
            }
            "clean stop by SIGINT, stdin is a terminal" => {
                *reason = Some(Reason::Signal(Signal::Interrupt));
                How { interactive: true, ..clean }
            }
            "forced by the budget" => How { forced: Some(Force::Budget), ..clean },
            other => {
                let (what, by) = other.split_once(" by ").expect("a row says who");
                *reason = Some(Reason::Signal(signal(by)));
                How { forced: (what == "forced").then_some(Force::Press), ..clean }
            }
        }
    }

    #[test]
    fn l49_the_table_in_the_documentation_is_what_the_function_says() {
        let policies = [ExitPolicy::Standard, ExitPolicy::Signal, ExitPolicy::Number, ExitPolicy::Main];
        let rows: Vec<Vec<&str>> = include_str!("exit.rs")
            .lines()
            .map_while(|line| if line.starts_with("pub enum") { None } else { Some(line) })
            .filter_map(|line| line.strip_prefix("/// | "))
            .map(|line| line.trim_end_matches('|').split('|').map(str::trim).collect())
            .collect();
        let rows = &rows[1..]; // Without its head; the line under that has no space.
        assert!(rows.len() > 10, "the table is found: {rows:?}");
        for row in rows {
            for (policy, expected) in policies.iter().zip(&row[1..]) {
                let mut reason = None;
                let mut how = how(row[0], &mut reason);
                let leaked: Option<&'static Reason> = reason.map(|reason| &*Box::leak(Box::new(reason)));
                how.reason = leaked;
                assert_eq!(status(*policy, how).to_string(), *expected, "{policy:?} {}", row[0]);
            }
        }
    }

    #[test]
    fn a_stop_that_main_answers_with_an_error_is_an_error() {
        let reason = Reason::Signal(Signal::Terminate);
        let how = How { reason: Some(&reason), interactive: true, forced: None, main: MainEnd::Error };
        for policy in [ExitPolicy::Standard, ExitPolicy::Signal, ExitPolicy::Number, ExitPolicy::Main] {
            assert_eq!(status(policy, how), Status::Code(1));
            assert_eq!(status(policy, How { main: MainEnd::Panicked, ..how }), Status::Code(101));
        }
    }
}
