//! MQTT 5 properties (MQTT5 §2.2.2): lists that are validated once and iterated lazily.

/// User properties in order, duplicates kept (MQTT5 §2.2.2.2 property 0x26).
#[derive(Clone, Copy, Debug)]
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

impl<'a> UserProperties<'a> {
    /// The pairs in their order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&'a str, &'a str)> + 'a> {
        todo!("codec: a plain struct iterator without allocation")
    }
}

/// Subscription identifiers (MQTT5 §2.2.2.2 property 0x0B), several in a PUBLISH of the server.
#[derive(Clone, Copy, Debug)]
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
    fn eq(&self, _other: &Self) -> bool {
        todo!("codec")
    }
}
