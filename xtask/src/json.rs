//! A JSON reader for what this program must look into: `cargo metadata`, reports of `bitnet`, tensor headers.
//!
//! A few lines instead of a dependency: xtask is compiled before anything else can run. Numbers are F64, so integers
//! are exact up to 2^53.

/// A JSON value; objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Nesting beyond this is an error, not a stack overflow.
const MAX_DEPTH: usize = 64;

impl Json {
    /// Reads one value and nothing after it.
    pub(crate) fn parse(text: &str) -> Result<Json, String> {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let value = reader.value(0)?;
        reader.space();
        if reader.at == text.len() { Ok(value) } else { Err(reader.problem("text after the value")) }
    }

    /// The member `key` of an object.
    pub(crate) fn member(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value at a dotted path: `kl.mean`.
    pub(crate) fn path(&self, path: &str) -> Option<&Json> {
        path.split('.').try_fold(self, |value, key| value.member(key))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        if let Json::Number(number) = self { Some(*number) } else { None }
    }

    /// The elements of a list; nothing for any other value.
    pub(crate) fn list(&self) -> &[Json] {
        if let Json::List(items) = self { items } else { &[] }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn problem(&self, what: &str) -> String {
        format!("not JSON at byte {}: {what}", self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, String> {
        if self.text[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.problem("an unknown word"))
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > MAX_DEPTH {
            return Err(self.problem("nested too deeply"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.digits(),
            _ => Err(self.problem("no value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            self.space();
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            if !members.is_empty() && !self.take(b',') {
                return Err(self.problem("no comma between members"));
            }
            self.space();
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(self.problem("no colon after a key"));
            }
            members.push((key, self.value(depth + 1)?));
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.space();
            if self.take(b']') {
                return Ok(Json::List(items));
            }
            if !items.is_empty() && !self.take(b',') {
                return Err(self.problem("no comma between items"));
            }
            items.push(self.value(depth + 1)?);
        }
    }

    fn digits(&mut self) -> Result<Json, String> {
        let from = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.text[from..self.at]).map_err(|_| self.problem("bad number"))?;
        digits.parse().map(Json::Number).map_err(|_| self.problem("bad number"))
    }

    fn string(&mut self) -> Result<String, String> {
        if !self.take(b'"') {
            return Err(self.problem("no string"));
        }
        let mut out = Vec::new();
        loop {
            let byte = self.peek().ok_or_else(|| self.problem("the string does not end"))?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).map_err(|_| self.problem("not UTF-8")),
                b'\\' => {
                    let c = self.escape()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                other => out.push(other),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let byte = self.peek().ok_or_else(|| self.problem("the string does not end"))?;
        self.at += 1;
        Ok(match byte {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let high = self.hex4()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or_else(|| self.problem("a lone surrogate"));
                }
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err(self.problem("a lone surrogate"));
                }
                let low = self.hex4()?.wrapping_sub(0xdc00) & 0x3ff;
                return char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)
                    .ok_or_else(|| self.problem("bad escape"));
            }
            b'"' | b'\\' | b'/' => char::from(byte),
            _ => return Err(self.problem("unknown escape")),
        })
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.problem("short escape"))?;
        self.at += 4;
        let digits = std::str::from_utf8(digits).map_err(|_| self.problem("bad escape"))?;
        u32::from_str_radix(digits, 16).map_err(|_| self.problem("bad escape"))
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn reads_every_kind_of_value() {
        let json =
            Json::parse(r#" {"a": [1, -2.5e3, true, null], "b": {"c": "x\n\u00e9\ud83d\ude80"}} "#).expect("valid");
        assert_eq!(json.member("a").map(|a| a.list().len()), Some(4));
        assert_eq!(json.member("a").and_then(|a| a.list()[1].number()), Some(-2500.0));
        assert_eq!(json.path("b.c").and_then(Json::text), Some("x\né🚀"));
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "1 2", "\"\\x\"", "\"\\ud800\"", "tru", "{,}"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        assert!(Json::parse(&"[".repeat(100_000)).is_err());
    }
}
