//! The debug form of a packet without what is absent, false or empty, as the vectors write it.

/// Removes fields that hold nothing, until nothing changes.
pub(crate) fn compact(debug: &str) -> String {
    const EMPTY: [&str; 3] = [": None", ": []", ": false"];
    let mut text = debug.to_owned();
    loop {
        let before = text.len();
        for empty in EMPTY {
            while let Some(range) = field_ending(&text, empty) {
                text.replace_range(range, "");
            }
        }
        while let Some(at) = text.find("Properties {  }").or_else(|| text.find("Properties { }")) {
            let end = at + text[at..].find('}').unwrap() + 1;
            let start = text[..at].rfind(": ").unwrap();
            text.replace_range(start..end, ": None");
        }
        if text.len() == before {
            return text;
        }
    }
}

/// The range of `name<empty>` and one comma beside it.
fn field_ending(text: &str, empty: &str) -> Option<std::ops::Range<usize>> {
    let at = text
        .match_indices(empty)
        .map(|(at, _)| at)
        .find(|at| [',', ' ', ')'].iter().any(|next| text[at + empty.len()..].starts_with(*next)))?;
    let start = text[..at].rfind([' ', '(']).unwrap() + 1;
    let end = at + empty.len();
    if text[end..].starts_with(", ") {
        Some(start..end + 2)
    } else if text[..start].ends_with(", ") {
        Some(start - 2..end)
    } else {
        Some(start..end)
    }
}

#[test]
fn compact_keeps_what_is_there() {
    assert_eq!(compact("A { a: None, b: 1, p: XProperties { c: None, d: [] }, e: false }"), "A { b: 1 }");
    assert_eq!(compact("P(A { a: Some([1]), b: [] })"), "P(A { a: Some([1]) })");
}
