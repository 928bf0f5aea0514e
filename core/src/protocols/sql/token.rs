//! Tokens of SQL texts, as far as a row needs them.

#[derive(Clone, Copy, PartialEq)]
pub enum Token {
    /// Keyword, identifier (also a quoted one) or placeholder.
    Word,
    Number,
    Text,
    Comment,
    Space,
    Sign,
}

/// Where the SQL of servers differs in what is a literal.
pub struct Dialect {
    /// A backslash escapes the next character of a text.
    backslash: bool,
    /// `"…"` is a text, not an identifier.
    double_is_text: bool,
    /// `#` begins a comment.
    hash_comment: bool,
    /// `--` begins a comment even when no blank follows.
    bare_dashes: bool,
    /// `[…]` is an identifier.
    brackets: bool,
    /// `$tag$…$tag$` is a text.
    dollar_quotes: bool,
    /// `q'[…]'` is a text.
    q_quotes: bool,
}

pub const MYSQL: Dialect = Dialect {
    backslash: true,
    double_is_text: true,
    hash_comment: true,
    bare_dashes: false,
    brackets: false,
    dollar_quotes: false,
    q_quotes: false,
};
pub const POSTGRESQL: Dialect = Dialect {
    backslash: false,
    double_is_text: false,
    hash_comment: false,
    bare_dashes: true,
    dollar_quotes: true,
    ..MYSQL
};
/// `"…"` is a text when the session says so (QUOTED_IDENTIFIER OFF), which is not seen here: nothing may leak.
pub const TSQL: Dialect = Dialect { backslash: false, hash_comment: false, bare_dashes: true, brackets: true, ..MYSQL };
pub const ORACLE: Dialect = Dialect {
    backslash: false,
    double_is_text: false,
    hash_comment: false,
    bare_dashes: true,
    q_quotes: true,
    ..MYSQL
};

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Cuts the next token off; linear in the text as a whole.
pub fn next<'a>(sql: &'a str, dialect: &Dialect) -> Option<(Token, &'a str, &'a str)> {
    let bytes = sql.as_bytes();
    let first = *bytes.first()?;
    let run = |test: fn(u8) -> bool| bytes.iter().position(|&byte| !test(byte)).unwrap_or(bytes.len());
    let after = |from: usize| bytes.get(from..).unwrap_or_default();
    let (token, length) = match first {
        b'\'' => (Token::Text, quoted(bytes, first, dialect.backslash)),
        b'"' if dialect.double_is_text => (Token::Text, quoted(bytes, first, dialect.backslash)),
        b'"' | b'`' => (Token::Word, quoted(bytes, first, false)),
        b'[' if dialect.brackets => (Token::Word, quoted(bytes, b']', false)),
        b'#' if dialect.hash_comment => (Token::Comment, run(|byte| byte != b'\n')),
        b'-' if bytes.starts_with(b"--")
            && (dialect.bare_dashes || bytes.get(2).is_none_or(u8::is_ascii_whitespace)) =>
        {
            (Token::Comment, run(|byte| byte != b'\n'))
        }
        b'/' if bytes.starts_with(b"/*") => {
            let end = memchr::memmem::find(after(2), b"*/");
            (Token::Comment, end.map_or(bytes.len(), |end| end + 4))
        }
        b'$' if dialect.dollar_quotes && dollar_quoted(bytes).is_some() => {
            (Token::Text, dollar_quoted(bytes).unwrap_or(bytes.len()))
        }
        b'0'..=b'9' => (Token::Number, run(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_')),
        _ if first.is_ascii_whitespace() => (Token::Space, run(|byte| byte.is_ascii_whitespace())),
        _ if is_word(first) => {
            let end = run(is_word);
            let (word, rest) = (bytes.get(..end).unwrap_or_default(), after(end));
            match prefixed(word, rest, dialect) {
                Some(length) => (Token::Text, end + length),
                None => (Token::Word, end),
            }
        }
        b'!' | b'<' | b'>' | b':' if matches!(bytes.get(1), Some(b'=')) => (Token::Sign, 2),
        b'<' if bytes.get(1) == Some(&b'>') => (Token::Sign, 2),
        b'=' if bytes.get(1) == Some(&b'>') => (Token::Sign, 2),
        _ => (Token::Sign, 1),
    };
    let (token_text, rest) = sql.split_at_checked(length)?;
    Some((token, token_text, rest))
}

/// Length of a quoted piece with its quotes; the whole rest when it does not end.
fn quoted(bytes: &[u8], quote: u8, backslash: bool) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' if backslash => 2,
            _ if byte == quote && bytes.get(at + 1) == Some(&quote) => 2,
            _ if byte == quote => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

/// Length of the text behind a prefix such as `N`, `X`, `E` or `_utf8`.
fn prefixed(word: &[u8], rest: &[u8], dialect: &Dialect) -> Option<usize> {
    if rest.first() != Some(&b'\'') {
        return None;
    }
    match word {
        [b'q' | b'Q'] | [b'n' | b'N', b'q' | b'Q'] if dialect.q_quotes => Some(q_quoted(rest)),
        [b'e' | b'E'] => Some(quoted(rest, b'\'', true)),
        [b'n' | b'N' | b'x' | b'X' | b'b' | b'B'] | [b'_', ..] => Some(quoted(rest, b'\'', dialect.backslash)),
        _ => None,
    }
}

/// Length of `'[…]'` with any delimiter, behind the q.
fn q_quoted(bytes: &[u8]) -> usize {
    let close = match bytes.get(1) {
        Some(b'[') => b']',
        Some(b'{') => b'}',
        Some(b'(') => b')',
        Some(b'<') => b'>',
        Some(&other) => other,
        None => return bytes.len(),
    };
    let body = bytes.get(2..).unwrap_or_default();
    memchr::memmem::find(body, &[close, b'\'']).map_or(bytes.len(), |end| end + 4)
}

/// Length of `$tag$…$tag$`, the whole rest when it does not end; `None` when it is none (`$1`).
fn dollar_quoted(bytes: &[u8]) -> Option<usize> {
    let inner = bytes.get(1..)?;
    let tag = inner.iter().position(|&byte| byte == b'$')?;
    let name = inner.get(..tag)?;
    let sane = name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80)
        && !name.first().is_some_and(u8::is_ascii_digit);
    if !sane {
        return None;
    }
    let (mark, body) = bytes.split_at_checked(tag + 2)?;
    Some(memchr::memmem::find(body, mark).map_or(bytes.len(), |end| 2 * mark.len() + end))
}
