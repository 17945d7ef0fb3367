//! A value that is unknown or wrong is refused before anything is installed, by its name.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::{helm, objects};

/// A line of `refusals.yaml`.
#[derive(Deserialize)]
struct Refusal {
    values: String,
    says: String,
}

#[test]
fn wrong_values_are_refused_by_name() -> Result<()> {
    let refusals = objects::yaml(include_str!("refusals.yaml"))?;
    let refusals: Vec<Refusal> = serde_json::from_value(refusals)?;
    ensure!(!refusals.is_empty(), "nothing is refused");
    for Refusal { values, says } in refusals {
        let said = helm::refusal(&values)?;
        ensure!(said.contains(&says), "{values}: {said}");
    }
    Ok(())
}
