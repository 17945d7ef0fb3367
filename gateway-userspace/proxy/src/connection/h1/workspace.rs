//! The storage that serving a request takes, lent by the worker for as long as that lasts.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::h1::{RequestHead, ResponseHead};

/// Parsed heads, and heads to be written.
#[derive(Default)]
pub(super) struct Workspace {
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
    pub(super) to_upstream: Vec<u8>,
    pub(super) to_client: Vec<u8>,
}

/// Free workspaces of one worker.
#[derive(Default)]
#[expect(
    clippy::vec_box,
    reason = "a workspace is lent, and moved, as a pointer"
)]
pub(crate) struct Workspaces {
    free: RefCell<Vec<Box<Workspace>>>,
}

/// Workspaces kept free.
const KEPT: usize = 256;

impl fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspaces").finish_non_exhaustive()
    }
}

/// A workspace on loan.
pub(super) struct Lent {
    workspace: Option<Box<Workspace>>,
    home: Rc<Workspaces>,
}

impl Workspaces {
    pub(super) fn lend(self: &Rc<Self>) -> Lent {
        let workspace = self.free.borrow_mut().pop().unwrap_or_default();
        Lent {
            workspace: Some(workspace),
            home: Rc::clone(self),
        }
    }
}

impl Deref for Lent {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        self.workspace.as_ref().expect("there until dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Workspace {
        self.workspace.as_mut().expect("there until dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut free = self.home.free.borrow_mut();
        if let Some(mut workspace) = self.workspace.take()
            && free.len() < KEPT
        {
            workspace.request.reset();
            workspace.response.reset();
            free.push(workspace);
        }
    }
}
