//! What a row keeps of a SQL text: verb and table, trace ids in comments, literals masked.

use super::ParserSettings;
use super::trace_context::{same_header, span_id, trace_id};

mod mask;
mod token;

pub use mask::{mask, mask_error};
pub use token::{Dialect, MYSQL, ORACLE, POSTGRESQL, TSQL};
use token::{Token, next};

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
    while let Some((token, text, after)) = next(rest, &MYSQL) {
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
pub fn endpoint(sql: &str, dialect: &Dialect) -> String {
    let is = |word: &str, list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(word));
    let mut rest = sql;
    let mut verb = "";
    // A table is named next.
    let mut expected = false;
    // Behind FROM, so that TABLE is a name.
    let mut from = false;
    while let Some((token, text, after)) = next(rest, dialect) {
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
        if is(text, &["FROM", "INTO"]) || text.eq_ignore_ascii_case("table") && !from {
            expected = true;
            from = text.eq_ignore_ascii_case("from");
        } else if expected
            && !is(text, &["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "ONLY", "IF", "NOT", "EXISTS"])
        {
            let mut table = unquoted(text).to_owned();
            while let Some(part) =
                rest.strip_prefix('.').and_then(|part| next(part, dialect)).filter(|part| part.0 == Token::Word)
            {
                table.push('.');
                table.push_str(unquoted(part.1));
                rest = part.2;
            }
            return format!("{} {table}", verb.to_ascii_uppercase());
        }
    }
    String::new()
}

fn unquoted(identifier: &str) -> &str {
    identifier.trim_matches(['`', '"', '[', ']'])
}

/// Trace id and span id in the comments of a statement: `key: value` or `key=value`, quoted or not.
pub fn trace(sql: &str, dialect: &Dialect, settings: &ParserSettings) -> (String, String) {
    let (mut trace, mut span) = (String::new(), String::new());
    let mut rest = sql;
    while let Some((token, text, after)) = next(rest, dialect) {
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
            ("INSERT INTO `db`.`t` VALUES (1,'a\\'b',NULL)", "INSERT db.t", "INSERT INTO `db`.`t` VALUES (?)"),
            ("insert ignore t2 set a1=1.5e3", "INSERT t2", "insert ignore t2 set a1=?"),
            ("SELECT * FROM (SELECT 1 FROM inner_t) x", "SELECT inner_t", "SELECT * FROM (SELECT ? FROM inner_t) x"),
            ("create table if not exists t3(id int)", "CREATE t3", "create table if not exists t3(id int)"),
            ("set autocommit=0", "", "set autocommit=?"),
            ("show tables from x", "", "show tables from x"),
            ("select @@version_comment limit 1", "", "select @@version_comment limit ?"),
            ("update t set a='open", "UPDATE t", "update t set a=?"),
        ] {
            assert_eq!(endpoint(sql, &MYSQL), folded, "{sql}");
            assert_eq!(mask(sql, &MYSQL), masked, "{sql}");
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
            assert_eq!(trace(&sql, &MYSQL, &settings), (id.to_owned(), "b7ad6b7169203331".to_owned()), "{sql}");
        }
        assert_eq!(trace("select 'traceparent: x'", &MYSQL, &settings), Default::default());
    }
}
