//! `Gateway.spec.tls.frontend`: what is asked of the clients of TLS listeners.

use gateway_model::ir::ClientValidationMode;

use super::reader::Node;
use super::{Known, ObjectReference};

/// Gateway API v1 `FrontendTLSConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendTls {
    /// `default.validation`.
    pub default: Option<FrontendValidation>,
    /// `perPort`, up to 64: the port and its `tls.validation`, which replaces the default even
    /// where it is missing.
    pub per_port: Vec<(u16, Option<FrontendValidation>)>,
}

/// Gateway API v1 `FrontendTLSValidation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendValidation {
    /// `caCertificateRefs`, 1 to 16.
    pub authorities: Vec<ObjectReference>,
    /// `mode`; default `AllowValidOnly`.
    pub mode: Known<ClientValidationMode>,
}

impl FrontendTls {
    pub(super) fn read(node: &Node<'_>) -> Self {
        let node = node.clone().mapping();
        let validation = |tls: Node<'_>| {
            let validation = tls.mapping().field("validation").mapping();
            validation.present().map(FrontendValidation::read)
        };
        let per_port = node.field("perPort");
        let mut read = Self {
            default: validation(node.field("default")),
            per_port: Vec::new(),
        };
        for item in per_port.items(64) {
            let Some(port) = item.field("port").required().port() else {
                continue;
            };
            if read.per_port.iter().any(|(other, _)| *other == port) {
                item.field("port")
                    .problem(format!("port {port} is named twice"));
            }
            read.per_port.push((port, validation(item.field("tls"))));
        }
        read
    }

    /// What holds for the TLS listeners of a port.
    #[must_use]
    pub fn of_port(&self, port: u16) -> Option<&FrontendValidation> {
        let of_port = self.per_port.iter().find(|(p, _)| *p == port);
        of_port.map_or(self.default.as_ref(), |(_, validation)| validation.as_ref())
    }

    /// Every validation that is asked for anywhere.
    pub fn iter(&self) -> impl Iterator<Item = &FrontendValidation> {
        let per_port = self.per_port.iter().filter_map(|(_, v)| v.as_ref());
        self.default.iter().chain(per_port)
    }
}

impl FrontendValidation {
    fn read(node: &Node<'_>) -> Self {
        let modes = [
            ("AllowValidOnly", ClientValidationMode::AllowValidOnly),
            (
                "AllowInsecureFallback",
                ClientValidationMode::AllowInsecureFallback,
            ),
        ];
        let refs = node.field("caCertificateRefs");
        let items = refs.items(16);
        if items.is_empty() {
            refs.problem("must name at least one ConfigMap or Secret with a ca.crt");
        }
        let mode = node.field("mode").known(&modes);
        Self {
            authorities: items.iter().map(ObjectReference::read).collect(),
            mode: mode.unwrap_or(Known::Known(ClientValidationMode::AllowValidOnly)),
        }
    }
}
