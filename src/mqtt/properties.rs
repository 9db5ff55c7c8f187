//! MQTT 5 properties (MQTT5 §2.2.2): lists that are validated once and iterated lazily.

use std::fmt;
use std::slice;

use super::decode::DecodeError;
use super::wire::Reader;

/// Property identifiers (MQTT5 §2.2.2.2, table 2-4).
pub(super) mod id {
    pub(in crate::mqtt) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in crate::mqtt) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in crate::mqtt) const CONTENT_TYPE: u8 = 0x03;
    pub(in crate::mqtt) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in crate::mqtt) const CORRELATION_DATA: u8 = 0x09;
    pub(in crate::mqtt) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(in crate::mqtt) const SESSION_EXPIRY: u8 = 0x11;
    pub(in crate::mqtt) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(in crate::mqtt) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in crate::mqtt) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in crate::mqtt) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in crate::mqtt) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in crate::mqtt) const WILL_DELAY: u8 = 0x18;
    pub(in crate::mqtt) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in crate::mqtt) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in crate::mqtt) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in crate::mqtt) const REASON_STRING: u8 = 0x1F;
    pub(in crate::mqtt) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in crate::mqtt) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in crate::mqtt) const TOPIC_ALIAS: u8 = 0x23;
    pub(in crate::mqtt) const MAXIMUM_QOS: u8 = 0x24;
    pub(in crate::mqtt) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in crate::mqtt) const USER_PROPERTY: u8 = 0x26;
    pub(in crate::mqtt) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in crate::mqtt) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(in crate::mqtt) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(in crate::mqtt) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// User properties in order, duplicates kept (MQTT5 §2.2.2.2 property 0x26).
///
/// Two lists are equal when their pairs are, whatever their form.
#[derive(Clone, Copy)]
pub enum UserProperties<'a> {
    /// The validated property section of a decoded packet, which may hold other properties too:
    /// iterating skips them.
    Raw(&'a [u8]),
    /// Name and value pairs, for packets built here.
    Pairs(&'a [(&'a str, &'a str)]),
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self::Pairs(&[])
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> UserProperties<'a> {
    /// The pairs in their order.
    #[inline]
    pub fn iter(&self) -> UserPropertyIter<'a> {
        UserPropertyIter(match *self {
            Self::Raw(section) => PairSource::Raw(Reader::new(section)),
            Self::Pairs(pairs) => PairSource::Pairs(pairs.iter()),
        })
    }

    /// Whether there is no pair.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Raw(_) => self.iter().next().is_none(),
            Self::Pairs(pairs) => pairs.is_empty(),
        }
    }
}

impl<'a> IntoIterator for &UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertyIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The pairs of [`UserProperties`].
#[derive(Clone, Debug)]
pub struct UserPropertyIter<'a>(PairSource<'a>);

#[derive(Clone, Debug)]
enum PairSource<'a> {
    Raw(Reader<'a>),
    Pairs(slice::Iter<'a, (&'a str, &'a str)>),
}

impl<'a> Iterator for UserPropertyIter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            PairSource::Raw(section) => {
                find(section, id::USER_PROPERTY)?;
                let name = section.text_unchecked_for_null().ok()?;
                Some((name, section.text_unchecked_for_null().ok()?))
            }
            PairSource::Pairs(pairs) => pairs.next().copied(),
        }
    }
}

/// Subscription identifiers (MQTT5 §2.2.2.2 property 0x0B), several in a PUBLISH of the server.
///
/// Two lists are equal when their numbers are, whatever their form.
#[derive(Clone, Copy)]
pub enum SubscriptionIds<'a> {
    /// The validated property section of a decoded packet.
    Raw(&'a [u8]),
    /// The numbers, for packets built here.
    List(&'a [u32]),
}

impl Default for SubscriptionIds<'_> {
    fn default() -> Self {
        Self::List(&[])
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> SubscriptionIds<'a> {
    /// The numbers in their order.
    #[inline]
    pub fn iter(&self) -> SubscriptionIdIter<'a> {
        SubscriptionIdIter(match *self {
            Self::Raw(section) => NumberSource::Raw(Reader::new(section)),
            Self::List(numbers) => NumberSource::List(numbers.iter()),
        })
    }

    /// Whether there is no number.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Raw(_) => self.iter().next().is_none(),
            Self::List(numbers) => numbers.is_empty(),
        }
    }
}

impl<'a> IntoIterator for &SubscriptionIds<'a> {
    type Item = u32;
    type IntoIter = SubscriptionIdIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The numbers of [`SubscriptionIds`].
#[derive(Clone, Debug)]
pub struct SubscriptionIdIter<'a>(NumberSource<'a>);

#[derive(Clone, Debug)]
enum NumberSource<'a> {
    Raw(Reader<'a>),
    List(slice::Iter<'a, u32>),
}

impl Iterator for SubscriptionIdIter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            NumberSource::Raw(section) => {
                find(section, id::SUBSCRIPTION_ID)?;
                section.varint().ok()
            }
            NumberSource::List(numbers) => numbers.next().copied(),
        }
    }
}

/// Moves to the value of the next property with this identifier. A section that is not valid just ends.
fn find(section: &mut Reader<'_>, wanted: u8) -> Option<()> {
    loop {
        let id = section.u8().ok()?;
        if id == wanted {
            return Some(());
        }
        skip_value(section, id).ok()?;
    }
}

/// Passes over the value of the property `id`, by the data type of MQTT5 table 2-4.
fn skip_value(section: &mut Reader<'_>, id: u8) -> Result<(), DecodeError> {
    match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => section.take(1).map(drop),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            section.take(2).map(drop)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => section.take(4).map(drop),
        id::SUBSCRIPTION_ID => section.varint().map(drop),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::AUTHENTICATION_DATA
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => section.binary().map(drop),
        id::USER_PROPERTY => {
            section.binary()?;
            section.binary().map(drop)
        }
        _ => Err(DecodeError::malformed("an unknown property identifier (§2.2.2.2)")),
    }
}
