//! Instants of Tokio's clock as plain numbers, so that the core needs no clock.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds on Tokio's clock since the anchor; paused and advanced time included.
pub(crate) type Ticks = u64;

/// A point that lies before every clock that this process reads: a paused clock stands still at a time before our first look.
/// Where the system's clock began less than that ago, as far back as it goes.
fn anchor() -> std::time::Instant {
    const BACK: [u64; 4] = [24 * 60 * 60, 60 * 60, 60, 1];
    static ANCHOR: OnceLock<std::time::Instant> = OnceLock::new();
    *ANCHOR.get_or_init(|| {
        let now = std::time::Instant::now();
        BACK.into_iter().find_map(|back| now.checked_sub(Duration::from_secs(back))).unwrap_or(now)
    })
}

pub(crate) fn now() -> Ticks {
    ticks(Instant::now())
}

/// An instant before the anchor counts as the anchor: a deadline there has passed either way.
pub(crate) fn ticks(at: Instant) -> Ticks {
    let passed = at.into_std().saturating_duration_since(anchor());
    Ticks::try_from(passed.as_nanos()).unwrap_or(Ticks::MAX)
}

pub(crate) fn instant(at: Ticks) -> Instant {
    Instant::from_std(anchor() + Duration::from_nanos(at))
}

/// The end of a stretch that begins now; none if it lies beyond the end of the clock.
pub(crate) fn after(from: Ticks, length: Duration) -> Option<Ticks> {
    from.checked_add(Ticks::try_from(length.as_nanos()).ok()?)
}

/// How long ago something was.
pub(crate) fn age(born: Ticks) -> Duration {
    Duration::from_nanos(now().saturating_sub(born))
}
