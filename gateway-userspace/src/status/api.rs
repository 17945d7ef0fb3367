//! The few requests to the API server that statuses need, with raw JSON in and out, so that what is
//! of no concern here goes back as it came.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use gateway_model::names::{ObjectKind, ObjectRef};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request};
use kube::Client;
use kube::core::WatchEvent;
use serde_json::Value;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 409: somebody else was faster, or it exists already.
    #[error("was changed by somebody else")]
    Conflict,
    /// 404.
    #[error("does not exist")]
    NotFound,
    /// 410: the list must be read again.
    #[error("the resource version is too old")]
    Expired,
    /// The API server said no.
    #[error("the API server refuses ({code} {reason}): {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// One word.
        reason: String,
        /// In words.
        message: String,
    },
    /// The request or its answer got lost.
    #[error("the API server cannot be reached")]
    Unreachable(#[source] kube::Error),
    /// No answer in time.
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// This process does not hold the Lease any more; nothing was sent.
    #[error("another sluice writes now")]
    Deposed,
    /// A name that cannot stand in a URL.
    #[error("cannot be asked for")]
    Unaskable(#[source] hyper::http::Error),
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                409 => Self::Conflict,
                404 => Self::NotFound,
                410 => Self::Expired,
                code => Self::Refused {
                    code,
                    reason: status.reason.clone(),
                    message: status.message.clone(),
                },
            },
            error => Self::Unreachable(error),
        }
    }
}

/// A connection to the API server. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

impl Api {
    /// Uses that client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads an object or a list.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.ask(Method::GET, path, "", None).await
    }

    /// Replaces; a `metadata.resourceVersion` in the body must be the one that stands.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.ask(Method::PUT, path, "application/json", Some(body))
            .await
    }

    /// RFC 7386: maps are merged, lists replaced. With `metadata.resourceVersion` in the body it
    /// must be the one that stands.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let kind = "application/merge-patch+json";
        self.ask(Method::PATCH, path, kind, Some(body)).await
    }

    /// Creates in a collection.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.ask(Method::POST, path, "application/json", Some(body))
            .await
    }

    /// Deletes; `body` holds the preconditions.
    pub async fn delete(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.ask(Method::DELETE, path, "application/json", Some(body))
            .await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, "application/json");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, kind);
        }
        let body = body.map(|body| body.to_string().into_bytes());
        let request = request
            .body(body.unwrap_or_default())
            .map_err(ApiError::Unaskable)?;
        match tokio::time::timeout(PATIENCE, self.client.request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ApiError::Timeout),
        }
    }

    /// Follows a collection from a resource version on, for a few minutes. `query` selects.
    pub async fn watch(
        &self,
        path: &str,
        query: &str,
        from: &str,
    ) -> Result<impl Stream<Item = Result<Change, ApiError>> + use<>, ApiError> {
        let uri = format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=240&resourceVersion={from}&{query}"
        );
        let request = Request::get(uri).header(ACCEPT, "application/json");
        let request = request.body(Vec::new()).map_err(ApiError::Unaskable)?;
        let asked = self.client.request_events::<Value>(request);
        let events = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(events) => events?,
            Err(_) => return Err(ApiError::Timeout),
        };
        Ok(events.map(|event| match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => Ok(Change::Is(object)),
            Ok(WatchEvent::Deleted(object)) => Ok(Change::Gone(object)),
            Ok(WatchEvent::Bookmark(mark)) => Ok(Change::Mark(mark.metadata.resource_version)),
            Ok(WatchEvent::Error(status)) => Err(kube::Error::Api(status).into()),
            Err(error) => Err(error.into()),
        }))
    }
}

/// What a watch says.
#[derive(Debug)]
pub enum Change {
    /// An object is new or changed.
    Is(Value),
    /// An object is gone; this was its last form.
    Gone(Value),
    /// Nothing changed up to this resource version.
    Mark(String),
}

/// Where the objects of a kind stand in the API, for one namespace.
pub fn collection(kind: ObjectKind, namespace: &str) -> String {
    let (root, api_version) = match kind.api_version() {
        "v1" => ("/api", "v1"),
        grouped => ("/apis", grouped),
    };
    let plural = plural(kind);
    if namespace.is_empty() {
        format!("{root}/{api_version}/{plural}")
    } else {
        format!("{root}/{api_version}/namespaces/{namespace}/{plural}")
    }
}

/// Where an object stands in the API.
pub fn place(object: &ObjectRef) -> String {
    format!(
        "{}/{}",
        collection(object.kind, &object.namespace),
        object.name
    )
}

/// Where the Leases of a namespace stand in the API.
pub fn leases(namespace: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
}

fn plural(kind: ObjectKind) -> String {
    let singular = kind.as_str().to_ascii_lowercase();
    match kind {
        ObjectKind::GatewayClass => singular + "es",
        ObjectKind::BackendTlsPolicy => "backendtlspolicies".to_owned(),
        _ => singular + "s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_stand_where_the_api_has_them() {
        for (object, path) in [
            (
                ObjectRef::new(ObjectKind::GatewayClass, "", "sluice"),
                "/apis/gateway.networking.k8s.io/v1/gatewayclasses/sluice",
            ),
            (
                ObjectRef::new(ObjectKind::HttpRoute, "shop", "web"),
                "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web",
            ),
            (
                ObjectRef::new(ObjectKind::BackendTlsPolicy, "shop", "p"),
                "/apis/gateway.networking.k8s.io/v1/namespaces/shop/backendtlspolicies/p",
            ),
            (
                ObjectRef::new(ObjectKind::Service, "shop", "web"),
                "/api/v1/namespaces/shop/services/web",
            ),
        ] {
            assert_eq!(place(&object), path);
        }
    }
}
