//! A statement without its values.

use super::token::{Dialect, Token, next};

/// What the next word or parenthesis is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Anywhere,
    /// The right side of `=` or the name behind AS: DeepFlow hides it whatever it is.
    Operand,
    /// A list of values: behind VALUES or IN.
    List,
}

/// Words that are never the operand itself.
const KEYWORDS: &[&str] = &["SELECT", "WITH", "CASE", "ANY", "ALL", "SOME", "NOT", "ARRAY", "VALUES", "TABLE"];

fn is(word: &str, list: &[&str]) -> bool {
    list.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The text with its literals, the right sides of `=`, the names behind AS and the lists of values shown as `?`.
pub fn mask(sql: &str, dialect: &Dialect) -> String {
    let mut masked = String::with_capacity(sql.len().min(4096));
    let mut rest = sql;
    let mut place = Place::Anywhere;
    // NOT NULL is no value.
    let mut not = false;
    while let Some((token, text, after)) = next(rest, dialect) {
        rest = after;
        if matches!(token, Token::Space | Token::Comment) {
            masked.push_str(text);
            continue;
        }
        let negated = std::mem::replace(&mut not, text.eq_ignore_ascii_case("not"));
        match token {
            Token::Space | Token::Comment => {}
            Token::Text | Token::Number => masked.push('?'),
            Token::Word if text.eq_ignore_ascii_case("null") && !negated => masked.push('?'),
            Token::Word => {
                if place == Place::Operand && !is(text, KEYWORDS) {
                    let (behind, called) = path(rest, dialect);
                    if !called {
                        masked.push('?');
                        rest = behind;
                        place = Place::Anywhere;
                        continue;
                    }
                }
                masked.push_str(text);
                place = match place {
                    Place::Operand => Place::Anywhere,
                    _ if text.eq_ignore_ascii_case("as") => Place::Operand,
                    _ if is(text, &["VALUES", "VALUE", "IN"]) => Place::List,
                    _ => Place::Anywhere,
                };
                continue;
            }
            Token::Sign if text == "!=" => masked.push_str("<>"),
            Token::Sign if text == "=" => {
                masked.push('=');
                place = Place::Operand;
                continue;
            }
            Token::Sign if place == Place::Operand && (text == "-" || text == "+") => {
                masked.push_str(text);
                continue;
            }
            Token::Sign if place == Place::List && text == "(" => match list(rest, dialect) {
                Some(behind) => {
                    masked.push_str("(?)");
                    rest = behind;
                }
                None => masked.push('('),
            },
            Token::Sign => masked.push_str(text),
        }
        place = Place::Anywhere;
    }
    masked
}

/// What follows a dotted name whose first word was read, and whether it is a function that is called.
fn path<'a>(mut rest: &'a str, dialect: &Dialect) -> (&'a str, bool) {
    while let Some((Token::Word, _, after)) = rest.strip_prefix('.').and_then(|rest| next(rest, dialect)) {
        rest = after;
    }
    (rest, rest.trim_start().starts_with('('))
}

/// What follows the lists `…), (…)` whose first parenthesis was read; `None` when it is no list of values.
fn list<'a>(mut rest: &'a str, dialect: &Dialect) -> Option<&'a str> {
    let (mut depth, mut words) = (1u32, 0u32);
    while let Some((token, text, after)) = next(rest, dialect) {
        rest = after;
        match (token, text) {
            (Token::Space | Token::Comment, _) => continue,
            (Token::Word, "") => {}
            (Token::Word, word) if words == 0 && is(word, &["SELECT", "WITH"]) => return None,
            (Token::Sign, ")") if words == 0 => return None,
            (Token::Sign, "(") => depth += 1,
            (Token::Sign, ")") => depth -= 1,
            _ => {}
        }
        words += 1;
        if depth == 0 {
            let more = rest.trim_start().strip_prefix(',').and_then(|more| more.trim_start().strip_prefix('('));
            match more {
                Some(more) => {
                    depth = 1;
                    rest = more;
                }
                None => return Some(rest),
            }
        }
    }
    Some("")
}

/// Marks that values stand behind in the error messages of servers, and what ends the value.
const QUOTING: &[(&str, &str)] = &[
    ("entry '", "' for "),
    ("value: '", "' for "),
    ("value '", "' "),
    ("near '", "' at line"),
    ("near '", "'."),
    ("value is (", ")."),
    ("truncated value: '", "'."),
];

/// An error message without the values it quotes.
pub fn mask_error(message: &str) -> String {
    let mut masked = message.to_owned();
    for (mark, end) in QUOTING {
        let Some(from) = masked.find(mark).map(|at| at + mark.len()) else {
            continue;
        };
        let tail = masked.get(from..).unwrap_or_default();
        let to = tail.rfind(end).map_or(masked.len(), |length| from + length);
        if to > from && !tail.starts_with("?'") {
            masked.replace_range(from..to, "?");
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::sql::{MYSQL, ORACLE, POSTGRESQL, TSQL};

    #[test]
    fn values_are_hidden_in_every_dialect() {
        for (dialect, sql, masked) in [
            (&MYSQL, "select 'a\\'b' from t where x in (1, 'b', 3)", "select ? from t where x in (?)"),
            (&MYSQL, "insert into t values (1,'a'),(2,_utf8'b'), (3,0x41)", "insert into t values (?)"),
            (
                &MYSQL,
                "select * from t where x in (select y from u where z = -5)",
                "select * from t where x in (select y from u where z = -?)",
            ),
            (&MYSQL, "update t set a=values(a), b=f('x')", "update t set a=values(a), b=f(?)"),
            (&MYSQL, "insert into t values ('never ends", "insert into t values (?)"),
            (&MYSQL, "create table u (a int not null)", "create table u (a int not null)"),
            (&MYSQL, "create table u as select 1", "create table u as select ?"),
            (&POSTGRESQL, r"select 'C:\', 'secret'", "select ?, ?"),
            (&POSTGRESQL, r"select E'it\'s', $$a 'b' c$$, $x$ $$ $x$, $1", "select ?, ?, ?, $1"),
            (
                &POSTGRESQL,
                "select \"user\".id from \"user\" where id = 7",
                "select \"user\".id from \"user\" where id = ?",
            ),
            (&POSTGRESQL, "do $$ begin never ends", "do ?"),
            (&POSTGRESQL, "select 1--'\n, 'x'", "select ?--'\n, ?"),
            (
                &TSQL,
                "select [a'b] from [t] where n = N'x''y' and m = @p",
                "select [a'b] from [t] where n = ? and m = @p",
            ),
            (&ORACLE, "select q'[it's]', nq'!x!' from dual where a=:b", "select ?, ? from dual where a=:b"),
        ] {
            assert_eq!(mask(sql, dialect), masked, "{sql}");
        }
    }

    #[test]
    fn error_messages_lose_the_values_they_quote() {
        for (message, masked) in [
            ("Duplicate entry 'bob' for key 'PRIMARY'", "Duplicate entry '?' for key 'PRIMARY'"),
            (
                "Incorrect integer value: 'x' for column 'a' at row 1",
                "Incorrect integer value: '?' for column 'a' at row 1",
            ),
            ("You have an error near 'selec 'a'' at line 1", "You have an error near '?' at line 1"),
            ("Table 'shop.t' doesn't exist", "Table 'shop.t' doesn't exist"),
            ("The duplicate key value is (7).", "The duplicate key value is (?)."),
        ] {
            assert_eq!(mask_error(message), masked);
        }
    }
}
