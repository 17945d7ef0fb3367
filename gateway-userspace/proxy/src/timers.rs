//! Deadlines without a timer for each: a worker's connections own a slot each in one table, which a
//! coarse tick scans.
//!
//! Setting a deadline is a store, so that it may be moved for every read and write. A tick of
//! 50 ms over 50 000 slots reads 400 KB and costs 0.1 % of a core.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How often deadlines are looked at: no deadline fires later than this after its time.
pub(crate) const TICK: Duration = Duration::from_millis(50);

pub(crate) const NEVER: u64 = u64::MAX;
const FIRED: u64 = 0;

/// The deadlines of one worker and its coarse clock.
#[derive(Debug)]
pub(crate) struct Timers {
    epoch: Instant,
    now_ms: Cell<u64>,
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    deadlines_ms: Vec<u64>,
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// One task's deadline. Fires by waking the task; until it is set anew it then stays expired.
#[derive(Debug)]
pub(crate) struct Deadline {
    timers: Rc<Timers>,
    slot: usize,
}

impl Timers {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            epoch: Instant::now(),
            // Zero marks a fired slot.
            now_ms: Cell::new(1),
            slots: RefCell::default(),
        })
    }

    /// Milliseconds since the worker started, at the last tick.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// A new deadline that is not set.
    pub(crate) fn deadline(self: &Rc<Self>) -> Deadline {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.deadlines_ms.push(NEVER);
            slots.wakers.push(None);
            slots.wakers.len() - 1
        });
        slots.deadlines_ms[slot] = NEVER;
        Deadline {
            timers: Rc::clone(self),
            slot,
        }
    }

    /// Reads the clock and wakes every task whose deadline has passed.
    pub(crate) fn tick(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(NEVER - 1) + 1;
        self.now_ms.set(now);
        let Slots {
            deadlines_ms,
            wakers,
            ..
        } = &mut *self.slots.borrow_mut();
        for (deadline, waker) in deadlines_ms.iter_mut().zip(wakers) {
            if *deadline <= now && *deadline != FIRED {
                *deadline = FIRED;
                waker.iter().for_each(Waker::wake_by_ref);
            }
        }
    }

    /// Wakes every task that owns a deadline, so that it looks at the worker's state.
    pub(crate) fn wake_all(&self) {
        let slots = self.slots.borrow();
        slots.wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

impl Deadline {
    /// Names the task to wake.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut slots = self.timers.slots.borrow_mut();
        let waker = &mut slots.wakers[self.slot];
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Sets it, at the earliest `after` from now.
    pub(crate) fn set(&self, after: Duration) {
        self.set_at(self.timers.at(after));
    }

    /// Sets it to a time of [`Timers::at`].
    pub(crate) fn set_at(&self, at_ms: u64) {
        self.timers.slots.borrow_mut().deadlines_ms[self.slot] = at_ms;
    }

    /// Takes it back.
    pub(crate) fn clear(&self) {
        self.set_at(NEVER);
    }

    /// Whether it has fired since it was set.
    pub(crate) fn is_expired(&self) -> bool {
        self.timers.slots.borrow().deadlines_ms[self.slot] == FIRED
    }

    /// The clock it goes by.
    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }
}

impl Timers {
    /// The time `after` from now, in milliseconds of this clock. The clock may lag by one tick,
    /// which is added.
    pub(crate) fn at(&self, after: Duration) -> u64 {
        let after = u64::try_from(after.as_millis()).unwrap_or(NEVER);
        self.now_ms()
            .saturating_add(after)
            .saturating_add(TICK.as_millis() as u64)
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.timers.slots.borrow_mut();
        slots.deadlines_ms[self.slot] = NEVER;
        slots.wakers[self.slot] = None;
        slots.free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_fires_once_it_has_passed_and_not_before() {
        let timers = Timers::new();
        let (soon, late) = (timers.deadline(), timers.deadline());
        soon.set_at(1);
        late.set(Duration::from_secs(3_600));
        timers.tick();
        assert!(soon.is_expired() && !late.is_expired());
        soon.clear();
        assert!(!soon.is_expired());
    }

    #[test]
    fn a_slot_is_used_again_without_what_it_held() {
        let timers = Timers::new();
        let first = timers.deadline();
        first.set_at(1);
        timers.tick();
        drop(first);
        let second = timers.deadline();
        assert_eq!(second.slot, 0);
        assert!(!second.is_expired());
    }
}
