//! The one budget of a shutdown, and the shares of its phases.
//!
//! One number goes in; what each phase may take at most is derived from it and from what is left:
//!
//! | | at most |
//! |---|---|
//! | draining | a fifth of all, or the drain delay if that is longer |
//! | in flight | the graceful budget, or half of what is left without the reserve |
//! | shielded | all that is left without the reserve |
//! | finalizing | the reserve: a tenth of all, at least a second, at most half |
//!
//! No phase eats the reserve, and nothing that is configured makes the whole longer.

use std::time::Duration;

use crate::core::phase::Phase;

/// The environment variable that overrides the budget.
pub(crate) const VARIABLE: &str = "TESTUDO_BUDGET";

/// What is left between our end and the end that the platform makes.
const MARGIN: Duration = Duration::from_secs(2);

/// Kubernetes' 30 s without the margin.
const DEFAULT: Duration = Duration::from_secs(28);

/// How long Kubernetes may go on sending work to a pod that it has told to stop.
const DELAY_KUBERNETES: Duration = Duration::from_secs(5);

/// What was configured in code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Config {
    /// None: the default. None inside: no limit.
    pub(crate) total: Option<Option<Duration>>,
    pub(crate) delay: Option<Duration>,
    pub(crate) graceful: Option<Duration>,
    pub(crate) reserve: Option<Duration>,
    /// What shields get that name none of their own.
    pub(crate) shield: Option<Duration>,
}

/// Who ends this process when it takes too long to stop, as far as the environment tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Platform {
    name: &'static str,
    /// What it gives by default; what it was configured to give, it tells nobody.
    grace: Duration,
    setting: &'static str,
}

const KUBERNETES: Platform =
    Platform { name: "Kubernetes", grace: Duration::from_secs(30), setting: "terminationGracePeriodSeconds" };
const SYSTEMD: Platform = Platform { name: "systemd", grace: Duration::from_secs(90), setting: "TimeoutStopSec" };
const CONTAINER: Platform =
    Platform { name: "a container engine", grace: Duration::from_secs(10), setting: "--stop-timeout" };

/// Reads one variable of the environment.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

fn platform(env: Env<'_>) -> Option<Platform> {
    let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    if is_set("KUBERNETES_SERVICE_HOST") {
        Some(KUBERNETES)
    } else if is_set("container") {
        Some(CONTAINER)
    } else if is_set("NOTIFY_SOCKET") || is_set("INVOCATION_ID") {
        Some(SYSTEMD)
    } else {
        None
    }
}

/// The budget of a run: what its phases may take, from the request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// None: no limit.
    pub(crate) total: Option<Duration>,
    /// How long accepting goes on after the request.
    pub(crate) delay: Duration,
    graceful: Option<Duration>,
    pub(crate) reserve: Duration,
}

#[cfg(feature = "testing")]
impl Default for Budget {
    fn default() -> Self {
        Self { total: Some(DEFAULT), delay: Duration::ZERO, graceful: None, reserve: DEFAULT / 10 }
    }
}

impl Budget {
    /// As [`new`](Self::new), with the environment of the process.
    pub(crate) fn read(config: Config) -> Result<(Self, Vec<String>), String> {
        Self::new(config, &|name| std::env::var(name).ok())
    }

    /// The budget, and what does not fit in it or in what the platform gives.
    ///
    /// # Errors
    ///
    /// The variable of the environment can not be read.
    pub(crate) fn new(config: Config, env: Env<'_>) -> Result<(Self, Vec<String>), String> {
        let platform = platform(env);
        let told = env(VARIABLE).map(|text| parse(&text)).transpose()?;
        let default = platform.map_or(DEFAULT, |platform| DEFAULT.min(platform.grace - MARGIN));
        let total = told.or(config.total).unwrap_or(Some(default));
        let reserve = config.reserve.unwrap_or_else(|| match total {
            Some(total) => (total / 10).max(Duration::from_secs(1)).min(total / 2),
            None => Duration::from_secs(3),
        });
        let delay = config.delay.unwrap_or(match platform {
            Some(KUBERNETES) => DELAY_KUBERNETES.min(total.map_or(DELAY_KUBERNETES, |total| total / 5)),
            Some(_) | None => Duration::ZERO,
        });
        let budget = Self { total, delay, graceful: config.graceful, reserve };
        let mut faults: Vec<String> = budget.faults(config).into_iter().collect();
        // Who sets the variable knows the platform.
        let from_code = told.is_none() && config.total.is_some();
        faults.extend(platform.filter(|_| from_code).and_then(|platform| budget.beyond(platform)));
        Ok((budget, faults))
    }

    /// What was configured and does not fit.
    fn faults(&self, config: Config) -> Option<String> {
        let total = self.total?;
        let parts = [
            ("drain delay", Some(self.delay)),
            ("graceful budget", config.graceful),
            ("budget of shields", config.shield),
            ("reserve", Some(self.reserve)),
        ];
        let parts: Vec<_> = parts.iter().filter_map(|(name, part)| Some((name, (*part)?))).collect();
        let sum = parts.iter().fold(Duration::ZERO, |sum, (_, part)| sum.saturating_add(*part));
        let list: Vec<String> = parts.iter().map(|(name, part)| format!("{name} {part:?}")).collect();
        (sum > total).then(|| {
            format!(
                "{} are {sum:?}, which do not fit in the budget of {total:?}: phases will be cut short",
                list.join(" + ")
            )
        })
    }

    fn beyond(&self, platform: Platform) -> Option<String> {
        let Platform { name, grace, setting } = platform;
        let why = match self.total {
            Some(total) if total.saturating_add(MARGIN) <= grace => return None,
            Some(total) => format!("the budget of {total:?} is more than"),
            None => "no budget is more than".to_owned(),
        };
        Some(format!(
            "{why} {name} gives by default, {grace:?} less {MARGIN:?}: raise `{setting}`, and state it in `{VARIABLE}`"
        ))
    }

    /// The same within a total that is no more than this.
    pub(crate) fn capped(self, cap: Duration) -> Self {
        let total = self.total.map_or(cap, |total| total.min(cap));
        Self { total: Some(total), reserve: self.reserve.min(total / 4), ..self }
    }

    /// True if the graceful phase is to be entered though nobody is known to take part.
    pub(crate) fn is_graceful(&self) -> bool {
        self.graceful.is_some()
    }

    /// When a phase is over that was entered so long after the request, also measured from there.
    pub(crate) fn until(&self, phase: Phase, entered: Duration) -> Option<Duration> {
        let own = |length: Option<Duration>| length.map(|length| entered.saturating_add(length));
        // All but the reserve, and all.
        let rest = self.total.map(|total| total.saturating_sub(self.reserve));
        let at_most = |own: Option<Duration>| match (own, rest) {
            (Some(own), Some(rest)) => Some(own.min(rest)),
            (own, rest) => own.or(rest),
        };
        match phase {
            Phase::Draining => at_most(own(self.total.map(|total| self.delay.max(total / 5)))),
            Phase::InFlight => at_most(own(self.graceful.or(rest.map(|rest| rest.saturating_sub(entered) / 2)))),
            Phase::Shielded => rest,
            Phase::Finalizing => self.total,
            Phase::Running | Phase::Initiated | Phase::NotAccepting | Phase::Cancelling | Phase::Exit => None,
        }
    }
}

/// Reads a budget: a duration, or `none`.
fn parse(text: &str) -> Result<Option<Duration>, String> {
    let fault =
        |why: &str| format!("{VARIABLE} is `{text}`: {why}; write a time as in `28s`, `1m 30s` or `500ms`, or `none`");
    match text.trim() {
        "none" => Ok(None),
        trimmed => match humantime::parse_duration(trimmed) {
            Ok(Duration::ZERO) => Err(fault("nothing can stop in no time")),
            Ok(length) => Ok(Some(length)),
            Err(error) => Err(fault(&error.to_string())),
        },
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed {
    use super::*;
    use crate::fuzzed::Bytes;

    /// Whatever stands in the environment and in the code, it is refused with the text, or no phase ends after the whole.
    pub(crate) fn is_total(mut bytes: Bytes<'_>) {
        let config = Config {
            total: bytes.maybe(|bytes| bytes.maybe(Bytes::duration).filter(|total| !total.is_zero())),
            delay: bytes.maybe(Bytes::duration),
            graceful: bytes.maybe(Bytes::duration),
            reserve: bytes.maybe(Bytes::duration),
            shield: bytes.maybe(Bytes::duration),
        };
        let platforms = ["KUBERNETES_SERVICE_HOST", "container", "NOTIFY_SOCKET"];
        let platform = bytes.maybe(|bytes| platforms[usize::from(bytes.byte()) % platforms.len()]);
        let text = bytes.maybe(|bytes| bytes.rest());
        let env = |name: &str| if name == VARIABLE { text.clone() } else { (platform == Some(name)).then(String::new) };
        let read = text.as_deref().map_or(Ok(config.total.flatten()), parse);
        if let (Some(_), Ok(Some(length))) = (&text, &read) {
            assert_eq!(parse(&humantime::format_duration(*length).to_string()), Ok(Some(*length)));
        }
        match (Budget::new(config, &env), &text) {
            (Err(error), Some(text)) => assert!(read.is_err() && error.contains(&format!("`{text}`")), "{error}"),
            (Err(error), None) => panic!("nothing was there to be read: {error}"),
            (Ok((budget, _)), _) => check(budget),
        }
    }

    fn check(budget: Budget) {
        assert_ne!(budget.total, Some(Duration::ZERO), "nothing can stop in no time");
        for at in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            let until = |phase| budget.until(phase, at);
            assert!(Phase::ALL.into_iter().filter_map(until).all(|end| budget.total.is_none_or(|total| end <= total)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn budget(config: Config, env: &[(&str, &str)]) -> Result<(Budget, Vec<String>), String> {
        let find = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Budget::new(config, &find)
    }

    #[test]
    fn the_default_is_28_s_and_less_where_the_platform_gives_less() {
        for (env, total) in [
            (&[][..], 28 * S),
            (&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], 28 * S),
            (&[("NOTIFY_SOCKET", "/run/notify")], 28 * S),
            (&[("container", "podman")], 8 * S),
            (&[("container", "podman"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")], 28 * S),
            (&[("TESTUDO_BUDGET", "1m 30s")], 90 * S),
        ] {
            let (budget, faults) = budget(Config::default(), env).unwrap();
            assert_eq!(budget.total, Some(total), "{env:?}");
            assert_eq!(faults, [""; 0], "{env:?}");
        }
    }

    #[test]
    fn the_environment_overrides_the_code_and_says_what_is_wrong_with_it() {
        let config = Config { total: Some(Some(3 * S)), ..Config::default() };
        let total = |text| budget(config, &[("TESTUDO_BUDGET", text)]).map(|(budget, _)| budget.total);
        assert_eq!(total("500ms"), Ok(Some(S / 2)));
        assert_eq!(total(" 2s "), Ok(Some(2 * S)));
        assert_eq!(total("none"), Ok(None));
        for wrong in ["", "7", "soon", "-1s", "0s", "1 parsec"] {
            let error = total(wrong).unwrap_err();
            assert!(error.starts_with(&format!("TESTUDO_BUDGET is `{wrong}`: ")) && error.contains("28s"), "{error}");
        }
    }

    #[test]
    fn a_budget_that_is_the_longest_there_is_overflows_nothing() {
        let most = Some(Duration::MAX);
        let config = Config { total: Some(most), delay: most, graceful: most, reserve: Some(S), shield: most };
        for env in [&[][..], &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]] {
            let (budget, _) = budget(config, env).unwrap();
            assert_eq!(budget.until(Phase::InFlight, S), Some(Duration::MAX - S));
            assert_eq!(budget.until(Phase::Finalizing, S), most);
        }
    }

    #[test]
    fn what_can_not_fit_is_said() {
        let config =
            Config { total: Some(Some(10 * S)), delay: Some(4 * S), graceful: Some(6 * S), ..Config::default() };
        let (_, faults) = budget(config, &[]).unwrap();
        assert_eq!(
            faults,
            ["drain delay 4s + graceful budget 6s + reserve 1s are 11s, which do not fit in the budget of 10s: \
              phases will be cut short"]
        );
        let fits = Config { graceful: Some(5 * S), ..config };
        assert_eq!(budget(fits, &[]).unwrap().1, [""; 0]);
    }

    #[test]
    fn more_than_the_platform_gives_is_said_unless_the_environment_asked_for_it() {
        let config = Config { total: Some(Some(60 * S)), ..Config::default() };
        let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let (_, faults) = budget(config, &[kubernetes]).unwrap();
        assert!(matches!(faults.as_slice(), [one] if one.contains("terminationGracePeriodSeconds")), "{faults:?}");
        assert_eq!(budget(config, &[kubernetes, ("TESTUDO_BUDGET", "60s")]).unwrap().1, [""; 0]);
        assert_eq!(budget(config, &[("INVOCATION_ID", "1")]).unwrap().1, [""; 0]);
        let none = Config { total: Some(None), ..Config::default() };
        assert_eq!(budget(none, &[("INVOCATION_ID", "1")]).unwrap().1.len(), 1);
    }

    #[test]
    fn l46_no_phase_ends_after_the_reserve_begins_and_none_after_all() {
        let lengths = [None, Some(Duration::ZERO), Some(S / 10), Some(S), Some(7 * S), Some(100 * S)];
        for total in [S / 2, S, 5 * S, 28 * S, 3600 * S] {
            for (delay, graceful) in lengths.iter().flat_map(|a| lengths.map(|b| (*a, b))) {
                let config = Config { total: Some(Some(total)), delay, graceful, ..Config::default() };
                let (budget, _) = budget(config, &[]).unwrap();
                assert!(budget.reserve > Duration::ZERO && budget.reserve <= total / 2, "{budget:?}");
                let mut now = Duration::ZERO;
                for phase in Phase::ALL {
                    let Some(until) = budget.until(phase, now) else { continue };
                    let end = if phase == Phase::Finalizing { total } else { total - budget.reserve };
                    assert!(until <= end, "{phase} {budget:?}");
                    now = now.max(until);
                }
                assert_eq!(now, total);
            }
        }
    }

    #[test]
    fn the_shares_are_those_of_the_table() {
        let config = Config { total: Some(Some(30 * S)), ..Config::default() };
        let (budget, _) = budget(config, &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
        assert_eq!((budget.delay, budget.reserve), (5 * S, 3 * S));
        assert_eq!(budget.until(Phase::Draining, Duration::ZERO), Some(6 * S));
        assert_eq!(budget.until(Phase::InFlight, 5 * S), Some(16 * S));
        assert_eq!(budget.until(Phase::Shielded, 16 * S), Some(27 * S));
        assert_eq!(budget.until(Phase::Finalizing, 27 * S), Some(30 * S));
    }

    #[test]
    fn a_window_that_closes_caps_the_budget() {
        let (budget, _) = budget(Config::default(), &[]).unwrap();
        let capped = budget.capped(9 * S / 2);
        assert_eq!(capped.total, Some(9 * S / 2));
        assert_eq!(capped.until(Phase::Shielded, Duration::ZERO), Some(9 * S / 2 - 9 * S / 8));
        assert_eq!(budget.capped(60 * S).total, Some(28 * S));
    }
}
