//! Values with a unit, as an operator writes them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};
use thiserror::Error;

/// Why a text is not a value of its unit.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("cannot read {text:?}: want {want}")]
pub struct UnitError {
    text: String,
    want: &'static str,
}

/// A number of bytes: `"10 GiB"`, `"512 MiB"`, `"4096"` or the bare number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Bytes(pub u64);

/// A length of time: `"60s"`, `"1h30m"`, `"14d"`, `"250ms"`. A bare number has no unit and is
/// refused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Period(pub Duration);

/// How much may travel in a time, in bits a second as lines are sold: `"20 Mbit/s"`,
/// `"512 kbit/s"`, `"0"`, or `"unlimited"`. Prefixes are decimal.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rate {
    bits: u64,
}

/// An address to listen on: `"0.0.0.0:7443"`, `"[::]:7443"`; port 0 lets the system choose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listen(pub SocketAddr);

/// Where to reach somebody: a host name or address, and a port. A hint, never an identity.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl Bytes {
    const WANT: &str = "a size, such as 512 MiB or 10 GiB";
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size: Result<ByteSize, _> = text.parse();
        size.map(|size| Self(size.as_u64()))
            .map_err(|_| refused(text, Self::WANT))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ByteSize::b(self.0).display().iec())
    }
}

impl Period {
    const WANT: &str = "a length of time, such as 250ms, 60s, 1h30m or 14d";

    /// Whole seconds, rounded down.
    #[must_use]
    pub fn as_secs(self) -> i64 {
        i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refusal = || refused(text, Self::WANT);
        let mut rest = text;
        let mut millis: u64 = 0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(refusal)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let number: u64 = number.parse().map_err(|_| refusal())?;
            let part = unit_millis(unit.trim()).and_then(|unit| number.checked_mul(unit));
            millis = part
                .and_then(|part| millis.checked_add(part))
                .ok_or_else(refusal)?;
            rest = tail;
        }
        if text.is_empty() {
            return Err(refusal());
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in UNITS {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl Rate {
    const WANT: &str = "a rate, such as 512 kbit/s, 20 Mbit/s, 0 or unlimited";

    /// As much as there is.
    pub const UNLIMITED: Self = Self { bits: u64::MAX };

    /// So many bits a second.
    #[must_use]
    pub const fn bits(bits: u64) -> Self {
        Self { bits }
    }

    /// Bits a second; none if there is no limit.
    #[must_use]
    pub fn bits_per_second(self) -> Option<u64> {
        (self != Self::UNLIMITED).then_some(self.bits)
    }

    /// How long `bytes` take; none if nothing may travel at all.
    #[must_use]
    pub fn time_for(self, bytes: u64) -> Option<Duration> {
        match self.bits_per_second() {
            None => Some(Duration::ZERO),
            Some(0) => None,
            Some(bits) => Some(Duration::from_secs_f64(bytes as f64 * 8.0 / bits as f64)),
        }
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim() {
            "unlimited" => return Ok(Self::UNLIMITED),
            "0" => return Ok(Self::bits(0)),
            _ => {}
        }
        let refusal = || refused(text, Self::WANT);
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refusal)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refusal())?;
        let (_, unit_bits) = RATES
            .iter()
            .find(|(name, _)| *name == unit.trim())
            .ok_or_else(refusal)?;
        // At most a terabit, so that no sum of rates and bytes runs over.
        let bits = number
            .checked_mul(*unit_bits)
            .filter(|&bits| bits <= 1_000_000_000_000);
        bits.map(Self::bits).ok_or_else(refusal)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(bits) = self.bits_per_second() else {
            return f.write_str("unlimited");
        };
        if bits == 0 {
            return f.write_str("0");
        }
        let whole = RATES.iter().find(|(_, unit)| bits % unit == 0);
        let (name, unit) = whole.unwrap_or(&("bit/s", 1));
        write!(f, "{} {name}", bits / unit)
    }
}

impl FromStr for Listen {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let want = "an address and a port, such as 0.0.0.0:7443 or [::]:7443";
        text.parse().map(Self).map_err(|_| refused(text, want))
    }
}

impl HostPort {
    /// The host: a name or an address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let want = "a host and a port, such as larder.example.com:7443 or [2001:db8::1]:7443";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refused(text, want))?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            // 253 is the longest name that DNS can carry (RFC 1035 §2.3.4, in text form).
            None => (1..=253).contains(&host.len()) && host.bytes().all(is_host_byte),
        };
        match port.parse() {
            Ok(port) if is_host && port != 0 => Ok(Self {
                host: bare.unwrap_or(host).to_owned(),
                port,
            }),
            Ok(_) | Err(_) => Err(refused(text, want)),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads a unit from a string, or from a whole number where `from_number` allows it.
struct Text<T> {
    from_number: Option<fn(u64) -> T>,
    want: &'static str,
}

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.want)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match (u64::try_from(number), self.from_number) {
            (Ok(number), Some(from_number)) => Ok(from_number(number)),
            (Ok(_) | Err(_), _) => Err(E::invalid_type(Unexpected::Signed(number), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text {
            from_number: Some(Self),
            want: Self::WANT,
        })
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text {
            from_number: None,
            want: Self::WANT,
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text {
            from_number: None,
            want: Self::WANT,
        })
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text {
            from_number: None,
            want: "an address and a port",
        })
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Text {
            from_number: None,
            want: "a host and a port",
        })
    }
}

fn refused(text: &str, want: &'static str) -> UnitError {
    UnitError {
        text: text.to_owned(),
        want,
    }
}

fn unit_millis(unit: &str) -> Option<u64> {
    let unit = if unit == "min" { "m" } else { unit };
    UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, millis)| *millis)
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Units of time with their milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of rates with their bits a second, largest first.
const RATES: [(&str, u64); 4] = [
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1_000),
    ("bit/s", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = UnitError> + fmt::Display>(text: &str, expected: &str) {
        let shown = match text.parse::<T>() {
            Ok(value) => value.to_string(),
            Err(_) => "refused".to_owned(),
        };
        assert_eq!(shown, expected, "for {text:?}");
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        check::<Bytes>("10 GiB", "10.0 GiB");
        check::<Bytes>("4096", "4.0 KiB");
        check::<Bytes>("-1", "refused");
        check::<Bytes>("", "refused");
    }

    #[test]
    fn periods_need_their_unit() {
        check::<Period>("60s", "1m");
        check::<Period>("1h30m", "1h30m");
        check::<Period>("1h 30min", "1h30m");
        check::<Period>("14d", "14d");
        check::<Period>("250ms", "250ms");
        check::<Period>("0s", "0s");
        check::<Period>("60", "refused");
        check::<Period>("s", "refused");
        check::<Period>("", "refused");
        check::<Period>("99999999999999d", "refused");
    }

    #[test]
    fn rates_are_in_bits_with_decimal_prefixes() {
        check::<Rate>("20 Mbit/s", "20 Mbit/s");
        check::<Rate>("1500kbit/s", "1500 kbit/s");
        check::<Rate>("2000 kbit/s", "2 Mbit/s");
        check::<Rate>("1 Gbit/s", "1 Gbit/s");
        check::<Rate>("7 bit/s", "7 bit/s");
        check::<Rate>("0", "0");
        check::<Rate>("unlimited", "unlimited");
        check::<Rate>("20", "refused");
        check::<Rate>("20 MB/s", "refused");
        check::<Rate>("1.5 Mbit/s", "refused");
        check::<Rate>("5000 Gbit/s", "refused");
        check::<Rate>("", "refused");
        let second = Rate::bits(8_000_000).time_for(1_000_000);
        assert_eq!(second, Some(Duration::from_secs(1)));
        assert_eq!(Rate::UNLIMITED.time_for(u64::MAX), Some(Duration::ZERO));
        assert_eq!(Rate::bits(0).time_for(1), None);
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        check::<HostPort>("larder.example.com:7443", "larder.example.com:7443");
        check::<HostPort>("192.0.2.7:1", "192.0.2.7:1");
        check::<HostPort>("[2001:db8::1]:443", "[2001:db8::1]:443");
        check::<HostPort>("2001:db8::1:443", "refused");
        check::<HostPort>("host", "refused");
        check::<HostPort>("host:0", "refused");
        check::<HostPort>("a b:1", "refused");
        check::<HostPort>(":1", "refused");
    }
}
