//! Metrics in the text format of Prometheus, which every scraper and `promtool` reads, made of the
//! `OpenMetrics` text. The two differ in the names of counters and in lines that only one knows.

/// Content type of the `OpenMetrics` text.
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the text of [`from_openmetrics`].
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the Accept header asks for `OpenMetrics`.
pub(super) fn wants_openmetrics(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("application/openmetrics-text"))
}

/// Returns `text` in the format of Prometheus.
///
/// A counter `x` with samples `x_total` is there a counter `x_total`, an info `x` a gauge
/// `x_info`; units and the end mark do not exist.
pub(super) fn from_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its name depends on the type, which comes next.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                out.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_infos_are_renamed_and_samples_kept() {
        let text = "# HELP a Polls.\n# TYPE a counter\na_total{x=\"# TYPE b\\n\"} 1\n\
                    # HELP b Build.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c_bytes Size.\n# TYPE c_bytes gauge\n# UNIT c_bytes bytes\nc_bytes 2\n\
                    # EOF\n";
        assert_eq!(
            from_openmetrics(text),
            "# HELP a_total Polls.\n# TYPE a_total counter\na_total{x=\"# TYPE b\\n\"} 1\n\
             # HELP b_info Build.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
             # HELP c_bytes Size.\n# TYPE c_bytes gauge\nc_bytes 2\n"
        );
    }

    #[test]
    fn openmetrics_is_given_to_those_who_ask() {
        assert!(wants_openmetrics(Some("application/openmetrics-text;version=1.0.0,*/*;q=0.1")));
        assert!(!wants_openmetrics(Some("text/plain")));
        assert!(!wants_openmetrics(None));
    }
}
