//! Shields: work that a cancel outside does not end.

mod body;
#[cfg(feature = "signal")]
mod cut;
mod exposed;
mod local;
mod owned;
mod rescue;
mod scoped;

pub use exposed::{Exposed, ExposedRun, shield_with};
pub use local::{LocalShield, shield_local};
pub use owned::{Shield, shield};
pub use scoped::{ScopedShield, shield_scoped};

#[cfg(feature = "signal")]
pub(crate) use body::check_budget;
pub(crate) use body::{Budget, out_of_budget, start, watch};
#[cfg(feature = "signal")]
pub(crate) use cut::cut_shields;
