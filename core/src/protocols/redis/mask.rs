//! The text of a command, with the stored values shown as `?`.

/// Which arguments of a command hold values; arguments count from 0 behind the command word.
enum Values {
    None,
    All,
    /// One argument, the others stay.
    At(usize),
    /// Everything from this argument on becomes one `?`.
    From(usize),
    /// Every `step`-th argument, the first at `first`.
    Every {
        first: usize,
        step: usize,
    },
    Config,
    BitField,
    SortedSet,
    Script,
}

const RULES: &[(&str, Values)] = &[
    ("ACL", Values::From(2)),
    ("APPEND", Values::At(1)),
    ("AUTH", Values::All),
    ("BITFIELD", Values::BitField),
    ("CONFIG", Values::Config),
    ("ECHO", Values::All),
    ("EVAL", Values::Script),
    ("EVALSHA", Values::Script),
    ("EVALSHA_RO", Values::Script),
    ("EVAL_RO", Values::Script),
    ("FCALL", Values::Script),
    ("FCALL_RO", Values::Script),
    ("GEOADD", Values::Every { first: 3, step: 3 }),
    ("GEODIST", Values::From(1)),
    ("GEOHASH", Values::From(1)),
    ("GEOPOS", Values::From(1)),
    ("GEORADIUSBYMEMBER", Values::At(1)),
    ("GETSET", Values::At(1)),
    ("HELLO", Values::From(1)),
    ("HMSET", Values::Every { first: 2, step: 2 }),
    ("HSET", Values::Every { first: 2, step: 2 }),
    ("HSETNX", Values::At(2)),
    ("JSON.SET", Values::At(2)),
    ("LINSERT", Values::At(3)),
    ("LPOS", Values::At(1)),
    ("LPUSH", Values::From(1)),
    ("LPUSHX", Values::From(1)),
    ("LREM", Values::At(2)),
    ("LSET", Values::At(2)),
    ("MIGRATE", Values::All),
    ("MSET", Values::Every { first: 1, step: 2 }),
    ("MSETNX", Values::Every { first: 1, step: 2 }),
    ("PFADD", Values::From(1)),
    ("PSETEX", Values::At(2)),
    ("PUBLISH", Values::At(1)),
    ("RESTORE", Values::At(2)),
    ("RPUSH", Values::From(1)),
    ("RPUSHX", Values::From(1)),
    ("SADD", Values::From(1)),
    ("SET", Values::At(1)),
    ("SETBIT", Values::At(2)),
    ("SETEX", Values::At(2)),
    ("SETNX", Values::At(1)),
    ("SETRANGE", Values::At(2)),
    ("SISMEMBER", Values::At(1)),
    ("SMISMEMBER", Values::From(1)),
    ("SMOVE", Values::At(2)),
    ("SPUBLISH", Values::At(1)),
    ("SREM", Values::From(1)),
    ("XADD", Values::Every { first: 3, step: 2 }),
    ("ZADD", Values::SortedSet),
    ("ZINCRBY", Values::At(2)),
    ("ZMSCORE", Values::From(1)),
    ("ZRANK", Values::At(1)),
    ("ZREM", Values::From(1)),
    ("ZREVRANK", Values::At(1)),
    ("ZSCORE", Values::At(1)),
];

const MASK: &[u8] = b"?";

/// `words` joined by blanks, at most `max` bytes.
pub fn join<'a>(words: impl Iterator<Item = &'a [u8]>, max: usize) -> String {
    let mut text = Vec::new();
    for (at, word) in words.enumerate() {
        if at > 0 {
            text.push(b' ');
        }
        let room = max.saturating_sub(text.len());
        text.extend_from_slice(word.get(..room).unwrap_or(word));
        if text.len() >= max {
            break;
        }
    }
    crate::protocols::clip(&text, max)
}

/// The command with its values masked.
pub fn command(words: &[&[u8]], max: usize) -> String {
    let Some((command, arguments)) = words.split_first() else {
        return String::new();
    };
    let is = |word: Option<&&[u8]>, known: &str| word.is_some_and(|w| w.eq_ignore_ascii_case(known.as_bytes()));
    let rule = RULES.iter().find(|(name, _)| is(Some(command), name)).map_or(&Values::None, |(_, values)| values);
    let every = |first: usize, step: usize| -> Vec<bool> {
        (0..arguments.len()).map(|at| at >= first && (at - first).is_multiple_of(step)).collect()
    };
    let masked: Vec<bool> = match *rule {
        Values::None => return join(words.iter().copied(), max),
        Values::All => return up_to(words, 1, max),
        Values::From(first) => return up_to(words, first + 1, max),
        Values::Script => {
            let keys = arguments.get(1).and_then(|keys| std::str::from_utf8(keys).ok()?.parse::<usize>().ok());
            return up_to(words, keys.unwrap_or(0).saturating_add(3), max);
        }
        Values::At(index) => (0..arguments.len()).map(|at| at == index).collect(),
        Values::Every { first, step } => every(first, step),
        Values::Config if is(arguments.first(), "SET") => every(2, 2),
        Values::Config => return join(words.iter().copied(), max),
        Values::BitField => (0..arguments.len()).map(|at| at >= 4 && is(arguments.get(at - 3), "SET")).collect(),
        Values::SortedSet => {
            let options = arguments
                .iter()
                .skip(1)
                .take_while(|word| ["NX", "XX", "GT", "LT", "CH", "INCR"].iter().any(|known| is(Some(word), known)))
                .count();
            every(options + 2, 2)
        }
    };
    let shown = arguments.iter().zip(masked).map(|(word, masked)| if masked { MASK } else { word });
    join(std::iter::once(*command).chain(shown), max)
}

/// The first `kept` words, and one `?` for the rest.
fn up_to(words: &[&[u8]], kept: usize, max: usize) -> String {
    let rest = (words.len() > kept).then_some(MASK);
    join(words.iter().copied().take(kept).chain(rest), max)
}
