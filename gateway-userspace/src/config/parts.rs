//! What each part of a process is told.

use std::net::IpAddr;

use gateway_translate::SourceKind;

use super::Config;
use crate::args::{AccessLog, Attach, L4Mode, Publish};

impl Config {
    /// What the packet path is told.
    pub fn l4_settings(&self) -> gateway_l4::Settings {
        gateway_l4::Settings {
            mode: match self.l4 {
                L4Mode::Auto => gateway_l4::Mode::Auto,
                L4Mode::Bpf => gateway_l4::Mode::Bpf,
                L4Mode::Sockets => gateway_l4::Mode::Sockets,
            },
            interfaces: self.interfaces.clone(),
            attach: match self.attach {
                Attach::Auto => gateway_l4::Attach::Auto,
                Attach::Native => gateway_l4::Attach::Native,
                Attach::Generic => gateway_l4::Attach::Generic,
                Attach::Tc => gateway_l4::Attach::Tc,
            },
            pin_dir: self.pin_dir.clone(),
        }
    }

    /// What the proxy is told.
    pub fn proxy_settings(&self) -> gateway_proxy::Settings {
        gateway_proxy::Settings {
            workers: self.workers,
            pin_workers: self.pin_workers,
            limits: self.limits.clone(),
            access_log: match self.access_log {
                AccessLog::Off => gateway_proxy::AccessLogFormat::Off,
                AccessLog::Text => gateway_proxy::AccessLogFormat::Text,
                AccessLog::Json => gateway_proxy::AccessLogFormat::Json,
            },
            access_log_output: match &self.access_log_path {
                None => gateway_proxy::AccessLogOutput::Stdout,
                Some(path) => gateway_proxy::AccessLogOutput::File(path.clone()),
            },
            trusted_hops: self.trusted_hops,
        }
    }

    /// What the translator is told.
    pub fn translate_settings(&self) -> gateway_translate::Settings {
        let own = if self.node_addresses.is_empty() {
            own_addresses()
        } else {
            self.node_addresses.clone()
        };
        gateway_translate::Settings {
            address_pool: self.cluster.address_pool.clone(),
            publish: match self.cluster.publish {
                Publish::Nodes => gateway_translate::Publish::Nodes,
                Publish::Service => gateway_translate::Publish::Service,
            },
            source: match self.manifests {
                Some(_) => SourceKind::Files,
                None => SourceKind::Cluster,
            },
            ..translate_settings(&self.controller_name, &self.class_names, &own)
        }
    }
}

/// What the translator of a directory of manifests is told.
fn translate_settings(
    controller_name: &str,
    class_names: &[String],
    node_addresses: &[IpAddr],
) -> gateway_translate::Settings {
    let default = gateway_translate::Settings::default();
    let others = class_names
        .iter()
        .filter(|name| ***name != *default.class_name);
    gateway_translate::Settings {
        controller_name: controller_name.into(),
        stand_in_classes: others.map(|name| name.as_str().into()).collect(),
        node_addresses: node_addresses.to_vec(),
        ..default
    }
}

/// What the translator is told by commands that ask a directory: the settings that matter there,
/// from the environment, as for `sluice run`.
pub fn offline_settings() -> gateway_translate::Settings {
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let names = text("SLUICE_CLASS_NAMES").unwrap_or_default();
    let names: Vec<_> = names
        .split(',')
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect();
    let controller = text("SLUICE_CONTROLLER_NAME");
    let default = gateway_translate::Settings::default().controller_name;
    translate_settings(controller.as_deref().unwrap_or(&default), &names, &[])
}

/// The addresses that this node uses towards the world: the sources of its default routes. Asks the
/// routing table by connecting a datagram socket, which sends nothing (RFC 5737, RFC 3849 addresses).
fn own_addresses() -> Vec<IpAddr> {
    let source = |from: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = source("0.0.0.0:0", "192.0.2.1:9");
    let v6 = source("[::]:0", "[2001:db8::1]:9");
    v4.into_iter()
        .chain(v6)
        .filter(|address| !address.is_loopback())
        .collect()
}
