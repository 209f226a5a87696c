//! What systemd is told of a run: that it is ready, that it is alive, that it stops, and how much longer that may take.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{pending, select};
use sd_notify::NotifyState;

use super::{Reason, Shutdown};
use crate::core::phase::Phase;
use crate::registry;

/// How often the time is extended. It holds for longer, so it is renewed before it lapses.
const RENEW: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_secs(2);

/// For how long it is extended if the run has no limit.
const UNLIMITED: Duration = Duration::from_secs(10);

/// Begins to tell, if anybody listens. From the runtime: one whose workers are all stuck sends no pings, and is found out by that.
pub(super) fn begin(shutdown: &Arc<Shutdown>) {
    let host = shutdown.run.get().and_then(|run| run.root.host());
    if let (Some(host), Some(_)) = (host, std::env::var_os("NOTIFY_SOCKET")) {
        host.spawn(keep(Arc::clone(shutdown)));
    }
}

/// The program says that it is ready.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

fn tell(what: &[NotifyState<'_>]) {
    // There is nobody else to tell, and a service runs on without its manager.
    sd_notify::notify(what).unwrap_or_default();
}

async fn keep(shutdown: Arc<Shutdown>) {
    let ping = sd_notify::watchdog_enabled().map(|length| length / 2);
    let mut phases = shutdown.phase.subscribe();
    let mut stops = false;
    loop {
        let phase = *phases.borrow_and_update();
        if phase == Phase::Exit {
            return; // Nothing is asked for any more.
        }
        if !stops && shutdown.has_to_say(phase) {
            stops = true;
            tell(&[NotifyState::Stopping]);
        }
        if stops {
            shutdown.extend(phase);
        } else if ping.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        let next = async {
            match if stops { Some(RENEW) } else { ping } {
                Some(length) => tokio::time::sleep(length).await,
                None => pending().await,
            }
        };
        select(pin!(next), pin!(phases.changed())).await;
    }
}

impl Shutdown {
    /// The word that it stops begins systemd's own clock and ends its watchdog. If the request came by a signal, the clock runs
    /// already; else it is said as late as possible.
    fn has_to_say(&self, phase: Phase) -> bool {
        match self.reason() {
            Reason::Signal(_) => phase >= Phase::Initiated,
            Reason::Requested(_) | Reason::MainEnded => phase >= Phase::NotAccepting,
        }
    }

    /// Asks for the time that is left; where only shields are waited for, for no more than they may take.
    fn extend(&self, phase: Phase) {
        let left = self.clock.left();
        let shields =
            self.run.get().filter(|_| phase == Phase::Shielded).and_then(|run| registry::shield_time(&run.root));
        let longest = left.unwrap_or(UNLIMITED);
        let asked = shields.map_or(longest, |time| time.min(longest)).saturating_add(MARGIN);
        let usec = u32::try_from(asked.as_micros()).unwrap_or(u32::MAX);
        let alive = self.run.get().map_or(0, |run| registry::alive(&run.root).len());
        let left = left.map(|left| format!(", {left:.0?} left")).unwrap_or_default();
        let status = format!("{phase}, {alive} alive{left}");
        tell(&[NotifyState::ExtendTimeoutUsec(usec), NotifyState::Status(&status)]);
    }
}
