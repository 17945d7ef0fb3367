//! The thread that follows a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::last_good::{self, LastGood};
use super::super::wake::{Asked, Wake};
use super::super::watch::Watch;
use super::Follower;
use crate::source::Update;

/// How often everything is looked at again.
const RESCAN: Duration = Duration::from_secs(30);

/// Follows a directory until nobody takes its updates any more.
pub fn run(root: &Path, last_good: Option<PathBuf>, updates: &mpsc::Sender<Update>, wake: &Wake) {
    let mut follower = Follower::new(root, watch());
    let mut last_good = last_good.map(|directory| LastGood::new(&directory));
    let remembered = last_good
        .as_ref()
        .map(|store| last_good::read(store.path(), root));
    for (path, objects) in remembered.unwrap_or_default() {
        follower.claims.remember(&path, objects);
    }
    let mut seen = Instant::now();
    let mut events = follower.read_all();
    let mut reported = None;
    let mut next_rescan = seen + RESCAN;
    loop {
        let report = Arc::new(follower.report());
        if !events.is_empty() || reported.as_ref() != Some(&report) {
            reported = Some(Arc::clone(&report));
            if updates
                .blocking_send(Update {
                    events,
                    report,
                    seen: Some(seen),
                    ..Update::default()
                })
                .is_err()
            {
                return;
            }
            if let Some(store) = &mut last_good {
                store.touch();
            }
        }
        let due = last_good.as_ref().and_then(LastGood::due);
        let deadlines = [Some(next_rescan), follower.next_look(Instant::now()), due];
        let asked = wake.wait(
            follower.watch.as_ref(),
            deadlines.into_iter().flatten().min(),
        );
        seen = Instant::now();
        let mut dirty = follower.watch.as_mut().map(Watch::take).unwrap_or_default();
        match asked {
            Asked::Nothing => {}
            Asked::Rescan => dirty.all = true,
            Asked::Stop => return,
        }
        if seen >= next_rescan {
            next_rescan = seen + RESCAN;
            dirty.all = true;
        }
        events = follower.look(dirty, seen);
        events.extend(follower.look_again(seen));
        if let Some(store) = last_good
            .as_mut()
            .filter(|store| events.is_empty() && store.is_due(seen))
        {
            store.write(root, &follower.objects());
        }
    }
}

fn watch() -> Option<Watch> {
    match Watch::new() {
        Ok(watch) => Some(watch),
        Err(error) => {
            let fix = "raise fs.inotify.max_user_instances";
            tracing::warn!(error = %error, fix, "cannot follow changes; looking every 30 seconds");
            None
        }
    }
}
