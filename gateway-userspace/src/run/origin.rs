//! Which source a process follows.

use std::sync::Arc;

use crate::admin::AdminState;
use crate::config::Config;
use crate::source::Source;
use crate::source::cluster::{self, Access};
use crate::status::{Clerks, Identity, Setup, Stats};

use super::state_dir::StateDir;

/// Where objects come from, found but not opened.
#[derive(Debug)]
pub enum Origin {
    /// The directory that the settings name.
    Files,
    /// An API server.
    Cluster(Box<Access>),
}

impl Origin {
    /// What the settings say; nothing is read and nothing is sent yet.
    ///
    /// # Errors
    /// There is neither a directory nor a way to an API server.
    pub async fn of(config: &Config) -> anyhow::Result<Self> {
        if config.manifests.is_some() {
            return Ok(Self::Files);
        }
        let access = cluster::connect(config.kubeconfig.as_deref()).await?;
        Ok(Self::Cluster(Box::new(access)))
    }

    /// Where what is done to statuses is counted; none for files, whose statuses nobody writes.
    pub fn stats(&self) -> Option<Arc<Stats>> {
        match self {
            Self::Files => None,
            Self::Cluster(_) => Some(Arc::default()),
        }
    }

    /// Tells it what is served, and writes statuses when that falls to this process.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn report(&self, process: &AdminState) -> std::io::Result<Option<Clerks>> {
        let Self::Cluster(access) = self else {
            return Ok(None);
        };
        let config = &process.config.cluster;
        let namespace = config.pod_namespace.clone();
        let namespace = namespace.unwrap_or_else(|| access.client.default_namespace().to_owned());
        let clerks = Clerks::start(Setup {
            client: access.clerks.clone(),
            identity: Identity {
                namespace,
                pod: config.pod_name.clone(),
                pod_uid: config.pod_uid.clone(),
                node: config.node_name.clone(),
            },
            lease: config.status_lease.clone(),
            terms: config.terms(),
            controller: process.config.controller_name.as_str().into(),
            world: process.world.clone(),
            stats: process.statuses.clone().unwrap_or_default(),
        });
        clerks.map(Some)
    }

    /// Follows it.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn open(&self, config: &Config, state: &StateDir) -> anyhow::Result<Source> {
        match (self, &config.manifests) {
            (Self::Files, Some(directory)) => {
                tracing::info!(directory = %directory.display(), "following manifests");
                Ok(Source::files(directory, Some(state.last_good()))?)
            }
            (Self::Files, None) => anyhow::bail!("no directory of manifests is given"),
            (Self::Cluster(access), _) => {
                tracing::info!(server = access.server, "following a cluster");
                let settings = cluster::Settings {
                    controller: config.controller_name.as_str().into(),
                    last_good: Some(state.last_good()),
                    last_good_after: config.last_good_after,
                };
                Ok(Source::cluster(access, &settings))
            }
        }
    }
}
