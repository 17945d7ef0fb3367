//! From a path to an answer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;

use super::request::parameters;
use super::{AdminState, Door, metrics, trace};
use crate::view::process::{Life, status};
use crate::view::{listeners, routes, snapshot};
use crate::world::World;

/// The body of every answer.
pub type Body = BoxBody<Bytes, Infallible>;

const PATHS: &str = "/healthz/ready /healthz/live /metrics /status /listeners /routes \
                     /explain?url=URL /snapshot /config /l4 /l4/trace?peer=IP&port=PORT";

/// Answers one request.
pub async fn answer<B>(state: &AdminState, door: Door, request: &Request<B>) -> Response<Body> {
    if door == Door::Loopback && !is_local_name(request) {
        let text = "this server answers only to its address or localhost\n";
        return plain(StatusCode::FORBIDDEN, text.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "this server only reads\n".to_owned(),
        );
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let parameters = parameters(request.uri().query().unwrap_or_default());
    match request.uri().path() {
        "/healthz/live" if is_of_another(state, &parameters) => {
            plain(StatusCode::OK, "another Pod serves\n".to_owned())
        }
        "/healthz/ready" if is_of_another(state, &parameters) => {
            unavailable("another Pod serves\n")
        }
        "/healthz/live" => alive(state),
        "/healthz/ready" => ready(state),
        "/metrics" => text(
            StatusCode::OK,
            metrics::METRICS_TYPE,
            metrics::metrics(state).await,
        ),
        "/config" => json(StatusCode::OK, &state.config.origins),
        "/l4" => l4(state).await,
        "/l4/trace" => trace::trace(state, &parameters).await,
        path => {
            let world = state.world.borrow().clone();
            match (world, path) {
                (Some(world), path) => of_world(state, &world, path, &parameters),
                (None, _) => unavailable(&nothing_yet(state)),
            }
        }
    }
}

fn of_world(
    state: &AdminState,
    world: &Arc<World>,
    path: &str,
    parameters: &[(String, String)],
) -> Response<Body> {
    match path {
        "/status" => {
            let process = Some(state.process());
            json(StatusCode::OK, &status(world, process, Timestamp::now()))
        }
        "/listeners" => json(StatusCode::OK, &listeners::listeners(world)),
        "/routes" => json(StatusCode::OK, &routes::routes(world)),
        "/snapshot" => json(StatusCode::OK, &snapshot::snapshot(world)),
        "/explain" => match super::request::explain(parameters) {
            Ok(question) => json(
                StatusCode::OK,
                &crate::view::explain::explain(world, &question),
            ),
            Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            format!("nothing here; there is {PATHS}\n"),
        ),
    }
}

/// Whether the question is meant for another Pod of this node, which starts or drains while this one serves.
fn is_of_another(state: &AdminState, parameters: &[(String, String)]) -> bool {
    let wanted = parameters.iter().find(|(name, _)| name == "pod");
    wanted.is_some_and(|(_, pod)| state.pod.as_ref().is_some_and(|own| own != pod))
}

/// Requests are served whatever this says; a controller that is gone needs a restart to come back.
fn alive(state: &AdminState) -> Response<Body> {
    let is_followed = state.world.has_changed().is_ok();
    if *state.life.borrow() == Life::Serving && !is_followed {
        let text = "the configuration is not followed any more; the log says why\n";
        return plain(StatusCode::INTERNAL_SERVER_ERROR, text.to_owned());
    }
    plain(StatusCode::OK, "alive\n".to_owned())
}

fn ready(state: &AdminState) -> Response<Body> {
    let life = *state.life.borrow();
    if life != Life::Serving {
        return unavailable(&format!("{}\n", life.as_str()));
    }
    match &*state.world.borrow() {
        Some(world) if world.is_founded() => plain(StatusCode::OK, "ready\n".to_owned()),
        Some(_) => {
            unavailable("the objects cannot be read, and there is no last good configuration\n")
        }
        None => unavailable(&nothing_yet(state)),
    }
}

/// Why there is no revision yet.
fn nothing_yet(state: &AdminState) -> String {
    let waiting = state.health.as_ref().map(|health| health.missing());
    match waiting.filter(|kinds| !kinds.is_empty()) {
        Some(kinds) => format!(
            "no revision has been applied yet: the API server has not listed {}\n",
            kinds.join(", ")
        ),
        None => "no revision has been applied yet\n".to_owned(),
    }
}

async fn l4(state: &AdminState) -> Response<Body> {
    let l4 = state.l4.lock().await;
    let Some(l4) = l4.as_ref() else {
        let reason = state
            .l4_reason
            .clone()
            .unwrap_or_else(|| "detached".to_owned());
        return json(
            StatusCode::OK,
            &serde_json::json!({"mode": "sockets", "reason": reason}),
        );
    };
    match (l4.status(), l4.counters()) {
        (Ok(status), Ok(counters)) => json(
            StatusCode::OK,
            &serde_json::json!({"mode": "bpf", "status": status, "counters": counters}),
        ),
        (Err(error), _) | (_, Err(error)) => {
            unavailable(&format!("{}\n", crate::telemetry::chain(&error)))
        }
    }
}

/// A text for people.
pub fn plain(status: StatusCode, body: String) -> Response<Body> {
    text(status, "text/plain; charset=utf-8", body)
}

/// 503.
pub fn unavailable(reason: &str) -> Response<Body> {
    plain(StatusCode::SERVICE_UNAVAILABLE, reason.to_owned())
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(body) => text(status, "application/json", body + "\n"),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// A page in a browser that got our address under a name of its own must not read anything.
fn is_local_name<B>(request: &Request<B>) -> bool {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<hyper::http::uri::Authority>().ok())
    else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
