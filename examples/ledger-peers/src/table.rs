//! The table, as Markdown, and below it what each server has said.

use std::time::Duration;

use crate::trial::{Came, PATIENCE};

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) plain: Came,
    pub(crate) stalled: Came,
}

const HEAD: &str = "\
| server | acknowledged | lost | half-done | time to exit | with two stalled clients: lost | half-done | time to exit | they are named |
|---|---|---|---|---|---|---|---|---|";

pub(crate) fn of(rows: &[Row]) -> String {
    let lines = rows.iter().map(|Row { name, plain, stalled }| {
        let (one, two) = (&plain.tally, &stalled.tally);
        format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            one.acknowledged,
            one.lost,
            one.half_done,
            shown(plain.took),
            two.lost,
            two.half_done,
            shown(stalled.took),
            if stalled.is_named { "yes" } else { "no" },
        )
    });
    let said = rows.iter().map(|row| {
        let said = row.stalled.said.trim().replace('\n', "\n    ");
        format!(
            "\n{}, with stalled clients, said:\n    {}\n",
            row.name,
            if said.is_empty() { "nothing" } else { &said }
        )
    });
    [HEAD.to_owned()].into_iter().chain(lines).collect::<Vec<_>>().join("\n") + "\n" + &said.collect::<String>()
}

fn shown(took: Option<Duration>) -> String {
    match took {
        Some(took) => format!("{:.2} s", took.as_secs_f64()),
        None => format!("never (killed after {} s)", PATIENCE.as_secs()),
    }
}
