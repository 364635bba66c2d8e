//! XML with an element a line, its fields in attributes: the form of Stack Exchange's dumps.

use quick_xml::Reader;
use quick_xml::events::Event;
use starling_runtime::task::items::Cell;

/// What white space there may be in a line besides spaces.
const WHITE: &[u8] = b"\t\r";

/// The attributes of the element that `line` is, those of `wanted` if that is given; `None` if the line is no element but
/// part of what is around them. An error says what is wrong.
pub(super) fn row(line: &[u8], element: &str, wanted: Option<&[String]>) -> Result<Option<Cell>, String> {
    let line = std::str::from_utf8(line)
        .map_err(|error| format!("the text is not UTF-8 at column {}", error.valid_up_to() + 1))?;
    let line = line.trim();
    if !is_start(line, element) {
        return around(line, element);
    }
    let mut reader = Reader::from_str(line);
    let one = || format!("<{element} .../> must be one element on a line of its own");
    let event = reader.read_event().map_err(|error| format!("{error}; {}", one()))?;
    let Event::Empty(start) = event else { return Err(one()) };
    let mut fields = Vec::new();
    for attribute in start.attributes() {
        let mut attribute = attribute.map_err(|error| error.to_string())?;
        let name =
            std::str::from_utf8(attribute.key.as_ref()).map_err(|_| "an attribute's name is not UTF-8".to_owned())?;
        if wanted.is_some_and(|wanted| !wanted.iter().any(|wanted| wanted == name)) {
            continue;
        }
        // White space that no entity stands for is a space, by XML's rules for attributes.
        if attribute.value.iter().any(|byte| WHITE.contains(byte)) {
            attribute.value.to_mut().iter_mut().filter(|byte| WHITE.contains(byte)).for_each(|byte| *byte = b' ');
        }
        let value = attribute.unescape_value().map_err(|error| format!("attribute {name}: {error}"))?;
        fields.push((name.to_owned(), Cell::Loose(value.into_owned())));
    }
    match reader.read_event().map_err(|error| format!("{error}"))? {
        Event::Eof => Ok(Some(Cell::Fields(fields))),
        _ => Err(one()),
    }
}

fn is_start(line: &str, element: &str) -> bool {
    let rest = line.strip_prefix('<').and_then(|rest| rest.strip_prefix(element));
    rest.is_some_and(|rest| rest.starts_with([' ', '\t', '/', '>']) || rest.is_empty())
}

/// A line that is no row: a declaration, a comment on one line, or the start or the end of the element around the rows.
fn around(line: &str, element: &str) -> Result<Option<Cell>, String> {
    let is_tag = line.starts_with('<') && line.ends_with('>') && line.matches('<').count() == 1;
    if line.is_empty() || is_tag {
        Ok(None)
    } else {
        Err(format!("the line is neither <{element} .../> nor a tag around them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Cell {
        Cell::Loose(value.to_owned())
    }

    #[test]
    fn a_row_has_its_attributes_without_entities() {
        let line =
            "  <row Id=\"7\" Body=\"&lt;p&gt;a &amp;amp; &quot;b&quot;&#xA;c\t&#233;&#9;&lt;/p&gt;\" Tags=\"\" />\r";
        let body = text("<p>a &amp; \"b\"\nc é\t</p>");
        let found = row(line.as_bytes(), "row", None).unwrap();
        let all = vec![("Id".to_owned(), text("7")), ("Body".to_owned(), body.clone()), ("Tags".to_owned(), text(""))];
        assert_eq!(found, Some(Cell::Fields(all)));
        let wanted = ["Body".to_owned()];
        let found = row(line.as_bytes(), "row", Some(&wanted)).unwrap();
        assert_eq!(found, Some(Cell::Fields(vec![("Body".to_owned(), body)])));
    }

    #[test]
    fn what_is_around_rows_is_passed_over_and_all_else_is_an_error() {
        for line in ["<?xml version=\"1.0\"?>", "<posts>", "</posts>", "", "<rows>", "<!-- rows -->"] {
            assert_eq!(row(line.as_bytes(), "row", None), Ok(None), "{line}");
        }
        for (line, expected) in [
            ("text", "neither"),
            ("<row Id=\"1\"", "row"),
            ("<row Id=\"1\"/><row Id=\"2\"/>", "one element"),
            ("<row Id=\"1\"></row>", "one element"),
            ("<row Id=\"&nothing;\"/>", "attribute Id"),
            ("<row Id=1/>", ""),
        ] {
            let error = row(line.as_bytes(), "row", None).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(row(b"<row Id=\"\xff\"/>", "row", None).unwrap_err().contains("UTF-8 at column 10"));
    }
}
