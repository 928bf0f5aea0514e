//! Paths with ids in them become templates, so that the number of endpoints stays bounded.

use memchr::memchr_iter;

/// Fewest characters of a hexadecimal id, and of one of mixed letters and digits.
const HEXADECIMAL: usize = 8;
const MIXED: usize = 16;
/// Direct changes between letter and digit that words and dates do not have.
const CHANGES: usize = 4;

/// Adds the path of these segments, which begins with `/`, with `*` for every segment that is an id.
pub fn fold(segments: &str, folded: &mut String) {
    folded.reserve(segments.len() + 1);
    let mut begin = 0;
    let ends = memchr_iter(b'/', segments.as_bytes()).chain(std::iter::once(segments.len()));
    for end in ends {
        let segment = segments.get(begin..end).unwrap_or_default();
        folded.push('/');
        folded.push_str(if is_id(segment) { "*" } else { segment });
        begin = end + 1;
    }
}

/// All digits, a UUID, long hexadecimal digits, a long token of letters and digits.
fn is_id(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return false;
    }
    let hexadecimal = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    if digits == bytes.len() || bytes.len() >= HEXADECIMAL && hexadecimal(bytes) {
        return true;
    }
    let groups = segment.split('-').map(str::len);
    if bytes.len() == 36 && groups.eq([8, 4, 4, 4, 12]) {
        return segment.split('-').all(|group| hexadecimal(group.as_bytes()));
    }
    let token = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~=".contains(byte));
    let changes = bytes.windows(2).filter(|pair| match pair {
        [a, b] => a.is_ascii_digit() && b.is_ascii_alphabetic() || a.is_ascii_alphabetic() && b.is_ascii_digit(),
        _ => false,
    });
    token && bytes.len() >= MIXED && changes.count() >= CHANGES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fold_and_words_stay() {
        for (path, expected) in [
            ("/", "/"),
            ("/order/17", "/order/*"),
            ("/17/order", "/*/order"),
            ("/api/v1", "/api/v1"),
            ("/user/7c9e6679-7425-40de-944b-e07fc1f90ae7", "/user/*"),
            ("/commit/3f2a9c1b", "/commit/*"),
            ("/facade/deadbeef", "/facade/deadbeef"),
            ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/*"),
            ("/u/V1StGXR8_Z5jdHi6B-myT", "/u/*"),
            ("/blog/top-10-tips-for-2024", "/blog/top-10-tips-for-2024"),
            ("/hipstershop.CartService/GetCart", "/hipstershop.CartService/GetCart"),
            ("/s3/bucket2", "/s3/bucket2"),
        ] {
            let mut folded = String::new();
            fold(path.trim_start_matches('/'), &mut folded);
            assert_eq!(folded, expected, "{path}");
        }
    }
}
