//! The cuts of a sweep, as they are written.

use std::fmt;
use std::str::FromStr;

/// The environment variable that names the cuts of all sweeps.
const VARIABLE: &str = "TESTUDO_SWEEP";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Cancel,
    Drop,
}

/// A cut at one suspension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) how: How,
    pub(super) at: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Cancel => "cancel",
            How::Drop => "drop",
        };
        write!(f, "{how}@{}", self.at)
    }
}

impl FromStr for Cut {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (how, at) = text.trim().split_once('@').ok_or(())?;
        let how = match how {
            "cancel" => How::Cancel,
            "drop" => How::Drop,
            _ => return Err(()),
        };
        Ok(Self { how, at: at.parse().map_err(drop)? })
    }
}

/// `from`: what stands before the cuts where they are written.
#[track_caller]
pub(super) fn parse(from: &str, cuts: &str) -> Vec<Cut> {
    let parsed: Result<Vec<Cut>, ()> = cuts.split(',').map(str::parse).collect();
    parsed.unwrap_or_else(|()| panic!("`{from}{cuts}` names no cuts: write `cancel@1`, `drop@2` or `cancel@1,drop@2`"))
}

pub(super) fn shown(cuts: &[Cut]) -> String {
    cuts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What the environment names.
#[track_caller]
pub(super) fn of_environment() -> Option<Vec<Cut>> {
    std::env::var(VARIABLE).ok().map(|cuts| parse(&format!("{VARIABLE}="), &cuts))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed {
    use super::*;
    use crate::fuzzed::Bytes;

    /// A text is no cut, or the cut is written so that it is read as the same.
    pub(crate) fn a_cut_is_read_as_it_is_written(bytes: Bytes<'_>) {
        let cuts: Vec<Cut> = bytes.rest().split(',').filter_map(|text| text.parse().ok()).collect();
        assert!(cuts.is_empty() || parse("", &shown(&cuts)) == cuts);
    }
}
