//! What a row keeps of a SQL text: verb and table, trace ids in comments, literals masked.

use super::ParserSettings;
use super::trace_context::{same_header, span_id, trace_id};

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Word,
    Number,
    Text,
    Comment,
    Space,
    Sign,
}

/// Cuts the next token off; linear in the text as a whole.
fn next(sql: &str) -> Option<(Token, &str, &str)> {
    let bytes = sql.as_bytes();
    let first = *bytes.first()?;
    let run = |test: fn(u8) -> bool| bytes.iter().position(|&byte| !test(byte)).unwrap_or(bytes.len());
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80;
    let (token, length) = match first {
        b'\'' | b'"' => (Token::Text, quoted(bytes, first)),
        b'`' => (Token::Word, quoted(bytes, first)),
        b'#' => (Token::Comment, run(|byte| byte != b'\n')),
        b'-' if bytes.starts_with(b"--") && bytes.get(2).is_none_or(u8::is_ascii_whitespace) => {
            (Token::Comment, run(|byte| byte != b'\n'))
        }
        b'/' if bytes.starts_with(b"/*") => {
            let end = memchr::memmem::find(bytes.get(2..).unwrap_or_default(), b"*/");
            (Token::Comment, end.map_or(bytes.len(), |end| end + 4))
        }
        b'0'..=b'9' => (Token::Number, run(|byte| byte.is_ascii_alphanumeric() || byte == b'.')),
        _ if first.is_ascii_whitespace() => (Token::Space, run(|byte| byte.is_ascii_whitespace())),
        _ if is_word(first) => {
            (Token::Word, run(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80))
        }
        _ => (Token::Sign, 1),
    };
    let (token_text, rest) = sql.split_at_checked(length)?;
    Some((token, token_text, rest))
}

/// Length of a quoted piece with its quotes; the whole rest when it does not end.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' if quote != b'`' => 2,
            _ if byte == quote => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

const VERBS: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "REPLACE",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "SET",
    "SHOW",
    "USE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "START",
    "CALL",
    "EXPLAIN",
    "DESCRIBE",
    "DESC",
    "LOCK",
    "UNLOCK",
    "GRANT",
    "REVOKE",
    "WITH",
    "MERGE",
    "ANALYZE",
    "OPTIMIZE",
    "REPAIR",
    "CHECK",
    "FLUSH",
    "KILL",
    "LOAD",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "SAVEPOINT",
    "RELEASE",
    "XA",
    "DO",
    "HANDLER",
    "RENAME",
    "RESET",
    "PURGE",
    "CHANGE",
    "STOP",
    "INSTALL",
    "VALUES",
    "TABLE",
    "HELP",
    "BINLOG",
    "CACHE",
    "IMPORT",
    "SHUTDOWN",
    "SIGNAL",
    "BULK",
];

/// The first word behind blanks, comments and parentheses.
pub fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    while let Some((token, text, after)) = next(rest) {
        match token {
            Token::Word => return text,
            Token::Space | Token::Comment => {}
            Token::Sign if text == "(" || text == ";" => {}
            _ => return "",
        }
        rest = after;
    }
    ""
}

/// Does a statement begin so?
pub fn is_statement(sql: &str) -> bool {
    let word = first_word(sql);
    VERBS.iter().any(|verb| verb.eq_ignore_ascii_case(word))
}

/// `VERB table` of a statement about a table, otherwise empty.
pub fn endpoint(sql: &str) -> String {
    let is = |word: &str, list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(word));
    let mut rest = sql;
    let mut verb = "";
    // A table is named next.
    let mut expected = false;
    while let Some((token, text, after)) = next(rest) {
        rest = after;
        match token {
            Token::Space | Token::Comment => continue,
            Token::Word => {}
            _ => {
                expected &= text != "(";
                continue;
            }
        }
        if verb.is_empty() {
            if is(
                text,
                &["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "ALTER", "DROP", "TRUNCATE", "MERGE"],
            ) {
                verb = text;
                expected = is(text, &["INSERT", "UPDATE", "REPLACE", "TRUNCATE"]);
            } else if !is(text, &["WITH", "EXPLAIN"]) && rest.len() + text.len() == sql.trim_start().len() {
                return String::new();
            }
            continue;
        }
        if is(text, &["FROM", "INTO", "TABLE"]) {
            expected = true;
        } else if expected
            && !is(text, &["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "ONLY", "IF", "NOT", "EXISTS"])
        {
            let mut table = text.trim_matches('`').to_owned();
            while let Some(part) = rest.strip_prefix('.').and_then(next).filter(|part| part.0 == Token::Word) {
                table.push('.');
                table.push_str(part.1.trim_matches('`'));
                rest = part.2;
            }
            return format!("{} {table}", verb.to_ascii_uppercase());
        }
    }
    String::new()
}

/// The text with strings, numbers and NULL shown as `?`.
pub fn mask(sql: &str) -> String {
    let mut masked = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((token, text, after)) = next(rest) {
        match token {
            Token::Text | Token::Number => masked.push('?'),
            Token::Word if text.eq_ignore_ascii_case("null") => masked.push('?'),
            _ => masked.push_str(text),
        }
        rest = after;
    }
    masked
}

/// Trace id and span id in the comments of a statement: `key: value` or `key=value`, quoted or not.
pub fn trace(sql: &str, settings: &ParserSettings) -> (String, String) {
    let (mut trace, mut span) = (String::new(), String::new());
    let mut rest = sql;
    while let Some((token, text, after)) = next(rest) {
        rest = after;
        if token == Token::Comment {
            comment(text, settings, &mut trace, &mut span);
        }
    }
    (trace, span)
}

fn comment(text: &str, settings: &ParserSettings, trace: &mut String, span: &mut String) {
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut rest = text;
    while let Some(start) = rest.find(is_key) {
        let piece = rest.get(start..).unwrap_or_default();
        let (key, after) = piece.split_at(piece.find(|c| !is_key(c)).unwrap_or(piece.len()));
        rest = after;
        let Some(value) = after.trim_start().strip_prefix([':', '=']) else {
            continue;
        };
        let value = value.trim_start().trim_start_matches(['\'', '"']);
        let end = value.find(|c: char| c.is_whitespace() || ",;'\"".contains(c)).unwrap_or(value.len());
        let (value, after) = value.split_at(end);
        let value = value.trim_end_matches("*/");
        let names = |list: &[String]| list.iter().any(|name| same_header(key.as_bytes(), name));
        if trace.is_empty() && names(&settings.apm_trace_id) {
            *trace = trace_id(key.as_bytes(), value).unwrap_or_default();
            rest = after;
        }
        if span.is_empty() && names(&settings.apm_span_id) {
            *span = span_id(key.as_bytes(), value).unwrap_or_default();
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_fold_and_mask() {
        for (sql, folded, masked) in [
            (
                "/***c***/ select * from t where id = 1 and n = 'x'",
                "SELECT t",
                "/***c***/ select * from t where id = ? and n = ?",
            ),
            ("INSERT INTO `db`.`t` VALUES (1,'a\\'b',NULL)", "INSERT db.t", "INSERT INTO `db`.`t` VALUES (?,?,?)"),
            ("insert ignore t2 set a1=1.5e3", "INSERT t2", "insert ignore t2 set a1=?"),
            ("SELECT * FROM (SELECT 1 FROM inner_t) x", "SELECT inner_t", "SELECT * FROM (SELECT ? FROM inner_t) x"),
            ("create table if not exists t3(id int)", "CREATE t3", "create table if not exists t3(id int)"),
            ("set autocommit=0", "", "set autocommit=?"),
            ("show tables from x", "", "show tables from x"),
            ("select @@version_comment limit 1", "", "select @@version_comment limit ?"),
            ("update t set a='open", "UPDATE t", "update t set a=?"),
        ] {
            assert_eq!(endpoint(sql), folded, "{sql}");
            assert_eq!(mask(sql), masked, "{sql}");
        }
    }

    #[test]
    fn comments_carry_trace_ids() {
        let settings = ParserSettings::default();
        let id = "0af7651916cd43dd8448eb211c80319c";
        for sql in [
            format!("/* traceparent: 00-{id}-b7ad6b7169203331-01 */ select 1"),
            format!("select 1 /*app='x',traceparent='00-{id}-b7ad6b7169203331-01'*/"),
            format!("select 1 -- traceparent=00-{id}-b7ad6b7169203331-01\n"),
        ] {
            assert_eq!(trace(&sql, &settings), (id.to_owned(), "b7ad6b7169203331".to_owned()), "{sql}");
        }
        assert_eq!(trace("select 'traceparent: x'", &settings), Default::default());
    }
}
