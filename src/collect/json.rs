//! JSON as daemons write it, within limits. Pure.
//!
//! A parser of our own for three reasons: Python's `json` writes `NaN` and `Infinity`, which others
//! refuse together with the whole document; a key that occurs twice must not silently win; and depth,
//! fields and values are limited while reading, so that no document costs more than its bytes.

use serde_json::{Map, Number, Value};

/// Deepest nesting of objects and arrays.
pub(super) const MAX_DEPTH: usize = 32;
/// Most fields of one object.
pub(super) const MAX_FIELDS: usize = 200;
/// Most values in a document.
const MAX_VALUES: usize = 50_000;
/// Most oddities that are named.
const MAX_ODDITIES: usize = 20;

/// A document that was read to its end.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    /// The value; what JSON cannot say (`NaN`, 1e999, half a surrogate pair, a key that occurs
    /// twice) is null.
    pub(super) value: Value,
    /// Keys whose value was set to null for that.
    pub(super) oddities: Vec<String>,
}

/// Why a text is no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Not JSON, or not all of it; the byte where reading ended.
    Syntax(usize),
    /// Nested more deeply than [`MAX_DEPTH`].
    TooDeep,
    /// More than [`MAX_FIELDS`] fields in one object, or too many values altogether.
    TooManyFields,
}

/// Reads one document.
///
/// # Errors
/// See [`Malformed`].
pub(super) fn parse(bytes: &[u8]) -> Result<Document, Malformed> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| Malformed::Syntax(error.valid_up_to()))?;
    let mut reader = Reader { text, at: 0, values: 0, oddities: Vec::new() };
    let value = reader.value(0, "")?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(Malformed::Syntax(reader.at));
    }
    Ok(Document { value, oddities: reader.oddities })
}

struct Reader<'a> {
    text: &'a str,
    /// Offset of the next byte; always on a character boundary.
    at: usize,
    values: usize,
    oddities: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Reads any value at nesting `depth`; `key` names it among the oddities.
    fn value(&mut self, depth: usize, key: &str) -> Result<Value, Malformed> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Malformed::TooManyFields);
        }
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err(Malformed::TooDeep),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth, key),
            Some(b'"') => Ok(match self.string()? {
                Some(text) => Value::String(text),
                None => self.odd(key),
            }),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => self.number(key),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) | None => Err(self.syntax()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.at += 1;
        let mut fields = Map::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(fields));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.syntax());
            }
            let name = self.string()?.unwrap_or_else(|| "\u{fffd}".to_owned());
            self.skip_space();
            self.expect(b':')?;
            let value = self.value(depth + 1, &name)?;
            match fields.entry(name) {
                serde_json::map::Entry::Vacant(free) => drop(free.insert(value)),
                serde_json::map::Entry::Occupied(mut taken) => {
                    let null = self.odd(taken.key());
                    drop(taken.insert(null));
                }
            }
            if fields.len() > MAX_FIELDS {
                return Err(Malformed::TooManyFields);
            }
            self.skip_space();
            if self.take(b'}') {
                return Ok(Value::Object(fields));
            }
            self.expect(b',')?;
        }
    }

    fn array(&mut self, depth: usize, key: &str) -> Result<Value, Malformed> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1, key)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            self.expect(b',')?;
        }
    }

    /// Reads a number, `NaN`, `Infinity` or `-Infinity`.
    fn number(&mut self, key: &str) -> Result<Value, Malformed> {
        for word in ["NaN", "Infinity", "-Infinity"] {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(self.odd(key));
            }
        }
        let rest = self.rest();
        let end = rest.bytes().position(|byte| !is_number_byte(byte)).unwrap_or(rest.len());
        let digits = rest.get(..end).unwrap_or_default();
        if !is_number(digits) {
            return Err(self.syntax());
        }
        self.at += end;
        if let Ok(whole) = digits.parse::<i64>() {
            return Ok(whole.into());
        }
        if let Ok(whole) = digits.parse::<u64>() {
            return Ok(whole.into());
        }
        // Too large for a float is infinite, which no `Number` holds.
        let float = digits.parse().ok().and_then(Number::from_f64);
        Ok(float.map_or_else(|| self.odd(key), Value::Number))
    }

    /// Reads a string; `None` when it holds half a surrogate pair, which no text can hold.
    fn string(&mut self) -> Result<Option<String>, Malformed> {
        self.at += 1;
        let mut whole = true;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let plain = rest
                .bytes()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
                .ok_or(Malformed::Syntax(self.text.len()))?;
            text.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            if self.take(b'"') {
                return Ok(whole.then_some(text));
            }
            self.expect(b'\\')?;
            match self.escape()? {
                Some(character) => text.push(character),
                None => whole = false,
            }
        }
    }

    /// Reads what follows a backslash; `None` for half a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, Malformed> {
        let escaped = self.peek().ok_or_else(|| self.syntax())?;
        let character = match escaped {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.syntax()),
        };
        self.at += 1;
        Ok(Some(character))
    }

    fn unicode(&mut self) -> Result<Option<char>, Malformed> {
        let first = self.hexadecimal()?;
        if !(0xd800..0xe000).contains(&first) {
            return Ok(char::from_u32(first));
        }
        if first >= 0xdc00 || !self.rest().starts_with("\\u") {
            return Ok(None);
        }
        let before = self.at;
        self.at += 2;
        let second = self.hexadecimal()?;
        if !(0xdc00..0xe000).contains(&second) {
            self.at = before;
            return Ok(None);
        }
        Ok(char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)))
    }

    fn hexadecimal(&mut self) -> Result<u32, Malformed> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.syntax())?;
        self.at += 4;
        Ok(code)
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Malformed> {
        if !self.rest().starts_with(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        Ok(value)
    }

    /// Notes that `key` has no value that JSON or a text can hold.
    fn odd(&mut self, key: &str) -> Value {
        if self.oddities.len() < MAX_ODDITIES {
            self.oddities.push(key.to_owned());
        }
        Value::Null
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    const fn syntax(&self) -> Malformed {
        Malformed::Syntax(self.at)
    }
}

const fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether `text` follows JSON's grammar of numbers: no leading zero, digits around the point.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_json_cannot_say_is_null_and_named() {
        for (text, value, oddities) in [
            (r#"{"a":NaN,"b":-Infinity,"c":Infinity}"#, json!({"a":null,"b":null,"c":null}), "abc"),
            (r#"{"a":1e999,"b":-1e999,"c":1}"#, json!({"a":null,"b":null,"c":1}), "ab"),
            (r#"{"a":1,"a":2,"a":3}"#, json!({"a":null}), "aa"),
            (
                r#"{"a":"\ud800","b":"x\udc00y","c":"\ud83d\ude80"}"#,
                json!({"a":null,"b":null,"c":"🚀"}),
                "ab",
            ),
            (r#"{"a":[1,NaN]}"#, json!({"a":[1,null]}), "a"),
            (
                r#"{"a":18446744073709551615,"b":-0,"c":9223372036854775808}"#,
                json!({"a":u64::MAX,"b":0,"c":9_223_372_036_854_775_808_u64}),
                "",
            ),
            (r#"{"a":"\ud800\u0041"}"#, json!({"a":null}), "a"),
        ] {
            let document = parse(text.as_bytes()).unwrap();
            assert_eq!(document.value, value, "{text}");
            assert_eq!(document.oddities.concat(), oddities, "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_stops_to_be_json() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "[1,]",
            "01",
            "1.",
            ".5",
            "1e",
            "--1",
            "-",
            "+1",
            "tru",
            "nul",
            "\"",
            "\"\\",
            "\"\\u12",
            "\"\\x\"",
            "{1:2}",
            "\"a\nb\"",
            "{} {}",
            "<html>",
            "nan",
            "'a'",
            "Infinit",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(Malformed::Syntax(_))), "{text}");
        }
        assert_eq!(parse(b"{\"a\":\"\xff\"}"), Err(Malformed::Syntax(6)));
    }

    #[test]
    fn limits_hold_without_using_the_stack() {
        for text in ["[".repeat(100_000), r#"{"a":"#.repeat(100_000)] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed::TooDeep));
        }
        let nested = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse(nested.as_bytes()).is_ok());
        let fields = |count: usize| {
            let fields: Vec<String> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert!(parse(fields(MAX_FIELDS).as_bytes()).is_ok());
        assert_eq!(parse(fields(MAX_FIELDS + 1).as_bytes()), Err(Malformed::TooManyFields));
        let values = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert_eq!(parse(values.as_bytes()), Err(Malformed::TooManyFields));
    }

    proptest! {
        /// Whatever is valid JSON with unique keys reads the same as with serde_json.
        #[test]
        fn agrees_with_serde_json(value in any_value()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let document = parse(text.as_bytes()).unwrap();
                prop_assert_eq!(&document.value, &value);
                prop_assert!(document.oddities.is_empty());
            }
        }

        /// Nothing that serde_json refuses is accepted, apart from the documented exceptions.
        #[test]
        fn never_panics_and_never_accepts_more(text in r#"[\[\]{}",:0-9eE.+\-a-fnrtu\\ ]{0,40}"#) {
            let strict: Result<Value, _> = serde_json::from_str(&text);
            match parse(text.as_bytes()) {
                Ok(document) if document.oddities.is_empty() => prop_assert!(strict.is_ok(), "{text}"),
                Ok(_) => {}
                Err(_) => prop_assert!(strict.is_err(), "{text}"),
            }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = parse(&bytes);
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }
}
