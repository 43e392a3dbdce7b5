//! From a text to a rule.
//!
//! ```text
//! any   = all *("or" all)        all = one *("and" one)
//! one   = "not" one | "(" any ")" | "has" field | field op value
//! op    = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
//! value = word | "\"" text "\""
//! ```

use std::str::FromStr as _;

use bytesize::ByteSize;
use config::Period;

use super::{Age, Field, Node, Number, Op, Rule, RuleError, Text, Want};

/// A piece of a rule, and where it begins.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    Op(Op),
    Word(String),
    Quoted(String),
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    tests: usize,
}

pub(super) fn parse(text: &str) -> Result<Node, RuleError> {
    if text.len() > Rule::BYTES_MAX {
        let what = format!("it has more than {} bytes", Rule::BYTES_MAX);
        return Err(RuleError { at: 0, what });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        end: text.chars().count() + 1,
        tests: 0,
    };
    let root = parser.any(0)?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.wants("and, or, or nothing more")),
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, RuleError> {
    let letters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(letter) = letters.get(at) {
        let begin = at;
        let is_next = |wanted| letters.get(begin + 1) == Some(&wanted);
        at += 1;
        let token = match letter {
            letter if letter.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => Token::Op(Op::Is),
            '~' => Token::Op(Op::Like),
            '!' | '<' | '>' if is_next('=') => {
                at += 1;
                Token::Op(match letter {
                    '!' => Op::IsNot,
                    '<' => Op::AtMost,
                    _ => Op::AtLeast,
                })
            }
            '<' => Token::Op(Op::Less),
            '>' => Token::Op(Op::More),
            '"' => {
                let rest = letters[at..].iter();
                let text: String = rest.take_while(|letter| **letter != '"').collect();
                at += text.chars().count() + 1;
                if at > letters.len() {
                    let what = "the quotes are never closed".to_owned();
                    return Err(RuleError {
                        at: begin + 1,
                        what,
                    });
                }
                Token::Quoted(text)
            }
            letter if is_word(*letter) => {
                let rest = letters[begin..].iter();
                let word: String = rest.take_while(|letter| is_word(**letter)).collect();
                at = begin + word.chars().count();
                Token::Word(word)
            }
            letter => {
                let what = format!("{letter:?} can only stand in quotes");
                return Err(RuleError {
                    at: begin + 1,
                    what,
                });
            }
        };
        found.push((begin + 1, token));
    }
    Ok(found)
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || "._-+:~*?/@".contains(letter)
}

impl Parser {
    fn any(&mut self, depth: usize) -> Result<Node, RuleError> {
        let mut parts = vec![self.all(depth)?];
        while self.takes("or") {
            parts.push(self.all(depth)?);
        }
        Ok(one_or(parts, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, RuleError> {
        let mut parts = vec![self.one(depth)?];
        while self.takes("and") {
            parts.push(self.one(depth)?);
        }
        Ok(one_or(parts, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, RuleError> {
        if depth > Rule::DEPTH_MAX {
            return Err(self.fails(format!("it is nested over {} deep", Rule::DEPTH_MAX)));
        }
        if self.takes("not") {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.peek() == Some(&Token::Open) {
            self.at += 1;
            let inner = self.any(depth + 1)?;
            if self.peek() != Some(&Token::Close) {
                return Err(self.wants("and, or, or a closing parenthesis"));
            }
            self.at += 1;
            return Ok(inner);
        }
        self.tests += 1;
        if self.tests > Rule::TESTS_MAX {
            return Err(self.fails(format!("it has more than {} tests", Rule::TESTS_MAX)));
        }
        if self.takes("has") {
            return Ok(Node::Has(self.field()?));
        }
        let field = self.field()?;
        let Some(Token::Op(op)) = self.peek().cloned() else {
            return Err(self.wants("one of = != < <= > >= ~"));
        };
        if !suits(op, &field) {
            return Err(self.fails("that cannot be asked of this field".to_owned()));
        }
        self.at += 1;
        let want = self.value(&field)?;
        Ok(Node::Test(field, op, want))
    }

    fn field(&mut self) -> Result<Field, RuleError> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.wants("a field, not, has or a parenthesis"));
        };
        let Some(field) = field(word) else {
            let what = format!("there is no field {word}: want one of {FIELDS}");
            return Err(self.fails(what));
        };
        self.at += 1;
        Ok(field)
    }

    fn value(&mut self, field: &Field) -> Result<Want, RuleError> {
        let (Some(Token::Word(text)) | Some(Token::Quoted(text))) = self.peek() else {
            return Err(self.wants("a value"));
        };
        let want = match field {
            Field::Text(_) => Some(Want::Text(text.as_str().into())),
            Field::Number(Number::Cpus) => text.parse().ok().map(Want::Number),
            Field::Number(_) => text.parse().ok().map(|ByteSize(size)| Want::Number(size)),
            Field::Age(_) => {
                let period = Period::from_str(text).ok();
                period.map(|period| Want::Number(period.0.as_secs()))
            }
        };
        let Some(want) = want else {
            return Err(match field {
                Field::Text(_) | Field::Number(Number::Cpus) => self.wants("a number"),
                Field::Number(_) => self.wants("a size, such as 8GiB"),
                Field::Age(_) => self.wants("a time, such as 7d"),
            });
        };
        self.at += 1;
        Ok(want)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.at += usize::from(is_it);
        is_it
    }

    fn wants(&self, what: &str) -> RuleError {
        self.fails(format!("want {what}"))
    }

    fn fails(&self, what: String) -> RuleError {
        let at = self.tokens.get(self.at).map_or(self.end, |(at, _)| *at);
        RuleError { at, what }
    }
}

fn one_or(mut parts: Vec<Node>, more: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match parts.pop() {
        Some(part) if parts.is_empty() => part,
        Some(part) => {
            parts.push(part);
            more(parts)
        }
        None => more(parts),
    }
}

fn suits(op: Op, field: &Field) -> bool {
    match field {
        Field::Text(_) => true,
        Field::Number(_) => op != Op::Like,
        // To the second, nothing is ever so old.
        Field::Age(_) => !matches!(op, Op::Is | Op::IsNot | Op::Like),
    }
}

fn field(word: &str) -> Option<Field> {
    let named = |name: &str| Some(name.into()).filter(|_| !name.is_empty());
    let text = match word.split_once('.') {
        Some(("field", name)) => Some(Text::Custom(named(name)?)),
        Some(("fileset", name)) => Some(Text::Fileset(named(name)?)),
        Some(("software", name)) => Some(Text::Software(named(name)?)),
        Some(("os", "name")) => Some(Text::OsName),
        Some(("os", "version")) => Some(Text::OsVersion),
        Some(_) => None,
        None => match word {
            "agent" => Some(Text::Agent),
            "arch" => Some(Text::Arch),
            "group" => Some(Text::Group),
            "hostname" => Some(Text::Hostname),
            "id" => Some(Text::Id),
            "kernel" => Some(Text::Kernel),
            "os" => Some(Text::Os),
            _ => None,
        },
    };
    if let Some(text) = text {
        return Some(Field::Text(text));
    }
    Some(match word {
        "cpus" => Field::Number(Number::Cpus),
        "disk.free" => Field::Number(Number::DiskFree),
        "disk.size" => Field::Number(Number::DiskSize),
        "memory" => Field::Number(Number::Memory),
        "seen" => Field::Age(Age::Seen),
        "told" => Field::Age(Age::Told),
        _ => return None,
    })
}

/// What can be asked for, for people.
const FIELDS: &str = "id, group, hostname, os, os.version, os.name, kernel, arch, agent, cpus, \
                      memory, disk.free, disk.size, seen, told, software.NAME, fileset.NAME, \
                      field.NAME";
