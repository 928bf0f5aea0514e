//! What the operations of LDAP ask for, and what results mean (RFC 4511 section 4).

use crate::protocols::ParserSettings;
use crate::protocols::ber::{Element, element, number};

const OCTETS: u8 = 0x04;
/// Nested filters, and parts of one filter, that are shown.
const MAX_DEPTH: usize = 12;
const MAX_PARTS: usize = 64;

pub const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// Name of a request by its tag.
pub fn request(tag: u8) -> Option<&'static str> {
    Some(match tag {
        0x60 => "Bind",
        0x42 => "Unbind",
        0x63 => "Search",
        0x66 => "Modify",
        0x68 => "Add",
        0x4a => "Delete",
        0x6c => "ModifyDN",
        0x6e => "Compare",
        0x50 => "Abandon",
        0x77 => "Extended",
        _ => return None,
    })
}

/// Is it the last answer to a request?
pub fn is_result(tag: u8) -> bool {
    matches!(tag, 0x61 | 0x65 | 0x67 | 0x69 | 0x6b | 0x6d | 0x6f | 0x78)
}

/// Is it an answer that others follow (an entry, a reference, an intermediate response)?
pub fn is_partial(tag: u8) -> bool {
    matches!(tag, 0x64 | 0x73 | 0x79)
}

/// The elements of a constructed one, as far as they are at hand.
fn elements<'a>(bytes: &'a [u8], inside: Element) -> impl Iterator<Item = Element> + use<'a> {
    let mut at = inside.from;
    std::iter::from_fn(move || {
        let next = element(bytes, at).filter(|next| next.from <= inside.end)?;
        at = next.end;
        Some(next)
    })
    .take(MAX_PARTS)
}

/// The request's object: a distinguished name, for a search with scope and filter, for an extension its name.
pub struct Target {
    pub resource: String,
    /// The name without what is special to one entry.
    pub endpoint: String,
    /// How a Bind authenticates.
    pub authentication: String,
    pub version: Option<u32>,
}

/// Reads the target of a request whose operation stands at `operation`; the bytes may be cut.
pub fn target(bytes: &[u8], operation: Element, settings: &ParserSettings) -> Target {
    let text = |element: Element| settings.text(element.contents(bytes));
    let mut target =
        Target { resource: String::new(), endpoint: String::new(), authentication: String::new(), version: None };
    let mut fields = elements(bytes, operation);
    match operation.tag {
        0x42 => {}
        0x4a => target.resource = text(operation),
        0x50 => target.resource = number(operation.contents(bytes)).map(|id| id.to_string()).unwrap_or_default(),
        0x60 => {
            target.version = fields.next().and_then(|version| number(version.contents(bytes)));
            target.resource = fields.next().map(text).unwrap_or_default();
            if let Some(choice) = fields.next() {
                target.authentication = match choice.tag {
                    0x80 => "simple".to_owned(),
                    0xa3 => elements(bytes, choice).next().map(text).unwrap_or_default(),
                    _ => String::new(),
                };
            }
        }
        0x77 => {
            let name = fields.next().map(|name| name.contents(bytes)).unwrap_or_default();
            target.resource = extension(name).map_or_else(|| settings.text(name), ToOwned::to_owned);
        }
        _ => target.resource = fields.next().filter(|name| name.tag == OCTETS).map(text).unwrap_or_default(),
    }
    target.endpoint = match operation.tag {
        0x63 | 0x77 => target.resource.clone(),
        0x42 | 0x50 => String::new(),
        _ => parent(&target.resource).to_owned(),
    };
    if operation.tag == 0x63 {
        // Scope; aliases, size limit, time limit, types only; filter.
        let scope = fields.next().and_then(|scope| number(scope.contents(bytes)));
        let filter = fields.nth(4);
        let scope = ["base", "one", "sub", "subordinates"].get(scope.unwrap_or(9) as usize);
        let mut shown = Filter { bytes, mask: settings.masks("LDAP"), text: String::new(), most: settings.max_field };
        if let Some(filter) = filter {
            shown.render(filter, 0);
        }
        let words = [target.resource.as_str(), scope.copied().unwrap_or_default(), &shown.text];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        target.resource = settings.text(words.join(" ").as_bytes());
    }
    target
}

/// A distinguished name without its first part: where the entry lies.
fn parent(name: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => escaped = true,
            b',' if !escaped => return name.get(at + 1..).unwrap_or_default().trim_start(),
            _ => escaped = false,
        }
    }
    name
}

fn extension(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        START_TLS => "StartTLS",
        b"1.3.6.1.4.1.4203.1.11.1" => "PasswordModify",
        b"1.3.6.1.4.1.4203.1.11.3" => "WhoAmI",
        b"1.3.6.1.1.8" => "Cancel",
        _ => return None,
    })
}

/// A filter as text (RFC 4515).
struct Filter<'a> {
    bytes: &'a [u8],
    mask: bool,
    text: String,
    most: usize,
}

impl Filter<'_> {
    fn render(&mut self, filter: Element, depth: usize) {
        if depth > MAX_DEPTH || self.text.len() >= self.most {
            return;
        }
        let bytes = self.bytes;
        self.text.push('(');
        match filter.tag {
            0xa0..=0xa2 => {
                self.text.push(['&', '|', '!'][usize::from(filter.tag & 3)]);
                for part in elements(bytes, filter) {
                    self.render(part, depth + 1);
                }
            }
            0x87 => {
                self.raw(filter);
                self.text.push_str("=*");
            }
            0xa3 | 0xa5 | 0xa6 | 0xa8 => {
                let mut parts = elements(bytes, filter);
                parts.next().into_iter().for_each(|name| self.raw(name));
                self.text.push_str(match filter.tag {
                    0xa5 => ">=",
                    0xa6 => "<=",
                    0xa8 => "~=",
                    _ => "=",
                });
                parts.next().into_iter().for_each(|value| self.value(value));
            }
            0xa4 => {
                let mut parts = elements(bytes, filter);
                parts.next().into_iter().for_each(|name| self.raw(name));
                self.text.push('=');
                let mut last = 0x80;
                for part in parts.next().into_iter().flat_map(|list| elements(bytes, list)) {
                    // Everything but what stands first is preceded by anything.
                    if part.tag != 0x80 {
                        self.text.push('*');
                    }
                    self.value(part);
                    last = part.tag;
                }
                if last != 0x82 {
                    self.text.push('*');
                }
            }
            0xa9 => {
                let part = |tag: u8| elements(bytes, filter).find(|part| part.tag == tag);
                part(0x82).into_iter().for_each(|name| self.raw(name));
                if let Some(rule) = part(0x81) {
                    self.text.push(':');
                    self.raw(rule);
                }
                self.text.push_str(":=");
                part(0x83).into_iter().for_each(|value| self.value(value));
            }
            _ => self.text.push('?'),
        }
        self.text.push(')');
    }

    fn raw(&mut self, element: Element) {
        self.text.push_str(&String::from_utf8_lossy(element.contents(self.bytes)));
    }

    fn value(&mut self, element: Element) {
        if self.mask { self.text.push('?') } else { self.raw(element) }
    }
}

/// Is this result an error, and whose? `None`: no error.
pub fn is_servers_fault(code: u32) -> Option<bool> {
    match code {
        // Success, comparisons, referral, SASL that goes on.
        0 | 5 | 6 | 10 | 14 => None,
        1 | 3 | 11 | 51..=54 | 71 | 80 => Some(true),
        _ => Some(false),
    }
}

/// Name of a result code (RFC 4511 appendix A).
pub fn result(code: u32) -> Option<&'static str> {
    Some(match code {
        1 => "operationsError",
        2 => "protocolError",
        3 => "timeLimitExceeded",
        4 => "sizeLimitExceeded",
        7 => "authMethodNotSupported",
        8 => "strongerAuthRequired",
        11 => "adminLimitExceeded",
        12 => "unavailableCriticalExtension",
        13 => "confidentialityRequired",
        16 => "noSuchAttribute",
        17 => "undefinedAttributeType",
        18 => "inappropriateMatching",
        19 => "constraintViolation",
        20 => "attributeOrValueExists",
        21 => "invalidAttributeSyntax",
        32 => "noSuchObject",
        33 => "aliasProblem",
        34 => "invalidDNSyntax",
        36 => "aliasDereferencingProblem",
        48 => "inappropriateAuthentication",
        49 => "invalidCredentials",
        50 => "insufficientAccessRights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwillingToPerform",
        54 => "loopDetect",
        64 => "namingViolation",
        65 => "objectClassViolation",
        66 => "notAllowedOnNonLeaf",
        67 => "notAllowedOnRDN",
        68 => "entryAlreadyExists",
        69 => "objectClassModsProhibited",
        71 => "affectsMultipleDSAs",
        80 => "other",
        _ => return None,
    })
}
