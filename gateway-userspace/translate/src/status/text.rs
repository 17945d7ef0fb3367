//! The texts of conditions, no longer than an API server takes them and a reader does.

use std::borrow::Cow;

/// Gateway API v1 `metav1.Condition.message`: at most so many characters. We count bytes, of which there
/// are no fewer.
pub(super) const MAX_MESSAGE_BYTES: usize = 32_768;

/// How long a list in a message gets. The statuses of a Gateway's 64 listeners stand in one object, for
/// which etcd has 1.5 MiB.
const MAX_LIST_BYTES: usize = 2048;

/// These texts as one. Those that find no room are counted; the first one always stands there.
pub(crate) fn listed<T: AsRef<str>>(
    texts: impl IntoIterator<Item = T>,
    separator: &'static str,
) -> String {
    let mut texts = texts.into_iter();
    let mut list = texts
        .next()
        .map_or_else(String::new, |t| t.as_ref().to_owned());
    let mut left_out = 0_usize;
    for text in texts {
        let text = text.as_ref();
        if left_out > 0 || list.len() + separator.len() + text.len() > MAX_LIST_BYTES {
            left_out += 1;
            continue;
        }
        list.push_str(separator);
        list.push_str(text);
    }
    if left_out > 0 {
        list.push_str(&format!("{}and {left_out} more", separator));
    }
    list
}

/// A message that an API server takes: what is beyond the limit is cut off.
pub(super) fn bounded(message: Cow<'static, str>) -> Cow<'static, str> {
    const CUT: &str = "...";
    if message.len() <= MAX_MESSAGE_BYTES {
        return message;
    }
    let end = message.floor_char_boundary(MAX_MESSAGE_BYTES - CUT.len());
    format!("{}{CUT}", &message[..end]).into()
}
