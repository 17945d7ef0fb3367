//! The status writer: while this process holds the Lease, it compares what is owed with what stands
//! and writes the difference.
//!
//! Everything it knows is made anew at the start of each term: what stands comes from the watches,
//! what is owed from the translator, what nodes confirm from their Leases. So a writer that takes
//! over from another writes only what that one had not.

mod term;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::cluster::Stop;
use super::job::Desk;
use super::node::{Identity, Pace};
use crate::world::World;
use term::Term;

/// The status writer.
pub struct Writer {
    /// What all writes share.
    pub desk: Desk,
    /// Whose Lease is the own one.
    pub identity: Identity,
    /// What is known.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// How many nodes there are, for everybody to hear.
    pub counted: watch::Sender<Pace>,
}

impl Writer {
    /// Writes whenever it may, until told to stop.
    pub async fn run(mut self, mut stop: Stop) {
        let mut stopped = std::pin::pin!(stop.told());
        loop {
            let mut leadership = self.desk.leadership.clone();
            while leadership.held_until().is_none() {
                tokio::select! {
                    () = &mut stopped => return,
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
            tokio::select! {
                () = &mut stopped => return,
                () = self.serve_term() => {}
            }
            self.desk.stats.set(super::stats::Gauges::default());
        }
    }

    /// One term. Everything under way is dropped at its end.
    async fn serve_term(&mut self) {
        let Ok(world) = self
            .world
            .wait_for(Option::is_some)
            .await
            .map(|w| w.clone())
        else {
            return std::future::pending().await;
        };
        let Some(world) = world else { return };
        let mut term = Term::new(self.desk.clone(), &self.identity, world, self.world.clone());
        let mut leadership = self.desk.leadership.clone();
        let mut is_followed = true;
        while let Some(until) = leadership.held_until() {
            let now = Instant::now();
            term.proceed(now);
            self.count(term.pace(now));
            let wake = term.wake(now).map_or(until, |wake| wake.min(until));
            tokio::select! {
                changed = self.world.changed(), if is_followed => match changed {
                    Ok(()) => {
                        if let Some(world) = self.world.borrow_and_update().clone() {
                            term.look(world, Instant::now());
                        }
                    }
                    Err(_) => is_followed = false,
                },
                () = term.hear() => {}
                _ = leadership.changed() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    fn count(&self, pace: Pace) {
        self.counted.send_if_modified(|counted| {
            let is_new = *counted != pace;
            *counted = pace;
            is_new
        });
    }
}
