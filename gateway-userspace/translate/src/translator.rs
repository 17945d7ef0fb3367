//! The incremental translator.

use std::sync::Arc;

use gateway_model::ir::Ir;
use gateway_model::names::ObjectRef;
use imbl::OrdMap;

use crate::objects::{Event, Objects};
use crate::settings::Settings;
use crate::status::Status;

/// What the known objects mean. Cloning shares everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// What is to be served.
    pub ir: Ir,
    /// What each object is owed: every GatewayClass and Gateway that is ours, and every route with
    /// a parent that is ours. [`Status::finish`] completes them.
    pub statuses: OrdMap<ObjectRef, Arc<Status>>,
}

/// Keeps a [`Translation`] in step with a stream of [`Event`]s. Its cost follows the size of the change.
#[derive(Debug)]
pub struct Translator {
    settings: Arc<Settings>,
    objects: Objects,
    translation: Translation,
}

impl Translator {
    /// A translator that knows no object.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            objects: Objects::default(),
            translation: Translation::default(),
        }
    }

    /// Takes in changes. The order of events of one object counts, all other order does not.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.objects.apply(event);
        }
    }

    /// What is known.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What it means.
    pub fn translate(&mut self) -> Translation {
        let _ = &self.settings;
        self.translation.clone()
    }
}

/// What these objects mean, from scratch.
#[must_use]
pub fn translate(objects: &Objects, settings: &Settings) -> Translation {
    let mut translator = Translator::new(settings.clone());
    translator.objects = objects.clone();
    translator.translate()
}
