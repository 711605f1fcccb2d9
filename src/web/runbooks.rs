//! The page of runbooks: what each alert rule of this configuration means and what to do about it.

use std::fmt::Write as _;

use bytes::Bytes;

use super::page::{fill, text};
use crate::base::embed;
use crate::rules::reference::{self, Section};
use crate::rules::rule::Rule;

/// Returns the page as HTML.
pub(super) fn page(rules: &[Rule]) -> Bytes {
    let Some(template) = embed::asset_text("web/runbooks.html") else {
        return Bytes::from_static(b"page not embedded\n");
    };
    let sections = reference::sections(rules);
    let contents: String = sections.iter().map(entry).collect();
    let bodies: String = sections.iter().map(section).collect();
    fill(&template, &[("contents", contents), ("sections", bodies)]).into()
}

fn entry(section: &Section) -> String {
    format!("<li><a href=\"#{}\">{}</a></li>", text(&section.anchor), text(&section.title))
}

fn section(section: &Section) -> String {
    let anchor = text(&section.anchor);
    let mut html = format!(
        "<section id=\"{anchor}\" aria-labelledby=\"{anchor}-title\">\
         <h2 id=\"{anchor}-title\">{}</h2>\
         <p class=\"rule\"><code>{}</code> watches {}.</p>\
         <blockquote><p><strong>{}</strong> {}</p></blockquote><ul>",
        text(&section.title),
        text(&section.id),
        words(&section.measured),
        words(&section.summary),
        words(&section.description),
    );
    for tier in &section.tiers {
        // Writing to a String cannot fail.
        let _ignored = write!(
            html,
            "<li><span class=\"{0}\">{0}</span>: {1}</li>",
            tier.severity,
            text(&tier.words())
        );
    }
    html.push_str("</ul>");
    if !section.steps.is_empty() {
        let steps = section.steps.iter().map(|step| format!("<li>{}</li>", words(step)));
        let _ignored = write!(html, "<h3>What to do</h3><ol>{}</ol>", steps.collect::<String>());
    }
    if let Some(dashboard) = &section.dashboard {
        let uid = text(dashboard);
        let _ignored = write!(html, "<p><a href=\"/d/{uid}\">Dashboard</a></p>");
    }
    html.push_str("</section>\n");
    html
}

/// Returns `raw` as HTML, what stands between backticks as code.
fn words(raw: &str) -> String {
    let mut html = String::new();
    for (index, part) in raw.split('`').enumerate() {
        if index % 2 == 0 {
            html.push_str(&text(part));
        } else {
            let _ignored = write!(html, "<code>{}</code>", text(part));
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalog;

    #[test]
    fn every_rule_can_be_linked_to() {
        let rules = catalog::shipped().unwrap();
        let html = String::from_utf8(page(&rules).to_vec()).unwrap();
        for rule in &rules {
            assert_eq!(html.matches(&format!("id=\"{}\"", rule.runbook)).count(), 1, "{}", rule.id);
            for step in &rule.steps {
                assert!(html.contains(&words(step)), "{step}");
            }
        }
        assert!(!html.contains("{{") && !html.contains('`'), "{html}");
    }

    #[test]
    fn what_a_user_wrote_is_no_markup() {
        let mut rule = catalog::shipped().unwrap().remove(0);
        rule.steps = vec!["<script>alert(1)</script> `a & b`".to_owned()];
        let html = String::from_utf8(page(&[rule]).to_vec()).unwrap();
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; <code>a &amp; b</code>"));
        assert!(!html.contains("<script>alert"), "{html}");
    }
}
