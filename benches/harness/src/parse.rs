//! What the load generators, strace and the agent print, as numbers, and how long a message is. Pure.

use crate::stats::quantile;

/// What a generator counted in one run. Times in microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Count {
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
    pub(crate) bytes: f64,
    pub(crate) errors: f64,
    /// Those that `Count::PERCENTILES` names.
    pub(crate) latency: [f64; 4],
}

impl Count {
    pub(crate) const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

    /// The line that `load.lua` prints when wrk is done.
    pub(crate) fn of_wrk(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("counted: "))?;
        let mut numbers = line.split_whitespace().map(|word| word.parse::<f64>().ok());
        let mut next = || numbers.next().flatten();
        Some(Self {
            requests: next()?,
            seconds: next()? / 1e6,
            bytes: next()?,
            errors: next()?,
            latency: [next()?, next()?, next()?, next()?],
        })
    }
}

/// Requests at a fixed rate: when each began and how long it took, in microseconds, in order of their latency.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Log {
    pub(crate) latencies: Vec<f64>,
    pub(crate) errors: usize,
    /// Requests of the whole run, its ends too.
    pub(crate) all: usize,
    /// Requests per second that were begun in the part that counts.
    pub(crate) rate: f64,
}

impl Log {
    /// h2load's `--log-file`: begin, status and duration of each request. `ramp` and `end` in seconds after the first:
    /// only what began between them counts, as connections begin and end one after another.
    pub(crate) fn of_h2load(text: &str, ramp: f64, end: f64) -> Self {
        let rows: Vec<(f64, u16, f64)> = text.lines().filter_map(row).collect();
        let first = rows.iter().map(|row| row.0).fold(f64::INFINITY, f64::min);
        let counts = |began: f64| (ramp..end).contains(&((began - first) / 1e6));
        let mut latencies: Vec<f64> = rows.iter().filter(|row| counts(row.0)).map(|row| row.2).collect();
        latencies.sort_by(f64::total_cmp);
        let errors = rows.iter().filter(|row| row.1 != 200).count();
        let rate = latencies.len() as f64 / (end - ramp);
        Self { latencies, errors, all: rows.len(), rate }
    }

    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        if self.latencies.is_empty() { f64::NAN } else { quantile(&self.latencies, percent / 100.0) }
    }
}

fn row(line: &str) -> Option<(f64, u16, f64)> {
    let mut words = line.split_whitespace();
    // A request without an answer has -1 for its status.
    let (began, status, took) = (words.next()?, words.next()?, words.next()?);
    Some((began.parse().ok()?, status.parse().unwrap_or(0), took.parse().ok()?))
}

/// Calls by name, of `strace -c`'s table.
pub(crate) fn calls(table: &str) -> Vec<(String, f64)> {
    let rows = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // % time, seconds, usecs/call, calls, errors (may be missing), syscall
        words.first()?.parse::<f64>().ok()?;
        let name = *words.last()?;
        Some((name.to_owned(), words.get(3)?.parse().ok()?))
    });
    rows.filter(|(name, _)| name != "total").collect()
}

/// Whether a call of that name moves bytes of a request or an answer.
pub(crate) fn moves_bytes(call: &str) -> bool {
    const CALLS: [&str; 11] = [
        "read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg", "splice", "sendfile", "pread64",
    ];
    CALLS.contains(&call)
}

/// A counter or gauge of Prometheus's text, summed over its labels. `None`: there is no such family.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).flatten()
    });
    values.reduce(|sum, value| sum + value)
}

/// Length of the HTTP message that begins `bytes`, head and body, once its head is whole and says so.
pub(crate) fn message_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, of_body) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    Some(head + of_body.trim().parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrks_line_is_found_among_the_others() {
        let text = "Running 1s test\n  2 requests in 1s\ncounted: 200 1000000 5000 1 90 120 300.5 900\n";
        let count = Count::of_wrk(text);
        let expected =
            Count { requests: 200.0, seconds: 1.0, bytes: 5000.0, errors: 1.0, latency: [90.0, 120.0, 300.5, 900.0] };
        assert_eq!(count, Some(expected));
        assert_eq!(Count::of_wrk("counted: 200 1000000"), None);
        assert_eq!(Count::of_wrk("unable to connect"), None);
    }

    #[test]
    fn requests_of_the_ramp_and_of_the_end_do_not_count() {
        let text = "1000000\t200\t50\n1500000\t200\t70\n1600000\t200\t90\n2500000\t200\t110\n1700000\t503\t10\n\
            1800000\t-1\t5\nbroken\n";
        let log = Log::of_h2load(text, 0.5, 1.0);
        assert_eq!(log.latencies, [5.0, 10.0, 70.0, 90.0]);
        assert_eq!((log.errors, log.all, log.rate), (2, 6, 8.0));
        assert_eq!(log.percentile(50.0), 40.0);
        assert!(Log::of_h2load("", 0.5, 1.0).percentile(50.0).is_nan());
    }

    #[test]
    fn straces_table_has_an_empty_column() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.100000          10     10000           write\n \
            40.00    0.050000           5     10001         7 read\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.150000                 20001         7 total\n";
        assert_eq!(calls(table), [("write".to_owned(), 10_000.0), ("read".to_owned(), 10_001.0)]);
        assert!(moves_bytes("recvfrom") && !moves_bytes("epoll_wait"));
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_its_namesakes() {
        let text = "# HELP a_total A.\n# TYPE a_total counter\na_total{type=\"x y\"} 3\na_total{type=\"z\"} 4\na_total_more 9\nb 1\n";
        assert_eq!((metric(text, "a_total"), metric(text, "b"), metric(text, "c")), (Some(7.0), Some(1.0), None));
    }

    #[test]
    fn a_message_is_as_long_as_its_head_says() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(message_length(answer), Some(answer.len()));
        assert_eq!(message_length(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"), None);
        assert_eq!(message_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), None);
    }
}
