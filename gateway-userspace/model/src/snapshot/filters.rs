//! Filters with everything resolved: header edits folded into one, mirrors with their upstream's number.

use std::sync::{Arc, LazyLock};

use super::UpstreamId;
use crate::ir::{Filter, Fraction, HeaderEdits, HeaderLine, HeaderName, Rewrite};
use crate::names::UpstreamKey;

/// All filters that apply to one share of a rule's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledFilters {
    /// Edits of the request's header.
    pub request_headers: CompiledEdits,
    /// Edits of the response's header.
    pub response_headers: CompiledEdits,
    /// Host and path that the backend sees.
    pub rewrite: Rewrite,
    /// Copies to send. Mirrors whose reference does not resolve are left out.
    pub mirrors: Box<[CompiledMirror]>,
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledMirror {
    /// The upstream.
    pub upstream: UpstreamId,
    /// `namespace/name:port`.
    pub label: Arc<str>,
    /// Which share of requests is copied; none means all.
    pub fraction: Option<Fraction>,
}

impl CompiledMirror {
    /// Whether the request that drew this point, uniform in all of `u32`, is copied.
    #[must_use]
    pub fn takes(&self, point: u32) -> bool {
        self.fraction.is_none_or(|f| {
            u64::from(point) * u64::from(f.denominator.get()) < u64::from(f.numerator) << 32
        })
    }
}

/// The net effect of a sequence of [`HeaderEdits`]: lines to drop, then lines to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledEdits {
    drop: Box<[HeaderName]>,
    append: Box<[HeaderLine]>,
    wire: Box<[u8]>,
}

impl CompiledEdits {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.append.is_empty()
    }

    /// The names whose lines do not go through.
    #[must_use]
    pub fn dropped(&self) -> &[HeaderName] {
        &self.drop
    }

    /// Whether lines of this name, in whatever case, do not go through.
    #[must_use]
    pub fn drops(&self, name: &[u8]) -> bool {
        self.drop
            .iter()
            .any(|dropped| dropped.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The lines that are added after those that go through.
    #[must_use]
    pub fn appended(&self) -> &[HeaderLine] {
        &self.append
    }

    /// The added lines as HTTP/1.1 writes them: `name: value` CRLF, each.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }
}

/// Compiles a rule's filters, followed by those of one backend.
pub(crate) fn compile_filters(
    filters: &[&[Filter]],
    upstream: impl Fn(&UpstreamKey) -> (UpstreamId, Arc<str>),
) -> Arc<CompiledFilters> {
    if filters.iter().all(|filters| filters.is_empty()) {
        return Arc::clone(&NONE);
    }
    let mut request = NetEdits::default();
    let mut response = NetEdits::default();
    let mut rewrite = Rewrite::default();
    let mut mirrors = Vec::new();
    for filter in filters.iter().copied().flatten() {
        match filter {
            Filter::RequestHeaders(edits) => request.then(edits),
            Filter::ResponseHeaders(edits) => response.then(edits),
            Filter::Rewrite(next) => {
                rewrite.hostname = next.hostname.clone().or(rewrite.hostname);
                rewrite.path = next.path.clone().or(rewrite.path);
            }
            Filter::Mirror(mirror) => {
                let target = mirror.target.upstream().map(&upstream);
                mirrors.extend(target.map(|(upstream, label)| CompiledMirror {
                    upstream,
                    label,
                    fraction: mirror.fraction,
                }));
            }
        }
    }
    Arc::new(CompiledFilters {
        request_headers: request.seal(),
        response_headers: response.seal(),
        rewrite,
        mirrors: mirrors.into(),
    })
}

/// What most rules have.
static NONE: LazyLock<Arc<CompiledFilters>> = LazyLock::new(Arc::default);

#[derive(Default)]
struct NetEdits {
    drop: Vec<HeaderName>,
    append: Vec<HeaderLine>,
}

impl NetEdits {
    fn then(&mut self, edits: &HeaderEdits) {
        for name in edits.remove.iter().filter(|name| !is_framing(name)) {
            self.drop_all(name);
        }
        for line in edits.set.iter().filter(|line| !is_framing(&line.name)) {
            self.drop_all(&line.name);
            self.append.push(line.clone());
        }
        let added = edits.add.iter().filter(|line| !is_framing(&line.name));
        self.append.extend(added.cloned());
    }

    fn drop_all(&mut self, name: &HeaderName) {
        self.append.retain(|line| line.name != *name);
        if !self.drop.contains(name) {
            self.drop.push(name.clone());
        }
    }

    fn seal(self) -> CompiledEdits {
        let lines = self.append.iter();
        let wire: String = lines
            .flat_map(|line| [line.name.as_str(), ": ", &line.value, "\r\n"])
            .collect();
        CompiledEdits {
            drop: self.drop.into(),
            append: self.append.into(),
            wire: wire.into_bytes().into(),
        }
    }
}

/// Fields by which a message is delimited and a connection is steered. Only the proxy writes them:
/// an edit of one would let a route smuggle a request into another's connection.
fn is_framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "expect"
            | "host"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str) -> HeaderLine {
        HeaderLine {
            name: HeaderName::parse(name).expect("a token"),
            value: value.into(),
        }
    }

    fn compile(filters: &[Filter]) -> Arc<CompiledFilters> {
        compile_filters(&[filters], |_| unreachable!("no mirror here"))
    }

    #[test]
    fn later_edits_act_on_what_earlier_ones_wrote() {
        let edits = compile(&[
            Filter::RequestHeaders(HeaderEdits {
                set: [line("a", "1")].into(),
                add: [line("b", "1"), line("c", "1")].into(),
                remove: Box::default(),
            }),
            Filter::RequestHeaders(HeaderEdits {
                set: [line("b", "2")].into(),
                add: [line("a", "2")].into(),
                remove: [line("c", "").name].into(),
            }),
        ])
        .request_headers
        .clone();
        assert_eq!(edits.wire(), b"a: 1\r\nb: 2\r\na: 2\r\n");
        assert!(edits.drops(b"A") && edits.drops(b"B") && edits.drops(b"c"));
        assert!(!edits.drops(b"d"));
    }

    #[test]
    fn edits_leave_framing_alone() {
        let edits = compile(&[Filter::RequestHeaders(HeaderEdits {
            set: [line("Content-Length", "5"), line("a", "1")].into(),
            add: [line("transfer-encoding", "chunked")].into(),
            remove: [line("Host", "").name].into(),
        })])
        .request_headers
        .clone();
        assert_eq!(edits.wire(), b"a: 1\r\n");
        assert!(!edits.drops(b"content-length") && !edits.drops(b"host"));
    }

    #[test]
    fn a_mirror_takes_its_fraction_of_the_points() {
        let mut mirror = CompiledMirror {
            upstream: crate::snapshot::tests::some_upstream(),
            label: "shop/cart:80".into(),
            fraction: None,
        };
        assert!(mirror.takes(u32::MAX));
        mirror.fraction = Some(Fraction {
            numerator: 1,
            denominator: 4.try_into().expect("not zero"),
        });
        let taken = (0..400u32)
            .filter(|i| mirror.takes(i * (u32::MAX / 400)))
            .count();
        assert!((99..=101).contains(&taken), "{taken}");
        mirror.fraction = Some(Fraction {
            numerator: 0,
            denominator: 4.try_into().expect("not zero"),
        });
        assert!(!mirror.takes(0));
    }
}
