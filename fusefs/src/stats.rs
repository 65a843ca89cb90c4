//! What serving a mount took: requests by kind, how long they took, and where their bytes came from.
//!
//! Counts of requests are exact, free of noise: tests state how many a piece of work may need.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use grove_engine::CacheCounts;

/// Buckets of a histogram: the first for what took less than a microsecond, each further one for
/// twice as long, the last for everything from there on.
pub const BUCKETS: usize = 24;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Requests served so far, by kind, and what serving them took.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Where bytes came from and went to.
            pub data: DataStats,
            /// How long requests took, by kind.
            pub latency: Latencies,
        }

        /// How long requests took, by kind.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Latencies {
            $($(#[$doc])* pub $name: Histogram,)*
        }

        /// Counters that threads share.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Requests,)*
            pub(crate) data: DataCounters,
        }

        impl Stats {
            /// All requests. (Messages by which the kernel forgets an inode are not requests.)
            pub fn total(&self) -> u64 {
                0 $(+ self.$name)*
            }

            /// Requests by kind.
            pub fn requests(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl Latencies {
            /// The histograms by kind.
            pub fn by_kind(&self) -> Vec<(&'static str, Histogram)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl Counters {
            /// The counts as they are now; the caller knows what the cache of blocks did.
            pub(crate) fn snapshot(&self, cache: CacheCounts) -> Stats {
                Stats {
                    $($name: self.$name.count.get(),)*
                    data: self.data.snapshot(cache),
                    latency: Latencies { $($name: self.$name.snapshot(),)* },
                }
            }
        }
    };
}

counters! {
    /// Names looked up.
    lookup,
    /// Attributes asked for.
    getattr,
    /// Targets of symbolic links.
    readlink,
    /// Files opened: one at most, unless contents are materialised.
    open,
    /// Directories opened: one at most.
    opendir,
    /// Reads of file data.
    read,
    /// Pages of listings without attributes.
    readdir,
    /// Pages of listings with attributes.
    readdirplus,
    /// Values of extended attributes.
    getxattr,
    /// Lists of extended attributes.
    listxattr,
    /// File system figures.
    statfs,
    /// Files closed: one at most.
    flush,
    /// Attempts to write.
    write,
    /// Everything else.
    other,
}

macro_rules! data {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Where bytes came from and went to.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct DataStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Blocks that were found decoded.
            pub cache_hits: u64,
            /// Blocks that had to be decoded.
            pub cache_misses: u64,
            /// Bytes that decoding gave.
            pub decoded_bytes: u64,
        }

        #[derive(Debug, Default)]
        pub(crate) struct DataCounters {
            $(pub(crate) $name: Counter,)*
        }

        impl DataStats {
            fn values(&self) -> Vec<(&'static str, u64)> {
                vec![
                    $((stringify!($name), self.$name),)*
                    ("cache_hits", self.cache_hits),
                    ("cache_misses", self.cache_misses),
                    ("decoded_bytes", self.decoded_bytes),
                ]
            }
        }

        impl DataCounters {
            fn snapshot(&self, cache: CacheCounts) -> DataStats {
                DataStats {
                    $($name: self.$name.get(),)*
                    cache_hits: cache.hits,
                    cache_misses: cache.misses,
                    decoded_bytes: cache.decoded_bytes,
                }
            }
        }
    };
}

data! {
    /// Bytes given in answer to reads.
    served_bytes,
    /// Files given to the kernel before it asked.
    pushed_files,
    /// Their bytes.
    pushed_bytes,
    /// Files offered that the kernel did not know (any more).
    push_unknown,
    /// Blocks whose other files were not pushed, as the queue was full or the budget spent.
    push_dropped,
    /// Bytes given to the kernel as a trace foretold.
    prefetched_bytes,
}

impl Stats {
    /// Everything, each figure with a name of its own: what `--stats` renders. Times are those that
    /// half, 99 of 100, and all requests of a kind stayed below, in microseconds.
    pub fn values(&self) -> Vec<(String, u64)> {
        let requests = self.requests().into_iter();
        let mut values: Vec<(String, u64)> = requests
            .map(|(kind, count)| (format!("requests.{kind}"), count))
            .collect();
        let data = self.data.values().into_iter();
        values.extend(data.map(|(name, value)| (format!("data.{name}"), value)));
        for (kind, times) in self.latency.by_kind() {
            for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
                if let Some(below) = times.below(percent) {
                    let below = u64::try_from(below.as_micros()).unwrap_or(u64::MAX);
                    values.push((format!("latency_us.{kind}.{name}"), below));
                }
            }
        }
        values
    }
}

/// How many requests took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram([u64; BUCKETS]);

impl Histogram {
    /// The number of requests in each bucket.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// A time that so many percent of the requests stayed below; `None` if there were none.
    pub fn below(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.0.iter().sum();
        let wanted = all.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.0.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map(|bucket| Duration::from_micros(1 << bucket))
    }
}

/// Requests of one kind.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    count: Counter,
    times: [Counter; BUCKETS],
}

/// A request under way; dropped when it is answered.
#[derive(Debug)]
#[must_use]
pub(crate) struct Timed<'a> {
    of: &'a Requests,
    start: Instant,
}

impl Requests {
    /// Counts a request; its time ends when the result is dropped.
    pub(crate) fn begin(&self) -> Timed<'_> {
        self.count.add(1);
        Timed {
            of: self,
            start: Instant::now(),
        }
    }

    fn snapshot(&self) -> Histogram {
        Histogram(std::array::from_fn(|n| {
            self.times.get(n).map_or(0, Counter::get)
        }))
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if let Some(bucket) = self.of.times.get(bucket(self.start.elapsed())) {
            bucket.add(1);
        }
    }
}

fn bucket(time: Duration) -> usize {
    let bits = 128 - time.as_micros().leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_buckets_by_powers_of_two() {
        let micros = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 3),
            (1023, 10),
            (1024, 11),
        ];
        for (time, expected) in micros {
            assert_eq!(bucket(Duration::from_micros(time)), expected, "{time} us");
        }
        assert_eq!(bucket(Duration::from_secs(1 << 40)), BUCKETS - 1);
    }

    #[test]
    fn shares_of_requests_have_times_they_stayed_below() {
        let mut times = Histogram::default();
        assert_eq!(times.below(50), None);
        times.0[3] = 98;
        times.0[10] = 2;
        let below = |percent| times.below(percent).unwrap().as_micros();
        assert_eq!((below(1), below(50), below(98)), (8, 8, 8));
        assert_eq!((below(99), below(100)), (1024, 1024));
    }

    #[test]
    fn every_figure_has_a_name_of_its_own() {
        let counters = Counters::default();
        drop(counters.read.begin());
        counters.data.served_bytes.add(7);
        let values = counters.snapshot(CacheCounts::default()).values();
        let mut names: Vec<&String> = values.iter().map(|(name, _)| name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        let value = |name: &str| values.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        assert_eq!(value("requests.read"), Some(1));
        assert_eq!(value("data.served_bytes"), Some(7));
        assert!(value("latency_us.read.max").is_some());
        assert_eq!(value("latency_us.lookup.max"), None);
    }
}
